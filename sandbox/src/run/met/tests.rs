// SPDX-License-Identifier: Apache-2.0
use std::path::PathBuf;

use guest_init::wire::{Met, Usage};

use super::*;
use crate::spec::{Choice, Keep, Limits, MEMORY_DEFAULT, OURSELVES, Process, Results, Sight, Tmpfs, Ulimit, User};

fn spec(limits: Limits) -> Spec {
    Spec {
        command: vec!["true".into()],
        environment: vec![],
        workdir: "/".into(),
        user: User { uid: 0, gid: 0, groups: vec![] },
        sight: Sight { current: "/".into(), home: None, shown: vec![], volumes: vec![], home_tools: true },
        memory: MEMORY_DEFAULT,
        cpus: 1,
        terminal: None,
        kill_after: None,
        timeout: None,
        output_limit: None,
        limits,
        engine: Choice::Auto,
        require_kvm: false,
        nested: None,
        retries: 0,
        boot: false,
        process: Process { umask: 0o022, rlimits: vec![] },
        results: Results::default(),
        keep: Keep::Never,
        program: OURSELVES.into(),
    }
}

fn met(oom_kills: u32, processes_refused: u64, full: u64) -> Tally {
    Tally { met: Met { oom_kills, processes_refused, full }, ..Tally::default() }
}

fn names(limits: Limits, cause: &Cause, tally: &Tally) -> Vec<(String, bool)> {
    hits(&spec(limits), cause, tally, &[]).into_iter().map(|hit| (hit.limit, hit.ended)).collect()
}

fn limited(name: &'static str, resource: u32, soft: u64, hard: u64) -> Limits {
    Limits { ulimits: vec![Ulimit { name, resource, soft, hard }], ..Limits::default() }
}

#[test]
fn nothing_met_is_nothing_said() {
    for cause in [Cause::Exited(0), Cause::Exited(1), Cause::Signaled(9), Cause::GuestPanic, Cause::Exited(255)] {
        assert_eq!(names(Limits::default(), &cause, &Tally::default()), [], "{cause}");
    }
}

#[test]
fn what_ended_the_run_is_named_as_such() {
    let ended = |name: &str| [(name.to_owned(), true)];
    assert_eq!(names(Limits::default(), &Cause::Timeout, &Tally::default()), ended("timeout"));
    assert_eq!(names(Limits::default(), &Cause::OutputLimit, &Tally::default()), ended("output"));
    let oom = Cause::Oom { victim: Victim::Command(None), peak: 0 };
    assert_eq!(names(Limits::default(), &oom, &met(1, 0, 0)), ended("memory"));
}

#[test]
fn what_stood_in_the_way_is_named_too() {
    assert_eq!(names(Limits::default(), &Cause::Exited(2), &met(1, 0, 0)), [("memory".to_owned(), false)]);
    let limits = Limits { processes: Some(5), ..Limits::default() };
    let hits = hits(&spec(limits), &Cause::Exited(0), &met(0, 7, 0), &[]);
    assert_eq!((hits[0].limit.as_str(), hits[0].ended, hits[0].count), ("pids", false, Some(7)));
    assert!(hits[0].words.contains("--pids-limit 5: 7 "), "{}", hits[0].words);
}

#[test]
fn full_file_systems_have_names() {
    let tmpfs = |target: &str| Tmpfs { target: PathBuf::from(target), size: Some(1 << 20), mode: 0, executable: false };
    let limits = Limits { private: Some(3 << 20), tmpfs: vec![tmpfs("/a"), tmpfs("/b")], ..Limits::default() };
    let full = full::PRIVATE | full::SHM | full::TMPFS << 1;
    let hits = hits(&spec(limits), &Cause::Exited(1), &met(0, 0, full), &[]);
    let said: Vec<&str> = hits.iter().map(|hit| hit.limit.as_str()).collect();
    assert_eq!(said, ["disk", "shm", "tmpfs /b"]);
    assert!(hits[0].words.contains("(3M)") && hits[0].words.contains("--disk-size"), "{}", hits[0].words);
    assert!(hits[1].words.contains("(512M)"), "{}", hits[1].words);
}

#[test]
fn signals_of_resource_limits_are_understood() {
    let ended = |name: &str| vec![(name.to_owned(), true)];
    let quiet = Tally::default();
    assert_eq!(names(limited("cpu", 0, 1, 9), &Cause::Signaled(24), &quiet), ended("ulimit cpu"));
    assert_eq!(names(limited("cpu", 0, 1, 9), &Cause::Exited(152), &quiet), ended("ulimit cpu"));
    assert_eq!(names(limited("fsize", 1, 1, 9), &Cause::Signaled(25), &quiet), ended("ulimit fsize"));
    // Without the limit, or with another, they are signals like any other.
    assert_eq!(names(Limits::default(), &Cause::Signaled(24), &quiet), []);
    assert_eq!(names(limited("cpu", 0, 1, 9), &Cause::Signaled(25), &quiet), []);
    assert_eq!(names(limited("cpu", 0, 1, 1), &Cause::Signaled(9), &quiet), []);
    let spent = Tally { usage: Usage { user_us: 900_000, system_us: 100_000, ..Usage::default() }, ..quiet };
    assert_eq!(names(limited("cpu", 0, 1, 1), &Cause::Signaled(9), &spent), ended("ulimit cpu"));
}

#[test]
fn a_kill_for_want_of_memory_has_a_name_when_the_kernel_gave_it() {
    let killed = [Killed { name: "a".to_owned(), pid: 1 }, Killed { name: "b".to_owned(), pid: 2 }];
    let tally = Tally { usage: Usage { memory_peak: 9, ..Usage::default() }, ..met(2, 0, 0) };
    let mut cause = Cause::Oom { victim: Victim::Command(None), peak: 0 };
    name_victim(&mut cause, &tally, &killed);
    assert_eq!(cause, Cause::Oom { victim: Victim::Command(Some(killed[1].clone())), peak: 9 });
    let hits = hits(&spec(Limits::default()), &Cause::Exited(1), &tally, &killed);
    assert!(hits[0].words.contains("killed b (pid 2)"), "{}", hits[0].words);
}
