// SPDX-License-Identifier: Apache-2.0
//! A signal that does nothing but interrupt the call a thread is in.

use std::io;
use std::thread::JoinHandle;

use vmm_sys_util::signal::{Killable, SIGRTMIN, register_signal_handler};

/// Makes the signal harmless for the whole process. A call that it interrupts fails with EINTR, and is not restarted.
pub(crate) fn install() -> io::Result<()> {
    register_signal_handler(SIGRTMIN(), nothing).map_err(io::Error::from)
}

/// Interrupts the call that the thread is in, if it is in one.
pub(crate) fn send(thread: &JoinHandle<()>) {
    // A thread that ends just now cannot be interrupted and need not be.
    let _gone = thread.kill(SIGRTMIN());
}

extern "C" fn nothing(_: i32, _: *mut libc::siginfo_t, _: *mut libc::c_void) {}
