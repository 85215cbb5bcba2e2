// SPDX-License-Identifier: Apache-2.0
//! A device as its driver has it: a window, rings, and buffers. The good driver that every case is followed by is here
//! as well; what a good request is, each kind of device says ([`crate::rng`], [`crate::vsock`], [`crate::fs`]).

use crate::bare::clock;
use crate::ring::{Ring, SPACE};
use crate::window::{DEVICE_ID, INTERRUPT, INTERRUPT_ACK, MAGIC, VERSION_1, Window};
use crate::{fs, rng, vsock};

/// Ticks of the processor's counter after which a device that owes an answer is wedged: seconds on any processor.
pub(crate) const PATIENCE: u64 = 20_000_000_000;
/// Ticks after which a device is taken to do nothing, where nothing is what it should do.
const QUIET: u64 = 200_000_000;

/// Where devices' rings and buffers are, above the program; each gets as much.
const PLACE: u64 = 0x100_0000;
const PLACE_SIZE: u64 = 0x40_0000;
const BUFFERS_AT: u64 = 0x10_0000;

/// Types of devices (virtio 1.2 §5).
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Kind {
    Rng = 4,
    Vsock = 19,
    Fs = 26,
}

/// What came of a request.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum After {
    /// The device used the chain.
    Used { head: u32, length: u32 },
    /// The device gave up.
    Broken,
    /// Nothing.
    Silence,
}

/// A device.
pub(crate) struct Device {
    pub(crate) kind: Kind,
    pub(crate) window: Window,
    pub(crate) rings: [Ring; 3],
    /// Two MiB for buffers.
    pub(crate) buffers: u64,
}

impl Device {
    /// The device in this window, if there is one of this kind.
    pub(crate) fn find(kind: Kind, windows: impl Iterator<Item = u64>) -> Option<Self> {
        let is_it = |window: &Window| window.read(MAGIC) == 0x7472_6976 && window.read(DEVICE_ID) == kind as u32;
        let window = windows.map(Window).find(is_it)?;
        let place = PLACE + kind as u64 * PLACE_SIZE;
        let ring = |number: u32| Ring::new(number, place + u64::from(number) * SPACE);
        Some(Self { kind, window, rings: [ring(0), ring(1), ring(2)], buffers: place + BUFFERS_AT })
    }

    /// How many rings it has.
    pub(crate) fn count(&self) -> usize {
        match self.kind {
            Kind::Rng => 1,
            Kind::Vsock => 3,
            Kind::Fs => 2,
        }
    }

    /// The ring that requests go into.
    pub(crate) fn main(&self) -> usize {
        match self.kind {
            Kind::Rng => 0,
            Kind::Vsock | Kind::Fs => 1,
        }
    }

    /// Starts it as a good driver does, with these features and rings of this size; whether it lives.
    pub(crate) fn start_with(&mut self, features: u64, size: u16) -> bool {
        if !self.prepare(features, size) {
            return false;
        }
        for ring in &self.rings[..self.count()] {
            ring.lay_out(self.window);
        }
        self.window.go_live()
    }

    /// Up to the point where rings are laid out.
    pub(crate) fn prepare(&mut self, features: u64, size: u16) -> bool {
        let agreed = self.window.negotiate(features);
        let count = self.count();
        for ring in &mut self.rings[..count] {
            ring.clear(size);
        }
        agreed
    }

    pub(crate) fn start(&mut self) -> bool {
        self.start_with(VERSION_1, 16)
    }

    /// Offers a chain in its main ring and waits for what comes of it.
    pub(crate) fn serve(&mut self, head: u16) -> After {
        let main = self.main();
        self.rings[main].offer(head);
        self.window.notify(main as u32);
        self.after(main)
    }

    /// Waits for the device to do something about a ring.
    pub(crate) fn after(&mut self, ring: usize) -> After {
        self.within(PATIENCE, ring)
    }

    /// The same where it should do nothing.
    pub(crate) fn quiet(&mut self, ring: usize) -> After {
        self.within(QUIET, ring)
    }

    fn within(&mut self, patience: u64, ring: usize) -> After {
        let (window, ring, mut looks) = (self.window, &mut self.rings[ring], 0_u32);
        let look = || {
            if let Some((head, length)) = ring.take() {
                return Some(After::Used { head, length });
            }
            looks += 1;
            (looks % 64 == 0 && window.is_broken()).then_some(After::Broken)
        };
        wait(patience, look).unwrap_or(After::Silence)
    }

    /// Resets the device, starts it anew and has it carry out a good request.
    pub(crate) fn works(&mut self) -> bool {
        let served = self.start()
            && match self.kind {
                Kind::Rng => rng::good(self),
                Kind::Vsock => vsock::good(self),
                Kind::Fs => fs::good(self),
            };
        served && self.interrupts()
    }

    /// Whether it says that buffers were used, and no more once that is acknowledged.
    pub(crate) fn interrupts(&self) -> bool {
        let told = wait(PATIENCE, || (self.window.read(INTERRUPT) & 1 != 0).then_some(()));
        // A device in another process cannot say so, and its window always does. Of two rings each has its own say.
        let quiet = wait(PATIENCE, || {
            self.window.write(INTERRUPT_ACK, 1);
            (self.kind == Kind::Fs || self.window.read(INTERRUPT) & 1 == 0).then_some(())
        });
        told.is_some() && quiet.is_some()
    }
}

/// Looks again and again.
pub(crate) fn wait<T>(patience: u64, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let begun = clock();
    loop {
        let found = look();
        if found.is_some() || clock().wrapping_sub(begun) > patience {
            return found;
        }
        core::hint::spin_loop();
    }
}
