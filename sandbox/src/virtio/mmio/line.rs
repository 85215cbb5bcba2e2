// SPDX-License-Identifier: Apache-2.0
//! The device's way to its driver: what the interrupt is about, the interrupt, and "I need a reset"
//! (virtio 1.2 §2.1.2, §2.3, §4.2.3.4).
//!
//! The device's thread uses it while a processor reads registers, so every word is atomic. Bits first, then the
//! interrupt: who is told always finds the reason. Not for anything that the driver sets up.

use crate::sys::eventfd;
use crate::virtio::device::Fault;
use crate::virtio::ring::Notify;
use rustix::io::Errno;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

/// Reasons of an interrupt: buffers were used; the configuration has changed.
pub(super) const USED: u32 = 1;
pub(super) const CHANGED: u32 = 2;

/// One window's.
#[derive(Debug)]
pub(super) struct Line {
    reasons: AtomicU32,
    /// Whoever serves the rings signals the interrupt without us, so we cannot tell what it was about.
    unseen: AtomicBool,
    needs_reset: AtomicBool,
    /// Will need a reset for ever.
    beyond_repair: AtomicBool,
    interrupt: OwnedFd,
    fault: OnceLock<Fault>,
}

impl Line {
    pub(super) fn new() -> Result<Self, Errno> {
        Ok(Self {
            reasons: AtomicU32::new(0),
            unseen: AtomicBool::new(false),
            needs_reset: AtomicBool::new(false),
            beyond_repair: AtomicBool::new(false),
            interrupt: eventfd::create()?,
            fault: OnceLock::new(),
        })
    }

    pub(super) fn interrupt(&self) -> &OwnedFd {
        &self.interrupt
    }

    pub(super) fn reasons(&self) -> u32 {
        let unseen = if self.unseen.load(Ordering::SeqCst) { USED } else { 0 };
        self.reasons.load(Ordering::SeqCst) | unseen
    }

    pub(super) fn acknowledge(&self, reasons: u32) {
        self.reasons.fetch_and(!reasons, Ordering::SeqCst);
    }

    /// From now until the reset, any interrupt may be about used buffers.
    pub(super) fn set_unseen(&self) {
        self.unseen.store(true, Ordering::SeqCst);
    }

    fn raise(&self, reason: u32) -> Result<(), Errno> {
        self.reasons.fetch_or(reason, Ordering::SeqCst);
        eventfd::signal(&self.interrupt)
    }

    pub(super) fn needs_reset(&self) -> bool {
        self.needs_reset.load(Ordering::SeqCst)
    }

    /// The device can go on only after a reset; if it lives, its driver is told.
    pub(super) fn need_reset(&self, live: bool) {
        self.needs_reset.store(true, Ordering::SeqCst);
        if live {
            // Our own counter cannot be full, so this cannot fail.
            let _told: Result<(), Errno> = self.raise(CHANGED);
        }
    }

    /// A fault that not even a reset will help against.
    pub(super) fn give_up(&self, fault: Fault) {
        self.beyond_repair.store(true, Ordering::SeqCst);
        self.retire(fault);
    }

    /// The device has retired.
    pub(super) fn retire(&self, fault: Fault) {
        if matches!(fault, Fault::Panicked) {
            self.beyond_repair.store(true, Ordering::SeqCst);
        }
        if !matches!(fault, Fault::Ring { .. }) {
            // The first one: the others may be its consequences.
            drop(self.fault.set(fault));
        }
        self.need_reset(true);
    }

    /// The first fault that was not the guest's.
    pub(super) fn fault(&self) -> Option<&Fault> {
        self.fault.get()
    }

    /// The device was reset.
    pub(super) fn clear(&self) {
        self.unseen.store(false, Ordering::SeqCst);
        self.reasons.store(0, Ordering::SeqCst);
        self.needs_reset.store(self.beyond_repair.load(Ordering::SeqCst), Ordering::SeqCst);
    }
}

/// A ring's bell.
pub(super) struct Bell(pub(super) Arc<Line>);

impl Notify for Bell {
    fn notify(&self) -> Result<(), Errno> {
        self.0.raise(USED)
    }
}
