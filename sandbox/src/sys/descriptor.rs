// SPDX-License-Identifier: Apache-2.0
//! Descriptors that a caller names by number (`--report-fd`).
#![expect(unsafe_code, reason = "a bare number says nothing about who owns the descriptor")]

use std::fs::File;
use std::io;
use std::os::fd::FromRawFd;

/// A copy with an owner; the original stays whoever's it is (fcntl(2), `F_DUPFD_CLOEXEC`).
pub(super) fn duplicate(number: u32) -> io::Result<File> {
    let number = i32::try_from(number).map_err(io::Error::other)?;
    // SAFETY: the call takes numbers only, and fails for one that is not open. What it returns it has just made, so that
    // is open and nobody else's.
    unsafe {
        match libc::fcntl(number, libc::F_DUPFD_CLOEXEC, 3) {
            -1 => Err(io::Error::last_os_error()),
            copy => Ok(File::from_raw_fd(copy)),
        }
    }
}
