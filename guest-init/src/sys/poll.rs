// SPDX-License-Identifier: Apache-2.0
//! Waiting for descriptors (poll(2)).

use super::{call, number};
use rustix::{
    fd::{AsFd, AsRawFd, RawFd},
    io::{Errno, Result},
};

/// One entry of [`poll`]: struct pollfd.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Watch {
    fd: RawFd,
    events: u16,
    /// What has happened.
    pub seen: u16,
}

impl Watch {
    /// There is something to read.
    pub const IN: u16 = 0x1;
    /// There is room to write.
    pub const OUT: u16 = 0x4;
    /// An error; always watched for.
    pub const ERR: u16 = 0x8;
    /// The other end is gone; always watched for.
    pub const HUP: u16 = 0x10;
    /// The peer of a socket sends no more.
    pub const RDHUP: u16 = 0x2000;
    /// An entry that the kernel skips.
    pub const NOTHING: Self = Self { fd: -1, events: 0, seen: 0 };

    /// Watches `fd` for `events`. The entry does not borrow: polling a number that names nothing is an answer (POLLNVAL),
    /// not a hazard.
    pub fn new(fd: impl AsFd, events: u16) -> Self {
        Self { fd: fd.as_fd().as_raw_fd(), events, seen: 0 }
    }
}

/// Waits until something happens or the time is over (poll(2)).
pub fn poll(watches: &mut [Watch], timeout_ms: Option<u64>) -> Result<()> {
    let timeout = timeout_ms.map_or(-1, |ms| i32::try_from(ms).unwrap_or(i32::MAX));
    // SAFETY: `Watch` is struct pollfd, and the slice has as many as its length says.
    match unsafe { call(number::POLL, [watches.as_mut_ptr() as usize, watches.len(), timeout as usize]) } {
        Ok(_) => Ok(()),
        Err(Errno::INTR) => {
            watches.iter_mut().for_each(|watch| watch.seen = 0);
            Ok(())
        }
        Err(errno) => Err(errno),
    }
}
