// SPDX-License-Identifier: Apache-2.0
//! What the kernel has logged, told to the host (proc(5), `/proc/kmsg`: lines of `<level>[seconds] text`).
//!
//! It is told by a copy of init, over a connection of its own, at the host's pace, and ends with the connection.

use crate::{machine, vsock::Dialling, wire::port};
use rustix::{
    fd::OwnedFd,
    fs::{OFlags, fcntl_setfl},
    io::{Errno, Result, read, write},
};

/// How much is sent at a time: some lines.
const CHUNK: usize = 4 << 10;

/// Tells over the control connection of this number. A host that gets less than all has to do without.
pub fn tell(number: u32) {
    let dialling = Dialling::begin(port::of(port::CONTROL, number)).and_then(Dialling::complete);
    _ = dialling.and_then(|socket| copy(&socket));
}

fn copy(socket: &OwnedFd) -> Result<()> {
    fcntl_setfl(socket, OFlags::empty())?;
    // Else the kernel would have us wait for more at its end.
    let log = machine::told(c"kmsg", OFlags::RDONLY | OFlags::NONBLOCK)?;
    let mut chunk = [0; CHUNK];
    loop {
        let count = match read(&log, &mut chunk[..]) {
            Ok(0) | Err(Errno::AGAIN) => return Ok(()),
            Ok(count) => count,
            Err(Errno::INTR) => continue,
            Err(errno) => return Err(errno),
        };
        let mut rest = &chunk[..count];
        while !rest.is_empty() {
            match write(socket, rest) {
                Ok(sent) => rest = &rest[sent..],
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno),
            }
        }
    }
}
