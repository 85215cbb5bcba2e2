// SPDX-License-Identifier: Apache-2.0
//! What a C runtime would have brought: entry point, memory functions, allocator, panic.
//!
//! Not for system calls ([`guest_init::sys`]), but for the one that the allocator needs. System V ABI, AMD64 supplement,
//! §3.4.1 for the state at the entry point.
#![expect(unsafe_code, reason = "the ground that safe code stands on")]

mod heap;
mod memory;

use core::{arch::global_asm, panic::PanicInfo};
use guest_init::cgroup::decimal;
use rustix::{io::write, stdio::stderr};

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
    // SAFETY: whatever descriptor 2 is, nothing else relies on what is written there.
    _ = write(unsafe { stderr() }, text.as_bytes());
}

/// Ends this process by a fault, which the kernel lets kill even PID 1, and then panics; the host sees that.
pub(crate) fn abort() -> ! {
    // SAFETY: does nothing but fault.
    unsafe { core::arch::asm!("ud2", options(noreturn, nomem, nostack)) }
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
