// SPDX-License-Identifier: Apache-2.0
//! The allocator: small blocks off a fixed arena, large ones from the kernel.
//!
//! A block of the arena is only ever taken back if it is the last one given out, which is how short-lived blocks come and
//! go here; the few that live longer are of bounded number and size. Large blocks, a message with its arguments, are
//! mapped alone, so that they grow without being copied and go when they are done with. One thread, no locks.

use core::{
    alloc::{GlobalAlloc, Layout},
    cell::UnsafeCell,
    ptr::{null_mut, with_exposed_provenance_mut},
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};
use rustix::io::Result;

/// Room for small blocks. Costs nothing until it is touched.
const ARENA: usize = 1 << 20;

/// From this size on, a block is mapped alone.
pub const LARGE: usize = 96 << 10;

/// The allocator.
#[repr(align(64))]
#[derive(Debug)]
pub struct Heap {
    arena: UnsafeCell<[u8; ARENA]>,
    /// Changed by one thread only; an atomic in order to be changed behind a shared reference.
    used: AtomicUsize,
}

// SAFETY: this program has one thread, and each copy that clone3(2) makes of it has its own memory. Nothing here refers to
// the arena's bytes, it only counts them out.
unsafe impl Sync for Heap {}

// SAFETY: blocks are disjoint, since `used` only passes over what was not given out or has been given back, and are as
// large and as aligned as asked for: mapped ones to a page, and no type here wants more.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if layout.size() >= LARGE {
            return map(layout.size());
        }
        let start = self.used.load(Relaxed).next_multiple_of(layout.align());
        let end = start + layout.size();
        if end > ARENA || layout.align() > 64 {
            return null_mut();
        }
        self.used.store(end, Relaxed);
        self.arena.get().cast::<u8>().wrapping_add(start)
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if layout.size() >= LARGE {
            return unmap(block, layout.size());
        }
        let start = self.place(block);
        if start + layout.size() == self.used.load(Relaxed) {
            self.used.store(start, Relaxed);
        }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if layout.size() >= LARGE && size >= LARGE {
            return remap(block, layout.size(), size);
        }
        let start = self.place(block);
        if start.checked_add(layout.size()) == Some(self.used.load(Relaxed)) && size < LARGE && start + size <= ARENA {
            self.used.store(start + size, Relaxed);
            return block;
        }
        // SAFETY: the old block is the caller's, the new one is fresh, and the layout differs in size only.
        unsafe {
            let new = self.alloc(Layout::from_size_align_unchecked(size, layout.align()));
            if !new.is_null() {
                new.copy_from_nonoverlapping(block, layout.size().min(size));
                self.dealloc(block, layout);
            }
            new
        }
    }
}

impl Default for Heap {
    fn default() -> Self {
        Self::new()
    }
}

impl Heap {
    /// An empty one.
    #[must_use]
    pub const fn new() -> Self {
        Self { arena: UnsafeCell::new([0; ARENA]), used: AtomicUsize::new(0) }
    }

    /// Where in the arena a block is, if it is there.
    fn place(&self, block: *mut u8) -> usize {
        block.addr().wrapping_sub(self.arena.get().addr())
    }
}

fn map(size: usize) -> *mut u8 {
    const MMAP: usize = 9;
    const READ_WRITE: usize = 3;
    const PRIVATE_ANONYMOUS: usize = 0x22;
    // SAFETY: a new mapping, where nothing is.
    mapping(unsafe { super::call(MMAP, [0, size, READ_WRITE, PRIVATE_ANONYMOUS, usize::MAX, 0]) })
}

fn unmap(block: *mut u8, size: usize) {
    const MUNMAP: usize = 11;
    // SAFETY: a mapping of ours that its owner has given back.
    _ = unsafe { super::call(MUNMAP, [block.expose_provenance(), size]) };
}

fn remap(block: *mut u8, old: usize, new: usize) -> *mut u8 {
    const MREMAP: usize = 25;
    const MAY_MOVE: usize = 1;
    // SAFETY: a mapping of ours, of which its owner will use only the new place.
    mapping(unsafe { super::call(MREMAP, [block.expose_provenance(), old, new, MAY_MOVE]) })
}

fn mapping(place: Result<usize>) -> *mut u8 {
    place.map_or(null_mut(), with_exposed_provenance_mut)
}
