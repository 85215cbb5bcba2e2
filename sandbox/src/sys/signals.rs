// SPDX-License-Identifier: Apache-2.0
//! Signals as something to poll (signalfd(2)).
#![expect(unsafe_code, reason = "a handler could do anything; what is set here is none")]

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::ptr;

/// Signals that end a run: hang-up, interrupt, termination.
pub(crate) const ENDING: [i32; 3] = [libc::SIGHUP, libc::SIGINT, libc::SIGTERM];

/// Signals that are only handed on to the command.
const FORWARDED: [i32; 3] = [libc::SIGQUIT, libc::SIGUSR1, libc::SIGUSR2];

/// Signals for a command, taken from a descriptor instead of a handler: those that this process is sent, or those that
/// one of its threads sends.
#[derive(Debug)]
pub struct Signals(Source);

#[derive(Debug)]
enum Source {
    Process(SignalFd),
    Thread {
        signals: PipeReader,
        /// Or else the end of the last sender would be news for ever.
        _open: PipeWriter,
    },
}

/// Where a thread sends signals from.
#[derive(Debug)]
pub(crate) struct Sender(PipeWriter);

impl Sender {
    /// Sends a signal. That nobody takes it any more is no error, as with a process that has just ended.
    pub(crate) fn send(&self, signal: u8) {
        drop((&self.0).write(&[signal]));
    }
}

/// What becomes of a signal without anybody's doing.
#[derive(Debug, Clone, Copy)]
enum Disposition {
    Default,
    Ignore,
}

/// Whether this process ignored the signal until now, as it may have been told by its caller; and sets what becomes of
/// it from now on, if that is given.
fn ignored(signal: i32, new: Option<Disposition>) -> bool {
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: all zero bits are a valid action, also should the call fail, which reads one of them and writes the other.
    // The new one has no handler, so no code of ours runs at any moment it does not expect.
    unsafe {
        let set = new.map(|new| libc::sigaction {
            sa_sigaction: match new {
                Disposition::Default => libc::SIG_DFL,
                Disposition::Ignore => libc::SIG_IGN,
            },
            ..action.assume_init()
        });
        libc::sigaction(signal, set.as_ref().map_or(ptr::null(), ptr::from_ref), action.as_mut_ptr());
        action.assume_init().sa_sigaction == libc::SIG_IGN
    }
}

impl Signals {
    /// Blocks the signals for this thread and those it will start, but for those that our caller has us ignore, and
    /// opens the descriptor. To be called before any thread is started.
    ///
    /// Undoes as well what a caller may have left that would break us: ignored children cannot be waited for; and makes a
    /// limit of file sizes an error instead of our death, for guest memory counts as a file.
    ///
    /// # Errors
    /// Those of signalfd(2).
    pub fn block() -> io::Result<Self> {
        ignored(libc::SIGCHLD, Some(Disposition::Default));
        ignored(libc::SIGXFSZ, Some(Disposition::Ignore));
        let mut set = SigSet::empty();
        for signal in ENDING.into_iter().chain(FORWARDED) {
            // What our caller has us ignore (nohup(1), a shell's background job) is none of our business.
            if !ignored(signal, None) {
                set.add(Signal::try_from(signal)?);
            }
        }
        set.thread_block()?;
        let signals = SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        Ok(Self(Source::Process(signals)))
    }

    /// Signals that come from threads of this process, and where they are sent from.
    ///
    /// # Errors
    /// Those of pipe(2).
    pub(crate) fn of_threads() -> io::Result<(Self, Sender)> {
        let (signals, sender) = io::pipe()?;
        rustix::io::ioctl_fionbio(&signals, true)?;
        Ok((Self(Source::Thread { signals, _open: sender.try_clone()? }), Sender(sender)))
    }

    /// Whether this signal is meant to end the run, and not only the command: our own caller's word for "that is enough".
    pub(crate) fn ends(&self, signal: i32) -> bool {
        matches!(self.0, Source::Process(_)) && ENDING.contains(&signal)
    }

    /// The next pending signal, if any.
    ///
    /// # Errors
    /// Those of read(2), but for "would block".
    pub fn next(&self) -> io::Result<Option<i32>> {
        let mut byte = [0];
        match &self.0 {
            Source::Process(signals) => Ok(signals.read_signal()?.map(|signal| signal.ssi_signo as i32)),
            Source::Thread { signals, .. } => match { signals }.read(&mut byte) {
                Ok(count) => Ok((count > 0).then_some(i32::from(byte[0]))),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
                Err(error) => Err(error),
            },
        }
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.0 {
            Source::Process(signals) => signals.as_fd(),
            Source::Thread { signals, .. } => signals.as_fd(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_threads_signals_come_in_order_and_end_nothing() {
        let (signals, sender) = Signals::of_threads().unwrap();
        assert_eq!(signals.next().unwrap(), None);
        sender.send(15);
        sender.send(9);
        assert_eq!(
            [signals.next().unwrap(), signals.next().unwrap(), signals.next().unwrap()],
            [Some(15), Some(9), None]
        );
        assert!(!signals.ends(15));
        drop(sender);
        assert_eq!(signals.next().unwrap(), None);
        let (signals, sender) = Signals::of_threads().unwrap();
        drop(signals);
        sender.send(9);
    }
}
