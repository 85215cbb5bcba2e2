// SPDX-License-Identifier: Apache-2.0
//! One epoll instance, always edge-triggered.
//!
//! An edge is reported once, so a descriptor that nobody serves at the moment cannot spin its thread, and an eventfd
//! need not be read: every write to it is an edge of its own (epoll(7)). The price is that who is told must go on
//! until `EAGAIN`, or remember that there is more.

use rustix::event::{Timespec, epoll};
use rustix::io::Errno;
use std::os::fd::{AsFd, OwnedFd};

/// What to be told about a descriptor. Errors and hang-ups are always reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interest {
    /// It has become readable.
    Read,
    /// It has become readable or writable.
    ReadWrite,
}

/// An epoll instance.
#[derive(Debug)]
pub(crate) struct Epoll(OwnedFd);

/// Events that one [`Epoll::wait`] can deliver.
const BATCH: usize = 16;

impl Epoll {
    /// Makes one.
    pub(crate) fn new() -> Result<Self, Errno> {
        epoll::create(epoll::CreateFlags::CLOEXEC).map(Self)
    }

    /// Watches `fd`, or changes what is watched. A condition that already holds is reported as well.
    pub(crate) fn watch(&self, fd: impl AsFd, key: u64, interest: Interest) -> Result<(), Errno> {
        let flags = match interest {
            Interest::Read => epoll::EventFlags::IN | epoll::EventFlags::RDHUP,
            Interest::ReadWrite => epoll::EventFlags::IN | epoll::EventFlags::RDHUP | epoll::EventFlags::OUT,
        } | epoll::EventFlags::ET;
        let data = epoll::EventData::new_u64(key);
        match epoll::add(&self.0, &fd, data, flags) {
            Err(Errno::EXIST) => epoll::modify(&self.0, &fd, data, flags),
            result => result,
        }
    }

    /// Stops watching `fd`. Not watched is fine.
    pub(crate) fn unwatch(&self, fd: impl AsFd) -> Result<(), Errno> {
        match epoll::delete(&self.0, fd) {
            Err(Errno::NOENT) => Ok(()),
            result => result,
        }
    }

    /// Waits for events, for ever unless `poll`, and replaces the content of `keys` by theirs.
    pub(crate) fn wait(&self, keys: &mut Vec<u64>, poll: bool) -> Result<(), Errno> {
        let none = epoll::Event { flags: epoll::EventFlags::empty(), data: epoll::EventData::new_u64(0) };
        let mut events = [none; BATCH];
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        let count = match epoll::wait(&self.0, &mut events, poll.then_some(&at_once)) {
            Err(Errno::INTR) => 0,
            result => result?,
        };
        keys.clear();
        keys.extend(events.iter().take(count).map(|event| event.data.u64()));
        Ok(())
    }
}
