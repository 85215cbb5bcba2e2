// SPDX-License-Identifier: Apache-2.0
use clap::Parser;

use super::*;
use crate::cli::{Cli, Verb};
use crate::spec::{Process, User};

fn caller() -> Caller {
    Caller {
        directory: "/work".into(),
        environment: [("PATH", "/bin"), ("SECRET", "s"), ("HOME", "/home/me")]
            .map(|(name, value)| (name.into(), value.into()))
            .to_vec(),
        user: User { uid: 1000, gid: 1000, groups: vec![24] },
        process: Process { umask: 0o022, rlimits: vec![] },
        ignored: 0,
        terminals: [false; 3],
    }
}

fn parsed(options: &[&str]) -> Result<Spec, String> {
    let words = ["sandbox", "run"].iter().chain(options).chain(&["--", "true"]);
    let Verb::Run(arguments) = Cli::try_parse_from(words).expect("parses").verb else { panic!("not run") };
    arguments.spec(&caller())
}

fn spec(options: &[&str]) -> Spec {
    parsed(options).expect("makes sense")
}

fn variable(spec: &Spec, name: &str) -> Option<String> {
    spec.environment.iter().find(|(own, _)| own == name).map(|(_, value)| value.to_string_lossy().into_owned())
}

#[test]
fn defaults_are_the_callers() {
    let spec = spec(&[]);
    assert_eq!((spec.user.uid, spec.workdir), (1000, PathBuf::from("/work")));
    assert_eq!(spec.memory, MEMORY_DEFAULT);
}

#[test]
fn memory_is_rounded_up_to_whole_pieces() {
    assert_eq!(spec(&["-m", "200000001"]).memory, 191 << 20);
    assert_eq!(spec(&["-m", "512M"]).memory, 512 << 20);
}

#[test]
fn variables_pass_only_when_harmless_or_named() {
    assert_eq!(variable(&spec(&[]), "SECRET"), None);
    assert_eq!(variable(&spec(&["-e", "SECRET"]), "SECRET").as_deref(), Some("s"));
    assert_eq!(variable(&spec(&["-e", "SECRET=t=u"]), "SECRET").as_deref(), Some("t=u"));
    assert_eq!(variable(&spec(&["-e", "UNSET"]), "UNSET"), None);
    assert_eq!(variable(&spec(&["-w", "/tmp"]), "PWD").as_deref(), Some("/tmp"));
}

#[test]
fn another_user_has_its_own_home() {
    let spec = spec(&["-u", "0"]);
    assert_eq!((spec.user.uid, variable(&spec, "HOME").as_deref()), (0, Some("/root")));
}

#[test]
fn what_makes_no_sense_is_refused_with_what_does() {
    for (options, hint) in [
        (&["-e", ""][..], "NAME=VALUE"),
        (&["-u", "no-such-user"], "-u 1000"),
        (&["-u", "0:no-such-group"], "-u 1000:1000"),
    ] {
        let refused = parsed(options).expect_err("refused");
        assert!(refused.contains(hint), "{options:?}: {refused}");
    }
}

#[test]
fn habits_from_docker_do_no_harm() {
    assert_eq!(spec(&["--rm", "-it"]).command, ["true"]);
}

#[test]
fn a_terminal_is_given_where_there_is_one_or_it_is_asked_for() {
    let given = |terminals: [bool; 3], options: &[&str]| {
        let words = ["sandbox", "run"].iter().chain(options).chain(&["--", "true"]);
        let Verb::Run(arguments) = Cli::try_parse_from(words).expect("parses").verb else { panic!("not run") };
        let spec = arguments.spec(&Caller { terminals, ..caller() }).expect("makes sense");
        spec.terminal.map(|terminal| terminal.error)
    };
    let (all, none) = ([true; 3], [false; 3]);
    assert_eq!(given(all, &[]), Some(true));
    assert_eq!(given([true, true, false], &[]), Some(false), "2>log parts standard error");
    assert_eq!(given([true, false, true], &[]), None);
    assert_eq!(given([false, true, true], &[]), None);
    assert_eq!(given(none, &[]), None);
    assert_eq!(given(none, &["-t"]), Some(true));
    assert_eq!(given([true, false, false], &["--tty"]), Some(true));
    assert_eq!(given(all, &["-T"]), None);
    assert_eq!(given(all, &["-t", "--no-tty"]), None);
    assert_eq!(given(all, &["-T", "-it"]), Some(true));
}

#[test]
fn a_terminal_has_a_name() {
    assert_eq!(variable(&spec(&["-t"]), "TERM").as_deref(), Some("xterm"));
    assert_eq!(variable(&spec(&["-t", "-e", "TERM=vt100"]), "TERM").as_deref(), Some("vt100"));
    assert_eq!(variable(&spec(&[]), "TERM"), None);
}

#[test]
fn a_relative_volume_is_the_callers() {
    assert_eq!(spec(&["-v", "data:/data"]).sight.volumes[0].source, PathBuf::from("/work/data"));
}

mod meaning;
