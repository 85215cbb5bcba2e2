// SPDX-License-Identifier: Apache-2.0
//! The harness, of which this suite is a user: each function has a verdict of its own, under cargo and under nextest.

use std::env;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use harness::{Case, Need};
use tests::{Bench, bounded};

macro_rules! case {
    ($name:ident $(, $need:expr)*) => {
        Case { name: concat!("verdicts::", stringify!($name)), needs: &[$($need),*], body: $name }
    };
}

pub(crate) const CASES: &[Case] = &[
    case!(each_function_has_a_verdict_of_its_own),
    case!(listing_is_silent_and_boots_nothing),
    case!(a_failure_leaves_evidence_and_a_line_that_repeats_it),
    case!(what_was_not_run_has_no_verdict),
    case!(output_is_passed_on_under_nextest),
    case!(what_a_test_runs_is_not_the_test),
    case!(what_is_for_a_machine_is_not_done_to_a_host),
    case!(nextest_says_the_same, Need::Program("cargo-nextest"), Need::Program("cargo")),
];

type Result = std::result::Result<(), String>;

/// Where these tests' evidence goes; removed with it.
type Place = tempfile::TempDir;

fn place() -> Place {
    tempfile::tempdir().expect("a directory can be made")
}

/// This program, as cargo would start it.
fn own(place: &Place, words: &[&str]) -> Command {
    let mut command = Command::new(env::current_exe().expect("a test has an executable"));
    command.args(words).env("SANDBOX_EVIDENCE", place.path()).env_remove("NEXTEST");
    // Half of the cases are not all.
    command.env_remove("SANDBOX_PART").env("RUST_BACKTRACE", "0");
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Of which tests there are reports, and what they say.
fn kept(reports: &Place) -> Vec<String> {
    let files = fs::read_dir(reports.path()).expect("it is there").flatten();
    let texts = files.map(|file| fs::read(file.path()).expect("it can be read"));
    let reports = texts.map(|text| serde_json::from_slice::<serde_json::Value>(&text).expect("it is JSON"));
    let told = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    reports.map(|report| format!("{} {}", told(&report["test"]["name"]), told(&report["verdict"]))).collect()
}

/// A test's line, without the spaces that align it and without the kind.
fn said(output: &Output, test: &str, verdict: &str) {
    let lines = text(&output.stdout);
    let mut words = lines.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let found = words
        .any(|words| words.first() == Some(&"test") && words.contains(&test) && words.ends_with(&["...", verdict]));
    assert!(found, "{test} ... {verdict}\n{lines}\n{}", text(&output.stderr));
}

/// What is said of a test that has failed.
fn message(output: &Output, test: &str) -> String {
    let all = text(&output.stdout);
    let from = all.split(&format!("---- {test} ----\n")).nth(1).unwrap_or_else(|| panic!("{test}: {all}"));
    from.split("\n\n---- ").next().unwrap_or_default().split("\n\n\nfailures:").next().unwrap_or_default().to_owned()
}

fn each_function_has_a_verdict_of_its_own() -> Result {
    let place = place();
    let output = bounded(own(&place, &["inside::worst::", "--ignored", "--test-threads", "2"]));
    assert_eq!(output.status.code(), Some(101), "{}\n{}", text(&output.stdout), text(&output.stderr));
    for passed in ["before", "deletes_the_root", "leaves_a_daemon", "then_after"] {
        said(&output, &format!("inside::worst::{passed}"), "ok");
    }
    for (test, words) in [
        ("panics", "panicked at tests/e2e/inside.rs:"),
        ("panics", ":\nthis is the message\nof two lines\n"),
        ("panics", "\nstdout:\n  said before"),
        ("aborts", "signal 6 killed the command"),
        ("loops", "exceeded its time limit"),
        ("eats_memory", "the guest ran out of memory and killed e2e-"),
        ("reboots", "infrastructure, which says nothing of the test: the guest rebooted"),
    ] {
        let test = format!("inside::worst::{test}");
        said(&output, &test, "FAILED");
        let message = message(&output, &test);
        assert!(message.contains(words), "{test}: {message}");
    }
    assert!(!Path::new(env!("CARGO_MANIFEST_DIR")).join("e2e-was-inside").exists(), "a test has written on the host");
    Ok(())
}

/// With everything missing that a machine takes.
fn listing_is_silent_and_boots_nothing() -> Result {
    let place = place();
    let listed = |words: &[&str]| {
        let mut command = own(&place, &[&["--list", "--format", "terse", "inside::"], words].concat());
        command.env("SANDBOX_BIN", "/nonexistent").env("XDG_CACHE_HOME", place.path());
        let output = bounded(command);
        assert_eq!((output.status.code(), text(&output.stderr).as_str()), (Some(0), ""));
        text(&output.stdout)
    };
    let all = listed(&[]);
    assert!(all.lines().all(|line| line.ends_with(": test")), "{all}");
    assert!(all.contains("inside::needs_are_met: test") && all.contains("inside::worst::panics: test"), "{all}");
    let ignored = listed(&["--ignored"]);
    assert!(!ignored.contains("inside::needs_are_met") && ignored.contains("inside::worst::panics: test"), "{ignored}");
    let some = listed(&["--skip", "worst", "--skip", "root"]);
    assert_eq!(some.lines().count(), 2, "{some}");
    Ok(())
}

fn a_failure_leaves_evidence_and_a_line_that_repeats_it() -> Result {
    const TEST: &str = "inside::worst::panics";
    let place = place();
    let failed = bounded(own(&place, &[TEST, "--exact", "--include-ignored"]));
    assert_eq!(failed.status.code(), Some(101), "{}", text(&failed.stdout));
    let message = message(&failed, TEST);
    let line =
        |begin: &str| message.lines().find_map(|line| line.strip_prefix(begin)).unwrap_or_else(|| panic!("{message}"));
    let evidence = line("evidence: ").split(' ').next().unwrap_or_default();
    assert!(Path::new(evidence).starts_with(place.path()), "{evidence}");
    let read = |name: &str| {
        fs::read_to_string(Path::new(evidence).join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    };
    assert_eq!(read("stdout"), "said before\n");
    assert!(read("stderr").contains("this is the message"));
    assert!(read("report.json").contains("\"cause\": \"exited\""));
    assert_eq!(read("console").lines().filter(|line| line.contains("panic")).count(), 0);
    assert_eq!(read("repeat.sh").trim(), line("repeat: "));

    let mut again = Command::new("sh");
    again.args(["-c", line("repeat: ")]).env("SANDBOX_EVIDENCE", place.path()).env_remove("SANDBOX_PART");
    let again = bounded(again);
    assert_eq!(again.status.code(), Some(101), "{}", text(&again.stderr));
    assert!(text(&again.stdout).contains("of two lines"), "{}", text(&again.stdout));

    // A test that passes leaves nothing.
    let passed = bounded(own(&place, &["inside::a_test_finds_its_package_and_itself", "--exact"]));
    assert_eq!(passed.status.code(), Some(0), "{}", text(&passed.stdout));
    let left = fs::read_dir(place.path().join("e2e")).map_err(|error| error.to_string())?.count();
    assert_eq!(left, 1);
    Ok(())
}

/// The variable by which a machine knows its test, set by chance.
fn what_is_for_a_machine_is_not_done_to_a_host() -> Result {
    let place = place();
    let mut command = own(&place, &[]);
    command.env("HARNESS_TEST", "inside::worst::before");
    let output = bounded(command);
    assert_eq!((output.status.code(), text(&output.stdout).as_str()), (Some(1), ""));
    assert!(text(&output.stderr).contains("unset it"), "{}", text(&output.stderr));
    Ok(())
}

/// Without images no machine comes up, which is no failure.
fn what_was_not_run_has_no_verdict() -> Result {
    let (place, cache, reports) = (place(), place(), place());
    let mut command = own(&place, &["inside::needs_are_met", "--exact"]);
    command.env("XDG_CACHE_HOME", cache.path());
    let lost = bounded(command);
    assert_eq!(lost.status.code(), Some(125), "{}", text(&lost.stdout));
    let message = message(&lost, "inside::needs_are_met");
    assert!(message.starts_with("attempts 1 to 3 of 3: infrastructure, which says nothing of the test: "), "{message}");
    // nextest will call it a failure; the report is for whoever puts that right.
    let mut command = own(&place, &["inside::needs_are_met", "--exact"]);
    command.env("SANDBOX_BIN", "/nonexistent").env("SANDBOX_REPORTS", reports.path());
    command.env("NEXTEST_BINARY_ID", "tests::e2e").env("NEXTEST_TEST_NAME", "inside::needs_are_met");
    let lost = bounded(command);
    assert_eq!(lost.status.code(), Some(125), "{}", text(&lost.stdout));
    assert_eq!(kept(&reports), ["inside::needs_are_met infrastructure"]);
    Ok(())
}

/// As nextest starts it.
fn output_is_passed_on_under_nextest() -> Result {
    const TEST: &str = "inside::worst::panics";
    let (place, reports) = (place(), place());
    let mut command = own(&place, &["--exact", TEST, "--nocapture", "--ignored"]);
    command.env("NEXTEST", "1").env("NEXTEST_EXECUTION_MODE", "process-per-test");
    command
        .env("NEXTEST_BINARY_ID", "tests::e2e")
        .env("NEXTEST_TEST_NAME", TEST)
        .env("SANDBOX_REPORTS", reports.path());
    let failed = bounded(command);
    assert_eq!(failed.status.code(), Some(101));
    assert!(text(&failed.stderr).contains("this is the message"), "{}", text(&failed.stderr));
    let stdout = text(&failed.stdout);
    assert_eq!(stdout.matches("said before").count(), 1, "{stdout}");
    let (passed_on, _) = stdout.split_once("failures:").unwrap_or_default();
    assert!(passed_on.contains("said before"), "{stdout}");
    assert_eq!(kept(&reports), [format!("{TEST} fail")]);
    Ok(())
}

/// A test on the host may run what it likes: what becomes of that is not what becomes of the test.
fn what_a_test_runs_is_not_the_test() -> Result {
    let reports = place();
    let bench = Bench::new();
    let run = bench.run(["--copy-out", "/no/such:x", "--", "true"]).env("SANDBOX_REPORTS", reports.path());
    let run = run.env("NEXTEST", "1").env("NEXTEST_BINARY_ID", "tests::e2e").env("NEXTEST_TEST_NAME", "a_test");
    run.wait().expect(125, "setup_error");
    assert_eq!(kept(&reports), [" infrastructure"]);
    Ok(())
}

/// A handful of this suite's own, of both kinds.
fn nextest_says_the_same() -> Result {
    let place = place();
    let mut command = Command::new("cargo");
    command.args(["nextest", "run", "--offline", "--locked", "-p", "tests", "--test", "e2e", "--no-fail-fast"]);
    command.args(["--color", "never", "--run-ignored", "all", "-E"]);
    command.arg(
        "test(inside::needs) | test(inside::a_test) | test(/worst::(panics|reboots|leaves)/) | test(status::status_is)",
    );
    command.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/..")).env("SANDBOX_EVIDENCE", place.path());
    command.env_remove("SANDBOX_PART");
    let output = bounded(command);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(100), "{said}");
    assert!(said.contains("6 tests run: 4 passed, 2 failed"), "{said}");
    for test in ["inside::needs_are_met", "inside::worst::leaves_a_daemon", "status::status_is_passed_on"] {
        let line = said.lines().find(|line| line.trim_start().starts_with("PASS ") && line.ends_with(test));
        assert!(line.is_some(), "{test}: {said}");
    }
    assert!(!said.contains("LEAK"), "{said}");
    Ok(())
}
