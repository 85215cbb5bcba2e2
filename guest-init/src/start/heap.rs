// SPDX-License-Identifier: Apache-2.0
//! The allocator: small blocks off a fixed arena, large ones from the kernel.
//!
//! A block of the arena is only ever taken back if it is the last one given out, which is how short-lived blocks come and
//! go here; the few that live longer are of bounded number and size. Large blocks, a message with its arguments, are
//! mapped alone, so that they grow without being copied and go when they are done with. One thread, no locks.

use core::{
    alloc::{GlobalAlloc, Layout},
    arch::asm,
    cell::UnsafeCell,
    ptr::null_mut,
};

/// Room for small blocks. Costs nothing until it is touched.
const ARENA: usize = 1 << 20;

/// From this size on, a block is mapped alone.
const LARGE: usize = 96 << 10;

#[global_allocator]
static HEAP: Heap = Heap { arena: UnsafeCell::new([0; ARENA]), used: UnsafeCell::new(0) };

#[repr(align(64))]
struct Heap {
    arena: UnsafeCell<[u8; ARENA]>,
    used: UnsafeCell<usize>,
}

// SAFETY: this program has one thread, and each copy that clone3(2) makes of it has its own memory.
unsafe impl Sync for Heap {}

// SAFETY: blocks are disjoint, since `used` only passes over what was not given out or has been given back, and are as
// large and as aligned as asked for: mapped ones to a page, and no type here wants more.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if layout.size() >= LARGE {
            return map(layout.size());
        }
        // SAFETY: one thread; the reference ends before anything else can use the cell.
        let used = unsafe { &mut *self.used.get() };
        let start = used.next_multiple_of(layout.align());
        let end = start + layout.size();
        if end > ARENA || layout.align() > 64 {
            return null_mut();
        }
        *used = end;
        // SAFETY: `start` is within the arena.
        unsafe { self.arena.get().cast::<u8>().add(start) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if layout.size() >= LARGE {
            return unmap(block, layout.size());
        }
        // SAFETY: as in `alloc`.
        let used = unsafe { &mut *self.used.get() };
        let start = block.addr() - self.arena.get().addr();
        if start + layout.size() == *used {
            *used = start;
        }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if layout.size() >= LARGE && size >= LARGE {
            return remap(block, layout.size(), size);
        }
        // SAFETY: as in `alloc`.
        let used = unsafe { &mut *self.used.get() };
        let start = block.addr().wrapping_sub(self.arena.get().addr());
        if start.checked_add(layout.size()) == Some(*used) && size < LARGE && start + size <= ARENA {
            *used = start + size;
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

fn map(size: usize) -> *mut u8 {
    const MMAP: usize = 9;
    const READ_WRITE: usize = 3;
    const PRIVATE_ANONYMOUS: usize = 0x22;
    // SAFETY: a new mapping, where nothing is.
    unsafe { call(MMAP, [0, size, READ_WRITE, PRIVATE_ANONYMOUS, usize::MAX, 0]) }
}

fn unmap(block: *mut u8, size: usize) {
    const MUNMAP: usize = 11;
    // SAFETY: a mapping of ours that its owner has given back.
    unsafe { call(MUNMAP, [block.expose_provenance(), size, 0, 0, 0, 0]) };
}

fn remap(block: *mut u8, old: usize, new: usize) -> *mut u8 {
    const MREMAP: usize = 25;
    const MAY_MOVE: usize = 1;
    // SAFETY: a mapping of ours, of which its owner will use only the new place.
    unsafe { call(MREMAP, [block.expose_provenance(), old, new, MAY_MOVE, 0, 0]) }
}

/// # Safety
/// As the call itself.
unsafe fn call(number: usize, a: [usize; 6]) -> *mut u8 {
    let value: usize;
    // SAFETY: the registers are those of the kernel's calling convention; the caller answers for their content.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number => value,
            in("rdi") a[0], in("rsi") a[1], in("rdx") a[2], in("r10") a[3], in("r8") a[4], in("r9") a[5],
            lateout("rcx") _, lateout("r11") _,
            options(nostack),
        );
    }
    // Errors are the last page of addresses.
    if value > usize::MAX - 4096 { null_mut() } else { core::ptr::with_exposed_provenance_mut(value) }
}
