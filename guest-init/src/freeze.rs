// SPDX-License-Identifier: Apache-2.0
//! Letting the machine be frozen, where it was started for that: it has no devices (kexec_load(2), reboot(2)).
//!
//! Not for what makes a copy of it; see [`crate::frozen`] for how one comes back.

use crate::{
    frozen::{self, MOST_KEPT},
    machine, sys,
};
use alloc::{vec, vec::Vec};
use core::ops::Range;
use rustix::{
    fs::OFlags,
    io::{Result, read},
    system::{RebootCommand, reboot},
};

/// Stops the machine for good. Returns in each of its copies.
///
/// # Errors
/// The kernel's refusal; then nothing has stopped.
pub fn freeze() -> Result<()> {
    sys::load_page(&frozen::page(&kept()?), frozen::PAGE, frozen::SIZE)?;
    reboot(RebootCommand::Kexec)?;
    sys::unload_page()
}

/// Memory that the kernel has reserved for itself since it booted, as far as it lies together
/// (Documentation/admin-guide/mm/pagemap.rst, `/proc/kpageflags`).
fn kept() -> Result<Vec<Range<u64>>> {
    /// Fewer pages are not worth a mapping of their own.
    const FEW: u64 = 32;
    const PAGE: u64 = 4096;
    /// In the first megabyte all is reserved, for reasons of each machine's own; our page is there, too.
    const LOW: u64 = 256;
    let flags = machine::told(c"kpageflags", OFlags::RDONLY)?;
    let mut chunk = vec![0; 64 << 10];
    let (mut kept, mut first, mut page) = (Vec::new(), None, 0);
    loop {
        let count = read(&flags, &mut chunk[..])?;
        // Behind the last page there is none.
        let words = chunk[..count].as_chunks().0.iter().map(|word| u64::from_le_bytes(*word));
        for word in words.chain((count == 0).then_some(0)) {
            match (first, page >= LOW && is_reserved(word)) {
                (None, true) => first = Some(page),
                (Some(begin), false) => {
                    if page - begin >= FEW && kept.len() < MOST_KEPT {
                        kept.push(begin * PAGE..page * PAGE);
                    }
                    first = None;
                }
                _ => {}
            }
            page += 1;
        }
        if count == 0 {
            return Ok(kept);
        }
    }
}

/// Whether these are the flags of a page that is there and reserved (include/linux/kernel-page-flags.h). The page of zeros, which is in the
/// kernel's image, is everybody's: a file can be written from it directly (open(2), `O_DIRECT`).
fn is_reserved(flags: u64) -> bool {
    const NOPAGE: u64 = 1 << 20;
    const ZERO_PAGE: u64 = 1 << 24;
    const RESERVED: u64 = 1 << 32;
    flags & (NOPAGE | ZERO_PAGE | RESERVED) == RESERVED
}
