// SPDX-License-Identifier: Apache-2.0
//! Signals as something to poll (signalfd(2)).
#![expect(unsafe_code, reason = "rustix offers neither signal masks nor signalfd")]

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};

/// Signals that end a run: hang-up, interrupt, termination.
pub(crate) const ENDING: [i32; 3] = [libc::SIGHUP, libc::SIGINT, libc::SIGTERM];

/// Signals that are only handed on to the command.
const FORWARDED: [i32; 3] = [libc::SIGQUIT, libc::SIGUSR1, libc::SIGUSR2];

/// The signals this process is sent, taken from a descriptor instead of a handler.
#[derive(Debug)]
pub struct Signals(OwnedFd);

/// Whether this process ignores a signal, as it may have been told by its caller.
fn ignored(signal: i32) -> bool {
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: the call only writes the present action; all zero bits are a valid one should it fail.
    unsafe {
        libc::sigaction(signal, std::ptr::null(), action.as_mut_ptr());
        action.assume_init().sa_sigaction == libc::SIG_IGN
    }
}

/// Undoes what a caller may have left that would break us: ignored children cannot be waited for; and makes a limit of
/// file sizes an error instead of our death, for guest memory counts as a file.
fn settle() {
    // SAFETY: both calls set a disposition that has no handler.
    unsafe {
        libc::signal(libc::SIGCHLD, libc::SIG_DFL);
        libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
    }
}

impl Signals {
    /// Blocks the signals for this thread and those it will start, but for those that our caller has us ignore, and
    /// opens the descriptor. To be called before any
    /// thread is started.
    ///
    /// # Errors
    /// Those of signalfd(2).
    pub fn block() -> io::Result<Self> {
        settle();
        let mut set = MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: sigemptyset initialises the set before anything reads it; the signal numbers are constants of the
        // platform; pthread_sigmask and signalfd only read the set.
        let fd = unsafe {
            libc::sigemptyset(set.as_mut_ptr());
            for signal in ENDING.into_iter().chain(FORWARDED) {
                // What our caller has us ignore (nohup(1), a shell's background job) is none of our business.
                if !ignored(signal) {
                    libc::sigaddset(set.as_mut_ptr(), signal);
                }
            }
            let result = libc::pthread_sigmask(libc::SIG_BLOCK, set.as_ptr(), std::ptr::null_mut());
            if result != 0 {
                return Err(io::Error::from_raw_os_error(result));
            }
            libc::signalfd(-1, set.as_ptr(), libc::SFD_CLOEXEC | libc::SFD_NONBLOCK)
        };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: signalfd just returned it, so it is open and nobody else's.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// The next pending signal, if any.
    ///
    /// # Errors
    /// Those of read(2), but for "would block".
    pub fn next(&self) -> io::Result<Option<i32>> {
        let mut info = [0u8; size_of::<libc::signalfd_siginfo>()];
        match rustix::io::read(&self.0, &mut info) {
            // ssi_signo is the structure's first field, 32 bits in native order.
            Ok(_) => Ok(info.first_chunk().map(|number| i32::from_ne_bytes(*number))),
            Err(rustix::io::Errno::AGAIN) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
