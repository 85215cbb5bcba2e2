// SPDX-License-Identifier: Apache-2.0
//! When output is complete, after the command has ended.
//!
//! What a pipe holds is always relayed, however slow the host. But a process that the command left behind may hold the
//! pipe open for ever, so what is left of the namespace is killed a moment after the command's end; the pipes then come
//! to their ends by themselves. Pure: times go in, actions come out.

/// How long processes that the command left behind may go on, from its end. Long enough for `bash -c 'exec > >(tee log)'`
/// to say its last words in an emulated guest, where a process takes tens of milliseconds to start.
pub const GRACE_MS: u64 = 1000;

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Wait for events, at most so many milliseconds.
    Wait(Option<u64>),
    /// Kill the namespace, then ask again.
    Kill,
}

/// The time since the command's end.
#[derive(Debug, Clone, Copy, Default)]
pub struct Drain {
    deadline: Option<u64>,
    killed: bool,
}

impl Drain {
    /// The command has ended. Only the first call counts.
    pub fn begin(&mut self, now: u64) {
        self.deadline.get_or_insert(now + GRACE_MS);
    }

    /// What to do, given whether an output stream is not complete.
    pub fn next(&mut self, now: u64, incomplete: bool) -> Action {
        match self.deadline {
            Some(deadline) if incomplete && !self.killed && now < deadline => Action::Wait(Some(deadline - now)),
            Some(_) if incomplete && !self.killed => {
                self.killed = true;
                Action::Kill
            }
            _ => Action::Wait(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_hurried_before_the_end() {
        let mut drain = Drain::default();
        assert_eq!(drain.next(1_000_000, true), Action::Wait(None));
        assert_eq!(drain.next(1_000_000, false), Action::Wait(None), "a command may close its streams and go on");
    }

    #[test]
    fn complete_output_leaves_nothing_to_do() {
        let mut drain = Drain::default();
        drain.begin(5);
        assert_eq!(drain.next(5, false), Action::Wait(None));
    }

    #[test]
    fn what_holds_a_pipe_is_killed_once_and_then_awaited() {
        let mut drain = Drain::default();
        drain.begin(1000);
        drain.begin(1100);
        assert_eq!(drain.next(1050, true), Action::Wait(Some(GRACE_MS - 50)));
        assert_eq!(drain.next(1000 + GRACE_MS, true), Action::Kill);
        assert_eq!(drain.next(1000 + GRACE_MS, true), Action::Wait(None), "a slow reader has all the time it needs");
        assert_eq!(drain.next(99_999, false), Action::Wait(None));
    }
}
