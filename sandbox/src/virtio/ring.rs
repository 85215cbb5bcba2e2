// SPDX-License-Identifier: Apache-2.0
//! One split virtqueue with its two bells: the driver's kick and our notification (virtio 1.2 §2.7).
//!
//! The policies that every device shares live here, once: when to ask for kicks and when to notify, how much to serve
//! at a time, what a bad chain costs. A bad chain is completed with length 0 and the ring lives on; a bad ring is an
//! [`Error`] and the device's end. Not for the meaning of the bytes, and not for where a ring comes from.

pub mod chain;

pub use chain::Chain;

use rustix::io::Errno;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use virtio_bindings::{virtio_config, virtio_ring};
use virtio_queue::{Queue, QueueOwnedT, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

/// Feature bits that belong to rings rather than to devices; every device offers them.
pub const FEATURES: u64 = 1 << virtio_config::VIRTIO_F_VERSION_1
    | 1 << virtio_ring::VIRTIO_RING_F_INDIRECT_DESC
    | 1 << virtio_ring::VIRTIO_RING_F_EVENT_IDX;

/// Chains refused so far, by all devices: a count of a ring or a device would begin anew with each reset.
static REFUSED: AtomicU64 = AtomicU64::new(0);

/// How a ring is broken.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Its size, or where it lies in guest memory.
    #[error("size {size} or addresses {descriptors:#x}, {available:#x}, {used:#x} are not those of a ring")]
    Geometry {
        /// Entries.
        size: u16,
        /// Guest address of the descriptor table.
        descriptors: u64,
        /// Guest address of the available ring.
        available: u64,
        /// Guest address of the used ring.
        used: u64,
    },
    /// The driver moved an index or named a head that the ring does not have.
    #[error("its indices make no sense")]
    Queue(#[source] virtio_queue::Error),
    /// Buffers that were there when the chain was taken are not there any more.
    #[error("a chain changed while it was served")]
    Chain(#[source] chain::Error),
    /// The other side cannot be notified.
    #[error("cannot notify the driver")]
    Notify(#[source] Errno),
}

/// Tells the driver that the device has used buffers.
pub trait Notify: Send {
    /// Rings the bell. Must not block.
    ///
    /// # Errors
    /// If the bell is gone.
    fn notify(&self) -> Result<(), Errno>;
}

/// Everything a front-end must know to start a ring.
pub struct Setup {
    /// Entries; a power of two, at most what the device's traits say.
    pub size: u16,
    /// Guest address of the descriptor table.
    pub descriptors: u64,
    /// Guest address of the available ring.
    pub available: u64,
    /// Guest address of the used ring.
    pub used: u64,
    /// Where to go on: the position that the last stop returned, 0 for a new ring.
    pub position: u16,
    /// Feature bits that the driver accepted.
    pub features: u64,
    /// Becomes readable when the driver kicks. Watched, never read.
    pub kick: Arc<OwnedFd>,
    /// The other bell.
    pub notify: Box<dyn Notify>,
}

/// Where a ring lies: its entries, and the guest addresses of its parts.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) size: u16,
    pub(super) descriptors: u64,
    pub(super) available: u64,
    pub(super) used: u64,
}

/// A running ring. Its geometry cannot change.
pub struct Ring {
    queue: Queue,
    kick: Arc<OwnedFd>,
    notify: Box<dyn Notify>,
    /// Chains that may still be taken in this call.
    budget: u16,
    /// The budget ran out; the worker must call again.
    more: bool,
    /// Buffers were used since the last notification.
    pushed: bool,
}

impl std::fmt::Debug for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ring").field("queue", &self.queue).finish_non_exhaustive()
    }
}

impl Ring {
    /// Completes a ring, of at most `max_size` entries.
    ///
    /// # Errors
    /// If it is not one, or lies outside of memory.
    pub fn new(setup: Setup, max_size: u16, memory: &GuestMemoryMmap) -> Result<Self, Error> {
        let Setup { size, descriptors, available, used, .. } = setup;
        let geometry = Error::Geometry { size, descriptors, available, used };
        let mut queue = Queue::new(max_size).map_err(Error::Queue)?;
        let accepted = queue.try_set_size(size).is_ok()
            && queue.try_set_desc_table_address(GuestAddress(descriptors)).is_ok()
            && queue.try_set_avail_ring_address(GuestAddress(available)).is_ok()
            && queue.try_set_used_ring_address(GuestAddress(used)).is_ok();
        queue.set_ready(true);
        // `iter` takes an available ring at 0 for one that was never set.
        if !accepted || available == 0 || !queue.is_valid(memory) {
            return Err(geometry);
        }
        queue.set_event_idx(setup.features & (1 << virtio_ring::VIRTIO_RING_F_EVENT_IDX) != 0);
        queue.set_next_avail(setup.position);
        // What was used before is in memory: neither vhost-user nor a register tells it.
        let next_used = queue.used_idx(memory, Ordering::Acquire).map_err(Error::Queue)?;
        queue.set_next_used(next_used.0);
        let Setup { kick, notify, .. } = setup;
        Ok(Self { queue, kick, notify, budget: size, more: false, pushed: false })
    }

    /// Takes the next chain. `None`: there is none, or enough were taken in this call and the worker will call again.
    ///
    /// # Errors
    /// If the ring is broken.
    pub fn pop(&mut self, memory: &GuestMemoryMmap) -> Result<Option<Chain>, Error> {
        while let Some(budget) = self.budget.checked_sub(1) {
            let position = self.queue.next_avail();
            let Some(descriptors) = self.queue.iter(memory).map_err(Error::Queue)?.next() else {
                return Ok(None);
            };
            self.budget = budget;
            let head = descriptors.head_index();
            match Chain::new(descriptors, self.queue.size(), position, memory) {
                Ok(chain) => return Ok(Some(chain)),
                Err(error) => self.refuse(memory, head, &error)?,
            }
        }
        self.more = true;
        Ok(None)
    }

    /// Gives a chain back to the driver with what was written to it.
    ///
    /// # Errors
    /// If the ring is broken.
    pub fn push(&mut self, memory: &GuestMemoryMmap, chain: &Chain) -> Result<(), Error> {
        self.complete(memory, chain.head(), chain.written())
    }

    /// Gives a chain back that does not hold what the device's specification says: with length 0, and a complaint.
    ///
    /// # Errors
    /// If the ring is broken.
    pub fn reject(&mut self, memory: &GuestMemoryMmap, chain: &Chain, why: &chain::Error) -> Result<(), Error> {
        self.refuse(memory, chain.head(), why)
    }

    /// Puts a chain back as if it and those after it had never been taken. Nothing may have been written to it.
    pub fn unpop(&mut self, chain: &Chain) {
        self.queue.set_next_avail(chain.position());
    }

    /// Asks for a kick at the next buffer. `true`: there is one already, so take it; no kick will come for it.
    ///
    /// # Errors
    /// If the ring is broken.
    pub fn arm(&mut self, memory: &GuestMemoryMmap) -> Result<bool, Error> {
        if self.more {
            return Ok(false);
        }
        self.queue.enable_notification(memory).map_err(Error::Queue)
    }

    /// Asks for no kicks until the next [`Ring::arm`].
    ///
    /// # Errors
    /// If the ring is broken.
    pub fn disarm(&mut self, memory: &GuestMemoryMmap) -> Result<(), Error> {
        self.queue.disable_notification(memory).map_err(Error::Queue)
    }

    /// Serves every chain there is, and asks for a kick at the next. An error of `serve` rejects that chain.
    ///
    /// # Errors
    /// If the ring is broken.
    pub fn drain(
        &mut self,
        memory: &GuestMemoryMmap,
        mut serve: impl FnMut(&mut Chain) -> Result<(), chain::Error>,
    ) -> Result<(), Error> {
        loop {
            self.disarm(memory)?;
            while let Some(mut chain) = self.pop(memory)? {
                match serve(&mut chain) {
                    Ok(()) => self.push(memory, &chain)?,
                    Err(error) => self.reject(memory, &chain, &error)?,
                }
            }
            if !self.arm(memory)? {
                return Ok(());
            }
        }
    }

    /// Before a call of the device: checks that the ring still lies in memory (a front-end may have replaced it) and
    /// allows one ring's worth of chains.
    pub(super) fn begin(&mut self, memory: &GuestMemoryMmap) -> Result<(), Error> {
        self.budget = self.queue.size();
        self.more = false;
        if self.queue.is_valid(memory) {
            return Ok(());
        }
        let Place { size, descriptors, available, used } = self.place();
        Err(Error::Geometry { size, descriptors, available, used })
    }

    /// After a call of the device: notifies the driver if it has something new and wants to know. `true`: the device
    /// stopped early and must be called again.
    pub(super) fn finish(&mut self, memory: &GuestMemoryMmap) -> Result<bool, Error> {
        if std::mem::take(&mut self.pushed) && self.wants_notification(memory)? {
            self.notify.notify().map_err(Error::Notify)?;
        }
        Ok(self.more)
    }

    /// Replaces the bell, and rings it: the old one may have been rung in vain.
    pub(super) fn set_notify(&mut self, notify: Box<dyn Notify>) -> Result<(), Error> {
        self.notify = notify;
        self.notify.notify().map_err(Error::Notify)
    }

    /// Where it lies.
    pub(super) fn place(&self) -> Place {
        let queue = &self.queue;
        Place {
            size: queue.size(),
            descriptors: queue.desc_table(),
            available: queue.avail_ring(),
            used: queue.used_ring(),
        }
    }

    /// Its kick descriptor.
    pub(super) fn kick(&self) -> &Arc<OwnedFd> {
        &self.kick
    }

    /// Where a later start has to go on.
    pub(super) fn position(&self) -> u16 {
        self.queue.next_avail()
    }

    fn wants_notification(&mut self, memory: &GuestMemoryMmap) -> Result<bool, Error> {
        let wanted = self.queue.needs_notification(memory).map_err(Error::Queue)?;
        if self.queue.event_idx_enabled() {
            return Ok(wanted);
        }
        let flags: u16 = memory
            .load(GuestAddress(self.queue.avail_ring()), Ordering::Relaxed)
            .map_err(|error| Error::Queue(virtio_queue::Error::GuestMemory(error)))?;
        Ok(u32::from(u16::from_le(flags)) & virtio_ring::VRING_AVAIL_F_NO_INTERRUPT == 0)
    }

    fn complete(&mut self, memory: &GuestMemoryMmap, head: u16, length: u32) -> Result<(), Error> {
        self.queue.add_used(memory, head, length).map_err(Error::Queue)?;
        self.pushed = true;
        Ok(())
    }

    fn refuse(&mut self, memory: &GuestMemoryMmap, head: u16, why: &chain::Error) -> Result<(), Error> {
        let refused = REFUSED.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        // The guest decides how often this happens: the 1st, 10th, 100th… are worth a line.
        if 10_u64.checked_pow(refused.ilog10()) == Some(refused) {
            let line = format!("sandbox: warning: virtio: refused bad chains, {refused} so far, the last: {why}\n");
            // Without a standard error there is nobody to tell.
            drop(std::io::stderr().write_all(line.as_bytes()));
        }
        self.complete(memory, head, 0)
    }
}
