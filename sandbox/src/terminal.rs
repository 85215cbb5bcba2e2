// SPDX-License-Identifier: Apache-2.0
//! The caller's terminal: raw while the command has its keyboard, as it was before at every other moment (termios(3),
//! credentials(7) on process groups).
//!
//! Not for the terminal that the command gets, which is the guest's own. This one is never passed on; of it the guest learns the
//! size and the settings.
//!
//! A process in the background that reads a terminal is stopped for it. So nothing is read, and nothing is set, while the terminal
//! is in the hands of another process group. Nobody tells when that ends, so it is looked at from time to time.

use std::io::{self, IsTerminal};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use guest_init::wire::{CODES, Modes, Size};
use rustix::process::getpgrp;
use rustix::termios::{OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcgetpgrp, tcgetwinsize, tcsetattr};

/// The size of a command's terminal where the caller has none.
const SIZE: Size = Size { rows: 24, columns: 80, width: 0, height: 0 };

/// Special characters in the order of [`Modes`].
const ORDER: [SpecialCodeIndex; CODES] = [
    SpecialCodeIndex::VINTR,
    SpecialCodeIndex::VQUIT,
    SpecialCodeIndex::VERASE,
    SpecialCodeIndex::VKILL,
    SpecialCodeIndex::VEOF,
    SpecialCodeIndex::VTIME,
    SpecialCodeIndex::VMIN,
    SpecialCodeIndex::VSWTC,
    SpecialCodeIndex::VSTART,
    SpecialCodeIndex::VSTOP,
    SpecialCodeIndex::VSUSP,
    SpecialCodeIndex::VEOL,
    SpecialCodeIndex::VREPRINT,
    SpecialCodeIndex::VDISCARD,
    SpecialCodeIndex::VWERASE,
    SpecialCodeIndex::VLNEXT,
    SpecialCodeIndex::VEOL2,
];

/// Whether the keyboard may be read, or another input that is not to be taken too early.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    open: Mutex<bool>,
    opened: Condvar,
}

impl Gate {
    /// Waits until it is open, however long the caller leaves us in the background.
    pub(crate) fn pass(&self) {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.opened.wait_while(open, |open| !*open));
    }

    pub(crate) fn is_open(&self) -> bool {
        *self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn open(&self) {
        self.set(true);
    }

    fn set(&self, open: bool) {
        *self.open.lock().unwrap_or_else(PoisonError::into_inner) = open;
        self.opened.notify_all();
    }
}

/// The caller's terminal, as far as there is one. Dropping it leaves it as it was.
#[derive(Debug)]
pub(crate) struct Terminal {
    /// Standard input, if that is a terminal.
    keyboard: Option<OwnedFd>,
    /// A standard stream that is a terminal, to ask for its size.
    screen: Option<OwnedFd>,
    /// Whether every key is the command's, to be taken as it is.
    raw: bool,
    /// Its settings before it became raw, while it is.
    before: Option<Termios>,
    gate: Arc<Gate>,
}

impl Terminal {
    /// Looks at the caller's streams, output first. `raw` says that the command has a terminal of its own.
    pub(crate) fn look(stdin: BorrowedFd<'_>, outputs: [BorrowedFd<'_>; 2], raw: bool) -> io::Result<Self> {
        let held = |fd: BorrowedFd<'_>| fd.is_terminal().then(|| fd.try_clone_to_owned()).transpose();
        let [output, error] = outputs;
        let keyboard = held(stdin)?;
        let screen = match held(output)? {
            None if keyboard.is_none() => held(error)?,
            None => keyboard.as_ref().map(OwnedFd::try_clone).transpose()?,
            screen => screen,
        };
        Ok(Self { keyboard, screen, raw, before: None, gate: Arc::default() })
    }

    /// No terminal at all.
    pub(crate) fn none() -> Self {
        Self { keyboard: None, screen: None, raw: false, before: None, gate: Arc::default() }
    }

    /// What whoever reads the keyboard has to pass; none if standard input is something else.
    pub(crate) fn gate(&self) -> Option<Arc<Gate>> {
        self.keyboard.as_ref().map(|_| Arc::clone(&self.gate))
    }

    /// How large it is.
    pub(crate) fn size(&self) -> Size {
        self.screen.as_ref().and_then(|screen| tcgetwinsize(screen).ok()).map_or(SIZE, |size| Size {
            rows: size.ws_row,
            columns: size.ws_col,
            width: size.ws_xpixel,
            height: size.ws_ypixel,
        })
    }

    /// Its settings, as they are for the caller.
    pub(crate) fn modes(&self) -> Option<Modes> {
        let own = match &self.before {
            Some(before) => before.clone(),
            None => tcgetattr(self.keyboard.as_ref().or(self.screen.as_ref())?).ok()?,
        };
        Some(Modes {
            input: own.input_modes.bits(),
            output: own.output_modes.bits(),
            local: own.local_modes.bits(),
            codes: ORDER.map(|index| own.special_codes[index]),
        })
    }

    /// Whether it is in the hands of another process group, and to be taken when that ends.
    pub(crate) fn is_awaited(&self) -> bool {
        self.keyboard.is_some() && !self.gate.is_open()
    }

    /// Whether its keys are the command's just now.
    pub(crate) fn is_taken(&self) -> bool {
        self.before.is_some()
    }

    /// Gives the keyboard to the command, if this process is in the foreground. What it finds is what it leaves later, for
    /// while we were stopped somebody may have changed it; but if it is still as it was made here, what it was before is.
    pub(crate) fn take(&mut self) {
        let Some(keyboard) = &self.keyboard else { return };
        let foreground = is_foreground(keyboard.as_fd());
        if foreground && self.raw {
            // A terminal that cannot be set is one that has just been hung up, of which the input's end tells.
            if let Ok(found) = tcgetattr(keyboard) {
                let mut raw = found.clone();
                raw.make_raw();
                let untouched = self.is_taken() && modes(&found) == modes(&raw);
                if !untouched && tcsetattr(keyboard, OptionalActions::Now, &raw).is_ok() {
                    self.before = Some(found);
                }
            }
        }
        self.gate.set(foreground);
    }

    /// Leaves it as it was. In the background it is another's, who has set it as he likes.
    pub(crate) fn leave(&mut self) {
        self.gate.set(false);
        let Some(keyboard) = &self.keyboard else { return };
        if let Some(before) = self.before.take()
            && is_foreground(keyboard.as_fd())
        {
            // Fails only if it has been hung up: then nobody is left to mind.
            let _hung_up = tcsetattr(keyboard, OptionalActions::Now, &before);
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.leave();
    }
}

/// What tells raw settings from others.
fn modes(settings: &Termios) -> [u32; 3] {
    [settings.input_modes.bits(), settings.output_modes.bits(), settings.local_modes.bits()]
}

/// Whether this process may use the terminal. One that does not control this process asks for no permission.
fn is_foreground(terminal: BorrowedFd<'_>) -> bool {
    !tcgetpgrp(terminal).is_ok_and(|group| group != getpgrp())
}

#[cfg(test)]
mod tests;
