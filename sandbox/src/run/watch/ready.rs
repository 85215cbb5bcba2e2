// SPDX-License-Identifier: Apache-2.0
//! What a turn of the watch waits for, and which of it has something to say: only that is asked, for each question is a
//! system call.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::{Furnished, Watch, World};

impl<W: World> Watch<'_, W> {
    /// Waits for anything to happen, or the next deadline.
    pub(super) fn wait(&mut self) -> io::Result<Ready> {
        let until = self.next_deadline();
        let images = match &self.furnished {
            Furnished::Not(_, images) => images.pending(),
            Furnished::Already => None,
        };
        self.world.wait(&Asked { control: self.control_open, files: self.files_alive, images }, until)
    }
}

/// What is still worth waiting for, besides what always is.
#[derive(Debug)]
pub(in crate::run) struct Asked<'a> {
    /// Whether the control connection is open.
    pub(super) control: bool,
    /// Whether the file server is alive.
    pub(super) files: bool,
    /// The check of the images, while it goes on.
    pub(super) images: Option<BorrowedFd<'a>>,
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
pub(in crate::run) struct Ready {
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
