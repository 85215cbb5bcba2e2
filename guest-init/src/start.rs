// SPDX-License-Identifier: Apache-2.0
//! What a C runtime would have brought: entry point, memory functions, allocator, panic.
//!
//! Not for system calls ([`guest_init::sys`]). System V ABI, AMD64 supplement, §3.4.1 for the state at the entry point.
#![expect(unsafe_code, reason = "assembly; the unsafe blocks are elsewhere")]

mod memory;

use core::{arch::global_asm, panic::PanicInfo};
use guest_init::{
    cgroup::decimal,
    sys::{Standard, abort, heap::Heap, standard},
};
use rustix::io::write;

#[global_allocator]
static HEAP: Heap = Heap::new();

global_asm!(
    ".globl _start",
    "_start:",
    "xor ebp, ebp",
    "and rsp, -16",
    "call {main}",
    "ud2",
    main = sym enter,
);

extern "C" fn enter() -> ! {
    crate::main()
}

/// Says something on the console, if there is one.
pub(crate) fn say(text: &str) {
    _ = write(standard(Standard::Error), text.as_bytes());
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    say("guest-init: panic");
    if let Some(place) = info.location() {
        say(" at ");
        say(place.file());
        say(":");
        say(core::str::from_utf8(decimal(u64::from(place.line()), &mut [0; 20])).unwrap_or("?"));
    }
    say("\n");
    abort()
}
