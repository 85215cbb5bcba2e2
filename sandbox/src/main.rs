// SPDX-License-Identifier: Apache-2.0
//! The command line: parse, do, exit code.

use std::env;
use std::process::ExitCode;

use sandbox::cli::{self, Cli, Verb};
use sandbox::{doctor, engine, fs, vmm};

fn main() -> ExitCode {
    cli::begin();
    if let Some(serve) = internal() {
        return serve();
    }
    let cli = match Cli::of(env::args_os().collect()) {
        Ok(cli) => cli,
        Err(error) => return cli::refuse(&error),
    };
    match cli.verb {
        Verb::Run(arguments) => cli::run::run(*arguments),
        Verb::Runner(arguments) => cli::runner::run(*arguments),
        Verb::Shell(arguments) => cli::shell::run(*arguments),
        Verb::Junit(arguments) => cli::junit::run(arguments),
        Verb::Suite(arguments) => cli::suite::run(&arguments),
        Verb::Doctor => doctor::run(),
        Verb::Trust { directory, revoke } => cli::trust(directory.as_deref(), revoke),
        Verb::Completions { shell } => cli::completions(shell),
        Verb::Man { directory } => cli::man(&directory),
    }
}

/// What a process of ours that serves another is started for, by the one word it is given. Nobody types these, so they need
/// no parser, which takes longer than all else before their first step.
fn internal() -> Option<fn() -> ExitCode> {
    let mut words = env::args_os().skip(1);
    let (Some(word), None) = (words.next(), words.next()) else { return None };
    match word.to_str()? {
        fs::SUBCOMMAND => Some(fs::serve),
        vmm::SUBCOMMAND => Some(vmm::serve),
        engine::TRIAL => Some(engine::try_kvm),
        _ => None,
    }
}
