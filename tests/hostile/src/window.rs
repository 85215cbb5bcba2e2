// SPDX-License-Identifier: Apache-2.0
//! One register window, from the driver's side (virtio 1.2 §4.2.2). It does what it is told, right or wrong.

use crate::bare::{peek, poke};

pub(crate) const MAGIC: u64 = 0x000;
pub(crate) const VERSION: u64 = 0x004;
pub(crate) const DEVICE_ID: u64 = 0x008;
pub(crate) const VENDOR: u64 = 0x00c;
pub(crate) const DEVICE_FEATURES: u64 = 0x010;
pub(crate) const DEVICE_BANK: u64 = 0x014;
pub(crate) const DRIVER_FEATURES: u64 = 0x020;
pub(crate) const DRIVER_BANK: u64 = 0x024;
pub(crate) const SELECT: u64 = 0x030;
pub(crate) const SIZE_MAX: u64 = 0x034;
pub(crate) const SIZE: u64 = 0x038;
pub(crate) const READY: u64 = 0x044;
pub(crate) const NOTIFY: u64 = 0x050;
pub(crate) const INTERRUPT: u64 = 0x060;
pub(crate) const INTERRUPT_ACK: u64 = 0x064;
pub(crate) const STATUS: u64 = 0x070;
pub(crate) const TABLE: u64 = 0x080;
pub(crate) const AVAILABLE: u64 = 0x090;
pub(crate) const USED: u64 = 0x0a0;
pub(crate) const SHARED_MEMORY: u64 = 0x0ac;
pub(crate) const GENERATION: u64 = 0x0fc;
pub(crate) const CONFIG: u64 = 0x100;

pub(crate) const ACKNOWLEDGE: u32 = 1;
pub(crate) const DRIVER: u32 = 2;
pub(crate) const DRIVER_OK: u32 = 4;
pub(crate) const FEATURES_OK: u32 = 8;
pub(crate) const NEEDS_RESET: u32 = 64;
pub(crate) const FAILED: u32 = 128;
/// What the status is at the third and the fourth step of a good start.
pub(crate) const LAYING_OUT: u32 = ACKNOWLEDGE | DRIVER | FEATURES_OK;
pub(crate) const LIVE: u32 = LAYING_OUT | DRIVER_OK;

pub(crate) const VERSION_1: u64 = 1 << 32;
pub(crate) const INDIRECT: u64 = 1 << 28;
pub(crate) const EVENT_IDX: u64 = 1 << 29;

/// A window at this address.
#[derive(Clone, Copy)]
pub(crate) struct Window(pub(crate) u64);

impl Window {
    pub(crate) fn read(self, register: u64) -> u32 {
        peek(self.0 + register)
    }

    pub(crate) fn write(self, register: u64, value: u32) {
        poke(self.0 + register, value);
    }

    /// Writes both halves of an address.
    pub(crate) fn write_address(self, register: u64, address: u64) {
        self.write(register, address as u32);
        self.write(register + 4, (address >> 32) as u32);
    }

    pub(crate) fn status(self) -> u32 {
        self.read(STATUS)
    }

    /// Whether the device waits for a reset.
    pub(crate) fn is_broken(self) -> bool {
        self.status() & (NEEDS_RESET | FAILED) != 0
    }

    pub(crate) fn reset(self) {
        self.write(STATUS, 0);
    }

    /// The features that the device offers.
    pub(crate) fn offered(self) -> u64 {
        self.write(DEVICE_BANK, 0);
        let low = u64::from(self.read(DEVICE_FEATURES));
        self.write(DEVICE_BANK, 1);
        low | u64::from(self.read(DEVICE_FEATURES)) << 32
    }

    pub(crate) fn accept(self, features: u64) {
        for bank in 0..2 {
            self.write(DRIVER_BANK, bank);
            self.write(DRIVER_FEATURES, (features >> (32 * bank)) as u32);
        }
    }

    /// From a reset to the point where rings are laid out; whether the device agreed.
    pub(crate) fn negotiate(self, features: u64) -> bool {
        self.reset();
        self.write(STATUS, ACKNOWLEDGE);
        self.write(STATUS, ACKNOWLEDGE | DRIVER);
        self.accept(features);
        self.write(STATUS, LAYING_OUT);
        self.status() == LAYING_OUT
    }

    /// The last step; whether the device lives.
    pub(crate) fn go_live(self) -> bool {
        self.write(STATUS, LIVE);
        self.status() == LIVE
    }

    pub(crate) fn notify(self, ring: u32) {
        self.write(NOTIFY, ring);
    }
}
