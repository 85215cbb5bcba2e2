// SPDX-License-Identifier: Apache-2.0
//! The peer's memory table: which file is where in the guest, and where the peer itself sees it
//! (VHOST_USER_SET_MEM_TABLE).
//!
//! Files are taken only if no access through them can fault: sealed against shrinking, long enough, and of the kind
//! that has no other way to fail. Not for using the memory.

use crate::memory::Memory;
use rustix::fs::{SealFlags, fcntl_get_seals, fstat, fstatfs};
use rustix::io::Errno;
use std::fs::File;
use std::io;
use vhost::vhost_user::message::VhostUserMemoryRegion;
use vm_memory::mmap::FromRangesError;
use vm_memory::{FileOffset, GuestAddress, GuestMemoryMmap};

/// File system type of memfds (statfs(2)); not that of huge pages, which can run out at any access.
const TMPFS_MAGIC: u64 = 0x0102_1994;

/// What is wrong with a table.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// The kernel tells nothing about a file.
    #[error("region {0}: cannot examine its file")]
    Examine(usize, #[source] Errno),
    /// A file that may shrink, or is not memory.
    #[error("region {0}: its file is not memory of a fixed size")]
    Unsealed(usize),
    /// A region reaches beyond an address space or its file.
    #[error("region {0}: reaches beyond its file or address space")]
    Range(usize),
    /// Two regions overlap where the peer sees them.
    #[error("regions {0} and {1} overlap")]
    Overlap(usize, usize),
    /// The regions cannot be mapped, or overlap in the guest.
    #[error("cannot map the regions")]
    Map(#[source] FromRangesError),
    /// Not an address of the peer that the table knows.
    #[error("address {0:#x} is in no region")]
    Address(u64),
}

impl From<Error> for vhost::vhost_user::Error {
    fn from(error: Error) -> Self {
        Self::ReqHandlerError(io::Error::new(io::ErrorKind::InvalidInput, error))
    }
}

/// Where the peer sees guest memory.
#[derive(Debug, Default)]
pub(super) struct Table {
    regions: Vec<Region>,
}

/// A region whose ends do not overflow.
#[derive(Debug)]
struct Region {
    guest: u64,
    peer: u64,
    size: u64,
}

impl Table {
    /// Checks a table and maps it: from now on `memory` is this.
    pub(super) fn install(entries: &[VhostUserMemoryRegion], files: Vec<File>, memory: &Memory) -> Result<Self, Error> {
        let (mut regions, mut ranges) = (Vec::new(), Vec::new());
        for (index, (entry, file)) in entries.iter().zip(files).enumerate() {
            let (region, offset, length) = Region::check(index, entry, &file)?;
            ranges.push((GuestAddress(region.guest), length, Some(FileOffset::new(file, offset))));
            regions.push(region);
        }
        for (index, region) in regions.iter().enumerate() {
            if let Some(other) = regions.iter().take(index).position(|other| region.overlaps(other)) {
                return Err(Error::Overlap(other, index));
            }
        }
        // Mapping wants them in the guest's order, and refuses those that overlap there.
        ranges.sort_by_key(|(address, ..)| *address);
        let map = GuestMemoryMmap::from_ranges_with_files(ranges).map_err(Error::Map)?;
        memory.lock().unwrap_or_else(std::sync::PoisonError::into_inner).replace(map);
        Ok(Self { regions })
    }

    /// The guest address of what the peer sees at `address`.
    pub(super) fn guest_address(&self, address: u64) -> Result<u64, Error> {
        let found = self.regions.iter().find_map(|region| {
            let offset = address.checked_sub(region.peer)?;
            // The sum cannot overflow: the region's end was checked.
            (offset < region.size).then(|| region.guest.saturating_add(offset))
        });
        found.ok_or(Error::Address(address))
    }
}

impl Region {
    /// Checks an entry against its file; also returns the offset and the length to map.
    fn check(index: usize, entry: &VhostUserMemoryRegion, file: &File) -> Result<(Self, u64, usize), Error> {
        // Copied once: the entry is packed.
        let (guest, peer, size, offset) =
            (entry.guest_phys_addr, entry.user_addr, entry.memory_size, entry.mmap_offset);
        let seals = match fcntl_get_seals(file) {
            // What cannot be sealed at all says EINVAL.
            Err(Errno::INVAL) => return Err(Error::Unsealed(index)),
            result => result.map_err(|errno| Error::Examine(index, errno))?,
        };
        let kind = fstatfs(file).map_err(|errno| Error::Examine(index, errno))?.f_type;
        if !seals.contains(SealFlags::SHRINK) || u64::try_from(kind) != Ok(TMPFS_MAGIC) {
            return Err(Error::Unsealed(index));
        }
        let stat = fstat(file).map_err(|errno| Error::Examine(index, errno))?;
        let held = u64::try_from(stat.st_size).unwrap_or(0);
        let fits = offset.checked_add(size).is_some_and(|end| end <= held)
            && guest.checked_add(size).is_some()
            && peer.checked_add(size).is_some();
        match usize::try_from(size) {
            Ok(length) if fits && length > 0 => Ok((Self { guest, peer, size }, offset, length)),
            _ => Err(Error::Range(index)),
        }
    }

    fn overlaps(&self, other: &Self) -> bool {
        self.peer < other.peer.saturating_add(other.size) && other.peer < self.peer.saturating_add(self.size)
    }
}

#[cfg(test)]
mod tests;
