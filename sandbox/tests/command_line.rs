// SPDX-License-Identifier: Apache-2.0
//! The program as it is called, as far as no machine is started: help, colours, completions, configuration and trust.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

fn sandbox(home: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sandbox"));
    command.args(words).env_clear().env("PATH", "/usr/bin:/bin").env("HOME", home.join("home")).current_dir(home);
    command
}

fn output(command: &mut Command) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = command.output().expect("the program can be run");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("it is text");
    (status.code(), text(stdout), text(stderr))
}

#[test]
fn help_is_printed_and_refusals_are_told() {
    let home = tempfile::tempdir().expect("a directory can be made");
    for words in [&["-h"][..], &["--help"], &["run", "-h"], &["run", "--help"], &["trust", "--help"], &["--version"]] {
        let (code, out, err) = output(&mut sandbox(home.path(), words));
        assert_eq!((code, err.as_str()), (Some(0), ""), "{words:?}");
        assert!(!out.is_empty(), "{words:?}");
    }
    for words in [&["--bogus"][..], &["run"], &["run", "--memory", "lots", "true"], &["completions", "csh"], &["trust"]]
    {
        let (code, out, err) = output(&mut sandbox(home.path(), words));
        assert_eq!((code, out.as_str()), (Some(125), ""), "{words:?}");
        assert!(!err.is_empty(), "{words:?}");
    }
}

#[test]
fn colours_are_for_those_who_want_them() {
    let home = tempfile::tempdir().expect("a directory can be made");
    let coloured = |variables: &[(&str, &str)]| {
        let mut command = sandbox(home.path(), &["run", "--help"]);
        let (_, out, _) = output(command.env("TERM", "xterm").envs(variables.iter().copied()));
        out.contains('\x1b')
    };
    assert!(!coloured(&[]), "a pipe is no terminal");
    assert!(coloured(&[("CLICOLOR_FORCE", "1")]));
    assert!(!coloured(&[("NO_COLOR", "1")]));
}

#[test]
fn completions_and_man_pages_know_every_verb() {
    let home = tempfile::tempdir().expect("a directory can be made");
    for shell in ["bash", "zsh", "fish"] {
        let (code, out, err) = output(&mut sandbox(home.path(), &["completions", shell]));
        assert_eq!((code, err.as_str()), (Some(0), ""), "{shell}");
        assert!(["run", "doctor", "trust", "pids-limit"].iter().all(|word| out.contains(word)), "{shell}");
    }
    let (code, out, err) = output(&mut sandbox(home.path(), &["man", "."]));
    assert_eq!((code, out.as_str(), err.as_str()), (Some(0), "", ""));
    for page in ["sandbox.1", "sandbox-run.1", "sandbox-trust.1", "sandbox-completions.1"] {
        let text = fs::read_to_string(home.path().join(page)).expect(page);
        assert!(text.contains("Examples:"), "{page} has no examples");
    }
}

#[test]
fn a_project_that_widens_needs_trust() {
    let home = tempfile::tempdir().expect("a directory can be made");
    let explain = ["run", "--explain", "--", "true"];
    let project = home.path().join("sandbox.toml");

    fs::write(&project, "memory = '256M'\n").expect("a file can be written");
    let (code, out, err) = output(&mut sandbox(home.path(), &explain));
    assert_eq!((code, err.as_str()), (Some(0), ""));
    assert!(out.contains("sandbox.toml\" sets memory = \"256M\""), "{out}");

    fs::create_dir(home.path().join("data")).expect("a directory can be made");
    fs::write(&project, "volumes = ['data:/data']\n").expect("a file can be written");
    let (code, out, err) = output(&mut sandbox(home.path(), &explain));
    assert_eq!((code, out.as_str()), (Some(125), ""));
    assert!(["volumes in ", "sandbox.toml", "run: sandbox trust"].iter().all(|part| err.contains(part)), "{err}");

    assert_eq!(output(&mut sandbox(home.path(), &["trust"])), (Some(0), String::new(), String::new()));
    let (code, out, _) = output(&mut sandbox(home.path(), &explain));
    assert_eq!(code, Some(0));
    assert!(out.contains("WRITABLE") && out.contains("(trusted) sets volumes"), "{out}");

    let without = ["run", "--no-config", "--explain", "--", "true"];
    let (code, out, _) = output(&mut sandbox(home.path(), &without));
    assert_eq!(code, Some(0));
    assert!(!out.contains("WRITABLE") && !out.contains("Configuration"), "{out}");

    output(&mut sandbox(home.path(), &["trust", "--revoke"]));
    assert_eq!(output(&mut sandbox(home.path(), &explain)).0, Some(125));
}

#[test]
fn a_wrong_variable_is_named() {
    let home = tempfile::tempdir().expect("a directory can be made");
    let (code, _, err) = output(sandbox(home.path(), &["run", "--explain", "true"]).env("SANDBOX_TIMEOUT", "soon"));
    assert_eq!(code, Some(125));
    assert!(err.contains("SANDBOX_TIMEOUT"), "{err}");
}
