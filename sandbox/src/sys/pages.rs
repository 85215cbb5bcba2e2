// SPDX-License-Identifier: Apache-2.0
//! Huge pages for a mapping (madvise(2), `MADV_COLLAPSE`).
#![expect(unsafe_code, reason = "the kernel is told about memory by its address")]

use std::io;
use std::ops::Range;
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
