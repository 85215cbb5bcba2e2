// SPDX-License-Identifier: Apache-2.0
//! The C library's allocator (mallopt(3)).
#![expect(unsafe_code, reason = "a call of the C library")]

/// Has all threads share one heap, and keeps what it has grown to. Each would reserve one of its own, and ours hardly ever wait for
/// each other in it; and what is given back is asked for again a moment later.
pub(crate) fn share() {
    const KEPT: i32 = 1 << 20;
    for (option, value) in [(libc::M_ARENA_MAX, 1), (libc::M_TRIM_THRESHOLD, KEPT)] {
        // SAFETY: takes numbers, and is made for being called at any time. Should it fail, nothing is different.
        unsafe { libc::mallopt(option, value) };
    }
}
