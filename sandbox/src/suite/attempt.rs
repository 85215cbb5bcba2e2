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
    /// What it wrote to standard output and standard error, unless it passed.
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
        let outcome = crate::run(&test.plan.spec, streams, None);
        let (stdout, stderr) = evidence.output()?;
        let (verdict, mut words) = judge(test, &outcome, &stdout, &stderr);
        let report = Report::new(&outcome, Some(&test.plan.spec));
        keep(&report);
        let cause = &outcome.cause;
        let input = (!test.input.is_empty()).then(|| super::evidence::input(&test.place, number));
        // The verdict is known by now, and stands whatever becomes of the rest.
        let (evidence, output) = if verdict == Verdict::Pass {
            evidence.discard();
            (None, [Vec::new(), Vec::new()])
        } else {
            let kept = evidence.keep(&outcome, &report, &test.plan.line(input.as_deref()));
            if let Err(error) = &kept {
                words.push_str(&format!("\ncannot keep what tells of it in {:?}: {error}", test.place));
            }
            (kept.ok(), [stdout, stderr])
        };
        Ok(Self {
            verdict,
            cause: cause.name(),
            words,
            // What it reads of its input it reads from the beginning again.
            never_began: cause.may_pass() && outcome.never_started(),
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

/// A run that says nothing of the command is not shown to the judge.
fn judge(test: &Test<'_>, outcome: &Outcome, stdout: &[u8], stderr: &[u8]) -> (Verdict, String) {
    let cause = &outcome.cause;
    let (verdict, mut words) = match cause.verdict() {
        Verdict::Infrastructure => (Verdict::Infrastructure, cause.to_string()),
        Verdict::Pass | Verdict::Fail => match (test.judge)(cause, stdout, stderr) {
            Ok(()) => return (Verdict::Pass, String::new()),
            Err(words) => (Verdict::Fail, words),
        },
    };
    for hit in outcome.hits.iter().filter(|hit| !(hit.ended && cause.needs_words())) {
        words.push_str(&format!("\n{}", hit.words));
    }
    (verdict, words)
}
