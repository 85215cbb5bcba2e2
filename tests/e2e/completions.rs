// SPDX-License-Identifier: Apache-2.0
//! Completions as a user comes by them and has them: `make completions`, sourced, and the tabulator.

use std::path::Path;

use harness::{Case, Need};
use tests::pty::Terminal;
use tests::{Bench, program};

pub(crate) const CASES: &[Case] = &[
    Case {
        name: "completions::bash_completes_what_make_has_written",
        needs: &[Need::Program("make"), Need::Program("bash")],
        body: || {
            completes(
                &["bash", "--norc", "-i"],
                "PS1='> '; . completions/sandbox; clear\n",
                "--pids-limit 9 --require-kvm",
            )
        },
    },
    Case {
        name: "completions::zsh_completes_what_make_has_written",
        needs: &[Need::Program("make"), Need::Program("zsh")],
        body: || {
            completes(
                &["zsh", "-f", "-i"],
                "PS1='> '; fpath=($PWD/completions $fpath); autoload -U compinit; compinit -u -D; clear\n",
                "--pids-limit=9 --require-kvm",
            )
        },
    },
    Case {
        name: "completions::fish_completes_what_make_has_written",
        needs: &[Need::Program("make"), Need::Program("fish")],
        body: || {
            completes(
                &["fish", "--no-config", "--private", "-i"],
                "function fish_prompt; echo -n '> '; end; source completions/sandbox.fish; clear\n",
                "--pids-limit 9 --require-kvm",
            )
        },
    },
];

/// Has a shell read what was made, and complete a verb, a value and two options, one of which takes a value.
fn completes(shell: &[&str], setup: &str, options: &str) -> Result<(), String> {
    let bench = Bench::new();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().ok_or("the package is in the repository")?;
    // The program is there already, whatever it is called and however old.
    let own = [format!("SANDBOX={}", program().display()), format!("TARGET={}", bench.path().display())];
    let mut make = bench.host(["make", "--silent", "-o", "programs", "completions", "man"]);
    make.command.args(own).arg("-C").arg(root).env_remove("MAKEFLAGS");
    let made = make.wait();
    assert_eq!((made.code(), made.stderr.as_str()), (0, ""));
    let written = |name: &str| bench.path().join(name).metadata().is_ok_and(|file| file.len() > 100);
    for name in ["completions/sandbox", "completions/_sandbox", "completions/sandbox.fish", "man/sandbox-run.1"] {
        assert!(written(name), "{name}");
    }
    let mut shell = Terminal::of(bench.host(shell));
    shell.types(setup);
    shell.until("an empty screen", |shell| shell.screen().trim() == ">");
    shell.types("sandbox doc\t");
    shell.sees("> sandbox doctor");
    shell.types("\u{15}sandbox run --keep on-f\t");
    shell.sees("--keep on-failure");
    shell.types("\u{15}sandbox run --pids\t");
    shell.sees("--pids-limit");
    shell.types("9 --require\t");
    shell.sees(options);
    shell.types("\u{15}exit\n");
    assert!(shell.end().ran.status.success());
    Ok(())
}
