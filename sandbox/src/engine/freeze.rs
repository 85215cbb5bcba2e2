// SPDX-License-Identifier: Apache-2.0
//! Waiting for a machine to freeze itself, whichever engine runs it: it was started without devices, and its guest has
//! nobody to speak to.
//!
//! The machine is that of every run in all that its kernel sees before that. Nothing that a caller chose but the machine's
//! model takes part, and no command ever runs in it.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt as _;
use std::time::{Duration, Instant};

use guest_init::frozen;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::Ending;
use super::process::Process;
use crate::sys::signals::Signals;

/// As long as a run waits for a boot.
const LIMIT: Duration = Duration::from_secs(120);

/// Why there is no template.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// How the machine ended instead.
    #[error("the machine was not frozen: {0}")]
    NotFrozen(String),
    /// Its guest init is not what this program knows.
    #[error("the machine was frozen by another version's guest init; run `make build`")]
    Page,
    /// A signal ended the run.
    #[error("signal {0} ended it")]
    Cancelled(i32),
    /// Watching it, or reading its memory.
    #[error("cannot watch a machine freeze")]
    Watch(#[from] io::Error),
}

/// Waits until the machine has frozen itself, and ends its process: which ranges of its memory its kernel keeps. Of `signals` those
/// that end a run end this, too.
pub(super) fn complete(
    mut process: Process,
    memory: &File,
    signals: Option<&Signals>,
) -> Result<Vec<Range<u64>>, Error> {
    let waited = wait(&mut process, signals, Instant::now() + LIMIT)?;
    // Its processor is halted for good, and now it is gone: nobody writes to this memory any more.
    match (waited, process.end()?) {
        (Wait::Frozen, Ending::Ours) => {}
        (Wait::Cancelled(signal), _) => return Err(Error::Cancelled(signal)),
        (_, Ending::Guest(how) | Ending::Crash(how)) => {
            let said = process.console().last_lines(3).join("; ");
            return Err(Error::NotFrozen(format!("{how} {said}")));
        }
        (_, Ending::Ours) => return Err(Error::NotFrozen(format!("nothing happened for {} s", LIMIT.as_secs()))),
    }
    let mut page = frozen::page(&[]);
    memory.read_exact_at(&mut page, frozen::PAGE)?;
    frozen::kept(&page).ok_or(Error::Page)
}

/// What there was to wait for.
enum Wait {
    Frozen,
    Cancelled(i32),
    Neither,
}

fn wait(process: &mut Process, signals: Option<&Signals>, deadline: Instant) -> io::Result<Wait> {
    while !process.console().frozen() {
        // The console closes a little before its process ends.
        let console = process.console().poll_fd();
        let mut fds: Vec<_> = [Some(process.end_fd()), signals.map(AsFd::as_fd), console]
            .into_iter()
            .flatten()
            .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN))
            .collect();
        let left = deadline.saturating_duration_since(Instant::now());
        match poll(&mut fds, Some(&Timespec::try_from(left).map_err(io::Error::other)?)) {
            Ok(0) => return Ok(Wait::Neither),
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let ended = fds.first().is_some_and(|fd| !fd.revents().is_empty());
        if let Some(signal) = signals.map_or(Ok(None), Signals::ending)? {
            return Ok(Wait::Cancelled(signal));
        }
        process.read_console();
        if ended && !process.console().frozen() {
            return Ok(Wait::Neither);
        }
    }
    Ok(Wait::Frozen)
}
