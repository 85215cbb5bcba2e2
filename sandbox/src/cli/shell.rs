// SPDX-License-Identifier: Apache-2.0
//! `sandbox shell`: a run whose command is a shell.

use std::env;
use std::ffi::OsString;
use std::process::ExitCode;

use super::run::{self, Arguments};

/// What there is where nobody has chosen a shell.
const DEFAULT: &str = "/bin/sh";

pub(super) const EXAMPLES: &str = "\
Examples:
  sandbox shell                                   $SHELL; what it does dies with it
  sandbox shell -v \"$PWD:$PWD\"                    the same, but the current directory is the real one
  echo 'ls /' | sandbox shell bash                bash, with a script from standard input";

/// Carries out `sandbox shell`.
#[must_use]
pub fn run(mut arguments: Arguments) -> ExitCode {
    if arguments.command.is_empty() {
        arguments.command.push(chosen(env::var_os("SHELL")));
    }
    run::run(arguments)
}

/// The shell that a variable names, if it does.
pub(super) fn chosen(variable: Option<OsString>) -> OsString {
    variable.filter(|shell| !shell.is_empty()).unwrap_or_else(|| DEFAULT.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_choice_it_is_sh() {
        assert_eq!(chosen(Some("/bin/zsh".into())), "/bin/zsh");
        assert_eq!(chosen(Some("".into())), "/bin/sh");
        assert_eq!(chosen(None), "/bin/sh");
    }
}
