// SPDX-License-Identifier: Apache-2.0
//! What lies under a mapping: huge pages (madvise(2), `MADV_COLLAPSE`), another file (mmap(2), `MAP_FIXED`).
#![expect(unsafe_code, reason = "the kernel is told about memory by its address")]

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;
use vm_memory::{Bytes, MmapRegion, VolatileMemory};

/// What x86 calls huge.
pub(crate) const HUGE: usize = 2 << 20;

/// Puts huge pages where these bytes of a mapping of shared memory have small ones or none. What is in them stays as it is.
///
/// # Errors
/// If the kernel has no huge page to spare, or cannot do this (Linux before 6.1). The memory is as good as before.
pub(crate) fn collapse(mapping: &MmapRegion, bytes: Range<usize>) -> io::Result<()> {
    let part = mapping.get_slice(bytes.start, bytes.len()).map_err(io::Error::other)?;
    // What holds nothing yet is refused by some kernels: a first small page for each huge one, by reading from it.
    for at in (0..bytes.len()).step_by(HUGE) {
        part.read_obj::<u8>(at).map_err(io::Error::other)?;
    }
    // SAFETY: the range lies within a mapping, which `mapping` keeps; the advice changes no byte of it.
    match unsafe { libc::madvise(part.ptr_guard_mut().as_ptr().cast(), part.len(), libc::MADV_COLLAPSE) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Puts a copy of a file's bytes, from `offset` on, in the place of a part of a mapping. The copy is this process's own: made of
/// each page when it is first written to.
///
/// # Errors
/// If the kernel refuses, as it does for what is not made of whole pages.
pub(crate) fn cover(mapping: &MmapRegion, bytes: Range<usize>, file: &File, offset: u64) -> io::Result<()> {
    let part = mapping.get_slice(bytes.start, bytes.len()).map_err(io::Error::other)?;
    let place = part.ptr_guard_mut().as_ptr().cast();
    let (rights, kind) =
        (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_FIXED | libc::MAP_NORESERVE);
    let offset = libc::off_t::try_from(offset).map_err(io::Error::other)?;
    // SAFETY: the range lies within a mapping, which `mapping` keeps, and gives back whole when it goes. It is guest memory,
    // which is never referenced as Rust memory, so it may hold other bytes from now on.
    match unsafe { libc::mmap(place, part.len(), rights, kind, file.as_raw_fd(), offset) } {
        libc::MAP_FAILED => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}
