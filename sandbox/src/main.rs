// SPDX-License-Identifier: Apache-2.0
//! The command line: parse, do, exit code.

use std::process::ExitCode;

use clap::Parser;
use sandbox::cli::{self, Cli, Verb};
use sandbox::{doctor, engine, fs, vmm};

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return cli::refuse(&error),
    };
    match cli.verb {
        Verb::Run(arguments) => cli::run::run(*arguments),
        Verb::Doctor => doctor::run(),
        Verb::Man { directory } => cli::man(&directory),
        Verb::FsWorker => fs::serve(),
        Verb::Vmm => vmm::serve(),
        Verb::KvmTrial => engine::try_kvm(),
    }
}
