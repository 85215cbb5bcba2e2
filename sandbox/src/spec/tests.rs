// SPDX-License-Identifier: Apache-2.0
use super::*;

pub(crate) fn spec() -> Spec {
    Spec {
        command: vec!["true".into()],
        environment: vec![("PATH".into(), "/usr/bin".into())],
        workdir: "/".into(),
        user: User { uid: 0, gid: 0, groups: vec![] },
        sight: Sight { current: "/".into(), home: None, shown: vec![], volumes: vec![], home_tools: true },
        memory: MEMORY_DEFAULT,
        cpus: 1,
        terminal: None,
        timeout: None,
        kill_after: None,
        output_limit: None,
        limits: Limits::default(),
        engine: Choice::Auto,
        require_kvm: false,
        nested: None,
        retries: 0,
        boot: false,
        process: Process { umask: 0o022, rlimits: vec![] },
        program: OURSELVES.into(),
        results: Results::default(),
        keep: Keep::Never,
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
    assert!(refusal(|spec| spec.memory = 1).contains("between 128M and 64G"));
    assert!(refusal(|spec| spec.memory += 1).contains("MiB"));
    assert!(refusal(|spec| spec.cpus = 0).contains("0 CPUs"));
    assert!(refusal(|spec| spec.timeout = Some(Duration::ZERO)).contains("zero"));
    assert!(refusal(|spec| spec.limits.processes = Some(0)).contains("--pids-limit"));
    assert!(refusal(|spec| spec.limits.private = Some(1)).contains("--disk-size"));
    assert!(refusal(|spec| spec.limits.shm = Some(u64::MAX)).contains("--shm-size"));
    let ulimit = Ulimit { name: "cpu", resource: 0, soft: 2, hard: 1 };
    assert!(refusal(|spec| spec.limits.ulimits.push(ulimit)).contains("--ulimit cpu"));
}

fn tmpfs(target: &str) -> Tmpfs {
    Tmpfs { target: target.into(), size: None, mode: 0o1777, executable: false }
}

#[test]
fn a_file_system_in_memory_has_a_place_of_its_own() {
    for place in ["/", "relative", "/a/../b", "/proc/x", "/dev/shm", "/sys"] {
        assert!(refusal(|spec| spec.limits.tmpfs.push(tmpfs(place))).contains("absolute"), "{place}");
    }
    assert!(refusal(|spec| spec.limits.tmpfs = vec![tmpfs("/a"), tmpfs("/a")]).contains("twice"));
    assert!(refusal(|spec| spec.limits.tmpfs.push(Tmpfs { size: Some(0), ..tmpfs("/a") })).contains("--tmpfs"));
}

#[test]
fn a_limit_that_is_set_takes_the_place_of_the_callers() {
    let mut spec = spec();
    spec.process.rlimits = vec![(7, 10, 20), (3, 8, 8)];
    let nofile = |soft| Ulimit { name: "nofile", resource: 7, soft, hard: 99 };
    spec.limits.ulimits = vec![nofile(1), Ulimit { name: "cpu", resource: 0, soft: 5, hard: 6 }, nofile(2)];
    assert_eq!(spec.rlimits(), [(3, 8, 8), (0, 5, 6), (7, 2, 99)]);
}

fn nested(environment: &[(&str, &str)]) -> Vec<(String, String)> {
    let mut spec = spec();
    spec.environment = environment.iter().map(|(name, value)| (name.into(), value.into())).collect();
    let text = |text: OsString| text.into_string().expect("the test's own text");
    let program = "/opt/sandbox/bin/sandbox".into();
    spec.nested = Some(Nested { program, cache: "/cache".into(), images: "/cache/sandbox/images".into() });
    spec.guest_environment().into_iter().map(|(name, value)| (text(name), text(value))).collect()
}

#[test]
fn a_nested_command_finds_this_program_after_all_others() {
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let cache = pair("XDG_CACHE_HOME", "/cache");
    assert_eq!(nested(&[("PATH", "/usr/bin")]), [pair("PATH", "/usr/bin:/opt/sandbox/bin"), cache.clone()]);
    let named = "/opt/sandbox/bin:/usr/bin";
    assert_eq!(nested(&[("PATH", named)]), [pair("PATH", named), cache.clone()]);
    assert_eq!(nested(&[]), [cache, pair("PATH", "/opt/sandbox/bin")]);
}

#[test]
fn a_cache_named_for_the_command_stays() {
    let environment = nested(&[("XDG_CACHE_HOME", "/other"), ("PATH", "/opt/sandbox/bin")]);
    assert_eq!(environment[0], ("XDG_CACHE_HOME".to_owned(), "/other".to_owned()));
    assert_eq!(environment.len(), 2);
}

#[test]
fn any_other_command_gets_what_it_was_given() {
    assert_eq!(spec().guest_environment(), spec().environment);
}
