// SPDX-License-Identifier: Apache-2.0
//! The seam between a device and whatever drives it.
//!
//! A device owns its host descriptors and nothing of the transport: it cannot tell a register window from a
//! vhost-user socket. Its [`super::worker::Worker`] calls it from one thread only. Not for the bytes on a ring, see
//! [`super::ring`]. Follows virtio 1.2 §2 (facilities of a device) and §5 (device types).

use super::ring::{self, Ring};
use crate::sys::epoll::Epoll;
pub use crate::sys::epoll::Interest;
use rustix::io::Errno;
use std::os::fd::AsFd;
use vm_memory::GuestMemoryMmap;

/// Device types in use here (virtio 1.2 §5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Id {
    /// Block device (§5.2).
    Disk = 2,
    /// Entropy source (§5.4).
    Rng = 4,
    /// Socket device (§5.10).
    Vsock = 19,
    /// File system (§5.11).
    Fs = 26,
}

impl Id {
    /// Short name, for threads and messages.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Disk => "disk",
            Self::Rng => "rng",
            Self::Vsock => "vsock",
            Self::Fs => "fs",
        }
    }
}

/// What a device is, as plain data.
#[derive(Debug, Clone, Copy)]
pub struct Traits {
    /// Its type.
    pub id: Id,
    /// Feature bits of its type. Those of the ring ([`ring::FEATURES`]) are added by the worker.
    pub features: u64,
    /// The largest size of each ring, a power of two each.
    pub rings: &'static [u16],
    /// Length of its configuration space, which never changes.
    pub config: usize,
}

/// Names one of a device's own descriptors. The device chooses it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Token(pub u32);

/// Why a device stopped until its next reset.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The guest broke a ring.
    #[error("ring {index} is broken")]
    Ring {
        /// Which one.
        index: u16,
        /// In what way.
        #[source]
        source: ring::Error,
    },
    /// A descriptor could not be watched.
    #[error("cannot watch a descriptor")]
    Watch(#[source] Errno),
    /// The host could not do its part.
    #[error("the host failed the device")]
    Host(#[source] std::io::Error),
    /// A defect of ours: the device's thread panicked.
    #[error("the device's thread panicked")]
    Panicked,
}

/// A virtio device.
///
/// A fault retires the device: its rings are gone until [`Device::reset`] and a new start.
pub trait Device: Send {
    /// What it is. Constant.
    fn traits(&self) -> Traits;

    /// Copies its configuration space, little endian, from `offset` on. Constant.
    fn config(&self, offset: usize, out: &mut [u8]);

    /// The driver has accepted `features`; the first ring runs, others may follow. Each ring that starts is also
    /// reported by [`Device::kicked`], because buffers may be in it already.
    ///
    /// # Errors
    /// A fault retires the device.
    fn started(&mut self, features: u64, io: &mut Io<'_>) -> Result<(), Fault>;

    /// The driver has put buffers into a ring, or may have.
    ///
    /// # Errors
    /// A fault retires the device.
    fn kicked(&mut self, ring: u16, io: &mut Io<'_>) -> Result<(), Fault>;

    /// One of its own descriptors has become ready. Told once per edge, see [`Io::watch`].
    ///
    /// # Errors
    /// A fault retires the device.
    fn ready(&mut self, source: Token, io: &mut Io<'_>) -> Result<(), Fault>;

    /// Forgets the driver: every ring is gone. What the guest handed over before may still be finished.
    fn reset(&mut self);
}

/// What the worker lends a device for the length of a call.
#[derive(Debug)]
pub struct Io<'a> {
    pub(super) memory: &'a GuestMemoryMmap,
    pub(super) rings: &'a mut [Option<Ring>],
    pub(super) epoll: &'a Epoll,
}

impl<'a> Io<'a> {
    /// Guest memory, the same for the whole call.
    #[must_use]
    pub fn memory(&self) -> &'a GuestMemoryMmap {
        self.memory
    }

    /// The ring of this number, if it runs. A front-end may keep one to itself: QEMU never hands over the event ring
    /// of a vsock device.
    pub fn ring(&mut self, index: u16) -> Option<&mut Ring> {
        self.rings.get_mut(usize::from(index))?.as_mut()
    }

    /// Watches a descriptor of the device, or changes what is watched; [`Device::ready`] is called with `token`.
    ///
    /// Edge-triggered: after a call the device must use the descriptor until it would block, or remember that it did
    /// not.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn watch(&mut self, fd: impl AsFd, token: Token, interest: Interest) -> Result<(), Fault> {
        self.epoll.watch(fd, super::worker::key(token), interest).map_err(Fault::Watch)
    }

    /// Stops watching a descriptor of the device.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn unwatch(&mut self, fd: impl AsFd) -> Result<(), Fault> {
        self.epoll.unwatch(fd).map_err(Fault::Watch)
    }
}
