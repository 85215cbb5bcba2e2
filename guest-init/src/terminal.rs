// SPDX-License-Identifier: Apache-2.0
//! The command's terminal (pty(7), ioctl_tty(2), termios(3)).
//!
//! It is the guest's own: of the host's it has the size and the settings, nothing else. Not for what goes through it
//! ([`crate::relay`]).
//!
//! The session that it controls is led by the first process of the command's namespace, as a login shell leads the session of what
//! it starts: the command is a process group in it, the one in the foreground. Its stop is then somebody's to see, and not
//! ignored, as the kernel does with a stop for which there is no one to continue it.

use crate::{sys, wire};
use rustix::{
    fd::{AsFd, OwnedFd},
    fs::{Gid, OFlags, Uid, fchown, fcntl_setfl},
    io::{Result, fcntl_dupfd_cloexec},
    process::{getpid, ioctl_tiocsctty, setpgid, setsid},
    pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt},
    termios::{Winsize, tcsetpgrp, tcsetwinsize},
};

/// A terminal, seen from init.
#[derive(Debug)]
pub struct Terminal {
    /// What is written here is typed, what is read here was printed.
    master: OwnedFd,
    /// Held open while the command runs. Without it, a command that closes its streams and opens `/dev/tty` again would
    /// in between have ended its output.
    slave: Option<OwnedFd>,
}

impl Terminal {
    /// Makes one that belongs to this user.
    ///
    /// # Errors
    /// Whichever call failed.
    pub fn open(wish: &wire::Terminal, uid: u32) -> Result<Self> {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = openpt(flags)?;
        unlockpt(&master)?;
        let slave = ioctl_tiocgptpeer(&master, flags)?;
        fchown(&slave, Some(Uid::from_raw_unchecked(uid)), None::<Gid>)?;
        fcntl_setfl(&master, OFlags::NONBLOCK)?;
        if let Some(modes) = wish.modes.first_chunk() {
            sys::set_modes(&slave, modes)?;
        }
        let terminal = Self { master, slave: Some(slave) };
        terminal.resize(wish.size)?;
        Ok(terminal)
    }

    /// Another descriptor of the end that types and reads.
    ///
    /// # Errors
    /// If there are too many.
    pub fn keyboard(&self) -> Result<OwnedFd> {
        fcntl_dupfd_cloexec(&self.master, 0)
    }

    /// Another descriptor of the command's end.
    ///
    /// # Errors
    /// If there are too many.
    pub fn stream(&self) -> Result<OwnedFd> {
        self.slave.as_ref().map_or(Err(rustix::io::Errno::IO), |slave| fcntl_dupfd_cloexec(slave, 0))
    }

    /// Gives it another size, of which the kernel tells the foreground by SIGWINCH.
    ///
    /// # Errors
    /// Those of the ioctl.
    pub fn resize(&self, size: wire::Size) -> Result<()> {
        let wire::Size { rows, columns, width, height } = size;
        tcsetwinsize(&self.master, Winsize { ws_row: rows, ws_col: columns, ws_xpixel: width, ws_ypixel: height })
    }

    /// The command has ended: when nobody else has it open either, its output is complete.
    pub fn release(&mut self) {
        self.slave = None;
    }
}

/// Makes this process the leader of a session, which the terminal controls if there is one.
///
/// # Errors
/// Those of setsid(2) and the ioctl.
pub fn lead_session(terminal: Option<impl AsFd>) -> Result<()> {
    setsid()?;
    terminal.map_or(Ok(()), ioctl_tiocsctty)
}

/// Puts this process into a group of its own, in the foreground of the terminal if there is one. Signals must be blocked: it is
/// in the background until then, and would be stopped for touching the terminal.
///
/// # Errors
/// Those of setpgid(2) and the ioctl.
pub fn lead_group(terminal: Option<impl AsFd>) -> Result<()> {
    setpgid(None, None)?;
    terminal.map_or(Ok(()), |terminal| tcsetpgrp(terminal, getpid()))
}

/// Sends a signal to the command, or to its process group.
pub fn signal(command: &OwnedFd, signal: i32, group: bool) {
    // Fails if the command has just ended, if there is no such signal, or if the kernel is too old to know groups.
    if !group || sys::send_signal(command, signal, true).is_err() {
        _ = sys::send_signal(command, signal, false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Modes, Size};
    use rustix::{
        io::{Errno, read, write},
        process::getuid,
        termios::{InputModes, LocalModes, SpecialCodeIndex, tcgetattr, tcgetwinsize},
    };
    use serde_bytes::ByteBuf;

    const SIZE: Size = Size { rows: 50, columns: 132, width: 7, height: 8 };

    fn open(modes: Option<Modes>) -> Terminal {
        let modes = modes.map_or_else(ByteBuf::new, |modes| ByteBuf::from(modes.termios()));
        Terminal::open(&wire::Terminal { size: SIZE, modes, error: true }, getuid().as_raw()).unwrap()
    }

    #[test]
    fn it_has_the_size_it_was_asked_for_and_then_another() {
        let terminal = open(None);
        let size = || {
            let size = tcgetwinsize(terminal.stream().unwrap()).unwrap();
            Size { rows: size.ws_row, columns: size.ws_col, width: size.ws_xpixel, height: size.ws_ypixel }
        };
        assert_eq!(size(), SIZE);
        terminal.resize(Size { rows: 10, ..SIZE }).unwrap();
        assert_eq!(size(), Size { rows: 10, ..SIZE });
    }

    #[test]
    fn it_has_the_settings_it_was_asked_for() {
        let own = tcgetattr(open(None).stream().unwrap()).unwrap();
        let (input, output) = (own.input_modes | InputModes::IUTF8, own.output_modes);
        let local = own.local_modes - LocalModes::ECHO;
        let mut codes = [0; wire::CODES];
        (codes[0], codes[2]) = (7, 8);
        let modes = Modes { input: input.bits(), output: output.bits(), local: local.bits(), codes };
        let other = tcgetattr(open(Some(modes)).stream().unwrap()).unwrap();
        assert_eq!((other.input_modes, other.output_modes, other.local_modes), (input, output, local));
        assert_eq!(other.control_modes, own.control_modes);
        assert_eq!(
            (other.special_codes[SpecialCodeIndex::VINTR], other.special_codes[SpecialCodeIndex::VERASE]),
            (7, 8)
        );
        assert_eq!(other.special_codes[SpecialCodeIndex::VEOL2], 0);
    }

    #[test]
    fn its_output_ends_when_nobody_can_print_any_more() {
        let mut terminal = open(None);
        let (screen, stream) = (terminal.keyboard().unwrap(), terminal.stream().unwrap());
        write(&stream, b"last").unwrap();
        drop(stream);
        let mut bytes = [0; 16];
        assert_eq!(read(&screen, &mut bytes[..]), Ok(4));
        assert_eq!(read(&screen, &mut bytes[..]), Err(Errno::AGAIN), "it may be opened again");
        terminal.release();
        assert_eq!(read(&screen, &mut bytes[..]), Err(Errno::IO));
        assert!(terminal.stream().is_err());
    }
}
