// SPDX-License-Identifier: Apache-2.0
//! What a command stands on: a machine and its file server, of its own or with others.
//!
//! Not for the command: [`super::watch`] asks here what has become of the machine, and what that means.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

use super::Error;
use crate::engine::{self, Ending, Machine};
use crate::fs;
use crate::outcome::{Cause, Victim};
use crate::sys::eventfd;

/// A machine, as the watch of a command sees it.
pub(super) enum Ground<'a> {
    /// The command's own.
    Own {
        /// It.
        machine: &'a mut Machine,
        /// Its file server.
        files: &'a mut fs::Worker,
    },
    /// One that runs several commands, watched by somebody else.
    Shared(&'a Fate),
}

impl Ground<'_> {
    /// Readable when the machine has ended.
    pub(super) fn end_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Own { machine, .. } => machine.end_fd(),
            Self::Shared(fate) => fate.ended.as_fd(),
        }
    }

    /// Readable when the file server has ended.
    pub(super) fn files_fd(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Own { files, .. } => Some(files.as_fd()),
            Self::Shared(_) => None,
        }
    }

    /// Readable when the console has something to say.
    pub(super) fn console_fd(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Own { machine, .. } => machine.console().poll_fd(),
            Self::Shared(_) => None,
        }
    }

    pub(super) fn read_console(&mut self) {
        if let Self::Own { machine, .. } = self {
            machine.read_console();
        }
    }

    /// Whether the machine's kernel has said that it stops.
    pub(super) fn stopped(&self) -> bool {
        match self {
            Self::Own { machine, .. } => machine.console().stopped(),
            Self::Shared(_) => false,
        }
    }

    /// What it means that the file server has ended, which it does by itself when its connection to the machine closes.
    pub(super) fn files_ended(&mut self) -> Result<Cause, Error> {
        let how = match self {
            Self::Own { files, .. } => files.try_wait()?.map_or_else(String::new, |status| status.to_string()),
            Self::Shared(_) => String::new(),
        };
        Ok(Cause::VmmCrash(format!("the file server ended: {how}")))
    }

    /// What it means that the machine has ended, or stops.
    pub(super) fn cause(&mut self) -> Result<Cause, Error> {
        match self {
            Self::Own { machine, .. } => ended(machine),
            Self::Shared(fate) => Ok(fate.cause()),
        }
    }
}

/// Ends the machine if it has not ended, and says what its end means.
fn ended(machine: &mut Machine) -> Result<Cause, Error> {
    let ending = machine.end()?;
    if matches!((&ending, &machine), (Ending::Crash(_), Machine::Kvm(_))) {
        engine::distrust_kvm();
    }
    let console = machine.console();
    Ok(meaning(ending, console.out_of_memory(), console.panicked()))
}

/// What a machine's end means, given what its kernel has said last.
pub(super) fn meaning(ending: Ending, out_of_memory: bool, panicked: bool) -> Cause {
    match ending {
        Ending::Crash(how) => Cause::VmmCrash(how),
        _ if out_of_memory => Cause::Oom { victim: Victim::Init, peak: 0 },
        _ if panicked => Cause::GuestPanic,
        Ending::Guest(how) => Cause::GuestReset(how),
        // We ended it because its kernel said that it stops.
        Ending::Ours => Cause::GuestReset("its kernel stopped".to_owned()),
    }
}

/// What becomes of a machine with several commands: told once, and to all of them.
#[derive(Debug)]
pub(crate) struct Fate {
    ended: OwnedFd,
    cause: Mutex<Option<Cause>>,
}

impl Fate {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self { ended: eventfd::create()?, cause: Mutex::new(None) })
    }

    /// Tells that the machine has ended. Only the first call counts.
    pub(super) fn seal(&self, cause: Cause) {
        self.cause.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(cause);
        // Its counter cannot be full. Nobody reads it, so it stays readable.
        let _ = eventfd::signal(&self.ended);
    }

    /// Whether it has, and why.
    pub(crate) fn sealed(&self) -> Option<Cause> {
        self.cause.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn cause(&self) -> Cause {
        self.sealed().unwrap_or_else(|| Cause::LostContact("the machine's end was never told".to_owned()))
    }
}
