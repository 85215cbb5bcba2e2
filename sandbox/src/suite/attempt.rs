// SPDX-License-Identifier: Apache-2.0
//! One attempt at a test: one run, and what it says.

use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::Test;
use super::evidence::Evidence;
use crate::cli::tell;
use crate::outcome::{Cause, Verdict};
use crate::report::{Report, kept};
use crate::run::Outcome;
use crate::stages::Stages;
use crate::sys::signals;

/// Most notes about results.
const NOTES: usize = 10;

/// How a test went once.
#[derive(Debug)]
pub struct Attempt {
    /// What that says of it.
    pub verdict: Verdict,
    /// How the run ended, by the name that reports use.
    pub cause: &'static str,
    /// What is wrong; empty if nothing is.
    pub words: String,
    /// Whether its command provably never began, for a reason that may be gone the next time.
    pub never_began: bool,
    /// How long it took.
    pub time: Duration,
    /// What of the command's results was not brought out, though it passed; a line for each.
    pub notes: Vec<String>,
    /// The end of what it wrote to standard output and standard error, unless it passed.
    pub output: [Vec<u8>; 2],
    /// Where it left what tells why it did not pass.
    pub evidence: Option<PathBuf>,
}

impl Attempt {
    /// One of which no more is known than this.
    pub(super) fn of(verdict: Verdict, words: impl Into<String>) -> Self {
        Self {
            verdict,
            cause: "setup_error",
            words: words.into(),
            never_began: false,
            time: Duration::ZERO,
            notes: Vec::new(),
            output: [Vec::new(), Vec::new()],
            evidence: None,
        }
    }

    /// One without a run. That is reported too: who joins reports with results would else take it for a failure.
    pub(super) fn lost(words: impl Into<String>) -> Self {
        let words = words.into();
        keep(&Report::new(&Outcome::refused(Cause::SetupError(words.clone()), Stages::begin()), None));
        Self::of(Verdict::Infrastructure, words)
    }

    pub(super) fn make(test: &Test<'_>, number: usize) -> Self {
        let begun = Instant::now();
        let mut attempt = Self::run(test, number).unwrap_or_else(|error| {
            let words =
                format!("cannot keep the output in {:?}: {error}; is there room, and may we write there?", test.place);
            Self::lost(words)
        });
        attempt.time = begun.elapsed();
        attempt
    }

    fn run(test: &Test<'_>, number: usize) -> io::Result<Self> {
        signals::outlive_file_limit()?;
        let (mut evidence, streams) = Evidence::begin(&test.place, number, test.input, test.echo)?;
        let mut outcome = crate::run(&test.plan.spec, streams, None);
        told(&mut outcome);
        let ([stdout, stderr], unseen) = evidence.output()?;
        let (verdict, mut words) = judge(test, &outcome, &stdout, &stderr);
        if verdict == Verdict::Fail {
            words.push_str(&unseen);
        }
        let mut notes = notes(&outcome);
        let report = Report::new(&outcome, Some(&test.plan.spec));
        keep(&report);
        let cause = &outcome.cause;
        let input = (!test.input.is_empty()).then(|| super::evidence::input(&test.place, number));
        // The verdict is known by now, and stands whatever becomes of the rest.
        let (evidence, output) = if verdict == Verdict::Pass {
            evidence.discard();
            (None, [Vec::new(), Vec::new()])
        } else {
            notes.drain(..).for_each(|note| words.push_str(&format!("\n{note}")));
            let ends = evidence.ends().unwrap_or_else(|error| {
                words.push_str(&format!("\ncannot read again what it wrote: {error}"));
                [Vec::new(), Vec::new()]
            });
            let kept = evidence.keep(&outcome, &report, &test.plan.line(input.as_deref()));
            if let Err(error) = &kept {
                words.push_str(&format!("\ncannot keep what tells of it in {:?}: {error}", test.place));
            }
            (kept.ok(), ends)
        };
        Ok(Self {
            verdict,
            cause: cause.name(),
            words,
            // What it reads of its input it reads from the beginning again.
            never_began: cause.may_pass() && outcome.never_started(),
            notes,
            evidence,
            output,
            ..Self::of(verdict, String::new())
        })
    }
}

/// Where `SANDBOX_REPORTS` says, if it does.
fn keep(report: &Report) {
    if let Err((path, error)) = kept::keep(report, true) {
        tell(format_args!("sandbox: cannot keep the report as {}: {error}", path.display()));
    }
}

/// Has a command that ended well end so, though the guest had not what was to be brought out of it: that is the command's doing and
/// no machine's. Of one that ended otherwise the run says it so already.
fn told(outcome: &mut Outcome) {
    if outcome.results.failed.as_ref().is_some_and(|failed| failed.unread)
        && matches!(outcome.cause, Cause::SetupError(_))
    {
        outcome.cause = Cause::Exited(0);
    }
}

/// What of the results there is not.
fn notes(outcome: &Outcome) -> Vec<String> {
    let left = outcome.results.left.iter();
    let mut notes: Vec<String> = left.take(NOTES).map(|left| format!("left out: {left}")).collect();
    if outcome.results.left.len() > NOTES {
        notes.push(format!("left out: {} more", outcome.results.left.len() - NOTES));
    }
    if outcome.results.uncommitted {
        notes.push("nothing was committed, since the command did not succeed".to_owned());
    }
    notes
}

/// A run that says nothing of the command is not shown to the judge.
fn judge(test: &Test<'_>, outcome: &Outcome, stdout: &[u8], stderr: &[u8]) -> (Verdict, String) {
    let cause = &outcome.cause;
    let (verdict, mut words) = match cause.verdict() {
        Verdict::Infrastructure => (Verdict::Infrastructure, cause.to_string()),
        Verdict::Pass | Verdict::Fail => {
            let failed = outcome.results.failed.as_ref();
            let missing = failed.map(|failed| format!("the command's results: {}", failed.words));
            match ((test.judge)(cause, stdout, stderr), missing) {
                (Ok(()), None) => return (Verdict::Pass, String::new()),
                (Ok(()), Some(missing)) if failed.is_some_and(|failed| failed.unread) => (Verdict::Fail, missing),
                (Ok(()), Some(missing)) => (Verdict::Infrastructure, missing),
                (Err(words), missing) => {
                    (Verdict::Fail, [words].into_iter().chain(missing).collect::<Vec<_>>().join("\n"))
                }
            }
        }
    };
    for hit in outcome.hits.iter().filter(|hit| !(hit.ended && cause.needs_words())) {
        words.push_str(&format!("\n{}", hit.words));
    }
    (verdict, words)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::results::Failed;

    #[test]
    fn what_a_command_did_not_make_is_its_failure() {
        let setup = || Cause::SetupError("words".to_owned());
        let told = |cause: Cause, unread| {
            let mut outcome = Outcome::refused(cause, Stages::begin());
            outcome.results.failed = Some(Failed { words: "words".to_owned(), unread });
            told(&mut outcome);
            outcome.cause
        };
        assert_eq!(told(setup(), true), Cause::Exited(0));
        assert_eq!(told(setup(), false), setup(), "that was ours");
        assert_eq!(told(Cause::Timeout, true), Cause::Timeout);
    }

    #[test]
    fn what_was_left_out_is_noted() {
        let mut outcome = Outcome::refused(Cause::Exited(3), Stages::begin());
        outcome.results.left = (0..12).map(|number| format!("{number}: a FIFO")).collect();
        outcome.results.uncommitted = true;
        let notes = notes(&outcome);
        assert_eq!((notes[0].as_str(), notes[10].as_str()), ("left out: 0: a FIFO", "left out: 2 more"));
        assert!(notes[11].starts_with("nothing was committed"));
    }
}
