// SPDX-License-Identifier: Apache-2.0
//! One chain of buffers: bytes from the driver, then room for bytes to it (virtio 1.2 §2.7.4 and §2.7.5).
//!
//! The whole chain is read and checked once, before any of its buffers is touched; after that it is a list of ranges
//! in host memory that the guest cannot change. What the buffers hold, it can: copy first, then check.

use std::ops::Deref;
use virtio_queue::DescriptorChain;
use vm_memory::{Address, Bytes, GuestAddress, GuestMemory, GuestMemoryError, GuestMemoryMmap, Permissions};

/// What makes a chain bad.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A loop, a link or an indirect table out of range, or nothing at all.
    #[error("chain is broken after {0} descriptors")]
    Broken(usize),
    /// More descriptors than the ring has entries.
    #[error("chain has more descriptors than the ring")]
    TooLong,
    /// Bytes from the driver after room for bytes to it.
    #[error("readable descriptor after a writable one")]
    Order,
    /// A buffer outside of guest memory.
    #[error("buffer of {length} bytes at {address:#x} is not in guest memory")]
    Buffer {
        /// Guest address.
        address: u64,
        /// Bytes.
        length: usize,
    },
    /// The device expected more.
    #[error("chain holds {has} bytes where {needs} are needed")]
    Short {
        /// Bytes there are.
        has: usize,
        /// Bytes there should be.
        needs: usize,
    },
    /// A buffer that was checked cannot be used.
    #[error("cannot use a buffer")]
    Memory(#[source] GuestMemoryError),
}

/// A checked chain that the device has taken.
#[derive(Debug)]
pub struct Chain {
    head: u16,
    position: u16,
    written: u32,
    readable: Half,
    writable: Half,
}

impl Chain {
    /// Reads and checks a chain of at most `limit` descriptors, taken at `position` of the available ring.
    pub(super) fn new<M>(
        mut descriptors: DescriptorChain<M>,
        limit: u16,
        position: u16,
        memory: &GuestMemoryMmap,
    ) -> Result<Self, Error>
    where
        M: Deref,
        M::Target: GuestMemory,
    {
        let head = descriptors.head_index();
        let (mut readable, mut writable) = (Half::default(), Half::default());
        let mut count = 0_usize;
        // The iterator ends without a word at a bad link; a chain that is whole ends at a descriptor without one.
        let mut whole = false;
        for descriptor in descriptors.by_ref() {
            count = count.saturating_add(1);
            if count > usize::from(limit) {
                return Err(Error::TooLong);
            }
            whole = !descriptor.has_next();
            let (half, access) = if descriptor.is_write_only() {
                (&mut writable, Permissions::Write)
            } else if writable.buffers.is_empty() {
                (&mut readable, Permissions::Read)
            } else {
                return Err(Error::Order);
            };
            let Ok(length) = usize::try_from(descriptor.len()) else {
                return Err(Error::TooLong);
            };
            if length > 0 && !memory.check_range(descriptor.addr(), length, access) {
                return Err(Error::Buffer { address: descriptor.addr().raw_value(), length });
            }
            half.add(descriptor.addr(), length);
        }
        if !whole {
            return Err(Error::Broken(count));
        }
        Ok(Self { head, position, written: 0, readable, writable })
    }

    /// Bytes from the driver that have not been read yet.
    #[must_use]
    pub fn readable(&self) -> usize {
        self.readable.left
    }

    /// Room for bytes to the driver.
    #[must_use]
    pub fn writable(&self) -> usize {
        self.writable.left
    }

    /// Fills `out` with the next bytes from the driver.
    ///
    /// # Errors
    /// [`Error::Short`] if there are fewer, and then none has been read.
    pub fn read(&mut self, memory: &GuestMemoryMmap, out: &mut [u8]) -> Result<(), Error> {
        let mut rest = out;
        self.readable.advance(rest.len(), |address, count| {
            let (now, later) = std::mem::take(&mut rest).split_at_mut(count);
            rest = later;
            memory.read_slice(now, address)
        })
    }

    /// Hands `bytes` to the driver.
    ///
    /// # Errors
    /// [`Error::Short`] if there is less room, and then none has been written.
    pub fn write(&mut self, memory: &GuestMemoryMmap, bytes: &[u8]) -> Result<(), Error> {
        let mut rest = bytes;
        self.writable.advance(rest.len(), |address, count| {
            let (now, later) = rest.split_at(count);
            rest = later;
            memory.write_slice(now, address)
        })?;
        // A chain holds less than 2^32 bytes, so neither of these can saturate.
        self.written = self.written.saturating_add(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
        Ok(())
    }

    /// Bytes handed to the driver so far.
    #[must_use]
    pub fn written(&self) -> u32 {
        self.written
    }

    pub(super) fn head(&self) -> u16 {
        self.head
    }

    pub(super) fn position(&self) -> u16 {
        self.position
    }
}

/// The buffers of one direction, used from the front.
#[derive(Debug, Default)]
struct Half {
    buffers: std::collections::VecDeque<(GuestAddress, usize)>,
    left: usize,
}

impl Half {
    fn add(&mut self, address: GuestAddress, length: usize) {
        self.buffers.push_back((address, length));
        self.left = self.left.saturating_add(length);
    }

    /// Calls `each` with the pieces that make up the next `count` bytes.
    fn advance(
        &mut self,
        count: usize,
        mut each: impl FnMut(GuestAddress, usize) -> Result<(), GuestMemoryError>,
    ) -> Result<(), Error> {
        if count > self.left {
            return Err(Error::Short { has: self.left, needs: count });
        }
        let mut wanted = count;
        while let Some((address, length)) = self.buffers.front_mut() {
            let now = wanted.min(*length);
            if now > 0 {
                each(*address, now).map_err(Error::Memory)?;
            }
            wanted = wanted.saturating_sub(now);
            self.left = self.left.saturating_sub(now);
            *length = length.saturating_sub(now);
            if *length > 0 {
                *address = address.unchecked_add(now as u64);
                break;
            }
            self.buffers.pop_front();
        }
        Ok(())
    }
}
