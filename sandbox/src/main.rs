// SPDX-License-Identifier: Apache-2.0
//! The command line.
fn main() -> std::process::ExitCode {
    match std::env::args_os().nth(1) {
        Some(word) if word == sandbox::fs::SUBCOMMAND => sandbox::fs::serve(),
        _ => std::process::ExitCode::from(125),
    }
}
