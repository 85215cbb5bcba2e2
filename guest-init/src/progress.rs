// SPDX-License-Identifier: Apache-2.0
//! What has become of the command: from making its process to its ending, each told once and in order.
//!
//! A machine of states without descriptors. Not for the streams, whose end is a matter of its own ([`crate::drain`]).

use crate::wire::{End, Message, Step, Transfer};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

/// What the first process of the command's namespace tells init.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Report {
    /// The command's process exists; it is not yet the command.
    Forked,
    /// It did not become the command.
    Failed(Step, i32),
    /// This signal has stopped it.
    Stopped(u8),
    /// It has ended, and had transferred so much, if the kernel tells.
    Ended(End, Option<Transfer>),
}

impl Message for Report {
    const MAX: usize = 32;
}

/// What init learns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A report of the namespace's first process.
    Report(Report),
    /// The command's process has replaced its program, or has ended. All reports before it have been delivered.
    GateOpen,
    /// The namespace's first process has ended, by this signal or by itself. Likewise.
    NamespaceEnded(Option<i32>),
}

/// What the host is to be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum News {
    /// The program runs.
    Started,
    /// It could not be run.
    NotStarted(Step, i32),
    /// This signal has stopped it.
    Stopped(u8),
    /// It has ended, and had transferred so much, if that is known.
    Ended(End, Option<Transfer>),
}

/// Where the command is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Progress {
    /// Its process is being made.
    #[default]
    Making,
    /// Its process exists and prepares itself.
    Preparing,
    /// Likewise, and it is stopped by this signal. If it is the command already, that is news.
    Halted(u8),
    /// Its program runs.
    Running,
    /// It has ended, or never ran.
    Over,
}

/// Signals that reboot(2) in a PID namespace kills the first process with: restart, then halt or power off.
const RESET: [i32; 2] = [1, 2];

impl Progress {
    /// Takes an event; `tell` gets the news, at most two.
    pub fn advance(&mut self, event: Event, mut tell: impl FnMut(News)) {
        let (next, news) = match (*self, event) {
            (Self::Making, Event::Report(Report::Forked)) => (Self::Preparing, None),
            (Self::Preparing, Event::GateOpen) => (Self::Running, Some(News::Started)),
            (Self::Preparing | Self::Halted(_), Event::Report(Report::Stopped(signal))) => (Self::Halted(signal), None),
            (Self::Halted(signal), Event::GateOpen) => {
                tell(News::Started);
                (Self::Running, Some(News::Stopped(signal)))
            }
            (Self::Running, Event::Report(Report::Stopped(signal))) => (Self::Running, Some(News::Stopped(signal))),
            (Self::Making | Self::Preparing | Self::Halted(_), Event::Report(Report::Failed(step, errno))) => {
                (Self::Over, Some(News::NotStarted(step, errno)))
            }
            // It was so quick that its ending was read before the gate.
            (Self::Preparing | Self::Halted(_), Event::Report(Report::Ended(end, transfer))) => {
                tell(News::Started);
                (Self::Over, Some(News::Ended(end, transfer)))
            }
            (Self::Running, Event::Report(Report::Ended(end, transfer))) => {
                (Self::Over, Some(News::Ended(end, transfer)))
            }
            (Self::Running, Event::NamespaceEnded(signal)) => {
                let reset = signal.is_some_and(|signal| RESET.contains(&signal));
                (Self::Over, Some(News::Ended(if reset { End::Reset } else { End::Lost }, None)))
            }
            (Self::Making | Self::Preparing | Self::Halted(_), Event::NamespaceEnded(_)) => {
                (Self::Over, Some(News::NotStarted(Step::Fork, Errno::CHILD.raw_os_error())))
            }
            (state, _) => (state, None),
        };
        *self = next;
        if let Some(news) = news {
            tell(news);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire;
    use Event::{GateOpen, NamespaceEnded};

    const FORKED: Event = Event::Report(Report::Forked);
    const EXITED: Event = Event::Report(Report::Ended(End::Exited(3), Some(MUCH)));
    const MUCH: Transfer = Transfer { read: u64::MAX, written: u64::MAX };

    fn told(events: &[Event]) -> Vec<News> {
        let mut progress = Progress::default();
        let mut told = vec![];
        for event in events {
            progress.advance(*event, |news| told.push(news));
        }
        told
    }

    #[test]
    fn a_command_starts_and_ends() {
        let expected = [News::Started, News::Ended(End::Exited(3), Some(MUCH))];
        assert_eq!(told(&[FORKED, GateOpen, EXITED, NamespaceEnded(None)]), expected);
    }

    #[test]
    fn a_quick_command_has_started_before_it_ended() {
        let expected = [News::Started, News::Ended(End::Exited(3), Some(MUCH))];
        assert_eq!(told(&[FORKED, EXITED, GateOpen, NamespaceEnded(None)]), expected);
    }

    #[test]
    fn a_stop_is_told_once_the_command_has_started() {
        let stopped = Event::Report(Report::Stopped(20));
        let expected = [News::Started, News::Stopped(20)];
        assert_eq!(told(&[FORKED, GateOpen, stopped]), expected);
        assert_eq!(told(&[FORKED, stopped, GateOpen]), expected);
        assert_eq!(told(&[FORKED, stopped, EXITED]), [News::Started, News::Ended(End::Exited(3), Some(MUCH))]);
        assert_eq!(
            told(&[FORKED, stopped, Event::Report(Report::Failed(Step::Exec, 2))]),
            [News::NotStarted(Step::Exec, 2)]
        );
        assert_eq!(
            told(&[FORKED, GateOpen, EXITED, stopped]),
            [News::Started, News::Ended(End::Exited(3), Some(MUCH))]
        );
    }

    #[test]
    fn a_failure_is_not_a_start() {
        let failed = Event::Report(Report::Failed(Step::Exec, 2));
        let expected = [News::NotStarted(Step::Exec, 2)];
        assert_eq!(told(&[FORKED, failed, GateOpen, EXITED, NamespaceEnded(None)]), expected);
        // The child may be quicker to fail than its parent to report it.
        assert_eq!(told(&[failed, FORKED, GateOpen, EXITED]), expected);
    }

    #[test]
    fn a_namespace_that_ends_early_took_the_command_with_it() {
        let ended_by = |signal| told(&[FORKED, GateOpen, NamespaceEnded(signal)])[1];
        assert_eq!(ended_by(Some(1)), News::Ended(End::Reset, None));
        assert_eq!(ended_by(Some(2)), News::Ended(End::Reset, None));
        assert_eq!(ended_by(Some(9)), News::Ended(End::Lost, None));
        assert_eq!(ended_by(None), News::Ended(End::Lost, None));
    }

    #[test]
    fn a_namespace_that_never_came_up_started_nothing() {
        let expected = [News::NotStarted(Step::Fork, 10)];
        assert_eq!(told(&[GateOpen, NamespaceEnded(None)]), expected);
    }

    #[test]
    fn reports_fit_their_limit() {
        for report in [
            Report::Forked,
            Report::Failed(Step::MountVolume(u32::MAX), i32::MIN),
            Report::Ended(End::Signaled(255), Some(MUCH)),
        ] {
            let frame = wire::encode(&report).unwrap();
            assert_eq!(wire::decode::<Report>(&frame[wire::HEADER_LEN..]), Ok(report));
        }
    }
}
