// SPDX-License-Identifier: Apache-2.0
//! The C library's allocator (mallopt(3)).
#![expect(unsafe_code, reason = "a call of the C library")]

/// Has all threads share one heap. Each would reserve one of its own, and ours hardly ever wait for each other in it.
pub(crate) fn share() {
    // SAFETY: takes numbers, and is made for being called at any time. Should it fail, nothing is different.
    unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
}
