// SPDX-License-Identifier: Apache-2.0
//! Huge pages for a file in memory (madvise(2), `MADV_COLLAPSE`).
#![expect(unsafe_code, reason = "a mapping of our own is made, advised on and removed; nobody reads or writes it")]

use rustix::fs::{FallocateFlags, fallocate};
use rustix::mm::{MapFlags, ProtFlags, mmap, mmap_anonymous, munmap};
use std::fs::File;
use std::io;
use std::ops::Range;
use std::ptr;

/// What x86 calls huge.
const HUGE: u64 = 2 << 20;

/// Fills these bytes of a file in memory with huge pages. Ends are rounded inwards.
///
/// # Errors
/// If the kernel has no huge page to spare, or cannot do this (Linux before 6.1). The file is as good as before.
pub(crate) fn collapse(file: &File, bytes: &Range<u64>) -> io::Result<()> {
    let (begin, end) = (bytes.start.next_multiple_of(HUGE), bytes.end / HUGE * HUGE);
    if begin >= end {
        return Ok(());
    }
    let length = usize::try_from(end - begin).map_err(io::Error::other)?;
    let reserved = length + HUGE as usize;
    // SAFETY: a new mapping, at an address of the kernel's choice.
    let place = unsafe { mmap_anonymous(ptr::null_mut(), reserved, ProtFlags::empty(), MapFlags::PRIVATE) }?;
    let aligned = place.map_addr(|address| address.next_multiple_of(HUGE as usize));
    // SAFETY: the range lies within the reservation above, which is ours and which nobody else knows.
    let done = unsafe {
        mmap(aligned, length, ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED | MapFlags::FIXED, file, begin)
    }
    .map(|mapping| {
        // SAFETY: the mapping is ours and no reference points into it.
        let advise = || match unsafe { libc::madvise(mapping, length, libc::MADV_COLLAPSE) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        };
        // What holds nothing yet is refused by some (Linux 6.18): a first small page for each huge one.
        let fill = |at| fallocate(file, FallocateFlags::empty(), at, 1);
        advise().or_else(|_| {
            (begin..end).step_by(HUGE as usize).try_for_each(fill)?;
            advise()
        })
    });
    // SAFETY: the reservation, whatever is mapped in it; no reference points into it.
    unsafe { munmap(place, reserved) }?;
    done?
}
