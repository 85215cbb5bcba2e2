// SPDX-License-Identifier: Apache-2.0
//! `sandbox run`: from what was typed to a [`Spec`], and from an [`Outcome`] to what the user sees.

mod course;

pub(super) use course::{Prepared, carry_out};

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{Args, Parser};

use super::{Cli, Verb, config, help, keep, limits, parse, results, tell};
use crate::caller::{self, Caller};
use crate::engine::{self, Isolation};
use crate::run::{Hit, Outcome, Streams, run_and_visit};
use crate::spec::{self, Choice, MEMORY_DEFAULT, MEMORY_STEP, Nested, OURSELVES, Sight, Spec, Terminal, User, Volume};
use crate::view::View;
use crate::{Cause, Stages};

/// Run a command in a virtual machine of its own
///
/// The command sees the host's system directories and the current directory at the same paths; what it writes there
/// dies with the machine. Its output is passed on as it comes, and its exit status becomes ours. It has no network.
#[derive(Debug, Args)]
#[command(after_long_help = help::RUN, mut_args = help::last_counts)]
pub struct Arguments {
    /// Show a file or directory of the host at another path, writable unless :ro
    #[arg(short, long = "volume", value_name = "SRC:DST[:ro]", value_parser = volume_parser())]
    volumes: Vec<Volume>,
    /// Start in this directory of the guest instead of the current one
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<PathBuf>,
    /// Set a variable, or pass the caller's
    #[arg(short, long = "env", value_name = "K[=V]")]
    environment: Vec<OsString>,
    /// Run as this user (and group) instead of the caller
    #[arg(short, long, value_name = "USER[:GROUP]")]
    user: Option<String>,
    /// Memory of the guest
    #[arg(short, long, value_name = "SIZE", value_parser = parse::size, default_value = "1G")]
    memory: u64,
    /// Virtual CPUs of the guest
    #[arg(long, value_name = "N", default_value_t = 1)]
    cpus: u32,
    /// Kill the command after this time, counted from its start
    #[arg(long, value_name = "DURATION", value_parser = parse::duration)]
    timeout: Option<Duration>,
    /// Kill the command this long after SIGINT, SIGTERM or SIGHUP was passed on to it [default: 10s]; and have --timeout send
    /// SIGTERM first
    #[arg(short, long, value_name = "DURATION", value_parser = parse::duration)]
    kill_after: Option<Duration>,
    /// Run it again, up to so many times, if something of ours failed before the command started; never once it may have
    #[arg(long, value_name = "N", default_value_t = 0)]
    retries: u32,
    /// Kill the command when it has written more than this
    #[arg(long, value_name = "SIZE", value_parser = parse::size)]
    output_limit: Option<u64>,
    #[command(flatten)]
    limits: limits::Limits,
    #[command(flatten)]
    results: results::Options,
    #[command(flatten)]
    keep: keep::Keeping,
    /// Hide the tools that PATH finds in the home directory
    #[arg(long)]
    no_home_tools: bool,
    /// What runs the machine
    #[arg(long, value_enum, default_value = "auto")]
    engine: Choice,
    /// Fail rather than run without hardware virtualization
    #[arg(long)]
    require_kvm: bool,
    /// Let the command run sandboxes in turn: a processor with virtualization, /dev/kvm, this program and its images
    #[arg(long)]
    nested: bool,
    /// Boot the machine, even where it could be a copy of one that has booted already
    #[arg(long)]
    boot: bool,
    /// Print what the command would see, and do not run it
    #[arg(long)]
    explain: bool,
    /// Write an account of the run to this file, as JSON
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Write the account of the run to this descriptor
    #[arg(long, value_name = "N", conflicts_with = "report")]
    report_fd: Option<u32>,
    /// Print where the time went, on standard error
    #[arg(long)]
    timings: bool,
    /// Print what the run used, on standard error
    #[arg(long)]
    usage: bool,
    /// Ignore config.toml of the user and sandbox.toml of the project
    #[arg(long)]
    pub(super) no_config: bool,
    /// What files and environment have set
    #[arg(skip)]
    pub(super) sources: Vec<config::Source>,
    /// All words that this came from: those settings', and what was typed.
    #[arg(skip)]
    pub(super) words: Vec<OsString>,
    /// Accepted for those used to docker: standard input is always passed on
    #[arg(short, long, hide = true)]
    interactive: bool,
    /// Accepted for those used to docker: nothing is ever left of a run
    #[arg(long, hide = true)]
    rm: bool,
    /// Give the command a terminal, as it has one anyway where standard input and output are terminals
    #[arg(short, long, overrides_with = "no_tty")]
    tty: bool,
    /// Give the command no terminal
    #[arg(short = 'T', long, overrides_with = "tty")]
    no_tty: bool,
    /// The command and its arguments
    #[arg(required = true, trailing_var_arg = true, value_name = "COMMAND")]
    pub(super) command: Vec<OsString>,
}

// One constant says how much memory is the default; the text above is checked against it.
const _: () = assert!(MEMORY_DEFAULT == 1 << 30, "the help text says 1G");

/// An environment.
pub(crate) type Variables = Vec<(OsString, OsString)>;

/// The variable that says what a terminal understands, and its value for a caller who has none, as with docker.
pub(super) const TERM: &str = "TERM";
pub(super) const TERM_DEFAULT: &str = "xterm";

fn volume_parser() -> impl TypedValueParser<Value = Volume> {
    OsStringValueParser::new().try_map(|text| parse::volume(&text))
}

/// Carries out `sandbox run`.
#[must_use]
pub fn run(arguments: Arguments) -> ExitCode {
    carry_out(arguments, false, Arguments::spec, attempt).code
}

/// Runs a spec on our own standard streams.
pub(super) fn attempt(prepared: &Prepared) -> Outcome {
    match inherited() {
        Ok(streams) => attempt_on(streams, prepared),
        Err(error) => {
            let cause = Cause::SetupError(format!("cannot use the standard streams: {error}"));
            Outcome::refused(cause, Stages::begin())
        }
    }
}

/// Runs a spec on these.
pub(super) fn attempt_on(streams: Streams, prepared: &Prepared) -> Outcome {
    let Prepared { spec, signals, seen, visit, .. } = prepared;
    if *seen
        && engine::probe(spec.engine, spec.require_kvm, &spec.program)
            .is_ok_and(|engine| engine.isolation() == Isolation::Emulated)
    {
        tell(format_args!("sandbox: emulated by QEMU: slow, and no security boundary (sandbox doctor says more)"));
    }
    run_and_visit(spec, streams, Some(signals), visit.as_ref())
}

fn inherited() -> io::Result<Streams> {
    Ok(Streams {
        stdin: io::stdin().as_fd().try_clone_to_owned()?,
        stdout: io::stdout().as_fd().try_clone_to_owned()?,
        stderr: io::stderr().as_fd().try_clone_to_owned()?,
    })
}

impl Arguments {
    /// The spec of this for a caller.
    pub(super) fn spec(&self, caller: &Caller) -> Result<Spec, String> {
        self.spec_passing(caller.passed(), caller)
    }

    /// The same for one of whose environment so much passes unasked.
    pub(super) fn spec_passing(&self, mut environment: Variables, caller: &Caller) -> Result<Spec, String> {
        let workdir = self.workdir.clone().unwrap_or_else(|| caller.directory.clone());
        set(&mut environment, "PWD", workdir.clone());
        let user = self.user(&mut environment, caller)?;
        for entry in &self.environment {
            match parse::variable(entry) {
                (name, None) if name.is_empty() => return Err(spec::Error::EnvironmentName(name).to_string()),
                (name, Some(value)) => set(&mut environment, &name, value),
                (name, None) => match caller.variable(&name) {
                    Some(value) => set(&mut environment, &name, value.clone()),
                    None => environment.retain(|(own, _)| *own != name),
                },
            }
        }
        let terminal = self.terminal(caller.terminals);
        if terminal.is_some() && !environment.iter().any(|(name, _)| name == TERM) {
            set(&mut environment, TERM, TERM_DEFAULT);
        }
        let volumes = self.volumes.iter().map(|volume| absolute(volume, &caller.directory)).collect();
        Ok(Spec {
            command: self.command.clone(),
            environment,
            workdir,
            user,
            sight: Sight {
                current: caller.directory.clone(),
                home: caller.variable(OsStr::new("HOME")).map(PathBuf::from),
                shown: Vec::new(),
                volumes,
                home_tools: !self.no_home_tools,
            },
            // Too much for a number is too much for a guest, which the check says.
            memory: self.memory.checked_next_multiple_of(MEMORY_STEP).unwrap_or(self.memory),
            cpus: self.cpus,
            terminal,
            timeout: self.timeout,
            kill_after: self.kill_after,
            output_limit: self.output_limit,
            limits: self.limits.spec(),
            engine: self.engine,
            require_kvm: self.require_kvm,
            nested: self.nested.then(nested).transpose()?,
            retries: self.retries,
            boot: self.boot,
            process: caller.process.clone(),
            program: OURSELVES.into(),
            results: self.results.of(caller)?,
            keep: self.keep.when(),
        })
    }

    /// Whom the command runs as, with the variables that say so.
    fn user(&self, environment: &mut Vec<(OsString, OsString)>, caller: &Caller) -> Result<User, String> {
        let Some(text) = &self.user else { return Ok(caller.user.clone()) };
        let account = caller::account(text)?;
        set(environment, "HOME", account.home.unwrap_or_else(|| PathBuf::from("/")));
        let name = account.name.unwrap_or_else(|| account.user.uid.to_string().into());
        for variable in ["USER", "LOGNAME"] {
            set(environment, variable, name.clone());
        }
        Ok(account.user)
    }

    /// The terminal the command gets, given which of our standard streams are one. With standard output on a terminal and
    /// standard error not, the caller has parted them, and parted they stay.
    fn terminal(&self, [input, output, error]: [bool; 3]) -> Option<Terminal> {
        let wanted = !self.no_tty && (self.tty || (input && output));
        wanted.then_some(Terminal { error: error || !output })
    }

    fn open_report(&self) -> Result<Option<File>, String> {
        let file = match (&self.report, self.report_fd) {
            _ if self.explain => return Ok(None),
            (Some(path), _) => {
                File::create(path).map_err(|error| format!("cannot write the report {}: {error}", path.display()))
            }
            (None, Some(number)) => {
                crate::sys::descriptor(number).map_err(|error| format!("cannot use descriptor {number}: {error}"))
            }
            (None, None) => return Ok(None),
        };
        file.map(Some)
    }
}

fn nested() -> Result<Nested, String> {
    let program = env::current_exe().map_err(|error| format!("cannot find this program's own file: {error}"))?;
    let store = images::Store::of_user().map_err(|error| crate::explain(&error))?;
    Ok(Nested { program, cache: store.cache().to_owned(), images: store.images() })
}

pub(super) fn set(environment: &mut Variables, name: impl AsRef<OsStr>, value: impl Into<OsString>) {
    let name = name.as_ref();
    environment.retain(|(own, _)| own != name);
    environment.push((name.to_owned(), value.into()));
}

fn absolute(volume: &Volume, directory: &Path) -> Volume {
    Volume { source: directory.join(&volume.source), ..volume.clone() }
}

fn explain(spec: &Spec, sources: &[config::Source]) -> ExitCode {
    let view = match View::of(&crate::run::request(spec)) {
        Ok(view) => view,
        Err(error) => return complain(&Cause::SetupError(crate::explain(&error))),
    };
    let mut text = view.explain();
    text.push_str(&format!("\nworking directory: {}\n", spec.workdir.display()));
    let environment = spec.guest_environment();
    let names: Vec<_> = environment.iter().map(|(name, _)| name.to_string_lossy()).collect();
    text.push_str(&format!("environment: {}\n", names.join(" ")));
    text.push_str(&format!("user {}, group {}; network: loopback only\n", spec.user.uid, spec.user.gid));
    text.push_str(&config::Source::explain(sources));
    match io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => complain(&Cause::SetupError(format!("cannot print: {error}"))),
    }
}

/// Tells the user what the exit code alone does not.
fn say(outcome: &Outcome) -> ExitCode {
    if outcome.cause.is_of_the_machine() && !outcome.console.is_empty() {
        tell(format_args!("sandbox: the guest's console said last:"));
        for line in &outcome.console {
            tell(format_args!("  {line}"));
        }
    }
    results::show(outcome);
    // The report has them in any case.
    let missing = [126, 127].contains(&outcome.cause.code());
    if missing || io::stderr().is_terminal() {
        let unfound = outcome.unfound.iter().filter(|_| missing);
        outcome.notices.iter().chain(unfound).for_each(|notice| tell(format_args!("sandbox: note: {notice}")));
    }
    let code = complain(&outcome.cause);
    // A command that got through has nothing to be told of; what the cause has said is not said again.
    if outcome.cause.code() != 0 {
        let said = |hit: &&Hit| hit.ended && outcome.cause.needs_words();
        outcome.hits.iter().filter(|hit| !said(hit)).for_each(|hit| tell(format_args!("sandbox: {}", hit.words)));
    }
    code
}

fn complain(cause: &Cause) -> ExitCode {
    if cause.needs_words() {
        tell(format_args!("sandbox: {cause}"));
    }
    ExitCode::from(cause.code())
}

/// What these words behind `sandbox run` mean for a caller of whose environment so much passes, with no more than they say.
pub(crate) fn spec_of(words: &[OsString], passed: Variables, caller: &Caller) -> Result<Spec, String> {
    let typed = ["sandbox", "run"].map(OsString::from).into_iter().chain(words.iter().cloned());
    match Cli::try_parse_from(typed).map(|cli| cli.verb) {
        Ok(Verb::Run(arguments)) => arguments.spec_passing(passed, caller),
        Ok(_) => Err("only `sandbox run` can be planned".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests;
