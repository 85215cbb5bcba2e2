// SPDX-License-Identifier: Apache-2.0
//! `sandbox runner` as cargo's runner: what cargo and nextest say of a small crate is what they say of it on the host.

mod partitions;
mod project;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::thread;
use std::time::{Duration, Instant};

use harness::{Case, Need};
use rustix::process::{Signal, kill_process};
use tests::nextest;
use tests::tier::patient;
use tests::{Bench, Call, program};

use project::Project;

macro_rules! case {
    ($prefix:literal, $name:ident $(, $need:expr)*) => {
        Case { name: concat!($prefix, "::", stringify!($name)), needs: &[$($need),*], body: $name }
    };
}

const CARGO: Need = Need::Program("cargo");
const NEXTEST: Need = Need::Program("cargo-nextest");

pub(crate) const CASES: &[Case] = &[
    case!("runner::project", nextest_says_what_it_says_of_the_host, CARGO, NEXTEST),
    case!("runner::project", cargo_says_what_it_says_of_the_host, CARGO),
    case!("runner::project", lists_are_made_once, CARGO),
    case!("runner::project", a_late_test_is_gone_within_the_grace, CARGO, NEXTEST),
    case!("runner::project", a_killed_nextest_leaves_no_machine, CARGO, NEXTEST),
    case!("runner::project", what_a_test_writes_comes_back_where_it_is_wanted, CARGO, NEXTEST),
    case!("runner::project", profiles_of_machines_do_not_collide, CARGO, NEXTEST),
    Case {
        name: "runner::project::partitions_make_the_whole",
        needs: &[CARGO, NEXTEST],
        body: partitions::make_the_whole,
    },
    case!("runner", a_programs_end_is_the_runners),
    case!("runner", libraries_of_the_program_are_not_the_emulators),
];

type Result = std::result::Result<(), String>;

fn nextest_says_what_it_says_of_the_host() -> Result {
    let project = Project::new();
    let host = project.nextest(&["run", "--no-fail-fast"], false).wait();
    let guest = project.nextest(&["run", "--no-fail-fast"], true).wait();
    let (of_host, of_guest) = (nextest::verdicts(&host.stderr), nextest::verdicts(&guest.stderr));
    assert_eq!(of_host.len(), 9, "{}", host.stderr);
    assert_eq!(of_guest, of_host, "{}", guest.stderr);
    assert_eq!(of_guest.get("tiny tests::aborts").map(String::as_str), Some("SIGABRT"));
    assert_eq!(guest.code(), host.code());
    assert!(guest.stdout.is_empty(), "{}", guest.text());
    for word in ["LEAK", "SLOW", "sandbox:"] {
        assert!(!guest.stderr.contains(word), "{word}: {}", guest.stderr);
    }
    assert!(!project.path().join("target/tmp/written").exists(), "what a test wrote is on the host");
    let ignored = project.nextest(&["run", "--run-ignored", "only", "-E", "test(is_ignored)"], true).wait();
    assert_eq!(nextest::verdicts(&ignored.stderr).len(), 1, "{}", ignored.stderr);
    assert_eq!(ignored.code(), 0);
    Ok(())
}

/// Tests in one process, doctests, a benchmark, and a program.
fn cargo_says_what_it_says_of_the_host() -> Result {
    let project = Project::new();
    let tests = ["test", "--no-fail-fast", "--lib", "--test", "it", "--", "--skip", "aborts", "--skip", "exits"];
    for (words, code) in [
        (&tests[..], 101),
        (&["test", "--lib", "--", "exits"], 1),
        (&["test", "--doc"], 0),
        (&["bench"], 0),
        (&["run", "--", "7", "a b"], 7),
    ] {
        // As many threads as the guest has processors: with one, libtest names a test before it runs.
        let host = project.cargo(words, false).env("RUST_TEST_THREADS", "1").wait();
        let guest = project.cargo(words, true).env("RUST_TEST_THREADS", "1").wait();
        assert_eq!(project::results(&host.stdout), project::results(&guest.stdout), "{words:?}: {}", guest.stderr);
        assert!(!guest.text().contains("sandbox"), "{words:?}: {}", guest.text());
        let told = (host.status.code(), guest.status.code());
        assert!(told.0.is_some() && told.0 == told.1, "{words:?}: {told:?}: {}", guest.stderr);
        if words[0] != "test" || code == 0 {
            assert_eq!(guest.code(), code, "{words:?}: {}", guest.stderr);
        }
    }
    Ok(())
}

/// What a runner's call said, and which engine ran it, if one did.
fn listed(project: &Project, options: &[&str], question: &[&str]) -> (String, Option<String>) {
    let report = project.path().join("target/list.json");
    let _first_time = fs::remove_file(&report);
    let mut call =
        project.runner(&[options, &["--report", "target/list.json"]].concat(), project.library_test(), question);
    call.command.env("CARGO_MANIFEST_DIR", project.path());
    let ran = call.wait();
    assert_eq!(ran.code(), 0, "{}", ran.stderr);
    let text = fs::read(&report).unwrap_or_default();
    let report: serde_json::Value = serde_json::from_slice(&text).unwrap_or_default();
    (ran.text(), report["engine"].as_str().map(str::to_owned))
}

fn lists_are_made_once() -> Result {
    const ALL: [&str; 3] = ["--list", "--format", "terse"];
    const IGNORED: [&str; 4] = ["--list", "--format", "terse", "--ignored"];
    let project = Project::new();
    let engine = Some(tests::tier::engine());
    assert_eq!(listed(&project, &[], &ALL).1, engine);
    let (list, again) = listed(&project, &[], &ALL);
    assert_eq!(again, None, "a machine for what was known");
    assert!(list.contains("tests::passes: test") && list.contains("tests::is_ignored: test"), "{list}");
    let (ignored, first) = listed(&project, &[], &IGNORED);
    assert_eq!((ignored.lines().count(), first), (4, engine.clone()), "{ignored}");
    assert_eq!(listed(&project, &["--listing", "vm"], &ALL), (list.clone(), engine.clone()));
    // A list may be made of what the package has.
    project.write("more.txt", "");
    assert_eq!(listed(&project, &[], &ALL), (list.clone(), engine));
    let native = project.runner(&["--listing", "native"], project.library_test(), &ALL).wait();
    assert_eq!(native.text(), list);
    Ok(())
}

/// One that ignores SIGTERM: nextest's own patience is ten seconds, and we are over before.
fn a_late_test_is_gone_within_the_grace() -> Result {
    let project = Project::new();
    let late = patient(Duration::from_secs(4));
    let limit =
        format!("[profile.default]\nslow-timeout = {{ period = \"{}s\", terminate-after = 1 }}\n", late.as_secs());
    fs::create_dir(project.path().join(".config")).map_err(|error| error.to_string())?;
    project.write(".config/nextest.toml", &limit);
    let begun = Instant::now();
    let words = ["run", "--run-ignored", "all", "-E", "test(stubborn) | test(obedient)", "--no-fail-fast"];
    let ran = project.nextest(&words, true).wait();
    let verdicts = nextest::verdicts(&ran.stderr);
    let told: Vec<_> = verdicts.values().map(String::as_str).collect();
    assert_eq!(told, ["TIMEOUT", "TIMEOUT"], "{}", ran.stderr);
    assert!(begun.elapsed() < late + patient(Duration::from_secs(20)), "it took {:?}: {}", begun.elapsed(), ran.stderr);
    assert!(!ran.stderr.contains("LEAK"), "{}", ran.stderr);
    Ok(())
}

fn a_killed_nextest_leaves_no_machine() -> Result {
    let project = Project::new();
    let run = project.nextest(&["run", "--run-ignored", "all", "-E", "test(obedient)"], true).spawn();
    let nextest = run.pid();
    let root = BTreeSet::from([run.id()]);
    let deadline = Instant::now() + patient(Duration::from_secs(60));
    let asked = |pid: &u32| {
        let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&words).contains("\0runner\0")
    };
    // The runner, its file server and its machine.
    let family = loop {
        let runner = crate::kill::descendants(&root).into_iter().filter(asked).collect();
        let family = crate::kill::descendants(&runner);
        if family.len() >= 3 {
            break family;
        }
        assert!(Instant::now() < deadline, "no machine came up: {family:?}");
        thread::sleep(Duration::from_millis(20));
    };
    kill_process(nextest, Signal::KILL).map_err(|error| error.to_string())?;
    let killed = Instant::now();
    loop {
        let alive = crate::kill::processes();
        let left: Vec<_> = alive.iter().filter(|(pid, _, state)| family.contains(pid) && *state != 'Z').collect();
        if left.is_empty() {
            break;
        }
        assert!(killed.elapsed() < patient(Duration::from_secs(2)), "it left {left:?}");
        thread::sleep(Duration::from_millis(10));
    }
    let ran = run.output();
    assert_eq!(ran.status.signal(), Some(9));
    Ok(())
}

fn what_a_test_writes_comes_back_where_it_is_wanted() -> Result {
    let project = Project::new();
    let words = ["run", "--run-ignored", "only", "-E", "test(writes)"];
    let ran = project.nextest_with("--sync-out insta", &words).wait();
    assert_eq!(nextest::verdicts(&ran.stderr).get("tiny tests::writes").map(String::as_str), Some("FAIL"));
    for (path, there) in [
        ("tests/snapshots/deep/a.snap.new", true),
        ("src/.lib.rs.pending-snap", true),
        ("src/more.rs", false),
        (".git", false),
        ("tests/b.snap", false),
    ] {
        let found = project.path().join(path).symlink_metadata();
        assert_eq!(found.is_ok(), there, "{path}: {}", ran.stderr);
    }
    assert!(!ran.stderr.contains("sandbox:"), "{}", ran.stderr);
    Ok(())
}

/// As cargo-llvm-cov builds and runs, with a target directory that is not the workspace's.
fn profiles_of_machines_do_not_collide() -> Result {
    let (project, target) = (Project::new(), Bench::new());
    let prepare = |call: Call| {
        let call = call.env("RUSTFLAGS", "-Cinstrument-coverage").env("CARGO_TARGET_DIR", target.path());
        call.env("LLVM_PROFILE_FILE", target.path().join("of-%p-%8m.profraw"))
    };
    let built = prepare(project.cargo(&["test", "--no-run"], false)).wait();
    assert_eq!(built.code(), 0, "{}", built.stderr);
    let profiles = || {
        let entries = fs::read_dir(target.path()).expect("it is there").flatten().map(|entry| entry.path());
        entries.filter(|path| path.extension().is_some_and(|name| name == "profraw")).collect::<Vec<_>>()
    };
    assert_eq!(profiles().len(), 0);
    // The last starts a program, which has a profile of its own.
    let words = ["run", "-E", "test(passes) | test(prints) | test(it_starts_its_program)"];
    let ran = prepare(project.nextest_with("--sync-out llvm-cov", &words)).wait();
    assert_eq!(ran.code(), 0, "{}", ran.stderr);
    let profiles = profiles();
    assert_eq!(profiles.len(), 4, "{profiles:?}");
    assert!(profiles.iter().all(|path| path.metadata().is_ok_and(|profile| profile.len() > 0)));
    Ok(())
}

fn call(bench: &Bench, words: &[&str]) -> Call {
    let mut call = bench.host([&program().to_string_lossy(), "runner"]);
    call.command.arg("--engine").arg(tests::tier::engine()).args(words);
    call
}

fn a_programs_end_is_the_runners() -> Result {
    let bench = Bench::new();
    for status in [0, 3, 101] {
        let ran = call(&bench, &["/bin/sh", "-c", &format!("exit {status}")]).wait();
        assert_eq!((ran.code(), ran.stderr.as_str()), (status, ""));
    }
    for signal in [2, 6, 9, 11, 13, 15] {
        let ran = call(&bench, &["/bin/sh", "-c", &format!("ulimit -c unlimited; kill -{signal} $$")]).wait();
        assert_eq!(ran.status.signal(), Some(signal), "{}", ran.stderr);
        assert!(!ran.status.core_dumped(), "signal {signal} left a core file of ours");
        assert_eq!(ran.stderr, "");
    }
    let failed = call(&bench, &["-m", "1k", "/bin/true"]).wait();
    assert_eq!((failed.code(), failed.text().as_str()), (125, ""));
    assert!(failed.stderr.contains("sandbox:"), "{}", failed.stderr);
    // Without a standard input, and with make's job server gone.
    let script = format!(
        "exec {} runner --engine {} /bin/sh -c 'cat; echo \"$CARGO_MAKEFLAGS.$MAKEFLAGS\"' <&-",
        program().display(),
        tests::tier::engine()
    );
    let flags = " -j --jobserver-fds=8,9 --jobserver-auth=8,9";
    let ran = bench.host(["sh", "-c", &script]).env("CARGO_MAKEFLAGS", flags).env("MAKEFLAGS", flags).wait();
    assert_eq!((ran.code(), ran.text().as_str()), (0, "."), "{}", ran.stderr);
    Ok(())
}

/// Cargo's library path is for the program in the guest; QEMU would load what lies there.
fn libraries_of_the_program_are_not_the_emulators() -> Result {
    let bench = Bench::new();
    for library in ["libc.so.6", "libglib-2.0.so.0", "libz.so.1"] {
        bench.write(library, "no library");
    }
    let place = bench.path().to_string_lossy().into_owned();
    let mut call = call(&bench, &["/bin/sh", "-c", "echo $LD_LIBRARY_PATH"]);
    call.command.env("LD_LIBRARY_PATH", &place);
    let ran = call.wait();
    // The guest's shell is the program's: there the dynamic linker finds them, and says so.
    assert_eq!(ran.code(), 127, "{}", ran.stderr);
    assert!(ran.stderr.contains("libc.so.6"), "{}", ran.stderr);
    Ok(())
}
