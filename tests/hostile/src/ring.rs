// SPDX-License-Identifier: Apache-2.0
//! A split virtqueue in memory, from the driver's side (virtio 1.2 §2.7). It writes what it is told, right or wrong.

use crate::bare::{peek, poke};
use crate::window::{AVAILABLE, READY, SELECT, SIZE, TABLE, USED, Window};

/// Flags of a descriptor.
pub(crate) const NEXT: u16 = 1;
pub(crate) const WRITE: u16 = 2;
pub(crate) const TABLE_OF_ITS_OWN: u16 = 4;

/// Bytes that a ring gets.
pub(crate) const SPACE: u64 = 0x1_0000;
/// Where its parts begin in them; a table has at most 1024 entries here.
const AVAILABLE_AT: u64 = 0x8000;
const USED_AT: u64 = 0xc000;

/// What the driver knows of a ring.
#[derive(Clone, Copy)]
pub(crate) struct Ring {
    pub(crate) number: u32,
    pub(crate) size: u16,
    pub(crate) table: u64,
    pub(crate) available: u64,
    pub(crate) used: u64,
    /// The index of the available ring.
    pub(crate) next: u16,
    /// The index up to which the used ring was read.
    pub(crate) seen: u16,
}

impl Ring {
    /// A ring of 16 entries in this space.
    pub(crate) fn new(number: u32, space: u64) -> Self {
        let (table, available, used) = (space, space + AVAILABLE_AT, space + USED_AT);
        Self { number, size: 16, table, available, used, next: 0, seen: 0 }
    }

    /// The ring anew, empty and with this size.
    pub(crate) fn clear(&mut self, size: u16) {
        (self.size, self.next, self.seen) = (size, 0, 0);
        let entries = u64::from(size);
        zero(self.table, 16 * entries);
        zero(self.available, 6 + 2 * entries);
        zero(self.used, 6 + 8 * entries);
    }

    /// Tells the device where it lies, and that it is ready.
    pub(crate) fn lay_out(&self, window: Window) {
        self.place(window);
        window.write(READY, 1);
    }

    /// Tells the device where it lies.
    pub(crate) fn place(&self, window: Window) {
        window.write(SELECT, self.number);
        window.write(SIZE, self.size.into());
        window.write_address(TABLE, self.table);
        window.write_address(AVAILABLE, self.available);
        window.write_address(USED, self.used);
    }

    pub(crate) fn describe(&self, slot: u16, address: u64, length: u32, flags: u16, next: u16) {
        describe(self.table + 16 * u64::from(slot), address, length, flags, next);
    }

    /// Makes a chain available.
    pub(crate) fn offer(&mut self, head: u16) {
        poke(self.available + 4 + 2 * u64::from(self.next % self.size), head);
        self.next = self.next.wrapping_add(1);
        self.set_index(self.next);
    }

    pub(crate) fn set_index(&self, index: u16) {
        poke(self.available + 2, index);
    }

    /// The device's own index.
    pub(crate) fn used_index(&self) -> u16 {
        peek(self.used + 2)
    }

    /// The next chain that the device has used: its head and length.
    pub(crate) fn take(&mut self) -> Option<(u32, u32)> {
        if self.used_index() == self.seen {
            return None;
        }
        let entry = self.used + 4 + 8 * u64::from(self.seen % self.size);
        self.seen = self.seen.wrapping_add(1);
        Some((peek(entry), peek(entry + 4)))
    }
}

/// Writes a descriptor anywhere.
pub(crate) fn describe(at: u64, address: u64, length: u32, flags: u16, next: u16) {
    poke(at, address);
    poke(at + 8, length);
    poke(at + 12, flags);
    poke(at + 14, next);
}

/// Zeros memory, a little more than asked.
pub(crate) fn zero(address: u64, bytes: u64) {
    for word in 0..bytes.div_ceil(8) {
        poke(address + 8 * word, 0_u64);
    }
}
