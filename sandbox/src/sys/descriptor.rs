// SPDX-License-Identifier: Apache-2.0
//! Descriptors that a caller names by number (`--report-fd`).
#![expect(unsafe_code, reason = "a bare number says nothing about who owns the descriptor")]

use std::fs::File;
use std::io;
use std::os::fd::FromRawFd;

/// A copy with an owner; the original stays whoever's it is (fcntl(2), `F_DUPFD_CLOEXEC`).
pub(super) fn duplicate(number: u32) -> io::Result<File> {
    let number = i32::try_from(number).map_err(io::Error::other)?;
    // SAFETY: the call reads numbers only, and fails for one that is not open.
    let copy = unsafe { libc::fcntl(number, libc::F_DUPFD_CLOEXEC, 3) };
    if copy < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call has just made it, so it is open and nobody else's.
    Ok(unsafe { File::from_raw_fd(copy) })
}
