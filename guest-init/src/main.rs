// SPDX-License-Identifier: Apache-2.0
//! The guest's PID 1: speaks with the host until the host is done, then resets the machine.
//!
//! No C library and no `std`: see build.rs and the start file.
#![no_std]
#![no_main]

mod start;

use guest_init::{control::Error, session, sys::abort};
use rustix::system::{RebootCommand, reboot};

fn main() -> ! {
    match session::serve() {
        Error::Closed => start::say("guest-init: no connection to the host\n"),
        Error::Protocol => start::say("guest-init: the host speaks another protocol\n"),
    }
    // Nothing is worth saving. Should even this fail, the kernel panics over the end of init, which the host sees too.
    _ = reboot(RebootCommand::Restart);
    abort()
}
