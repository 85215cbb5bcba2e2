// SPDX-License-Identifier: Apache-2.0
//! Completions for shells, from the same definitions as everything else.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::CommandFactory;
use clap_complete::{Shell, generate};

use super::{Cli, FAILURE, tell};

/// Prints what a shell needs to complete the words of `sandbox`.
#[must_use]
pub fn completions(shell: Shell) -> ExitCode {
    match io::stdout().write_all(&script(shell)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            tell(format_args!("sandbox: cannot print completions: {error}"));
            ExitCode::from(FAILURE)
        }
    }
}

fn script(shell: Shell) -> Vec<u8> {
    let mut text = Vec::new();
    generate(shell, &mut Cli::command(), "sandbox", &mut text);
    text
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn bash_completes_options_and_values() {
        let place = tempfile::tempdir().expect("a directory can be made");
        let file = place.path().join("completions");
        std::fs::write(&file, script(Shell::Bash)).expect("a file can be written");
        let completed = |words: &str, before: &str, word: &str| {
            let at = words.split(' ').count() - 1;
            let script = format!(
                ". \"$1\"; COMP_WORDS=({words}); COMP_CWORD={at}; _sandbox sandbox '{word}' '{before}'; echo \"${{COMPREPLY[@]}}\""
            );
            let output = Command::new("bash").args(["-c", &script, "bash"]).arg(&file).output().expect("there is bash");
            String::from_utf8_lossy(&output.stdout).trim().to_owned()
        };
        assert_eq!(completed("sandbox doc", "sandbox", "doc"), "doctor");
        assert_eq!(completed("sandbox run --pids", "run", "--pids"), "--pids-limit");
        assert_eq!(completed("sandbox run --engine q", "--engine", "q"), "qemu");
    }

    #[test]
    fn every_shell_is_told_every_option() {
        let cli = Cli::command();
        let run = cli.find_subcommand("run").expect("there is one");
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let script = String::from_utf8(script(shell)).expect("it is text");
            for long in run.get_arguments().filter_map(clap::Arg::get_long) {
                let (word, fish) = (format!("--{long}"), format!("-l {long}"));
                assert!(script.contains(&word) || script.contains(&fish), "{shell}: --{long}");
            }
        }
    }
}
