// SPDX-License-Identifier: Apache-2.0
//! A suite's results as JUnit's XML, in the dialect of nextest: what says nothing of a test is an `error` and no `failure`.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestRerun, TestSuite};

use crate::junit;
use crate::outcome::Verdict;
use crate::suite::{Attempt, Record};

/// The file, which is opened before the first test runs: one that cannot be written is worth none of their time.
#[derive(Debug)]
pub(super) struct Output {
    path: PathBuf,
    file: File,
}

impl Output {
    /// Empties it: an earlier time's results must not be taken for those of a run that is killed.
    pub(super) fn open(path: &Path) -> Result<Self, String> {
        let file = File::create(path).map_err(|error| format!("cannot write {}: {error}", path.display()))?;
        Ok(Self { path: path.to_owned(), file })
    }

    pub(super) fn write(mut self, name: &str, records: &[Record], skipped: &[String]) -> Result<(), String> {
        let wrong = |why: String| format!("cannot write {}: {why}", self.path.display());
        let text = junit::text(&report(name, records, skipped)).map_err(|error| wrong(error.to_string()))?;
        self.file.write_all(text.as_bytes()).map_err(|error| wrong(error.to_string()))
    }
}

fn report(name: &str, records: &[Record], skipped: &[String]) -> Report {
    let mut suite = TestSuite::new(name);
    suite.add_test_cases(records.iter().map(|record| case(name, record)));
    suite.add_test_cases(skipped.iter().map(|test| {
        let mut case = TestCase::new(test.as_str(), TestCaseStatus::skipped());
        case.set_classname(name);
        case
    }));
    suite.set_time(records.iter().flat_map(|record| &record.attempts).map(|attempt| attempt.time).sum());
    let mut report = Report::new(name);
    report.add_test_suite(suite);
    report
}

fn case(suite: &str, record: &Record) -> TestCase {
    let verdict = record.verdict();
    // The attempt that counts: the first with the verdict of them all.
    let at = record.attempts.iter().position(|attempt| attempt.verdict == verdict);
    let at = at.unwrap_or_default();
    let mut status = match verdict {
        Verdict::Pass => TestCaseStatus::success(),
        Verdict::Fail | Verdict::Infrastructure => TestCaseStatus::non_success(kind(verdict)),
    };
    for (number, attempt) in record.attempts.iter().enumerate() {
        if number == at {
            if verdict != Verdict::Pass {
                status.set_type(attempt.cause);
                status.set_message(attempt.words.as_str());
                status.set_description(record.message());
            }
        } else {
            status.add_rerun(rerun(attempt));
        }
    }
    let mut case = TestCase::new(record.name.as_str(), status);
    case.set_classname(suite);
    if let Some(attempt) = record.attempts.get(at) {
        case.set_time(attempt.time);
        if verdict != Verdict::Pass {
            case.set_system_out_lossy(&attempt.output[0]).set_system_err_lossy(&attempt.output[1]);
        }
    }
    case
}

fn kind(verdict: Verdict) -> NonSuccessKind {
    match verdict {
        Verdict::Fail => NonSuccessKind::Failure,
        Verdict::Pass | Verdict::Infrastructure => NonSuccessKind::Error,
    }
}

fn rerun(attempt: &Attempt) -> TestRerun {
    let mut rerun = TestRerun::new(kind(attempt.verdict));
    rerun.set_type(attempt.cause).set_message(attempt.words.as_str()).set_time(attempt.time);
    rerun.set_system_out_lossy(&attempt.output[0]).set_system_err_lossy(&attempt.output[1]);
    rerun
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_verdict_has_its_element() {
        use Verdict::{Fail, Infrastructure, Pass};
        let records = [
            Record::of("good", &[Pass]),
            Record::of("bad <&\u{1}\u{FFFE}", &[Fail]),
            Record::of("lost", &[Infrastructure, Infrastructure]),
            Record::of("flaky", &[Fail, Pass]),
        ];
        let report = report("checks", &records, &["later".to_owned()]);
        assert_eq!((report.tests, report.failures, report.errors), (5, 1, 1));
        let text = junit::text(&report).expect("it can be written");
        for part in
            ["<failure message=\"words\"", "<error message=\"words\"", "<flakyFailure", "<rerunError", "<skipped"]
        {
            assert_eq!(text.matches(part).count(), 1, "{part}: {text}");
        }
        assert!(text.contains("name=\"bad &lt;&amp;\u{FFFD}\""), "{text}");
    }
}
