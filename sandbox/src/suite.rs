// SPDX-License-Identifier: Apache-2.0
//! Tests, one machine each: a command is run and judged, run again where that is right, and what tells why it failed is kept.
//!
//! Not for where tests come from (a file's commands: [`crate::cli::suite`]; functions: the package `harness`), nor for how they
//! are chosen, run side by side and counted, which is libtest-mimic's.

mod attempt;
mod evidence;
mod plan;

pub use attempt::Attempt;
pub use evidence::{directory, hold};
pub use plan::Plan;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use crate::outcome::{Cause, Verdict};

/// How often a test is begun again whose command provably never started.
const BEGUN_AGAIN: u32 = 2;

/// What `cargo test` exits with when a test has failed, and what we do when none has, but of some nothing is known.
const FAILED: u8 = 101;
const UNKNOWN: u8 = 125;

/// How the words begin about a test of which nothing is known.
const INFRASTRUCTURE: &str = "infrastructure, which says nothing of the test: ";

/// A test, ready to be run.
pub struct Test<'a> {
    /// What it is called.
    pub name: &'a str,
    /// What to run.
    pub plan: &'a Plan,
    /// What its command reads from standard input.
    pub input: &'a [u8],
    /// How often a failure is repeated.
    pub retries: u32,
    /// A directory for what tells why it failed. What an earlier time has left there of that is removed, and nothing else.
    pub place: PathBuf,
    /// Whether its output is passed on as it comes.
    pub echo: bool,
    /// What is wrong with how its command ended and what it wrote to standard output and standard error, if anything.
    pub judge: &'a Judge<'a>,
}

/// See [`Test::judge`].
pub type Judge<'a> = dyn Fn(&Cause, &[u8], &[u8]) -> Result<(), String> + Sync + 'a;

/// What became of a test.
#[derive(Debug)]
pub struct Record {
    /// What it is called.
    pub name: String,
    /// Each time it was run; at least one.
    pub attempts: Vec<Attempt>,
    line: OsString,
}

impl Test<'_> {
    /// Runs it, more than once if need be: a failure as often as it may be repeated; and what says nothing of the command only if
    /// that had not started.
    #[must_use]
    pub fn run(&self) -> Record {
        // What is left of an earlier time must not be taken for this one's; what cannot be removed is met again below.
        evidence::clear(&self.place);
        let (mut failures, mut losses) = (self.retries, BEGUN_AGAIN);
        let mut attempts = Vec::new();
        loop {
            let attempt = Attempt::make(self, attempts.len() + 1);
            let left = match attempt.verdict {
                Verdict::Pass => None,
                Verdict::Fail => Some(&mut failures),
                Verdict::Infrastructure => attempt.never_began.then_some(&mut losses),
            };
            let again = left.is_some_and(|left| {
                let again = *left > 0;
                *left = left.saturating_sub(1);
                again
            });
            attempts.push(attempt);
            if !again {
                break;
            }
        }
        // Empty, or evidence; only what is empty goes.
        let _kept = std::fs::remove_dir(&self.place);
        let input = (!self.input.is_empty()).then(|| evidence::input(&self.place, attempts.len()));
        Record { name: self.name.to_owned(), attempts, line: self.plan.line(input.as_deref()) }
    }
}

impl Record {
    #[cfg(test)]
    pub(crate) fn of(name: &str, verdicts: &[Verdict]) -> Self {
        let attempt = |verdict: &Verdict| Attempt { cause: "exited", ..Attempt::of(*verdict, "words") };
        Self { name: name.to_owned(), attempts: verdicts.iter().map(attempt).collect(), line: "sandbox run".into() }
    }

    /// Of a test of which nothing was heard again, for this reason.
    pub(crate) fn lost(name: &str, why: &str) -> Self {
        let attempt = Attempt::lost(why);
        Self { name: name.to_owned(), attempts: vec![attempt], line: OsString::new() }
    }

    /// What is known of it in the end: one pass is enough, and a failure is none the less for an attempt that says nothing.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        let had = |verdict| self.attempts.iter().any(|attempt| attempt.verdict == verdict);
        match (had(Verdict::Pass), had(Verdict::Fail)) {
            (true, _) => Verdict::Pass,
            (false, true) => Verdict::Fail,
            (false, false) => Verdict::Infrastructure,
        }
    }

    /// Whether it passed only after it had failed.
    #[must_use]
    pub fn is_flaky(&self) -> bool {
        self.verdict() == Verdict::Pass && self.attempts.iter().any(|attempt| attempt.verdict == Verdict::Fail)
    }

    /// What people are told of a test that has not passed: what was wrong each time, where to look, and how to repeat it.
    #[must_use]
    pub fn message(&self) -> String {
        let mut text = String::new();
        let all = self.attempts.len();
        let mut number = 0;
        // The same thing is said once.
        for alike in self.attempts.chunk_by(|one, other| one.words == other.words) {
            let (first, last) = (number + 1, number + alike.len());
            number = last;
            let Some(attempt) = alike.last().filter(|attempt| attempt.verdict != Verdict::Pass) else { continue };
            match (first == last, all > 1) {
                (_, false) => {}
                (true, true) => text.push_str(&format!("attempt {first} of {all}: ")),
                (false, true) => text.push_str(&format!("attempts {first} to {last} of {all}: ")),
            }
            if attempt.verdict == Verdict::Infrastructure {
                text.push_str(INFRASTRUCTURE);
            }
            text.push_str(&format!("{}\n", attempt.words));
            if let Some(place) = &attempt.evidence {
                text.push_str(&format!("evidence: {} ({})\n", place.display(), evidence::NAMES));
            }
        }
        if !self.line.is_empty() {
            text.push_str(&format!("repeat: {}", self.line.display()));
        }
        text
    }

    /// The last lines of what it wrote the last time.
    #[must_use]
    pub fn output(&self, most: usize) -> String {
        let mut text = String::new();
        let output = self.attempts.last().into_iter().flat_map(|attempt| &attempt.output);
        for (name, bytes) in ["stdout", "stderr"].iter().zip(output) {
            let whole = String::from_utf8_lossy(bytes);
            let lines: Vec<&str> = whole.lines().collect();
            let from = lines.len().saturating_sub(most);
            if !lines.is_empty() {
                let part = if from > 0 { format!(", the last {most} lines") } else { String::new() };
                text.push_str(&format!("\n{name}{part}:"));
            }
            lines.iter().skip(from).for_each(|line| text.push_str(&format!("\n  {line}")));
        }
        text
    }
}

/// What is to be said of a test that cannot be run at all, for this reason; and it is reported.
#[must_use]
pub fn refusal(cause: &Cause) -> String {
    format!("{INFRASTRUCTURE}{}", Attempt::lost(cause.to_string()).words)
}

/// The exit code of a suite with these verdicts.
#[must_use]
pub fn exit_code(verdicts: impl IntoIterator<Item = Verdict>) -> ExitCode {
    let code = verdicts.into_iter().fold(0, |code, verdict| match (verdict, code) {
        (Verdict::Fail, _) => FAILED,
        (Verdict::Infrastructure, 0) => UNKNOWN,
        _ => code,
    });
    ExitCode::from(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(verdicts: &[Verdict]) -> Record {
        Record::of("x", verdicts)
    }

    #[test]
    fn one_pass_is_enough_and_a_failure_outlasts_a_loss() {
        use Verdict::{Fail, Infrastructure, Pass};
        let table = [
            (&[Pass][..], Pass, false),
            (&[Fail, Pass], Pass, true),
            (&[Infrastructure, Pass], Pass, false),
            (&[Fail, Infrastructure], Fail, false),
            (&[Infrastructure, Infrastructure], Infrastructure, false),
        ];
        for (verdicts, whole, flaky) in table {
            let record = record(verdicts);
            assert_eq!((record.verdict(), record.is_flaky()), (whole, flaky), "{verdicts:?}");
        }
    }

    #[test]
    fn a_failure_outranks_what_is_not_known() {
        use Verdict::{Fail, Infrastructure, Pass};
        let code = |verdicts: &[Verdict]| format!("{:?}", exit_code(verdicts.iter().copied()));
        assert_eq!(code(&[]), format!("{:?}", ExitCode::SUCCESS));
        assert_eq!(code(&[Pass, Infrastructure]), format!("{:?}", ExitCode::from(125)));
        assert_eq!(code(&[Infrastructure, Fail, Infrastructure, Pass]), format!("{:?}", ExitCode::from(101)));
    }

    #[test]
    fn the_message_has_each_attempt_and_the_line() {
        let mut record = record(&[Verdict::Fail, Verdict::Infrastructure, Verdict::Infrastructure]);
        record.attempts[0].words = "other words".to_owned();
        let text = record.message();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "attempt 1 of 3: other words");
        assert_eq!(lines[1], "attempts 2 to 3 of 3: infrastructure, which says nothing of the test: words");
        assert_eq!(lines[2], "repeat: sandbox run");
    }
}
