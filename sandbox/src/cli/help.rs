// SPDX-License-Identifier: Apache-2.0
//! What `--help` says beyond the list of options. Every line of the examples can be pasted into a shell, and tests see to it
//! that each option of `run` is in one of them and that they mean something.

use clap::{Arg, ArgAction};

/// Of `sandbox`.
pub(super) const ALL: &str = "\
Examples:
  sandbox run -- python3 -c 'print(6*7)'    # a program of the host, in a machine
  sandbox run --explain -- make             # what it would see; nothing is run
  sandbox shell                             # a shell, to look around
  sandbox doctor                            # what this machine can do
  sandbox run --help                        # all a run can be told, by examples";

/// Of `sandbox run`.
pub(super) const RUN: &str = "\
How it is read:
  Options end at the first word that is none, or at --; what follows is the
  command. Values are written --timeout 10s, --timeout=10s, -m 1G, -m1G or
  -m=1G; short options without value may be joined (-im1G). A value that begins
  with - needs the form with =. Of an option given twice the last counts; -v, -e,
  --ulimit, --tmpfs, --copy-out, --commit and --sync-out add up.
  SIZE is in bytes, or has a suffix k, m, g or t (powers of 1024; kb and KiB too).
  DURATION is in seconds, or has a suffix ms, s, m, h or d (1.5h).

Examples:
  sandbox run -- python3 -c 'print(6*7)'
  sandbox run -- sh -c 'gcc hello.c -o hello && ./hello'   # nothing is left
  sandbox run -v \"$PWD/out:/out\" -- cp result.txt /out     # but in a volume
  sandbox run -v /srv:/data:ro -w /data -- ls              # read only, start there
  sandbox run -e LANG=C -e EDITOR -u nobody -- env         # set one, pass one
  sandbox run --timeout 10s --output-limit 1M --report run.json -- ./untrusted
  sandbox run -m 512M --cpus 2 --pids-limit 50 --usage -- ./untrusted
  sandbox run --ulimit cpu=5 --tmpfs /cache:size=64M -- ./untrusted
  sandbox run --disk-size 8G --shm-size 64M -- make
  sandbox run --commit build -- make                       # build/ as make left it
  sandbox run --sync-out 'out/**/*.txt' -- make            # what it wrote there
  sandbox run --diff --diff-tar made.tar -- make           # what it changed
  sandbox run --copy-out /tmp/core:. -- ./crashes          # a file of the guest
  sandbox run --keep on-failure --keep-dir kept -- make    # console, log, …
  sandbox run --keep-vm -- make                            # a shell if it fails
  sandbox run -t -- tty                                    # a terminal; -T: none
  sandbox run -T --timeout 10m --kill-after 5s -- make     # first SIGTERM
  sandbox run --no-home-tools --no-config --explain -- make
  sandbox run --retries 2 -- make check                    # if its machine is lost
  sandbox run --engine qemu --boot --timings -- true       # no copy of a machine
  sandbox run --require-kvm --report-fd 3 -- true 3> run.json
  sandbox run --nested -m 2G -- sandbox run -- true        # one in another

Settings:
  Options can be set in $XDG_CONFIG_HOME/sandbox/config.toml, for a project in
  its sandbox.toml, which may give a command less, and more only once trusted
  (sandbox trust), and by SANDBOX_MEMORY=2G and the like. A flag beats them all.

Exit status:
  124  the time limit passed        125  sandbox itself or the guest failed
  126  the program cannot be run    127  there is no such program
  128+N  signal N killed the command; otherwise the command's own status, also
         after a signal that was passed on to it.
  --report tells a command's 124 to 127 from ours.";

/// Of `sandbox runner`.
pub(super) const RUNNER: &str = "\
Examples:
  export CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER=\"sandbox runner\"
  cargo test; cargo nextest run; cargo bench    # each in machines
  sandbox runner -m 2G --cpus 2 target/debug/deps/tests-0123 --exact name
  sandbox runner --listing native target/debug/deps/tests-0123 --list
  sandbox runner --sync-out insta,llvm-cov target/debug/deps/tests-0123
  sandbox runner --explain target/debug/program    # what it would see

Settings:
  Options of run are written before the program, as in RUNNER=\"sandbox runner
  -m 2G\", or set by SANDBOX_MEMORY=2G and the like, or in sandbox.toml.

Exit status:
  The program's own, so 101 for a failed test; where a signal killed it, the
  runner dies of the same. 125: sandbox itself or the guest failed, or the
  output limit was met; 124: --timeout passed; 126, 127: it cannot be run.";

/// Of `sandbox suite`.
pub(super) const SUITE: &str = "\
A suite:
  [defaults]                        # needs of every test
  memory = \"256M\"

  [[test]]
  name = \"sorts\"
  command = [\"sort\", \"-n\"]        # or a line for sh: \"sort -n | uniq\"
  stdin = \"10\\n9\\n\"
  stdout = \"9\\n10\\n\"              # { contains = \"…\" }, { regex = \"…\" }
  status = 0                        # or signal = 9

  Needs: memory, cpus, timeout (5m unless said), output_limit (16M), root, files,
  volumes, env, workdir, retries and what else config.toml takes. Paths are from
  the file's directory, which the tests see and start in.

Examples:
  sandbox suite suite.toml
  sandbox suite suite.toml --list
  sandbox suite suite.toml sorts --exact --test-threads 1
  sandbox suite suite.toml --skip slow --include-ignored --format terse
  sandbox suite suite.toml --junit junit.xml --evidence evidence   # for CI

Exit status:
  0    every test passed
  101  a test failed
  125  none failed, but of some nothing is known: their machine did not come up
       or was lost (JUnit's error); or the suite could not be read, or its
       results not written.";

/// Of `sandbox trust`.
pub(super) const TRUST: &str = "\
Examples:
  sandbox trust              # the nearest sandbox.toml, from here upwards
  sandbox trust ~/project
  sandbox trust --revoke";

/// Of `sandbox completions`.
pub(super) const COMPLETIONS: &str = "\
Examples:
  sandbox completions bash > ~/.local/share/bash-completion/completions/sandbox
  sandbox completions zsh > ~/.zfunc/_sandbox   # a directory in your fpath
  sandbox completions fish > ~/.config/fish/completions/sandbox.fish";

/// Of an option given twice the last counts, but for those that add up.
pub(super) fn last_counts(argument: Arg) -> Arg {
    if argument.is_positional() || matches!(argument.get_action(), ArgAction::Append) {
        return argument;
    }
    let itself = argument.get_id().clone();
    argument.overrides_with(itself)
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;
    use std::os::unix::ffi::OsStringExt;
    use std::process::Command;

    use clap::{CommandFactory, Parser};

    use super::*;
    use crate::cli::Cli;

    /// What a shell makes of each example: the words after `sandbox`.
    fn examples(text: &str) -> Vec<(&str, Vec<OsString>)> {
        let place = tempfile::tempdir().expect("a directory can be made");
        let lines = text.lines().map(str::trim_start).filter(|line| line.starts_with("sandbox "));
        let words = |line: &str| {
            // A redirection of the example's own is no concern of this one's output.
            let script = format!("exec 9>&1; sandbox() {{ printf '%s\\0' \"$@\" >&9; }}; {line}");
            let output =
                Command::new("sh").args(["-ec", &script]).current_dir(&place).env("HOME", place.path()).output();
            let output = output.expect("there is a shell").stdout;
            output
                .split_inclusive(|byte| *byte == 0)
                .map(|word| OsString::from_vec(word[..word.len() - 1].to_vec()))
                .collect()
        };
        lines.map(|line| (line, words(line))).collect()
    }

    #[test]
    fn every_example_means_something() {
        let mut count = 0;
        for (line, words) in [ALL, RUN, RUNNER, SUITE, TRUST].into_iter().flat_map(examples) {
            assert!(!words.is_empty(), "{line}");
            let parsed = Cli::try_parse_from([OsString::from("sandbox")].into_iter().chain(words));
            let fine = parsed.as_ref().err().is_none_or(|error| error.kind() == clap::error::ErrorKind::DisplayHelp);
            assert!(fine, "{line}: {}", parsed.expect_err("refused"));
            count += 1;
        }
        assert!(count > 10, "only {count} examples found");
    }

    #[test]
    fn every_option_of_run_has_an_example() {
        let cli = Cli::command();
        let run = cli.find_subcommand("run").expect("there is one");
        let words: Vec<OsString> = examples(RUN).into_iter().flat_map(|(_, words)| words).collect();
        let mut missing = Vec::new();
        for argument in run.get_arguments().filter(|argument| !argument.is_positional() && !argument.is_hide_set()) {
            let long = argument.get_long().map(|long| format!("--{long}"));
            let short = argument.get_short().map(|short| format!("-{short}"));
            let written = |word: &OsString| {
                let word = word.to_str().unwrap_or_default();
                let name = word.split('=').next().unwrap_or_default();
                Some(name) == long.as_deref() || Some(name) == short.as_deref()
            };
            if !words.iter().any(written) {
                missing.push(argument.get_id().to_string());
            }
        }
        assert!(missing.is_empty(), "options without an example in help::RUN: {missing:?}");
    }

    #[test]
    fn short_help_is_short() {
        let text = |long: bool| {
            let mut cli = Cli::command();
            let run = cli.find_subcommand_mut("run").expect("there is one");
            if long { run.render_long_help() } else { run.render_help() }.to_string()
        };
        assert!(!text(false).contains("Examples:") && text(false).contains("--help"));
        assert!(text(true).contains("Examples:") && text(true).contains("Exit status:"));
        // Longer ones are broken where the output is no terminal, and cannot be pasted then.
        for line in [ALL, RUN, RUNNER, SUITE, TRUST, COMPLETIONS].into_iter().flat_map(str::lines) {
            assert!(line.chars().count() < 100, "{line}");
        }
        let lines = text(false).lines().count();
        assert!(lines < 80, "{lines} lines are not short");
    }
}
