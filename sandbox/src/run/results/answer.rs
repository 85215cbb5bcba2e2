// SPDX-License-Identifier: Apache-2.0
//! What a guest says when it is asked of its files, as a stream that ends: by itself, when the guest keeps us waiting, or by a signal
//! of the caller's. Not for what it says.

use std::cell::Cell;
use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::sys::signals::Signals;

/// How long the guest may be silent.
pub(super) const SILENCE: Duration = Duration::from_secs(60);

/// How long it may keep us waiting in all for what the caller wants: an emulated one tells of the most that is taken in half of
/// that. Else one byte a minute would do to hold a run for ever.
pub(super) const PATIENCE: Duration = Duration::from_secs(900);

/// An answer under way.
pub(super) struct Answer<'a> {
    stream: UnixStream,
    signals: Option<&'a Signals>,
    /// The signal that has ended it.
    ended_by: &'a Cell<Option<i32>>,
    patience: Duration,
}

impl<'a> Answer<'a> {
    pub(super) fn new(
        stream: UnixStream,
        signals: Option<&'a Signals>,
        ended_by: &'a Cell<Option<i32>>,
        patience: Duration,
    ) -> Self {
        Self { stream, signals, ended_by, patience }
    }

    /// Waits for more of it. Time that the caller takes for what it has read does not count.
    fn wait(&mut self) -> io::Result<()> {
        loop {
            let mut fds = vec![PollFd::new(&self.stream, PollFlags::IN)];
            fds.extend(self.signals.map(|signals| PollFd::new(signals, PollFlags::IN)));
            let timeout = Timespec::try_from(self.patience.min(SILENCE)).map_err(io::Error::other)?;
            let begun = Instant::now();
            let ready = poll(&mut fds, Some(&timeout));
            let [told, called] = [0, 1].map(|at| fds.get(at).is_some_and(|fd| !fd.revents().is_empty()));
            self.patience = self.patience.saturating_sub(begun.elapsed());
            match ready {
                Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            if called && let Some(signal) = self.signals.map_or(Ok(None), Signals::ending)? {
                self.ended_by.set(Some(signal));
                return Err(io::Error::other(format!("signal {signal} ended it")));
            }
            if told {
                return Ok(());
            }
        }
    }
}

impl Read for Answer<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.wait()?;
        self.stream.read(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn it_is_what_is_told_to_its_end() {
        let (mut guest, host) = UnixStream::pair().unwrap();
        guest.write_all(b"told").unwrap();
        drop(guest);
        let (ended_by, mut text) = (Cell::new(None), String::new());
        Answer::new(host, None, &ended_by, PATIENCE).read_to_string(&mut text).unwrap();
        assert_eq!((text.as_str(), ended_by.get()), ("told", None));
    }

    #[test]
    fn a_guest_that_dribbles_runs_out_of_patience() {
        let (mut guest, host) = UnixStream::pair().unwrap();
        let ended_by = Cell::new(None);
        let mut answer = Answer::new(host, None, &ended_by, Duration::from_millis(50));
        let begun = Instant::now();
        let error = loop {
            guest.write_all(b"x").unwrap();
            // One is there at once, for the next it waits.
            if let Err(error) = answer.read(&mut [0]).and_then(|_| answer.read(&mut [0])) {
                break error;
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(begun.elapsed() < SILENCE);
    }

    #[test]
    fn a_signal_ends_it() {
        let (_guest, host) = UnixStream::pair().unwrap();
        let (signals, sender) = Signals::of_threads().unwrap();
        let ended_by = Cell::new(None);
        sender.send(15);
        assert!(Answer::new(host, Some(&signals), &ended_by, PATIENCE).read(&mut [0]).is_err());
        assert_eq!(ended_by.get(), Some(15));
    }
}
