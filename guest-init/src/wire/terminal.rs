// SPDX-License-Identifier: Apache-2.0
//! A terminal, as far as the guest's is made after the host's (termios(3), tty_ioctl(4)).

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

/// The terminal that a command gets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terminal {
    /// Its size when the command starts.
    pub size: Size,
    /// Its settings ([`Modes::termios`]), or nothing for the kernel's own.
    pub modes: ByteBuf,
    /// Whether standard error leads to it too, and not to a stream apart.
    pub error: bool,
}

/// How large a terminal is (struct winsize).
///
/// It travels as one number, which takes the guest less to read than four.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "u64", into = "u64")]
pub struct Size {
    /// Lines.
    pub rows: u16,
    /// Characters in a line.
    pub columns: u16,
    /// Pixels from left to right, or 0.
    pub width: u16,
    /// Pixels from top to bottom, or 0.
    pub height: u16,
}

impl From<u64> for Size {
    fn from(number: u64) -> Self {
        let part = |place: u32| (number >> (16 * place)) as u16;
        Self { rows: part(0), columns: part(1), width: part(2), height: part(3) }
    }
}

impl From<Size> for u64 {
    fn from(Size { rows, columns, width, height }: Size) -> Self {
        let part = |value: u16, place: u32| Self::from(value) << (16 * place);
        part(rows, 0) | part(columns, 1) | part(width, 2) | part(height, 3)
    }
}

/// How many special characters Linux knows.
pub const CODES: usize = 17;

/// Length of the kernel's struct termios.
pub const TERMIOS: usize = 36;

/// What a terminal does with what is typed and printed (struct termios), but for what only a line has: speed and parity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Modes {
    /// `c_iflag`.
    pub input: u32,
    /// `c_oflag`.
    pub output: u32,
    /// `c_lflag`.
    pub local: u32,
    /// `c_cc`, in Linux's order: INTR, QUIT, ERASE, KILL, EOF, TIME, MIN, SWTC, START, STOP, SUSP, EOL, REPRINT,
    /// DISCARD, WERASE, LNEXT, EOL2.
    pub codes: [u8; CODES],
}

impl Modes {
    /// As the kernel has them: struct termios (`asm-generic/termbits.h`).
    #[must_use]
    pub fn termios(&self) -> [u8; TERMIOS] {
        /// As the kernel makes its own: 38400 bit/s, eight bits, receiver on. Nothing of it means anything here.
        const CONTROL: u32 = 0xbf;
        // Four words of flags, the line discipline, characters.
        let mut termios = [0; TERMIOS];
        for (place, flags) in termios.chunks_exact_mut(4).zip([self.input, self.output, CONTROL, self.local]) {
            place.copy_from_slice(&flags.to_ne_bytes());
        }
        termios[17..17 + CODES].copy_from_slice(&self.codes);
        termios
    }
}
