// SPDX-License-Identifier: Apache-2.0
//! `sandbox runner`: cargo's runner (Cargo book, `target.<triple>.runner`), one machine for each process that cargo, nextest or
//! rustdoc starts.
//!
//! What the process must be shown is [`crate::cargo`]'s; how it is run, [`super::run`]'s. Here is what differs from a run of any
//! other command: it ends as its process did, also by a signal; it ends with whoever started it; and lists of tests are kept
//! ([`list`]).

mod list;

use std::env;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::{Command, ExitCode};
use std::thread;
use std::time::Duration;

use clap::{Args, ValueEnum};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{PidfdFlags, Signal, getpid, getppid, kill_process, pidfd_open};

use super::{FAILURE, help, run, tell};
use crate::caller::Caller;
use crate::cargo::Process;
use crate::spec::Spec;
use crate::sys::signals::{self, die_of};

/// How long a process may take to end after SIGTERM or SIGINT, unless its user says otherwise: nextest kills us, and with us all we
/// know of it, after ten seconds.
const GRACE: Duration = Duration::from_secs(8);

/// The variable that says how tests are listed.
const LISTING: &str = "SANDBOX_LISTING";

/// Run a program that cargo or nextest has built in a virtual machine of its own
#[derive(Debug, Args)]
#[command(after_long_help = help::RUNNER,
          mut_arg("command", |command| command.value_name("PROGRAM").help("The program and its arguments, as cargo gives them")))]
#[group(skip)]
pub struct Arguments {
    /// Where tests are listed, which nextest asks each program for twice [default: cached, or SANDBOX_LISTING]
    #[arg(long, value_name = "WHERE", overrides_with = "listing")]
    listing: Option<Listing>,
    /// All else.
    #[command(flatten)]
    pub(super) run: run::Arguments,
}

/// Where tests are listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Listing {
    /// In a machine, once for each program and what it sees of its package
    Cached,
    /// In a machine, each time
    Vm,
    /// On the host itself, by the program: for those who trust it
    Native,
}

/// Carries out `sandbox runner`.
#[must_use]
pub fn run(arguments: Arguments) -> ExitCode {
    // 101 is how a test says that it failed; a panic of ours must not.
    catch_unwind(AssertUnwindSafe(|| carry_out(arguments))).unwrap_or(ExitCode::from(FAILURE))
}

fn carry_out(arguments: Arguments) -> ExitCode {
    // Before anything else: should it end meanwhile, its place is taken by who adopts us.
    let caller = getppid().and_then(|caller| pidfd_open(caller, PidfdFlags::empty()).ok());
    let Arguments { listing, run } = arguments;
    let listing = match listing.map_or_else(configured, Ok) {
        Ok(listing) => listing,
        Err(why) => return refuse(&why),
    };
    let listed = list::is_asked_for(&run.command);
    if listed && listing == Listing::Native {
        return natively(&run);
    }
    let make = |run: &run::Arguments, caller: &Caller| spec(run, caller, listed);
    let end = run::carry_out(run, true, make, |prepared| {
        if let Some(caller) = caller {
            end_with(caller);
        }
        if listed { list::perform(prepared, listing == Listing::Cached) } else { run::attempt(prepared) }
    });
    if let Some(signal) = end.signal {
        die_of(signal);
    }
    end.code
}

fn refuse(why: &str) -> ExitCode {
    tell(format_args!("sandbox: {why}"));
    ExitCode::from(FAILURE)
}

/// What the environment says.
fn configured() -> Result<Listing, String> {
    match env::var_os(LISTING).filter(|text| !text.is_empty()) {
        None => Ok(Listing::Cached),
        Some(text) => Listing::from_str(&text.to_string_lossy(), false)
            .map_err(|error| format!("{LISTING}: {error}; write cached, vm or native")),
    }
}

/// In our place, on the host.
fn natively(run: &run::Arguments) -> ExitCode {
    let mut words = run.command.iter();
    let Some(program) = words.next() else { return refuse("no program given") };
    signals::heed_file_limit();
    let error = Command::new(program).args(words).exec();
    refuse(&format!("cannot run {program:?} on the host to list its tests: {error}"))
}

fn spec(run: &run::Arguments, caller: &Caller, listed: bool) -> Result<Spec, String> {
    let program = run.command.first().ok_or("no program given")?;
    let process = Process::of(caller, Path::new(program));
    let mut spec = run.spec_passing(process.environment.clone(), caller)?;
    process.show_in(&mut spec);
    spec.results.sync.places = process.places();
    spec.kill_after = spec.kill_after.or(Some(GRACE));
    if listed {
        list::limit(&mut spec);
    }
    Ok(spec)
}

/// Has this process end when the one that started it does, which waits for us as long as it lives: of nextest, killed, no machine is
/// left. (Not by the kernel's signal of a parent's death, which is one of its thread's.)
fn end_with(pidfd: OwnedFd) {
    let watch = move || {
        let mut end = [PollFd::new(&pidfd, PollFlags::IN)];
        while poll(&mut end, None) == Err(rustix::io::Errno::INTR) {}
        if end[0].revents().contains(PollFlags::IN) {
            let _it_ends_us = kill_process(getpid(), Signal::KILL);
        }
    };
    // Without it we end when our process does.
    let _none = thread::Builder::new().name("caller".to_owned()).spawn(watch);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Verb};
    use clap::Parser;

    fn parsed(words: &[&str]) -> Arguments {
        let words = ["sandbox", "runner"].iter().chain(words);
        let Verb::Runner(arguments) = Cli::try_parse_from(words).expect("parses").verb else { panic!("not runner") };
        *arguments
    }

    #[test]
    fn options_come_before_the_program() {
        let arguments = parsed(&["-m", "2G", "--listing", "vm", "/t/x", "--list", "-m", "--listing"]);
        assert_eq!(arguments.run.command, ["/t/x", "--list", "-m", "--listing"]);
        assert_eq!(arguments.listing, Some(Listing::Vm));
        assert!(Cli::try_parse_from(["sandbox", "runner"]).is_err());
    }

    #[test]
    fn a_process_has_the_grace_that_nextest_gives() {
        let caller = Caller::look_on().expect("there is one");
        let run = parsed(&["/t/x"]).run;
        assert_eq!(spec(&run, &caller, false).expect("makes sense").kill_after, Some(GRACE));
        let run = parsed(&["--kill-after", "1s", "/t/x"]).run;
        assert_eq!(spec(&run, &caller, false).expect("makes sense").kill_after, Some(Duration::from_secs(1)));
    }
}
