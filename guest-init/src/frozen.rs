// SPDX-License-Identifier: Apache-2.0
//! The page that a frozen guest leaves its kernel for, and through which a clone comes back.
//!
//! A template is the memory of a guest that has stopped in this page; a clone is a new machine with that memory, whose
//! processor is led into the page. What the kernel needs to go on in another machine it has saved itself before it came
//! here: this is its kexec jump (kexec_load(2), `KEXEC_PRESERVE_CONTEXT`; arch/x86/kernel/relocate_kernel_64.S), which
//! was made to carry a system over into another. So no state of a processor or a device is ours to read, translate or
//! restore, and what emulates or virtualizes either machine makes no difference.
//!
//! This is both sides' contract: guest init enters the page (`freeze`); the host fills a clone's memory, says so
//! in [`READY`], and has the processor begin at [`THAW`] in flat 32-bit mode without paging (SDM vol. 3 §10.9). Encodings
//! after Intel SDM vol. 2.

use alloc::vec::Vec;
use core::ops::Range;

/// Where the page lies: in the first megabyte, which Linux gives to nobody. Behind it comes another page, for a copy of
/// the top of the page tables, which a processor without paging must find below 4 GiB.
pub const PAGE: u64 = 0x1_0000;

/// Bytes of both.
pub const SIZE: u64 = 0x2000;

/// Where the processor of a clone begins.
pub const THAW: u64 = PAGE + 0x100;

/// Four bytes that are zero in a template. When they are [`FILLED`], all of the clone's memory is in its place; before
/// that its processor must not begin.
pub const READY: u64 = PAGE + 0x1f0;

/// See [`READY`].
pub const FILLED: u32 = 0x6c6c_7566;

/// What a frozen guest says on its serial console, in a line of its own.
pub const ANNOUNCEMENT: &str = "guest-init: frozen";

/// Where the page lists memory that the kernel keeps: first address and end of each range, in 64-bit words.
const KEPT: usize = 0x200;

/// Most ranges of it. A kernel has its own image, in three parts, and one of page structures.
pub const MOST_KEPT: usize = 16;

/// Bytes that are loaded; the rest of both pages is zero.
const LOADED: usize = KEPT + 16 * MOST_KEPT;

/// Entered from the kernel, with a stack and page tables that map memory to itself; the return address leads back.
const FREEZE: [u8; 0x45] = [
    0x0f, 0x20, 0xd8, // mov rax, cr3
    0x48, 0x89, 0x05, 0x76, 0, 0, 0, // mov [PAGE + 0x80], rax
    0x48, 0x89, 0x25, 0x77, 0, 0, 0, // mov [PAGE + 0x88], rsp
    0x48, 0x89, 0xc6, // mov rsi, rax
    0x48, 0x8d, 0x3d, 0xe5, 0x0f, 0, 0, // lea rdi, [PAGE + 0x1000]
    0xb9, 0, 2, 0, 0, // mov ecx, 512
    0xf3, 0x48, 0xa5, // rep movsq
    0x48, 0x8d, 0x35, 0x1b, 0, 0, 0, // lea rsi, [WORDS]
    // 0x2a: the next byte of what there is to say; after the last of them all is said
    0xac, // lodsb
    0x84, 0xc0, // test al, al
    0x74, 0x13, // jz 0x42
    0x88, 0xc4, // mov ah, al
    // 0x31: while the transmitter is busy (line status register, bit 5)
    0xba, 0xfd, 3, 0, 0,    // mov edx, 0x3fd
    0xec, // 0x36: in al, dx
    0xa8, 0x20, // test al, 0x20
    0x74, 0xfb, // jz 0x36
    0x88, 0xe0, // mov al, ah
    0xb2, 0xf8, // mov dl, 0xf8
    0xee, // out dx, al
    0xeb, 0xe8, // jmp 0x2a
    // 0x42: nothing wakes this processor
    0xf4, // hlt
    0xeb, 0xfd, // jmp 0x42
];
const WORDS: usize = 0x45;

/// Where the freezing processor leaves the address of its page tables and its stack.
const LEFT: Range<usize> = 0x80..0x90;

/// Segments of the way back: none, none, 64-bit code (SDM vol. 3 §3.4.5); and what tells of them.
const GDT: usize = 0x90;
const SEGMENTS: [u64; 3] = [0, 0, 0x00af_9b00_0000_ffff];
const GDTR: usize = 0xa8;

/// Entered by a clone: to the kernel's page tables by way of the copy of their top, and back to where it left.
const THAWING: [u8; 0x46] = [
    0xb8, 0x20, 0, 0, 0, // mov eax, CR4.PAE
    0x0f, 0x22, 0xe0, // mov cr4, eax
    0xb8, 0, 0x10, 1, 0, // mov eax, PAGE + 0x1000
    0x0f, 0x22, 0xd8, // mov cr3, eax
    0xb9, 0x80, 0, 0, 0xc0, // mov ecx, IA32_EFER
    0xb8, 1, 9, 0, 0, // mov eax, NXE | LME | SCE
    0x31, 0xd2, // xor edx, edx
    0x0f, 0x30, // wrmsr
    0x0f, 0x01, 0x15, 0xa8, 0, 1, 0, // lgdt [PAGE + GDTR]
    0xb8, 0x21, 0, 0, 0x80, // mov eax, PG | NE | PE
    0x0f, 0x22, 0xc0, // mov cr0, eax
    0xea, 0x34, 1, 1, 0, 0x10, 0, // jmp 0x10:PAGE + 0x134
    // 0x134, in 64-bit mode
    0x48, 0x8b, 0x05, 0x45, 0xff, 0xff, 0xff, // mov rax, [PAGE + 0x80]
    0x0f, 0x22, 0xd8, // mov cr3, rax
    0x48, 0x8b, 0x25, 0x43, 0xff, 0xff, 0xff, // mov rsp, [PAGE + 0x88]
    0xc3, // ret
];

/// The page as it is loaded.
///
/// `kept` are ranges of memory that the kernel has given to nobody when it booted and never will ("reserved"): its own code
/// and data, its page structures. No device has ever been told of an address in them. At most [`MOST_KEPT`] are listed.
#[must_use]
pub fn page(kept: &[Range<u64>]) -> [u8; LOADED] {
    let mut page = [0; LOADED];
    let mut put = |at: usize, bytes: &[u8]| page[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &FREEZE);
    put(WORDS, ANNOUNCEMENT.as_bytes());
    put(WORDS + ANNOUNCEMENT.len(), b"\n");
    for (number, segment) in SEGMENTS.iter().enumerate() {
        put(GDT + 8 * number, &segment.to_le_bytes());
    }
    // Limit and address (SDM vol. 3 §3.5.1).
    put(GDTR, &(size_of_val(&SEGMENTS) as u16 - 1).to_le_bytes());
    put(GDTR + 2, &(PAGE as u32 + GDT as u32).to_le_bytes());
    put((THAW - PAGE) as usize, &THAWING);
    for (number, range) in kept.iter().take(MOST_KEPT).enumerate() {
        put(KEPT + 16 * number, &range.start.to_le_bytes());
        put(KEPT + 16 * number + 8, &range.end.to_le_bytes());
    }
    page
}

/// What a frozen processor has left in the page's place: the ranges that are listed there; none if it is not this page.
#[must_use]
pub fn kept(bytes: &[u8; LOADED]) -> Option<Vec<Range<u64>>> {
    let words = bytes[KEPT..].as_chunks().0.iter().map(|word| u64::from_le_bytes(*word));
    let words: Vec<u64> = words.take_while(|word| *word != 0).collect();
    let kept: Vec<_> = words.as_chunks().0.iter().map(|[start, end]| *start..*end).collect();
    let mut bytes = *bytes;
    bytes[LEFT].fill(0);
    (bytes == page(&kept)).then_some(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The last byte of the part that begins here and ends with the first that is not zero, searched backwards.
    fn end(page: &[u8], from: usize, before: usize) -> usize {
        (from..before).rev().find(|at| page[*at] != 0).expect("the part is not empty") + 1
    }

    #[test]
    fn the_parts_of_the_page_do_not_overlap() {
        let page = page(&[]);
        assert_eq!(end(&page, 0, WORDS), FREEZE.len());
        assert_eq!(&page[WORDS..WORDS + ANNOUNCEMENT.len()], ANNOUNCEMENT.as_bytes());
        assert_eq!(page[WORDS + ANNOUNCEMENT.len()..0x80][..2], *b"\n\0");
        assert!(page[LEFT].iter().all(|byte| *byte == 0) && LEFT.end == GDT);
        assert!(end(&page, GDT, GDTR) <= GDT + size_of_val(&SEGMENTS));
        assert!(end(&page, GDTR, 0x100) <= GDTR + 6);
        assert!(LOADED as u64 <= SIZE / 2);
    }

    #[test]
    fn the_page_is_known_again_with_what_it_lists() {
        let list = [0x100_0000..0x180_0000, 0x3f00_0000..0x4000_0000];
        let mut bytes = page(&list);
        bytes[LEFT].fill(7);
        assert_eq!(kept(&bytes).as_deref(), Some(&list[..]));
        assert_eq!(kept(&page(&[])), Some(Vec::new()));
        bytes[LEFT.end] ^= 1;
        assert_eq!(kept(&bytes), None);
        assert_eq!(kept(&page(&vec![1..2; MOST_KEPT + 1])).map(|kept| kept.len()), Some(MOST_KEPT));
    }

    #[test]
    fn a_template_is_not_ready_by_itself() {
        let at = (READY - PAGE) as usize;
        assert_eq!(page(&[])[at..at + 4], [0; 4]);
        assert!((THAW - PAGE) as usize + THAWING.len() <= at && at + 4 <= KEPT);
    }
}
