// SPDX-License-Identifier: Apache-2.0
//! What the worker keeps once the view is its root, and the descriptors it needs before (getrlimit(2)).
//!
//! The guest's kernel keeps an inode for each file it has seen and each costs the worker a descriptor, so `find /usr`
//! needs a few hundred thousand: file handles would not, but a user namespace may not open them.

use crate::confine::{self, Rules};
use crate::sys::calls;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::CapabilitySet;

/// Descriptors that the guest cannot use up: sockets, rings, and a file open for the length of a request.
const RESERVED: u64 = 64;

/// Descriptors without which a guest gets nowhere: each file that is open in it, and each directory on the way, is one.
const LEAST: u64 = 128;

/// What serving needs. Nothing is kept that would let the worker mount, trace or signal.
/// `DAC_READ_SEARCH` is what root's own worker reads other users' private files with, as root does.
const READING: CapabilitySet = CapabilitySet::DAC_READ_SEARCH;

/// What writing to a volume needs beyond that: acting as the guest's user, and chown, chmod and so on as root.
/// Not `FSETID`: without it the host's kernel takes set-user-id from whatever the guest writes to.
const WRITING: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETUID);

/// A limit of open files that is too low to serve any.
#[derive(Debug, thiserror::Error)]
#[error(
    "serve files with no more than {limit} of them open: it takes {} (the limit of this host's administrator, \
     see ulimit -Hn)", RESERVED + LEAST
)]
pub struct TooFewDescriptors {
    limit: u64,
}

/// Raises the limit of open files as far as it goes; returns how many of them the guest may use.
pub(super) fn raise_descriptor_limit() -> Result<u64, TooFewDescriptors> {
    let present = getrlimit(Resource::Nofile);
    let ceiling = std::fs::read_to_string("/proc/sys/fs/nr_open").ok().and_then(|text| text.trim().parse().ok());
    // Root may go beyond the hard limit; whoever may not goes up to it; at worst the limit stays.
    for limit in [ceiling, present.maximum].into_iter().flatten() {
        if setrlimit(Resource::Nofile, Rlimit { current: Some(limit), maximum: Some(limit) }).is_ok() {
            break;
        }
    }
    for_guest(getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX))
}

fn for_guest(limit: u64) -> Result<u64, TooFewDescriptors> {
    limit.checked_sub(RESERVED).filter(|left| *left >= LEAST).ok_or(TooFewDescriptors { limit })
}

/// Gives up every right that serving does not need, for good. The process must still have one thread only.
pub(super) fn give_up_rights(writes: bool) -> Result<(), confine::Error> {
    let kept = if writes { READING.union(WRITING) } else { READING };
    confine::give_up_rights(kept)
}

/// Leaves this thread, and every one it starts, with the system calls that serving files takes.
pub(super) fn filter() -> Result<(), confine::Error> {
    confine::filter(&rules())
}

fn rules() -> Rules {
    let mut rules = confine::allow(calls::SERVE_FILES);
    confine::allow_threads(&mut rules);
    rules
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_socket_is_made() {
        assert!(confine::SOCKETS.iter().all(|call| !rules().contains_key(call)));
    }

    #[test]
    fn the_guest_is_not_promised_what_is_not_there() {
        assert_eq!(for_guest(1024).unwrap(), 1024 - RESERVED);
        assert_eq!(for_guest(RESERVED + LEAST).unwrap(), LEAST);
        let refused = for_guest(64).unwrap_err();
        assert!(refused.to_string().contains("no more than 64"), "{refused}");
    }
}
