// SPDX-License-Identifier: Apache-2.0
//! The serial port, for words (a 16550 at its classic place).

use crate::bare;
use core::fmt::{Arguments, Write};

const PORT: u16 = 0x3f8;

struct Serial;

impl Write for Serial {
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        for byte in text.bytes() {
            bare::output(PORT, 1, byte.into());
        }
        Ok(())
    }
}

/// Prints.
pub(crate) fn say(words: Arguments<'_>) {
    // The port takes everything.
    let _written = Serial.write_fmt(words);
}
