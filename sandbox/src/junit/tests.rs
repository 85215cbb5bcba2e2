// SPDX-License-Identifier: Apache-2.0
use super::*;
use crate::report::kept::Test;

const FILE: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<testsuites name="nextest-run" tests="6" skipped="0" failures="4" errors="0" uuid="6d2b5a5e-9c0a-4b5a-8c2e-1d2f3a4b5c6d" time="2.0">
  <testsuite name="pkg::bin" tests="6" skipped="0" errors="0" failures="4">
    <testcase name="fails" classname="pkg::bin" time="0.1"><failure message="exit code 101" type="test failure">panicked</failure></testcase>
    <testcase name="lost" classname="pkg::bin" time="0.1"><failure message="exit code 125" type="test failure"/></testcase>
    <testcase name="slow" classname="pkg::bin" time="9.1"><failure type="test timeout"/></testcase>
    <testcase name="flaky" classname="pkg::bin" time="0.1">
      <flakyFailure timestamp="2026-11-26T00:00:00.000+00:00" time="0.1" message="exit code 125" type="test failure"/>
    </testcase>
    <testcase name="passes" classname="pkg::bin" time="0.1"/>
    <testcase name="both" classname="pkg::bin" time="0.1"><failure message="exit code 125" type="test failure"/>
      <rerunFailure timestamp="2026-11-26T00:00:00.000+00:00" time="0.1" message="exit code 101" type="test failure"/>
    </testcase>
  </testsuite>
</testsuites>
"#;

fn kept(name: &str, attempt: u32, cause: &str, verdict: &str) -> Kept {
    let test = Test { run: None, binary: "pkg::bin".to_owned(), name: name.to_owned(), attempt };
    let detail = Some("the guest did not come up in time".to_owned());
    Kept { test: Some(test), verdict: verdict.to_owned(), cause: cause.to_owned(), detail }
}

fn joined(kept: &[Kept]) -> String {
    let file = Report::deserialize_from_str(FILE).expect("nextest writes it so");
    join(vec![file], &Reports::new(kept)).to_string().expect("it can be written")
}

/// The element of a test, up to its end.
fn of<'a>(text: &'a str, name: &str) -> &'a str {
    let from = text.split(&format!("<testcase name=\"{name}\"")).nth(1).expect("the test is there");
    from.split("<testcase").next().expect("there is a first part")
}

#[test]
fn what_says_nothing_of_a_test_is_an_error() {
    let reports = [
        kept("fails", 1, "exited", "fail"),
        kept("lost", 1, "boot_timeout", "infrastructure"),
        kept("slow", 1, "cancelled", "infrastructure"),
        kept("flaky", 1, "vmm_crash", "infrastructure"),
        kept("flaky", 2, "exited", "pass"),
        kept("both", 1, "guest_panic", "infrastructure"),
        kept("both", 2, "exited", "fail"),
    ];
    let text = joined(&reports);
    assert!(text.contains(r#"tests="6" skipped="0" errors="1" failures="3""#), "{text}");
    assert!(of(&text, "fails").contains(r#"<failure message="exit code 101""#), "{text}");
    let lost = of(&text, "lost");
    assert!(
        lost.contains(r#"<error message="the guest did not come up in time" type="infrastructure: boot_timeout"/>"#),
        "{lost}"
    );
    assert!(of(&text, "slow").contains(r#"<failure type="test timeout""#), "who stops a test says why: {text}");
    assert!(of(&text, "flaky").contains("<flakyError"), "{text}");
    let both = of(&text, "both");
    assert!(both.contains("<failure message=\"the guest") && both.contains("<rerunFailure"), "it failed once: {both}");
}

#[test]
fn without_reports_nothing_changes() {
    let file = Report::deserialize_from_str(FILE).expect("nextest writes it so");
    let mut as_is = file.test_suites[0].clone();
    as_is.test_cases.sort_by(|one, other| one.name.as_str().cmp(other.name.as_str()));
    let joined = join(vec![file], &Reports::new(&[]));
    assert_eq!(joined.test_suites, [as_is]);
}

#[test]
fn a_pass_of_which_nothing_is_known_is_none() {
    let text = joined(&[kept("passes", 1, "lost_contact", "infrastructure")]);
    let passes = of(&text, "passes");
    assert!(
        passes.contains(r#"time="0.1"#) && passes.contains("<error message=") && !passes.contains("rerun"),
        "{text}"
    );
}

#[test]
fn reports_of_another_run_do_not_count() {
    let mut report = kept("lost", 1, "boot_timeout", "infrastructure");
    let set = |report: &mut Kept, run: &str| report.test.as_mut().expect("it is of one").run = Some(run.to_owned());
    set(&mut report, "00000000-0000-0000-0000-000000000000");
    assert!(of(&joined(&[report.clone()]), "lost").contains("<failure"));
    set(&mut report, "6d2b5a5e-9c0a-4b5a-8c2e-1d2f3a4b5c6d");
    assert!(of(&joined(&[report]), "lost").contains("<error"));
}

#[test]
fn parts_make_the_whole() {
    let whole = Report::deserialize_from_str(FILE).expect("nextest writes it so");
    let mut parts = [whole.clone(), whole.clone()];
    for (number, part) in parts.iter_mut().enumerate() {
        let mut suite = TestSuite::new("pkg::bin");
        let cases = whole.test_suites[0].test_cases.iter().enumerate().filter(|(at, _)| at % 2 == number);
        suite.add_test_cases(cases.map(|(_, case)| case.clone()));
        part.test_suites = vec![suite];
    }
    let [one, other] = parts;
    let none = Reports::new(&[]);
    let (mut merged, mut whole) = (join(vec![other, one], &none), join(vec![whole], &none));
    for report in [&mut merged, &mut whole] {
        (report.uuid, report.time, report.timestamp) = (None, None, None);
    }
    assert_eq!(merged, whole);
    assert_eq!((merged.tests, merged.failures), (6, 4));
}

#[test]
fn what_failed_before_a_lost_pass_has_failed() {
    let lost = kept("flaky", 2, "lost_contact", "infrastructure");
    let text = joined(std::slice::from_ref(&lost));
    assert!(text.contains(r#"errors="0" failures="5""#), "{text}");
    let flaky = of(&text, "flaky");
    assert!(flaky.contains(r#"<failure message="exit code 125""#) && flaky.contains("<rerunError"), "{flaky}");
    // Unless nothing is known of that either.
    let text = joined(&[kept("flaky", 1, "boot_timeout", "infrastructure"), lost]);
    let flaky = of(&text, "flaky");
    assert!(flaky.contains("<error ") && flaky.contains("<rerunError") && !flaky.contains("ailure"), "{flaky}");
}

/// Both sides of each boundary of what XML takes.
#[test]
fn what_xml_forbids_is_not_written() {
    let (fine, not): (Vec<char>, Vec<char>) = (0..=0x10_ffff).filter_map(char::from_u32).partition(|own| is_char(*own));
    for own in "\t\n\r \u{7F}\u{9F}\u{D7FF}\u{E000}\u{FEFF}\u{FFFD}\u{10000}\u{1FFFE}\u{10FFFF}".chars() {
        assert!(fine.contains(&own), "{own:?}");
    }
    let controls = ('\0'..' ').filter(|own| !"\t\n\r".contains(*own));
    assert_eq!(not, controls.chain(['\u{FFFE}', '\u{FFFF}']).collect::<Vec<_>>());

    // What an escape begins goes with it.
    let odd: String = not.iter().filter(|own| **own != '\x1b').chain(&['\u{FFFD}', '\u{E000}']).collect();
    let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
    status.set_type(&*odd).set_message(&*odd).set_description(&*odd).add_rerun(TestRerun::new(NonSuccessKind::Error));
    let mut case = TestCase::new(&*odd, status);
    case.set_classname(&*odd).set_system_out(&*odd).set_system_err_lossy(odd.as_bytes());
    let mut suite = TestSuite::new(&*odd);
    suite.add_test_case(case);
    let mut report = Report::new(&*odd);
    report.add_test_suite(suite);
    let written = text(&report).expect("it can be written");
    assert!(written.chars().all(is_char), "{written:?}");
    assert_eq!(written.matches("\u{FFFD}\u{FFFD}\u{FFFD}\u{E000}").count(), 9, "{written}");
    let read = Report::deserialize_from_str(&written).expect("it is XML");
    assert_eq!(text(&read).expect("it can be written"), written);
    // Nor is what an earlier file has.
    let named = written.replace("\u{FFFD}\u{FFFD}\u{FFFD}", "\u{FFFE}\u{FFFF}");
    let joined = join(vec![Report::deserialize_from_str(&named).expect("it is read")], &Reports::new(&[]));
    assert!(text(&joined).expect("it can be written").chars().all(is_char));
}
