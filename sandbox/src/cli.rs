// SPDX-License-Identifier: Apache-2.0
//! What can be typed, and what it means. The help texts and man pages come from here.

mod complete;
mod config;
mod help;
pub mod junit;
mod keep;
mod limits;
pub(crate) mod parse;
mod results;
pub mod run;
pub mod runner;
pub mod shell;
pub mod suite;

pub use complete::completions;
pub(crate) use config::of_environment;

use std::ffi::OsString;
use std::fmt;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Args, CommandFactory, Parser, Subcommand};
use clap_complete::Shell;

use crate::sys::{heap, signals};

/// What `sandbox` itself exits with when it cannot do what it was asked to, as `docker run` and `timeout` do.
const FAILURE: u8 = 125;

/// What comes before everything else, in each process of this program.
pub fn begin() {
    heap::share();
    signals::ignore_file_limit();
}

/// Runs commands in microVMs of their own.
#[derive(Debug, Parser)]
#[command(name = "sandbox", version, about, after_long_help = help::ALL)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

impl Cli {
    /// What was typed.
    ///
    /// The verbs that tests start are tried alone at first: setting up every verb's options takes longer than all else that a run
    /// does before it has another process. What such a verb does not take, the whole parser says.
    ///
    /// # Errors
    /// What clap has to say: also help and version.
    pub fn of(words: Vec<OsString>) -> Result<Self, clap::Error> {
        let verb = match words.get(1).and_then(|word| word.to_str()) {
            Some("run") => alone(&words[1..]).map(Verb::Run),
            Some("runner") => alone(&words[1..]).map(Verb::Runner),
            _ => None,
        };
        verb.map_or_else(|| Self::try_parse_from(words), |verb| Ok(Self { verb }))
    }
}

/// A verb's arguments, if they are such as they should be. The first word is the verb.
fn alone<T: Args>(words: &[OsString]) -> Option<Box<T>> {
    let matches = T::augment_args(clap::Command::new("sandbox")).try_get_matches_from(words).ok()?;
    T::from_arg_matches(&matches).ok().map(Box::new)
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Run a command in a virtual machine of its own
    Run(Box<run::Arguments>),
    /// Run a shell in a virtual machine of its own
    ///
    /// As `sandbox run`, with a shell for a command: the one that SHELL names, or the one that is given. What one of its
    /// commands writes the next one sees, and all of it is gone when the shell ends.
    #[command(mut_arg("command", |command| command.required(false).help("The shell and its arguments, instead of $SHELL")),
              after_long_help = shell::EXAMPLES)]
    Shell(Box<run::Arguments>),
    /// Run a program that cargo or nextest has built in a virtual machine of its own: cargo's runner
    ///
    /// With CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER="sandbox runner" in the environment, `cargo test`, `cargo nextest run`,
    /// `cargo bench` and `cargo run` run each process that they start in a machine. It sees its workspace, its target directory and
    /// its toolchain, at the same paths; what it writes dies with the machine. Of options of `run` given before the program, each
    /// means the same here.
    Runner(Box<runner::Arguments>),
    /// Join nextest's JUnit files with the reports of their tests' runs, and with each other
    Junit(junit::Arguments),
    /// Run the commands of a file as tests, each in a virtual machine of its own
    ///
    /// The file is TOML and names for each test its command, what it needs and what is expected of it. Tests are chosen, run
    /// and reported as `cargo test` does; nothing is booted to list them.
    #[command(after_long_help = help::SUITE)]
    Suite(Box<suite::Arguments>),
    /// Say what this machine can do, and what to do about the rest
    Doctor,
    /// Let the sandbox.toml of a project give its commands more than they have without it
    ///
    /// As it is now: when it has changed, it must be trusted again.
    #[command(after_long_help = help::TRUST)]
    Trust {
        /// Where the project is, or a directory in it, instead of here
        directory: Option<PathBuf>,
        /// Trust it no longer
        #[arg(long)]
        revoke: bool,
    },
    /// Print what makes a shell complete the words of `sandbox` (bash, zsh and fish are tested)
    #[command(after_long_help = help::COMPLETIONS)]
    Completions {
        /// Which shell
        shell: Shell,
    },
    /// Write the man pages to a directory
    #[command(hide = true)]
    Man {
        /// Where to write them
        directory: PathBuf,
    },
}

/// Says something of our own, on standard error. Nothing is left to tell about one that cannot be written.
pub(crate) fn tell(text: fmt::Arguments<'_>) {
    drop(writeln!(io::stderr(), "{text}"));
}

/// Prints what clap has to say: help and version are what was asked for, anything else is a refusal.
#[must_use]
pub fn refuse(error: &clap::Error) -> ExitCode {
    // Nothing is left to tell about a terminal that cannot be written.
    drop(error.print());
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => ExitCode::SUCCESS,
        _ => ExitCode::from(FAILURE),
    }
}

/// Carries out `sandbox trust`.
#[must_use]
pub fn trust(directory: Option<&Path>, revoke: bool) -> ExitCode {
    config::trust::run(directory, revoke)
}

/// Writes one man page for each verb a user can type.
#[must_use]
pub fn man(directory: &Path) -> ExitCode {
    match clap_mangen::generate_to(Cli::command(), directory) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tell(format_args!("sandbox: cannot write man pages to {}: {error}", directory.display()));
            ExitCode::from(FAILURE)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn options_end_at_the_command() {
        let cli = Cli::try_parse_from(["sandbox", "run", "-m", "2G", "ls", "-l", "--timeout"]).expect("parses");
        let Verb::Run(arguments) = cli.verb else { panic!("not run") };
        assert_eq!(arguments.command, ["ls", "-l", "--timeout"]);
    }

    #[test]
    fn a_verb_alone_means_what_it_means_among_all() {
        let lines = [
            "run -m 2G --timeout 3s -v /a:/b:ro ls -l --timeout",
            "run -e A=b --cpus 2 -- sh -c x",
            "runner -m 2G /target/debug/deps/it --nocapture",
            "run --bogus ls",
            "run",
            "run --help",
            "run -h",
            "runner --help",
            "run --timeout never ls",
            "--version",
            "run --version",
        ];
        for line in lines {
            let words: Vec<OsString> = ["sandbox"].into_iter().chain(line.split(' ')).map(Into::into).collect();
            let told = |cli: Result<Cli, clap::Error>| match cli {
                Ok(cli) => format!("{cli:?}"),
                Err(error) => error.to_string(),
            };
            assert_eq!(told(Cli::of(words.clone())), told(Cli::try_parse_from(words)), "{line}");
        }
    }

    #[test]
    fn a_shell_needs_no_command() {
        let cli = Cli::try_parse_from(["sandbox", "shell", "-m", "2G"]).expect("parses");
        let Verb::Shell(arguments) = cli.verb else { panic!("not shell") };
        assert!(arguments.command.is_empty());
        let cli = Cli::try_parse_from(["sandbox", "shell", "bash", "-l"]).expect("parses");
        let Verb::Shell(arguments) = cli.verb else { panic!("not shell") };
        assert_eq!(arguments.command, ["bash", "-l"]);
    }

    #[test]
    fn an_unknown_option_is_refused() {
        assert!(Cli::try_parse_from(["sandbox", "run", "--bogus", "ls"]).is_err());
        assert!(Cli::try_parse_from(["sandbox", "run"]).is_err());
    }
}
