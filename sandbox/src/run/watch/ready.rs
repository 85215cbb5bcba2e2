// SPDX-License-Identifier: Apache-2.0
//! What a turn of the watch waits for, and which of it has something to say: only that is asked, for each question is a
//! system call.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::{Furnished, Watch};
use crate::run::ground::Ground;

impl Watch<'_> {
    /// Waits for anything to happen, or the next deadline.
    pub(super) fn wait(&self, ground: &Ground<'_>) -> io::Result<Ready> {
        let bell = self.relays.bell.as_fd();
        let asked = |fd, events| ask(fd, events, bell);
        // The machine's end comes first: what was said before it is seen with it.
        let fds = [
            asked(Some(ground.end_fd()), PollFlags::IN),
            asked(ground.files_fd().filter(|_| self.files_alive), PollFlags::IN),
            asked(Some(bell), PollFlags::IN),
            asked(self.control_open.then(|| self.session.as_fd()), self.session.interest()),
            asked(self.signals.map(AsFd::as_fd), PollFlags::IN),
            asked(ground.console_fd(), PollFlags::IN),
            asked(self.images_fd(), PollFlags::IN),
        ];
        let [machine, files, bell, control, signals, console, images] = look(fds, self.next_deadline())?;
        Ok(Ready { machine, files, bell, control, signals, console, images })
    }

    fn images_fd(&self) -> Option<BorrowedFd<'_>> {
        match &self.furnished {
            Furnished::Not(_, images) => images.pending(),
            Furnished::Already => None,
        }
    }
}

/// Waits until one of these has something to say, or until then: which of them do; none if a signal came instead.
pub(in crate::run) fn look<const N: usize>(mut fds: [PollFd<'_>; N], until: Option<Instant>) -> io::Result<[bool; N]> {
    let left = until.map(|at| Timespec::try_from(at.saturating_duration_since(Instant::now())));
    let left = left.transpose().map_err(io::Error::other)?;
    match poll(&mut fds, left.as_ref()) {
        Ok(_) => Ok(fds.map(|fd| !fd.revents().is_empty())),
        Err(rustix::io::Errno::INTR) => Ok([false; N]),
        Err(error) => Err(error.into()),
    }
}

/// A descriptor to poll. In the place of one that is not there stands another, asked for nothing.
pub(in crate::run) fn ask<'f>(fd: Option<BorrowedFd<'f>>, events: PollFlags, other: BorrowedFd<'f>) -> PollFd<'f> {
    match fd {
        Some(fd) => PollFd::from_borrowed_fd(fd, events),
        None => PollFd::from_borrowed_fd(other, PollFlags::empty()),
    }
}

/// What there is to look at.
#[derive(Debug, Default)]
pub(super) struct Ready {
    /// The machine's process has ended.
    pub(super) machine: bool,
    /// The file server has ended.
    pub(super) files: bool,
    /// A stream has come to its end.
    pub(super) bell: bool,
    /// The guest says something, or takes more.
    pub(super) control: bool,
    pub(super) signals: bool,
    pub(super) console: bool,
    pub(super) images: bool,
}
