// SPDX-License-Identifier: Apache-2.0
//! Another attempt, for a run of which it is certain that its command never started.
//!
//! Not for a command that failed, nor for one of which nothing is known: what it did, another attempt would do again. Nothing
//! of its input is taken before it has started, for what was taken for a machine that is gone cannot be given to the next.

use std::io;

use super::Outcome;
use crate::outcome::Cause;
use crate::stages::Stages;

impl Outcome {
    /// Whether the command provably never started: the guest was not told of it, or its init has said that nothing of it
    /// has run.
    #[must_use]
    pub fn never_started(&self) -> bool {
        !self.started && !self.sent
    }

    /// Whether the run may be repeated: the ending is none of the command's, which never started, and its input is whole.
    #[must_use]
    pub fn may_be_repeated(&self) -> bool {
        self.cause.may_pass() && self.never_started() && self.stdin_bytes == 0
    }
}

/// Runs a command, and again if that may be, but not more than `retries` times. `failed` is told of each attempt that is not the
/// last.
pub(super) fn persist(
    retries: u32,
    run: impl Fn() -> io::Result<Outcome>,
    mut failed: impl FnMut(&Outcome),
) -> Outcome {
    let mut attempt = 1;
    loop {
        let mut outcome = run().unwrap_or_else(|error| {
            let cause = Cause::SetupError(format!("cannot use the standard streams: {error}"));
            Outcome::refused(cause, Stages::begin())
        });
        outcome.attempt = attempt;
        if attempt > retries || !outcome.may_be_repeated() {
            return outcome;
        }
        failed(&outcome);
        attempt += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::{Verdict, Victim};

    /// Every way a run can end, and whether another attempt could end otherwise.
    fn causes() -> Vec<(Cause, bool)> {
        let text = String::new;
        vec![
            (Cause::Exited(0), false),
            (Cause::Exited(1), false),
            (Cause::Exited(125), false),
            (Cause::Signaled(9), false),
            (Cause::Timeout, false),
            (Cause::Oom { victim: Victim::Command(None), peak: 0 }, false),
            (Cause::Oom { victim: Victim::Init, peak: 0 }, false),
            (Cause::NotExecutable(text()), false),
            (Cause::NotFound(text()), false),
            (Cause::GuestPanic, true),
            (Cause::GuestReset(text()), true),
            (Cause::LostContact(text()), true),
            (Cause::VmmCrash(text()), true),
            (Cause::BootTimeout, true),
            (Cause::OutputLimit, false),
            (Cause::SetupError(text()), true),
            (Cause::UsageError(text()), false),
            (Cause::Cancelled(15), false),
        ]
    }

    #[test]
    fn only_what_provably_never_started_is_repeated() {
        for (cause, may_pass) in causes() {
            // Where a run can end: before the guest was told, while nobody knows, after its start, or when init has refused.
            for (sent, started) in [(false, false), (true, false), (true, true)] {
                for stdin_bytes in [0, 1] {
                    let refused = Outcome::refused(cause.clone(), Stages::begin());
                    let outcome = Outcome { sent, started, stdin_bytes, ..refused };
                    let may = may_pass && !sent && !started && stdin_bytes == 0;
                    assert_eq!(outcome.may_be_repeated(), may, "{outcome:?}");
                    let is_verdict = outcome.cause.verdict() != Verdict::Infrastructure;
                    assert!(!(is_verdict && outcome.may_be_repeated()), "a verdict is repeated: {outcome:?}");
                }
            }
        }
    }

    #[test]
    fn attempts_are_counted_and_come_to_an_end() {
        let (runs, mut told) = (std::cell::Cell::new(0), Vec::new());
        let run = || {
            runs.set(runs.get() + 1);
            Ok(Outcome::refused(Cause::BootTimeout, Stages::begin()))
        };
        let outcome = persist(2, run, |outcome| told.push(outcome.attempt));
        assert_eq!((outcome.attempt, runs.get(), told), (3, 3, vec![1, 2]));
        assert_eq!(outcome.cause, Cause::BootTimeout);
        let outcome = persist(2, || Err(io::Error::other("none")), |_| ());
        assert!(matches!(outcome.cause, Cause::SetupError(_)), "{outcome:?}");
        let lost = || Ok(Outcome { sent: true, ..Outcome::refused(Cause::GuestPanic, Stages::begin()) });
        assert_eq!(persist(2, lost, |_| ()).attempt, 1, "nobody knows what it did");
    }
}
