// SPDX-License-Identifier: Apache-2.0
use super::*;

fn spec() -> Spec {
    Spec {
        command: vec!["true".into()],
        environment: vec![("PATH".into(), "/usr/bin".into())],
        workdir: "/".into(),
        user: User { uid: 0, gid: 0, groups: vec![] },
        sight: Sight { current: "/".into(), home: None, volumes: vec![], home_tools: true },
        memory: MEMORY_DEFAULT,
        cpus: 1,
        timeout: None,
        output_limit: None,
        engine: Choice::Auto,
        require_kvm: false,
        process: Process { umask: 0o022, rlimits: vec![] },
    }
}

fn refusal(change: impl FnOnce(&mut Spec)) -> String {
    let mut spec = spec();
    change(&mut spec);
    spec.check().expect_err("refused").to_string()
}

#[test]
fn a_plain_command_is_accepted() {
    spec().check().expect("accepted");
}

#[test]
fn each_refusal_says_what_is_wrong() {
    assert!(refusal(|spec| spec.command.clear()).contains("no command"));
    assert!(refusal(|spec| spec.command.push("a\0b".into())).contains("argument \"a\\0b\""));
    assert!(refusal(|spec| spec.environment.push(("A=".into(), "".into()))).contains("A="));
    assert!(refusal(|spec| spec.environment.push(("".into(), "x".into()))).contains("no usable name"));
    assert!(refusal(|spec| spec.workdir = "tmp".into()).contains("absolute"));
    assert!(refusal(|spec| spec.memory = 1).contains("128M"));
    assert!(refusal(|spec| spec.memory += 1).contains("MiB"));
    assert!(refusal(|spec| spec.cpus = 0).contains("0 CPUs"));
    assert!(refusal(|spec| spec.timeout = Some(Duration::ZERO)).contains("zero"));
}
