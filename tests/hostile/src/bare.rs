// SPDX-License-Identifier: Apache-2.0
//! The machine itself: where it starts, its memory, its ports, its clock, its end. Every unsafe block is here.
//!
//! Follows the 64-bit boot protocol of Linux for the state at the entry point (Documentation/arch/x86/boot.rst), and the
//! AMD64 manual for everything else. There is no interrupt table: an exception ends the machine by a triple fault.
#![expect(unsafe_code, reason = "the ground that everything else stands on")]

use core::arch::{asm, global_asm};
use core::panic::PanicInfo;

/// Page directories for the first 4 GiB and the two tables above them, where the processor's own hole has ended and below
/// where a linker puts a program.
const TABLES: u64 = 0x10_0000;
const PAGE: u64 = 0x1000;
const GIB: u64 = 1 << 30;

global_asm!(
    ".globl _start",
    "_start:",
    // Vector instructions, which compiled code uses as it likes: CR0 without EM, with MP; CR4 with OSFXSR, OSXMMEXCPT.
    "mov rax, cr0",
    "and rax, -5",
    "or rax, 2",
    "mov cr0, rax",
    "mov rax, cr4",
    "or rax, 0x600",
    "mov cr4, rax",
    "xor ebp, ebp",
    "mov rsp, 0x90000",
    "mov rdi, rsi",
    "call {main}",
    "ud2",
    // What compiled code calls for memory. In assembly, or a loop would be compiled into a call of itself.
    ".globl memcpy",
    "memcpy:",
    "mov rax, rdi",
    "mov rcx, rdx",
    "rep movsb",
    "ret",
    ".globl memmove",
    "memmove:",
    "mov rax, rdi",
    "sub rax, rsi",
    "cmp rax, rdx",
    "jae memcpy",
    "mov rax, rdi",
    "mov rcx, rdx",
    "lea rdi, [rdi + rdx - 1]",
    "lea rsi, [rsi + rdx - 1]",
    "std",
    "rep movsb",
    "cld",
    "ret",
    ".globl memset",
    "memset:",
    "mov r8, rdi",
    "mov eax, esi",
    "mov rcx, rdx",
    "rep stosb",
    "mov rax, r8",
    "ret",
    ".globl memcmp",
    ".globl bcmp",
    "memcmp:",
    "bcmp:",
    "mov rcx, rdx",
    "xor eax, eax",
    "repe cmpsb",
    "je 2f",
    "movzx eax, byte ptr [rdi - 1]",
    "movzx ecx, byte ptr [rsi - 1]",
    "sub eax, ecx",
    "2:",
    "ret",
    main = sym enter,
);

extern "C" fn enter(zero_page: u64) -> ! {
    map();
    crate::main(zero_page)
}

/// Maps the first 4 GiB where they are. What boot code has mapped is the first of them.
fn map() {
    let (second, root) = (TABLES + 4 * PAGE, TABLES + 5 * PAGE);
    for entry in 0..2 * 512 {
        poke::<u64>(second + entry * 8, 0);
    }
    poke::<u64>(root, second | 0b11);
    for number in 0..4 {
        let table = TABLES + number * PAGE;
        for entry in 0..512 {
            poke::<u64>(table + entry * 8, (number * GIB) | (entry << 21) | 0b1000_0011);
        }
        poke::<u64>(second + number * 8, table | 0b11);
    }
    // SAFETY: every address that is in use stays mapped to itself.
    unsafe { asm!("mov cr3, {}", in(reg) root, options(nostack, preserves_flags)) };
}

/// Integers that the machine's memory and registers hold.
pub(crate) trait Word: Copy {}

impl Word for u8 {}
impl Word for u16 {}
impl Word for u32 {}
impl Word for u64 {}

/// Reads memory, or what is there instead.
pub(crate) fn peek<T: Word>(address: u64) -> T {
    // SAFETY: all of the first 4 GiB is mapped, any bytes are an integer, and no reference of the program leads to where
    // cases read: what they use is far above its image.
    unsafe { (address as *const T).read_volatile() }
}

/// Writes memory, or what is there instead.
pub(crate) fn poke<T: Word>(address: u64, value: T) {
    // SAFETY: as above.
    unsafe { (address as *mut T).write_volatile(value) };
}

/// Copies 16 bytes by one read and one write, whatever is at either place.
pub(crate) fn copy_wide(from: u64, to: u64) {
    // SAFETY: as above, and the vector register is named. It is only loaded and stored: an emulated processor may know
    // no more vector instructions than that.
    unsafe {
        asm!(
            "movdqu {x}, [{from}]", "movdqu [{to}], {x}",
            from = in(reg) from, to = in(reg) to, x = out(xmm_reg) _, options(nostack, preserves_flags),
        );
    }
}

/// Exchanges a register of 32 bits for another value, by a locked instruction.
pub(crate) fn exchange(address: u64, value: u32) -> u32 {
    let mut value = value;
    // SAFETY: as above.
    unsafe { asm!("xchg [{a}], {v:e}", a = in(reg) address, v = inout(reg) value, options(nostack, preserves_flags)) };
    value
}

/// What is done to a port.
#[derive(Clone, Copy)]
enum Access {
    Read,
    Write(u32),
}

/// Reads a port of one, two or four bytes.
pub(crate) fn input(port: u16, width: u8) -> u32 {
    access(port, width, Access::Read)
}

/// Writes to a port of one, two or four bytes.
pub(crate) fn output(port: u16, width: u8, value: u32) {
    access(port, width, Access::Write(value));
}

fn access(port: u16, width: u8, how: Access) -> u32 {
    let mut value = match how {
        Access::Read => 0,
        Access::Write(value) => value,
    };
    // SAFETY: a port of this machine is at worst a reset; nothing here changes memory.
    unsafe {
        match (how, width) {
            (Access::Read, 1) => asm!("in al, dx", in("dx") port, inout("eax") value, options(nostack)),
            (Access::Read, 2) => asm!("in ax, dx", in("dx") port, inout("eax") value, options(nostack)),
            (Access::Read, _) => asm!("in eax, dx", in("dx") port, inout("eax") value, options(nostack)),
            (Access::Write(_), 1) => asm!("out dx, al", in("dx") port, in("eax") value, options(nostack)),
            (Access::Write(_), 2) => asm!("out dx, ax", in("dx") port, in("eax") value, options(nostack)),
            (Access::Write(_), _) => asm!("out dx, eax", in("dx") port, in("eax") value, options(nostack)),
        }
    }
    value
}

/// Reads a port `count` times by one instruction, to this place.
pub(crate) fn input_string(port: u16, to: u64, count: u64) {
    // SAFETY: the place is memory that cases use.
    unsafe { asm!("rep insb", in("dx") port, inout("rdi") to => _, inout("rcx") count => _, options(nostack)) }
}

/// Writes to a port `count` times by one instruction, from this place.
pub(crate) fn output_string(port: u16, from: u64, count: u64) {
    // SAFETY: as above; it is only read.
    unsafe { asm!("rep outsb", in("dx") port, inout("rsi") from => _, inout("rcx") count => _, options(nostack)) }
}

/// The processor's counter.
pub(crate) fn clock() -> u64 {
    // SAFETY: every x86-64 processor has it.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// Ends the machine by the chipset's reset register.
pub(crate) fn reset() -> ! {
    loop {
        output(0xcf9, 1, 0x06);
    }
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    crate::console::say(format_args!("\nhostile: {info}\n"));
    reset()
}
