// SPDX-License-Identifier: Apache-2.0
//! Signals as something to poll (signalfd(2)).
#![expect(unsafe_code, reason = "a handler could do anything; what is set here is none")]

use nix::sys::signal::{SigSet, Signal, raise};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::process::{DumpableBehavior, Resource, Rlimit};
use std::collections::VecDeque;
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

/// Signals that end a run: hang-up, interrupt, termination.
pub(crate) const ENDING: [i32; 3] = [libc::SIGHUP, libc::SIGINT, libc::SIGTERM];

/// The numbers of some signals.
pub(crate) mod signal {
    pub(crate) const QUIT: i32 = libc::SIGQUIT;
    pub(crate) const TERM: i32 = libc::SIGTERM;
    pub(crate) const WINCH: i32 = libc::SIGWINCH;
    pub(crate) const TSTP: i32 = libc::SIGTSTP;
    pub(crate) const CONT: i32 = libc::SIGCONT;
}

/// Signals that are handed on to the command.
const FORWARDED: [i32; 6] = [signal::QUIT, libc::SIGUSR1, libc::SIGUSR2, signal::WINCH, signal::TSTP, signal::CONT];

/// A signal that has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caught {
    /// Linux's number.
    pub signal: i32,
    /// Whether a key of a terminal sent it, to every process in the foreground, and not some process to us.
    pub typed: bool,
}

/// Signals for a command, taken from a descriptor instead of a handler: those that this process is sent, or those that
/// one of its threads sends.
#[derive(Debug)]
pub struct Signals(Source);

#[derive(Debug)]
enum Source {
    Process {
        descriptor: SignalFd,
        /// What came for a command that was not there yet.
        kept: Mutex<VecDeque<Caught>>,
    },
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

/// Sets what becomes of a signal without anybody's doing.
fn dispose(signal: i32, disposition: libc::sighandler_t) {
    // SAFETY: what is set here is no handler, so no code of ours runs at any moment it does not expect.
    unsafe { libc::signal(signal, disposition) };
}

/// Makes a limit of file sizes an error for this process and what it executes, and not its end: guest memory counts as a file.
pub(crate) fn ignore_file_limit() {
    dispose(libc::SIGXFSZ, libc::SIG_IGN);
}

/// Takes that back, for a program that takes this one's place.
pub(crate) fn heed_file_limit() {
    dispose(libc::SIGXFSZ, libc::SIG_DFL);
}

/// The same in a process that is not ours to set up: for this thread and those it will start.
pub(crate) fn outlive_file_limit() -> io::Result<()> {
    Ok(SigSet::from(Signal::SIGXFSZ).thread_block()?)
}

/// Has something done first if a signal comes that ends us, but for those that our caller has us ignore (as [`Signals::block`] takes
/// them). For the thread that starts all others, which inherit that they are not the one to take it.
pub(crate) fn at_end(ignored: u64, act: impl FnOnce(i32) + Send + 'static) -> io::Result<()> {
    let mut set = SigSet::empty();
    for signal in ENDING.into_iter().filter(|signal| ignored >> (signal - 1) & 1 == 0) {
        set.add(Signal::try_from(signal)?);
    }
    set.thread_block()?;
    // It waits as long as there is a process: joined by nobody.
    thread::Builder::new().name("end".to_owned()).spawn(move || {
        if let Ok(signal) = set.wait() {
            act(signal as i32);
            die_of(signal as i32);
        }
    })?;
    Ok(())
}

impl Signals {
    /// Blocks the signals for this thread and those it will start, but for those that our caller has us ignore (for
    /// number n the bit n - 1), and opens the descriptor. To be called before any thread is started.
    ///
    /// Undoes as well what a caller may have left that would break us: ignored children cannot be waited for.
    ///
    /// # Errors
    /// Those of signalfd(2).
    pub fn block(ignored: u64) -> io::Result<Self> {
        dispose(libc::SIGCHLD, libc::SIG_DFL);
        let mut set = SigSet::empty();
        for signal in ENDING.into_iter().chain(FORWARDED) {
            // What our caller has us ignore (nohup(1), a shell's background job) is none of our business.
            if ignored >> (signal - 1) & 1 == 0 {
                set.add(Signal::try_from(signal)?);
            }
        }
        set.thread_block()?;
        let descriptor = SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        Ok(Self(Source::Process { descriptor, kept: Mutex::default() }))
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

    /// Whether they are meant for us, too: our own caller's word for "that is enough", "stop" or "go on", and not only for the
    /// command.
    pub(crate) fn are_ours(&self) -> bool {
        matches!(self.0, Source::Process { .. })
    }

    /// The next pending signal, if any; those first that [`Signals::ending`] has kept.
    ///
    /// # Errors
    /// Those of read(2), but for "would block".
    pub fn next(&self) -> io::Result<Option<Caught>> {
        let kept = self.kept().and_then(|mut kept| kept.pop_front());
        if kept.is_some() { Ok(kept) } else { self.pending() }
    }

    fn kept(&self) -> Option<MutexGuard<'_, VecDeque<Caught>>> {
        match &self.0 {
            Source::Process { kept, .. } => Some(kept.lock().unwrap_or_else(PoisonError::into_inner)),
            Source::Thread { .. } => None,
        }
    }

    fn pending(&self) -> io::Result<Option<Caught>> {
        let mut byte = [0];
        match &self.0 {
            Source::Process { descriptor, .. } => {
                let caught = descriptor.read_signal()?;
                Ok(caught.map(|info| Caught { signal: info.ssi_signo as i32, typed: info.ssi_code == libc::SI_KERNEL }))
            }
            Source::Thread { signals, .. } => match { signals }.read(&mut byte) {
                Ok(count) => Ok((count > 0).then_some(Caught { signal: i32::from(byte[0]), typed: false })),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
                Err(error) => Err(error),
            },
        }
    }

    /// The next signal that ends a run whose command does not run yet. Of the others one stops us, and the rest are kept.
    ///
    /// # Errors
    /// Those of [`Signals::next`].
    pub(crate) fn ending(&self) -> io::Result<Option<i32>> {
        while let Some(caught) = self.pending()? {
            match caught.signal {
                signal if signal == signal::QUIT || ENDING.contains(&signal) => return Ok(Some(signal)),
                signal::TSTP => self.stop(false)?,
                _ => drop(self.kept().map(|mut kept| kept.push_back(caught))),
            }
        }
        Ok(None)
    }

    /// Stops this process by SIGTSTP, or its whole process group, and returns when it is continued; or at once where nobody
    /// could continue it, or it has been told to ignore the signal.
    pub(crate) fn stop(&self, group: bool) -> io::Result<()> {
        let stop = SigSet::from(Signal::SIGTSTP);
        stop.thread_unblock()?;
        let sent = if group {
            rustix::process::kill_current_process_group(rustix::process::Signal::TSTP)
        } else {
            raise(Signal::SIGTSTP).map_err(|error| rustix::io::Errno::from_raw_os_error(error as i32))
        };
        stop.thread_block()?;
        Ok(sent?)
    }
}

/// Ends this process by the signal that has ended its command, so that its caller is told the same; without a core file, since
/// there is nothing of the command in it. Returns where that signal has no name or ends nobody.
pub(crate) fn die_of(number: i32) {
    let Ok(signal) = Signal::try_from(number) else { return };
    // A core file goes to a file or to a program; each is kept from it in another way, and there is no harm in one that fails.
    let most = rustix::process::getrlimit(Resource::Core).maximum;
    let _no_file = rustix::process::setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: most });
    let _no_program = rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable);
    dispose(number, libc::SIG_DFL);
    let _it_ends_us = SigSet::from(signal).thread_unblock().and_then(|()| raise(signal));
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.0 {
            Source::Process { descriptor, .. } => descriptor.as_fd(),
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
            [15, 9].map(|signal| Some(Caught { signal, typed: false })).into_iter().chain([None]).collect::<Vec<_>>()[..]
        );
        assert!(!signals.are_ours());
        drop(sender);
        assert_eq!(signals.next().unwrap(), None);
        let (signals, sender) = Signals::of_threads().unwrap();
        drop(signals);
        sender.send(9);
    }
}
