// SPDX-License-Identifier: Apache-2.0
//! Event descriptors (eventfd(2)): our own, and ones that a peer hands over.

use rustix::event::EventfdFlags;
use rustix::io::Errno;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

/// Makes a non-blocking event descriptor with count 0.
pub(crate) fn create() -> Result<OwnedFd, Errno> {
    rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
}

/// Adds one. A count that is full already wakes whoever waits, so that is not an error.
pub(crate) fn signal(fd: impl AsFd) -> Result<(), Errno> {
    match rustix::io::write(fd, &1_u64.to_ne_bytes()) {
        Ok(_) | Err(Errno::AGAIN) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Whether `fd` is an event descriptor: anything else could make a write to it wait, or mean something.
pub(crate) fn is_eventfd(fd: impl AsFd) -> bool {
    let path = format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd());
    std::fs::read_link(path).is_ok_and(|target| target.as_os_str() == "anon_inode:[eventfd]")
}
