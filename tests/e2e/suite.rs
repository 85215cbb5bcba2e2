// SPDX-License-Identifier: Apache-2.0
//! `sandbox suite`: each test has a verdict of its own, whatever the others do to their machines.

mod course;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use harness::Case;
use rustix::process::{Pid, Signal, kill_process};
use tests::{Bench, Call, Ran, Running, bounded, program, tier};

use crate::readme::named;

macro_rules! case {
    ($name:ident) => {
        Case { name: concat!("suite::", stringify!($name)), needs: &[], body: $name }
    };
    (course::$name:ident) => {
        Case { name: concat!("suite::course::", stringify!($name)), needs: &[], body: course::$name }
    };
}

pub(crate) const CASES: &[Case] = &[
    case!(each_test_has_a_verdict_of_its_own),
    case!(what_was_not_run_has_no_verdict),
    case!(a_lost_machine_is_its_own_tests),
    case!(a_killed_suite_leaves_no_machine),
    case!(tests_are_chosen_as_with_cargo),
    case!(a_flaky_test_passes_and_is_named),
    case!(files_and_places_are_the_suites),
    case!(the_example_of_the_documentation_runs),
    case!(examples_of_help_run),
    case!(course::two_runs_wait_for_each_other),
    case!(course::a_signal_leaves_what_is_known),
    case!(course::what_cannot_be_written_is_no_failure),
    case!(course::results_that_are_missing_are_told),
];

type Result = std::result::Result<(), String>;

/// A call of `sandbox suite`, on the tier's engine.
fn suite(bench: &Bench, words: &[&str]) -> Call {
    let program = program();
    let mut call = bench.host([program.as_os_str()]);
    call.command.arg("suite").args(words);
    call.env("SANDBOX_ENGINE", tier::engine()).env("XDG_STATE_HOME", bench.path())
}

/// Writes a suite whose tests are frugal.
fn write(bench: &Bench, tests: &str) {
    let timeout = tier::patient(Duration::from_secs(60)).as_secs();
    bench.write("suite.toml", format!("[defaults]\nmemory = '256M'\ntimeout = '{timeout}s'\n{tests}"));
}

fn lines(ran: &Ran) -> Vec<String> {
    let lines = ran.text();
    // The names are padded to the longest one's length.
    lines.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

fn said(ran: &Ran, line: &str) {
    assert!(lines(ran).iter().any(|own| own == line), "{line}\n{}\n{}", ran.text(), ran.stderr);
}

/// What JUnit's file says of a test.
fn of(junit: &str, test: &str) -> String {
    let from = junit.split(&format!("<testcase name=\"{test}\"")).nth(1).expect("the test is there");
    from.split("<testcase").next().unwrap_or_default().to_owned()
}

/// Tests that do their worst, and between them ones that look whether it has done anything to them.
pub(crate) const WORST: &str = r#"
[[test]]
name = "before"
command = "test -e /etc/passwd && echo fine"
stdout = "fine\n"

[[test]]
name = "panics"
command = "echo 'panicked: wrong' >&2; exit 101"

[[test]]
name = "aborts"
command = "kill -ABRT $$"

[[test]]
name = "loops"
command = "while :; do :; done"
timeout = "1s"

[[test]]
name = "eats memory"
command = "tail /dev/zero"

[[test]]
name = "deletes the root"
command = "rm -rf /bin /sbin /lib /lib64 /etc /var /mnt /tmp /usr/bin /usr/sbin 2>/dev/null; echo gone; exit 3"
root = true
home_tools = false
status = 3
stdout = "gone\n"

[[test]]
name = "reboots"
command = "echo b > /proc/sysrq-trigger; sleep 600"
root = true
retries = 2

[[test]]
name = "leaves a daemon"
command = "setsid sleep 600 & echo left"
stdout = "left\n"

[[test]]
name = "after"
command = "test -e /etc/passwd && test -x /usr/bin/env && ! pgrep sleep && echo fine"
stdout = "fine\n"
"#;

fn each_test_has_a_verdict_of_its_own() -> Result {
    let (bench, place) = (Bench::new(), Bench::new());
    write(&bench, WORST);
    let words = ["suite.toml", "--test-threads", "2", "--junit", "junit.xml", "--evidence", "evidence"];
    let ran = suite(&bench, &words).wait();
    assert_eq!(ran.code(), 101, "{}\n{}", ran.text(), ran.stderr);
    for passed in ["before", "deletes the root", "leaves a daemon", "after"] {
        said(&ran, &format!("test {passed} ... ok"));
    }
    for not in ["panics", "aborts", "loops", "eats memory", "reboots"] {
        said(&ran, &format!("test {not} ... FAILED"));
    }
    said(&ran, "signal 6 killed the command, expected was status 0");
    said(&ran, "panicked: wrong");

    let junit = fs::read_to_string(bench.path().join("junit.xml")).map_err(|error| error.to_string())?;
    assert!(junit.contains("tests=\"9\" skipped=\"0\" failures=\"4\" errors=\"1\""), "{junit}");
    for (test, element, cause) in [
        ("panics", "failure", "exited"),
        ("aborts", "failure", "signaled"),
        ("loops", "failure", "timeout"),
        ("eats memory", "failure", "oom"),
        ("reboots", "error", "guest_reset"),
    ] {
        let text = of(&junit, test);
        assert!(
            text.contains(&format!("<{element} ")) && text.contains(&format!("type=\"{cause}\"")),
            "{test}: {text}"
        );
    }
    // Its command had begun: nobody knows what it did, so it is not repeated.
    assert!(!junit.contains("rerun"), "{junit}");

    let evidence = |name: &str| fs::read_to_string(bench.path().join("evidence").join(name)).unwrap_or_default();
    assert!(evidence("panics/1/stderr").contains("panicked: wrong"));
    assert!(evidence("aborts/1/report.json").contains("\"signaled\""));
    assert!(!bench.path().join("evidence/before").exists(), "a test that passed leaves nothing");
    let line = evidence("aborts/1/repeat.sh");
    assert!(ran.text().contains(&format!("repeat: {}", line.trim())), "{line}");
    let mut again = Command::new("sh");
    again.args(["-c", &line]).env("PATH", named(&place)?);
    assert_eq!(bounded(again).status.code(), Some(134), "{line}");
    Ok(())
}

/// Without images no command ever starts, which may be repeated, and is no failure.
fn what_was_not_run_has_no_verdict() -> Result {
    let (bench, cache) = (Bench::new(), Bench::new());
    write(&bench, "[[test]]\nname = 'one'\ncommand = 'true'\n");
    let words = ["suite.toml", "--junit", "junit.xml", "--evidence", "evidence"];
    let ran = suite(&bench, &words).env("XDG_CACHE_HOME", cache.path()).wait();
    assert_eq!(ran.code(), 125, "{}\n{}", ran.text(), ran.stderr);
    let text = ran.text();
    assert!(text.contains("attempts 1 to 3 of 3: infrastructure, which says nothing of the test: "), "{text}");
    let junit = fs::read_to_string(bench.path().join("junit.xml")).map_err(|error| error.to_string())?;
    assert!(junit.contains("failures=\"0\" errors=\"1\""), "{junit}");
    assert_eq!(junit.matches("<rerunError").count(), 2, "{junit}");
    Ok(())
}

/// A suite whose test `one` has begun, and a process of it that runs a machine.
fn begun(bench: &Bench, words: &[&str]) -> std::result::Result<(Running, Pid), String> {
    fs::create_dir(bench.path().join("out")).map_err(|error| error.to_string())?;
    let one = "[[test]]\nname = 'one'\ncommand = 'touch /out/begun; sleep 600'\nvolumes = ['out:/out']\nretries = 1\n";
    let quick = |name: &str| format!("[[test]]\nname = '{name}'\ncommand = 'true'\n");
    write(bench, &(quick("zero") + one + &quick("two")));
    let suite = suite(bench, &[&["suite.toml", "--test-threads", "1"], words].concat()).spawn();
    let deadline = Instant::now() + tier::patient(Duration::from_secs(60));
    while !bench.path().join("out/begun").exists() {
        assert!(Instant::now() < deadline, "the test has not begun");
        thread::sleep(Duration::from_millis(20));
    }
    let machine = crate::endings::machine(&suite);
    Ok((suite, machine))
}

fn a_lost_machine_is_its_own_tests() -> Result {
    let bench = Bench::new();
    let (suite, machine) = begun(&bench, &["--junit", "junit.xml", "--evidence", "evidence"])?;
    kill_process(machine, Signal::KILL).map_err(|error| error.to_string())?;
    let ran = suite.ran();
    assert_eq!(ran.code(), 125, "{}\n{}", ran.text(), ran.stderr);
    said(&ran, "test one ... FAILED");
    said(&ran, "test two ... ok");
    let junit = fs::read_to_string(bench.path().join("junit.xml")).map_err(|error| error.to_string())?;
    assert!(
        of(&junit, "one").contains("type=\"vmm_crash\"") && junit.contains("failures=\"0\" errors=\"1\""),
        "{junit}"
    );
    // It had begun, so nobody knows what it did: it is not repeated.
    assert!(!junit.contains("rerun"), "{junit}");
    Ok(())
}

fn a_killed_suite_leaves_no_machine() -> Result {
    let bench = Bench::new();
    let (mut suite, _) = begun(&bench, &["--evidence", "evidence"])?;
    let family = crate::kill::descendants(&BTreeSet::from([suite.id()]));
    assert!(family.len() >= 3, "{family:?}");
    suite.kill().map_err(|error| error.to_string())?;
    suite.wait().map_err(|error| error.to_string())?;
    let deadline = Instant::now() + tier::patient(Duration::from_secs(1));
    loop {
        let alive = crate::kill::processes();
        let left: Vec<_> = alive.iter().filter(|(pid, _, state)| family.contains(pid) && *state != 'Z').collect();
        if left.is_empty() {
            return Ok(());
        }
        assert!(Instant::now() < deadline, "it left {left:?}");
        thread::sleep(Duration::from_millis(10));
    }
}

fn tests_are_chosen_as_with_cargo() -> Result {
    let (bench, cache) = (Bench::new(), Bench::new());
    let test = |name: &str, rest: &str| format!("[[test]]\nname = '{name}'\ncommand = 'true'\n{rest}\n");
    write(&bench, &(test("a::one", "") + &test("a::one_more", "") + &test("b::two", "ignored = true")));
    // Nothing is booted, so nothing is missed.
    let listed = |words: &[&str]| {
        let words: Vec<&str> = ["suite.toml", "--list", "--format", "terse"].iter().chain(words).copied().collect();
        let ran = suite(&bench, &words).env("XDG_CACHE_HOME", cache.path()).env("SANDBOX_BIN", "/nonexistent").wait();
        assert_eq!((ran.code(), ran.stderr.as_str()), (0, ""));
        ran.text().lines().map(|line| line.trim_end_matches(": test").to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(listed(&[]), ["a::one", "a::one_more", "b::two"]);
    assert_eq!(listed(&["a::one"]), ["a::one", "a::one_more"]);
    assert_eq!(listed(&["a::one", "--exact"]), ["a::one"]);
    assert_eq!(listed(&["--ignored"]), ["b::two"]);
    assert_eq!(listed(&["--skip", "more", "--skip", "two"]), ["a::one"]);

    let ran = suite(&bench, &["suite.toml", "--skip", "more", "--junit", "junit.xml"]).wait();
    assert_eq!(ran.code(), 0, "{}\n{}", ran.text(), ran.stderr);
    said(&ran, "test a::one ... ok");
    said(&ran, "test b::two ... ignored");
    let junit = fs::read_to_string(bench.path().join("junit.xml")).map_err(|error| error.to_string())?;
    assert!(of(&junit, "b::two").contains("<skipped"), "{junit}");
    let ran = suite(&bench, &["suite.toml", "two", "--include-ignored", "--format", "json"]).wait();
    assert!(ran.code() == 0 && ran.text().contains("\"event\": \"ok\""), "{}", ran.text());
    Ok(())
}

fn a_flaky_test_passes_and_is_named() -> Result {
    let bench = Bench::new();
    fs::create_dir(bench.path().join("state")).map_err(|error| error.to_string())?;
    let command = "test -e /state/met || { touch /state/met; echo first; exit 1; }";
    write(
        &bench,
        &format!("[[test]]\nname = 'later'\ncommand = '{command}'\nvolumes = ['state:/state']\nretries = 1\n"),
    );
    let ran = suite(&bench, &["suite.toml", "--junit", "junit.xml", "--evidence", "evidence"]).wait();
    assert_eq!(ran.code(), 0, "{}\n{}", ran.text(), ran.stderr);
    assert_eq!(ran.stderr, "sandbox: flaky: later passed, but only at attempt 2\n");
    let junit = fs::read_to_string(bench.path().join("junit.xml")).map_err(|error| error.to_string())?;
    assert!(of(&junit, "later").contains("<flakyFailure "), "{junit}");
    let first = fs::read_to_string(bench.path().join("evidence/later/1/stdout"));
    assert_eq!(first.map_err(|error| error.to_string())?, "first\n");
    Ok(())
}

fn files_and_places_are_the_suites() -> Result {
    let (bench, elsewhere) = (Bench::new(), Bench::new());
    fs::create_dir_all(bench.path().join("checks/sub")).map_err(|error| error.to_string())?;
    bench.write("data", "shown\n");
    bench.write("checks/sub/here", "");
    bench.write(
        "checks/suite.toml",
        "[[test]]\nname = 'places'\nmemory = '256M'\nfiles = ['../data']\nworkdir = 'sub'\nenv = ['A=b c']\nstdin_file = '../data'\n\
         command = 'ls; cat ../../data; cat; echo $A; ! touch ../../data 2>/dev/null && echo kept'\n\
         stdout = \"here\\nshown\\nshown\\nb c\\nkept\\n\"\n",
    );
    let file = bench.path().join("checks/suite.toml");
    let mut call = suite(&elsewhere, &[file.to_str().expect("it is text")]);
    call.command.current_dir(elsewhere.path());
    let ran = call.env("XDG_STATE_HOME", elsewhere.path()).wait();
    assert_eq!(ran.code(), 0, "{}\n{}", ran.text(), ran.stderr);
    Ok(())
}

const DOCUMENTATION: &str = include_str!("../../docs/suites.md");

/// The first example is a suite, and all of it passes.
fn the_example_of_the_documentation_runs() -> Result {
    let bench = Bench::new();
    let example = DOCUMENTATION.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next());
    bench.write("suite.toml", example.expect("there is an example"));
    let ran = suite(&bench, &["suite.toml", "--include-ignored"]).wait();
    assert_eq!(ran.code(), 0, "{}\n{}", ran.text(), ran.stderr);
    let count = example.unwrap_or_default().matches("[[test]]").count();
    assert!(count > 2 && ran.text().contains(&format!("{count} passed; 0 failed")), "{}", ran.text());
    Ok(())
}

fn examples_of_help_run() -> Result {
    let (bench, place) = (Bench::new(), Bench::new());
    let path = named(&place)?;
    let help = Command::new(program()).args(["suite", "--help"]).output().map_err(|error| error.to_string())?;
    let help = String::from_utf8_lossy(&help.stdout).into_owned();
    let lines = |begin: &str, end: &str| -> Vec<String> {
        let lines = help.lines().skip_while(|line| !line.starts_with(begin)).skip(1);
        lines.take_while(|line| !line.starts_with(end)).map(|line| line.trim().to_owned()).collect()
    };
    let suite = lines("A suite:", "  Needs:");
    bench.write("suite.toml", suite.join("\n"));
    let examples = lines("Examples:", "Exit status:");
    let mut count = 0;
    for line in examples.iter().filter(|line| line.starts_with("sandbox ")) {
        run_line(&bench, line, &path)?;
        count += 1;
    }
    assert!(count > 3, "only {count} examples found: {help}");
    Ok(())
}

fn run_line(bench: &Bench, line: &str, path: &std::ffi::OsStr) -> Result {
    let mut command = Command::new("sh");
    command.args(["-c", &format!("exec 2>&1; {line}")]).current_dir(bench.path());
    command.env("PATH", path).env("SANDBOX_ENGINE", tier::engine()).env("XDG_STATE_HOME", bench.path());
    let output = bounded(command);
    assert!(output.status.success(), "$ {line}\n{}", String::from_utf8_lossy(&output.stdout));
    assert!(Path::new(bench.path()).join("suite.toml").exists());
    Ok(())
}
