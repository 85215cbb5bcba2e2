// SPDX-License-Identifier: Apache-2.0
//! The guest's serial console: its last lines, and the few the kernel says when it is about to stop.
//!
//! The guest writes here as much as it likes, so only the end is kept; and whoever is root in the guest can print any
//! line, so nothing read here is ever taken for success.

mod killed;

use guest_init::frozen::ANNOUNCEMENT;
use std::collections::VecDeque;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use crate::outcome::Killed;

/// How much of the console is kept, in bytes: a panic's trace and what led to it.
const KEPT: usize = 64 << 10;

/// How much is read at one call, so that a flood cannot keep us from anything else.
const BATCH: usize = 16 << 10;

/// What the kernel prints when it can go no further (kernel/panic.c, kernel/reboot.c).
const PANIC: &[u8] = b"Kernel panic - not syncing";
const DEADLOCK: &[u8] = b"System is deadlocked on memory";
const STOPS: [&[u8]; 3] = [b"reboot: Power down", b"reboot: System halted", b"reboot: Restarting system"];

/// The console's reading end and its last lines.
#[derive(Debug)]
pub struct Console {
    stream: UnixStream,
    tail: VecDeque<u8>,
    line: Vec<u8>,
    panicked: bool,
    out_of_memory: bool,
    stopped: bool,
    frozen: bool,
    open: bool,
    killed: Vec<Killed>,
}

impl Console {
    /// Reads from this stream, whose other end is the machine's serial port.
    ///
    /// # Errors
    /// If the stream cannot be made non-blocking.
    pub fn new(stream: UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self {
            stream,
            tail: VecDeque::new(),
            line: Vec::new(),
            panicked: false,
            out_of_memory: false,
            stopped: false,
            frozen: false,
            open: true,
            killed: Vec::new(),
        })
    }

    /// Takes what has arrived.
    pub fn read(&mut self) {
        let mut buffer = [0; BATCH];
        match self.stream.read(&mut buffer) {
            Ok(0) => self.open = false,
            Ok(count) => self.take(&buffer[..count]),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Err(_) => self.open = false,
        }
    }

    /// Takes everything that is left, at most what is kept. For after the machine has ended.
    pub fn drain(&mut self) {
        for _ in 0..KEPT / BATCH {
            if self.open {
                self.read();
            }
        }
    }

    /// The descriptor to poll while more can come.
    pub fn poll_fd(&self) -> Option<BorrowedFd<'_>> {
        self.open.then(|| self.stream.as_fd())
    }

    /// Whether the kernel said that it panicked.
    #[must_use]
    pub fn panicked(&self) -> bool {
        self.panicked
    }

    /// Whether the kernel said that it panicked because no process was left to kill for its memory.
    #[must_use]
    pub fn out_of_memory(&self) -> bool {
        self.out_of_memory
    }

    /// Whether the kernel said that it stops. Without ACPI a power-off ends in a halted CPU, of which no machine
    /// tells, so this line is how we learn of it.
    #[must_use]
    pub fn stopped(&self) -> bool {
        self.stopped
    }

    /// Whom the kernel says it has killed for want of memory; the last few.
    #[must_use]
    pub fn killed(&self) -> &[Killed] {
        &self.killed
    }

    /// Whether the guest said that it is frozen. For a machine that was started for that, and runs no command.
    #[must_use]
    pub fn frozen(&self) -> bool {
        self.frozen
    }

    /// The last `count` lines, made fit for a terminal: anything but printable text is replaced.
    #[must_use]
    pub fn last_lines(&self, count: usize) -> Vec<String> {
        let bytes: Vec<u8> = self.tail.iter().copied().collect();
        let lines = legible(&bytes);
        lines[lines.len().saturating_sub(count)..].to_vec()
    }

    fn take(&mut self, bytes: &[u8]) {
        self.tail.extend(bytes);
        let excess = self.tail.len().saturating_sub(KEPT);
        self.tail.drain(..excess);
        for byte in bytes {
            if *byte == b'\n' {
                self.judge();
                killed::note(&self.line, &mut self.killed);
                self.line.clear();
            } else if self.line.len() < 256 {
                self.line.push(*byte);
            }
        }
        self.judge();
    }

    fn judge(&mut self) {
        let says = |what: &[u8]| self.line.windows(what.len()).any(|part| part == what);
        self.panicked |= says(PANIC);
        self.out_of_memory |= says(DEADLOCK);
        self.stopped |= STOPS.iter().any(|what| says(what));
        self.frozen |= says(ANNOUNCEMENT.as_bytes());
    }
}

/// The lines of what a guest has written, made fit for a terminal: anything but printable text is replaced.
pub(crate) fn legible(bytes: &[u8]) -> Vec<String> {
    let printable = |letter: char| if letter.is_control() && letter != '\t' { '\u{fffd}' } else { letter };
    let text = String::from_utf8_lossy(bytes);
    let lines = text.lines().map(|line| line.trim_end().chars().map(printable).collect());
    lines.filter(|line: &String| !line.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn console_of(parts: &[&[u8]]) -> Console {
        let (mut guest, host) = UnixStream::pair().unwrap();
        let mut console = Console::new(host).unwrap();
        for part in parts {
            guest.write_all(part).unwrap();
            console.read();
        }
        console
    }

    #[test]
    fn a_panic_is_seen_across_reads() {
        let console = console_of(&[b"[ 1.0] Kernel panic - not", b" syncing: sysrq triggered crash\n"]);
        assert!(console.panicked());
        assert!(!console.stopped());
    }

    #[test]
    fn a_power_down_is_seen() {
        assert!(console_of(&[b"x\n[ 2.0] reboot: Power down\r\n"]).stopped());
    }

    #[test]
    fn only_the_end_is_kept_and_escapes_are_not() {
        let mut console = console_of(&[]);
        for number in 0..100_000 {
            console.take(format!("line {number}\n").as_bytes());
        }
        console.take(b"\x1b[31mred\r\n");
        assert!(console.tail.len() <= KEPT);
        assert_eq!(console.last_lines(2), ["line 99999", "\u{fffd}[31mred"]);
    }

    #[test]
    fn a_line_without_end_is_bounded() {
        let mut console = console_of(&[]);
        console.take(&vec![b'a'; 1 << 20]);
        assert!(console.line.len() <= 256);
    }
}
