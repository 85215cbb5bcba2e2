// SPDX-License-Identifier: Apache-2.0
//! Chance, and what it may choose to break.

use std::time::Duration;

/// Numbers that look random and follow from one (splitmix64).
#[derive(Debug)]
pub(super) struct Dice(pub(super) u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// Once in so many times.
    pub(super) fn once_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    /// Mostly moments, sometimes as long as that.
    pub(super) fn up_to(&mut self, milliseconds: u64) -> Duration {
        let most = if self.once_in(4) { milliseconds } else { milliseconds / 50 + 1 };
        Duration::from_micros(self.below(most * 1000))
    }

    pub(super) fn one_of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len() as u64) as usize]
    }
}

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// The machine's process is killed.
    Killed,
    /// The guest's kernel panics, with memory left or without.
    Panic,
    OutOfMemory,
    /// The guest resets its machine; or its kernel only says that it stops.
    Reset,
    Halted,
    /// The file server dies.
    Files,
    /// The control connection is cut.
    Control,
    /// A stream's connection is cut.
    Stream(usize),
    /// Bytes that are no message; a message that is none now.
    Garbage,
    Turn,
    /// Init says no more; or the whole machine stands still, for good.
    Mute,
    Frozen,
}

pub(super) const FAULTS: [Fault; 13] = [
    Fault::Killed,
    Fault::Panic,
    Fault::OutOfMemory,
    Fault::Reset,
    Fault::Halted,
    Fault::Files,
    Fault::Control,
    Fault::Stream(0),
    Fault::Stream(1),
    Fault::Garbage,
    Fault::Turn,
    Fault::Mute,
    Fault::Frozen,
];
