// SPDX-License-Identifier: Apache-2.0
//! JUnit files of nextest's, joined with our reports and with each other.
//!
//! nextest knows of a test that it failed; our report of it may know that it did not run, or that its machine was lost. JUnit has a
//! word for that, `error`. Several files, of partitions that ran apart, become one. Not for a suite of ours, which writes its own.

use std::collections::{BTreeMap, HashMap};

use quick_junit::{
    NonSuccessKind, NonSuccessReruns, Report, SerializeError, TestCase, TestCaseStatus, TestRerun, TestSuite, XmlString,
};

use crate::outcome::Verdict;
use crate::report::kept::Kept;

/// A report as text. What XML has no way to write, wherever a test has printed it or was named so, is replaced: one such character,
/// and no reader takes the file.
///
/// # Errors
/// Those of the serializer.
pub fn text(report: &Report) -> Result<String, SerializeError> {
    Ok(report.to_string()?.replace(|letter| !is_char(letter), "\u{FFFD}"))
}

/// Whether a character may be in a file of XML (XML 1.0, production 2, Char).
fn is_char(letter: char) -> bool {
    matches!(letter, '\t' | '\n' | '\r' | ' '..='\u{D7FF}' | '\u{E000}'..='\u{FFFD}' | '\u{10000}'..='\u{10FFFF}')
}

/// What our report says of an attempt at a test: why nothing is known of it, if so.
type Lost<'a> = Option<&'a Kept>;

/// Reports by test and attempt.
pub struct Reports<'a>(HashMap<(&'a str, &'a str, u32), Vec<&'a Kept>>);

impl<'a> Reports<'a> {
    /// These, but for those of no test.
    #[must_use]
    pub fn new(kept: &'a [Kept]) -> Self {
        let mut found: HashMap<_, Vec<_>> = HashMap::new();
        for report in kept {
            if let Some(test) = &report.test {
                found.entry((&*test.binary, &*test.name, test.attempt)).or_default().push(report);
            }
        }
        Self(found)
    }

    /// Whether an attempt says nothing of its test. One that was told to stop is what whoever told it says: nextest stops a
    /// test that takes too long, which is a failure.
    fn lost(&self, run: Option<&str>, suite: &str, test: &str, attempt: u32) -> Lost<'a> {
        let reports = self.0.get(&(suite, test, attempt))?;
        let of_run = |report: &&&Kept| {
            let own = report.test.as_ref().and_then(|test| test.run.as_deref());
            // What cannot be said to be of this run may be another's, and changes nothing.
            own.is_none() || own == run
        };
        let report = *reports.iter().find(of_run)?;
        (report.verdict == Verdict::Infrastructure.name() && report.cause != "cancelled").then_some(report)
    }
}

/// The type and the message of an error.
fn words(report: &Kept) -> (XmlString, XmlString) {
    let text = report.detail.as_deref().unwrap_or("no verdict on the test");
    (XmlString::new(format!("infrastructure: {}", report.cause)), XmlString::new(text))
}

/// One file of all, in which what says nothing of its test is an error. Suites and tests are in the order of their names, whatever
/// order they ran in.
#[must_use]
pub fn join(files: Vec<Report>, reports: &Reports<'_>) -> Report {
    let mut joined = files.first().map_or_else(Report::unnamed, |first| {
        let mut joined = Report::unnamed();
        joined.name.clone_from(&first.name);
        joined.uuid = first.uuid.filter(|_| files.len() == 1);
        joined
    });
    let mut suites: BTreeMap<String, TestSuite> = BTreeMap::new();
    for file in files {
        joined.timestamp = [joined.timestamp, file.timestamp].into_iter().flatten().min();
        // They may have run at the same time.
        joined.time = joined.time.max(file.time);
        let run = file.uuid.map(|uuid| uuid.to_string());
        for suite in file.test_suites {
            merge(&mut suites, suite, |suite, case| settle(case, suite, run.as_deref(), reports));
        }
    }
    for (_, mut suite) in suites {
        suite.test_cases.sort_by(|one, other| one.name.as_str().cmp(other.name.as_str()));
        joined.add_test_suite(suite);
    }
    joined
}

/// Adds a suite to those of its name.
fn merge(suites: &mut BTreeMap<String, TestSuite>, mut suite: TestSuite, settle: impl Fn(&str, &mut TestCase)) {
    let name = suite.name.as_str().to_owned();
    let cases = std::mem::take(&mut suite.test_cases);
    let time = suite.time.take();
    // What it counted will be counted anew.
    (suite.tests, suite.skipped, suite.errors, suite.failures) = (0, 0, 0, 0);
    let whole = suites.entry(name.clone()).or_insert(suite);
    whole.time = [whole.time, time].into_iter().flatten().reduce(|one, other| one + other);
    for mut case in cases {
        settle(&name, &mut case);
        whole.add_test_case(case);
    }
}

/// Has a test's status say what our reports of its attempts do.
fn settle(case: &mut TestCase, suite: &str, run: Option<&str>, reports: &Reports<'_>) {
    let name = case.name.as_str().to_owned();
    let lost =
        |attempt: usize| u32::try_from(attempt).ok().and_then(|attempt| reports.lost(run, suite, &name, attempt));
    match &mut case.status {
        // The last attempt is the one that passed; should we say otherwise, that is no pass.
        TestCaseStatus::Success { flaky_runs } => {
            flaky_runs.iter_mut().enumerate().for_each(|(earlier, run)| reword(run, lost(earlier + 1)));
            let last = lost(flaky_runs.len() + 1);
            if last.is_some() {
                let runs = std::mem::take(flaky_runs);
                unpass(case, runs, last);
            }
        }
        // The first attempt is the test's, and those after it are its reruns.
        TestCaseStatus::NonSuccess { kind, message, ty, reruns, .. } => {
            reruns.runs.iter_mut().enumerate().for_each(|(later, run)| reword(run, lost(later + 2)));
            if let Some(report) = lost(1) {
                let (own, text) = words(report);
                (*ty, *message) = (Some(own), Some(text));
                *kind = known(&reruns.runs);
            }
        }
        TestCaseStatus::Skipped { .. } => {}
    }
}

/// What attempts come to of which none has passed: what one has found, another's loss does not undo.
fn known(runs: &[TestRerun]) -> NonSuccessKind {
    let failed = runs.iter().any(|run| run.kind == NonSuccessKind::Failure);
    if failed { NonSuccessKind::Failure } else { NonSuccessKind::Error }
}

/// Takes back a test's pass, of whose last attempt nothing is known: the first of all attempts becomes the test's, and the rest its
/// reruns, as in every test that has not passed.
fn unpass(case: &mut TestCase, mut runs: Vec<TestRerun>, lost: Lost<'_>) {
    let mut last = TestRerun::new(NonSuccessKind::Error);
    reword(&mut last, lost);
    (last.timestamp, last.time) = (case.timestamp, case.time);
    (last.system_out, last.system_err) = (case.system_out.take(), case.system_err.take());
    runs.push(last);
    let kind = known(&runs);
    let first = runs.remove(0);
    (case.timestamp, case.time) = (first.timestamp, first.time);
    (case.system_out, case.system_err) = (first.system_out, first.system_err);
    let reruns = NonSuccessReruns { runs, ..NonSuccessReruns::default() };
    let description = first.description.or(first.stack_trace);
    case.status = TestCaseStatus::NonSuccess { kind, message: first.message, ty: first.ty, description, reruns };
}

fn reword(run: &mut TestRerun, lost: Lost<'_>) {
    if let Some(report) = lost {
        let (ty, message) = words(report);
        (run.kind, run.ty, run.message) = (NonSuccessKind::Error, Some(ty), Some(message));
    }
}

#[cfg(test)]
mod tests;
