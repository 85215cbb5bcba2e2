// SPDX-License-Identifier: Apache-2.0
//! Guest memory: one concrete type for every device and engine, and the file behind it.
//!
//! The file is a memfd, sealed against every change of its size before anyone else sees it, so that no process that
//! it is shared with can make an access of ours fault. Not for the layout of a machine: that is the engine's.

use crate::sys::pages;
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use rustix::io::Errno;
use std::fs::File;
use std::ops::Range;
use std::slice;
use std::{io, iter};
use vm_memory::mmap::MmapRegionError;
use vm_memory::{
    FileOffset, GuestAddress, GuestAddressSpace, GuestMemoryAtomic, GuestMemoryBackend, GuestMemoryMmap,
    GuestMemoryRegion, GuestRegionCollectionError, GuestRegionMmap, MemoryRegionAddress, MmapRegion, ReadVolatile,
};

/// Guest memory as a device sees it: loaded once per event, replaced as a whole.
pub type Memory = GuestMemoryAtomic<GuestMemoryMmap>;

/// What can go wrong here.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel refused the file, its size or its seals.
    #[error("guest memory of {bytes} bytes: cannot {step} its file")]
    File {
        /// Size asked for.
        bytes: u64,
        /// What was attempted.
        step: &'static str,
        /// The kernel's reason.
        #[source]
        source: io::Error,
    },
    /// More than this machine's address space.
    #[error("guest memory of {0} bytes does not fit in the address space")]
    Size(u64),
    /// The file is too short.
    #[error("a file of {size} bytes is too short for guest memory of {needed}")]
    Short {
        /// Of the file.
        size: u64,
        /// Of all parts.
        needed: u64,
    },
    /// The file could not be mapped.
    #[error("cannot map guest memory")]
    Map(#[source] MmapRegionError),
    /// A part would lie beyond all addresses.
    #[error("guest memory does not fit in the guest's address space")]
    Place(Range<u64>),
    /// The parts overlap or are not in order.
    #[error("cannot put together the parts of guest memory")]
    Parts(#[source] GuestRegionCollectionError),
}

/// What x86 calls huge.
const HUGE: u64 = pages::HUGE as u64;

/// Makes guest memory of `bytes` bytes at guest address 0: the file to share, and our mapping of it.
///
/// # Errors
/// If the kernel refuses the file or its mapping.
pub fn create(bytes: u64) -> Result<(File, Memory), Error> {
    let file = file(bytes)?;
    let memory = map(&file, slice::from_ref(&(0..bytes)))?;
    Ok((file, memory))
}

/// Maps guest memory: the parts of a machine's address space that have it, in the order in which the file has them.
///
/// # Errors
/// If the kernel refuses the mapping, or the file is too short for it.
pub fn map(file: &File, parts: &[Range<u64>]) -> Result<Memory, Error> {
    map_without(file, parts, &[])
}

/// The same without these parts of the file, which are in order: for who must not be told of them.
///
/// # Errors
/// Those of [`map`].
pub fn map_without(file: &File, parts: &[Range<u64>], hidden: &[Range<u64>]) -> Result<Memory, Error> {
    let size = file.metadata().map_err(|source| Error::File { bytes: 0, step: "measure", source })?.len();
    let (mut regions, mut offset) = (Vec::new(), 0);
    for part in parts {
        let end = offset + (part.end - part.start);
        let mut at = offset;
        for hole in hidden.iter().cloned().chain(iter::once(end..end)) {
            let (start, next) = (hole.start.clamp(at, end), hole.end.clamp(at, end));
            if at < start {
                regions.push(region(file, at..start, part.start + (at - offset))?);
            }
            at = next;
        }
        offset = end;
    }
    // An access beyond the file's end would be a fault of ours.
    if offset > size {
        return Err(Error::Short { size, needed: offset });
    }
    Ok(Memory::new(GuestMemoryMmap::from_regions(regions).map_err(Error::Parts)?))
}

/// Maps a piece of the file as the memory from this address on.
fn region(file: &File, piece: Range<u64>, address: u64) -> Result<GuestRegionMmap, Error> {
    let bytes = piece.end - piece.start;
    let shared = file.try_clone().map_err(|source| Error::File { bytes, step: "duplicate", source })?;
    let Ok(length) = usize::try_from(bytes) else {
        return Err(Error::Size(bytes));
    };
    let region = aligned(&FileOffset::new(shared, piece.start), length).map_err(Error::Map)?;
    GuestRegionMmap::new(region, GuestAddress(address))
        .ok_or_else(|| Error::Place(address..address.saturating_add(bytes)))
}

/// Puts a copy of a file's bytes in the place of a part of memory, which the mapping's file has at `place`.
///
/// # Errors
/// If no mapping has all of that part, or the kernel refuses.
pub fn cover(memory: &Memory, place: &Range<u64>, file: &File, offset: u64) -> io::Result<()> {
    within(memory, place, |region, part| pages::cover(region, part, file, offset))
}

/// Reads a file's next bytes into a part of memory, which the mapping's file has at `place`.
///
/// # Errors
/// If no mapping has all of that part, or those of reading; the end of the file is one.
pub fn read(memory: &Memory, place: &Range<u64>, file: &mut impl ReadVolatile) -> io::Result<()> {
    within(memory, place, |region, part| {
        let begin = MemoryRegionAddress(part.start as u64);
        let mut slice = region.get_slice(begin, part.len()).map_err(io::Error::other)?;
        file.read_exact_volatile(&mut slice).map_err(io::Error::other)
    })
}

/// Does something to the part of the mapping in which a part of the file is.
fn within<T>(
    memory: &Memory,
    place: &Range<u64>,
    act: impl FnOnce(&GuestRegionMmap, Range<usize>) -> io::Result<T>,
) -> io::Result<T> {
    for region in memory.memory().iter() {
        let begin = region.file_offset().map_or(0, FileOffset::start);
        if begin <= place.start && place.end <= begin + region.len() {
            // Both are offsets in a mapping.
            return act(region, (place.start - begin) as usize..(place.end - begin) as usize);
        }
    }
    Err(io::Error::other(format!("{place:#x?} is in no part of guest memory")))
}

/// Maps a part of the file at a multiple of a huge page, so that its huge pages can be mapped as such, here and in the
/// guest. The kernel puts a mapping below the last one, so a filler in between moves it; wherever a kernel does
/// otherwise, it is only slower.
fn aligned(file: &FileOffset, length: usize) -> Result<MmapRegion, MmapRegionError> {
    let region = MmapRegion::from_file(file.clone(), length)?;
    let over = region.as_ptr().addr() % pages::HUGE;
    if over == 0 || length < pages::HUGE {
        return Ok(region);
    }
    drop(region);
    // Of more than a huge page, so that it goes into no small gap elsewhere.
    let _filler = MmapRegion::<()>::new(pages::HUGE + over)?;
    MmapRegion::from_file(file.clone(), length)
}

/// Where Linux writes nearly everywhere at the top of memory while it boots: it takes its page structures from there,
/// one sixty-fourth of memory, and after those its first pages.
pub fn top(bytes: u64) -> Range<u64> {
    const FIRST_PAGES: u64 = 4 << 20;
    bytes.saturating_sub(bytes / 64 + FIRST_PAGES)..bytes
}

/// Gives parts of a file of guest memory huge pages, all at once. Without, each small page costs whoever touches it first a
/// fault.
///
/// Only a matter of speed: where the kernel cannot do it, nothing is different, so nobody is told.
pub fn collapse(file: &File, parts: &[Range<u64>]) {
    for part in parts {
        let _slower = collapse_part(file, part);
    }
}

/// The same through the mapping that is there, whose own faults it spares as well.
pub fn warm(memory: &Memory, parts: &[Range<u64>]) {
    for region in memory.memory().iter() {
        let begin = region.file_offset().map_or(0, FileOffset::start);
        let within = |offset: u64| offset.clamp(begin, begin + region.len()) - begin;
        for part in parts {
            let (from, to) = (within(part.start).next_multiple_of(HUGE), within(part.end) / HUGE * HUGE);
            if from < to {
                // Both are offsets in a mapping.
                let _slower = pages::collapse(region, from as usize..to as usize);
            }
        }
    }
}

/// Ends of the part are rounded inwards.
fn collapse_part(file: &File, part: &Range<u64>) -> Result<(), Error> {
    let (begin, end) = (part.start.next_multiple_of(HUGE), part.end / HUGE * HUGE);
    let bytes = end.saturating_sub(begin);
    let (Ok(length), 1..) = (usize::try_from(bytes), bytes) else { return Ok(()) };
    let failed = |step| move |source| Error::File { bytes, step, source };
    let shared = FileOffset::new(file.try_clone().map_err(failed("duplicate"))?, begin);
    let mapping = aligned(&shared, length).map_err(Error::Map)?;
    pages::collapse(&mapping, 0..length).map_err(failed("give huge pages to"))
}

/// A memfd of `bytes` bytes whose size nobody can change any more.
///
/// # Errors
/// If the kernel refuses the file.
pub fn file(bytes: u64) -> Result<File, Error> {
    let failed = |step| move |errno: Errno| Error::File { bytes, step, source: errno.into() };
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    // Kernels before 6.3 do not know NOEXEC_SEAL and say EINVAL.
    let file = match memfd_create("guest-memory", flags | MemfdFlags::NOEXEC_SEAL) {
        Err(Errno::INVAL) => memfd_create("guest-memory", flags),
        result => result,
    };
    let file = file.map_err(failed("create"))?;
    ftruncate(&file, bytes).map_err(failed("size"))?;
    fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL).map_err(failed("seal"))?;
    Ok(File::from(file))
}

#[cfg(test)]
mod tests {
    use super::*;
    use vm_memory::{Bytes, GuestAddressSpace};

    #[test]
    fn file_and_mapping_are_the_same_bytes() {
        use std::os::unix::fs::FileExt;
        let (file, memory) = create(0x10000).expect("memory");
        memory.memory().write_slice(b"guest", GuestAddress(0x8000)).expect("write");
        let mut seen = [0; 5];
        file.read_exact_at(&mut seen, 0x8000).expect("read");
        assert_eq!(&seen, b"guest");
    }

    #[test]
    fn parts_follow_each_other_in_the_file() {
        use std::os::unix::fs::FileExt;
        let (file, _) = create(0x3000).expect("memory");
        let memory = map(&file, &[0..0x1000, 0x10_0000..0x10_2000]).expect("mapping");
        memory.memory().write_slice(b"above", GuestAddress(0x10_1000)).expect("write");
        assert!(memory.memory().write_slice(b"gap", GuestAddress(0x1000)).is_err());
        let mut seen = [0; 5];
        file.read_exact_at(&mut seen, 0x2000).expect("read");
        assert_eq!(&seen, b"above");
        assert!(map(&file, &[0..0x1000, 0x2000..0x5000]).is_err(), "more than there is");
    }

    #[test]
    fn what_is_hidden_is_in_no_mapping() {
        let (file, _) = create(0x8000).expect("memory");
        let parts = [0..0x4000, 0x10_0000..0x10_4000];
        let memory = map_without(&file, &parts, &[0..0x1000, 0x2000..0x3000, 0x7000..0x8000]).expect("mapping");
        let seen: Vec<_> = memory
            .memory()
            .iter()
            .map(|region| (region.start_addr().0, region.len(), region.file_offset().map(FileOffset::start)))
            .collect();
        let expected = [(0x1000, 0x1000, 0x1000), (0x3000, 0x1000, 0x3000), (0x10_0000, 0x3000, 0x4000)];
        assert_eq!(seen, expected.map(|(address, length, offset)| (address, length, Some(offset))));
    }

    #[test]
    fn a_cover_is_seen_by_its_own_mapping_alone() {
        use std::io::Write;
        let (file, memory) = create(0x4000).expect("memory");
        let mut copied = tempfile::tempfile().expect("file");
        copied.write_all(&[7; 0x2000]).expect("write");
        cover(&memory, &(0x1000..0x3000), &copied, 0).expect("cover");
        let other = map(&file, slice::from_ref(&(0..0x4000))).expect("mapping");
        memory.memory().write_slice(&[8], GuestAddress(0x1001)).expect("write");
        let read = |memory: &Memory, at| memory.memory().read_obj::<u16>(GuestAddress(at)).expect("read");
        assert_eq!([read(&memory, 0x1000), read(&memory, 0x2fff), read(&other, 0x1000)], [0x0807, 0x0007, 0]);
        assert!(cover(&memory, &(0x3000..0x5000), &copied, 0).is_err(), "beyond memory");
        let mut first = [0; 2];
        std::os::unix::fs::FileExt::read_exact_at(&copied, &mut first, 0).expect("read");
        assert_eq!(first, [7, 7], "the file stays as it was");
    }

    #[test]
    fn size_is_fixed_for_ever() {
        let (file, _memory) = create(0x10000).expect("memory");
        assert!(file.set_len(0x1000).is_err());
        assert!(file.set_len(0x20000).is_err());
        assert!(fcntl_add_seals(&file, SealFlags::WRITE).is_err());
    }

    #[test]
    fn huge_pages_change_no_byte() {
        let (file, memory) = create(8 << 20).expect("memory");
        memory.memory().write_slice(b"before", GuestAddress(3 << 20)).expect("write");
        collapse(&file, &[0..5 << 20, 7 << 20..9 << 20]);
        let mut seen = [0; 6];
        memory.memory().read_slice(&mut seen, GuestAddress(3 << 20)).expect("read");
        assert_eq!(&seen, b"before");
        assert_eq!(file.metadata().expect("metadata").len(), 8 << 20);
    }
}
