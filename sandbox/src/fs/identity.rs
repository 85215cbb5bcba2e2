// SPDX-License-Identifier: Apache-2.0
//! Whose files a worker touches: how user ids of the host, of the worker and of the guest correspond
//! (user_namespaces(7)).
//!
//! Root's worker sees every id its parent sees, unchanged, and so does the guest. Anybody else's worker has but one:
//! inside it is root and outside the caller, and every other owner is nobody. The guest is shown the caller's own id
//! for the former and root for the latter, so that `/usr` belongs to root there as on the host; whoever in the guest
//! writes to a volume does it as the caller.

use rustix::process::{getegid, geteuid};
use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;
use virtiofsd::soft_idmap::cmdline::IdMap;

/// What an id that is not mapped looks like (`/proc/sys/kernel/overflowuid`).
const NOBODY: u32 = 65534;

/// The user on whose behalf a guest runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

/// How a worker's ids were mapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mapping {
    /// Every id to itself.
    Same,
    /// The worker's root to the caller, nothing else.
    Single,
}

/// Why ids could not be mapped.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Our own map could not be read.
    #[error("read {path:?}")]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The worker's map could not be written.
    #[error("write {path:?}")]
    Write {
        /// Which file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

impl Identity {
    /// The user who runs this process.
    pub fn caller() -> Identity {
        Identity { uid: geteuid().as_raw(), gid: getegid().as_raw() }
    }

    /// Maps the ids of the process `pid`, a child of ours in a new user namespace.
    pub(super) fn map(self, pid: u32) -> Result<Mapping, Error> {
        if self.uid == 0 {
            let same = ["uid_map", "gid_map"].map(|name| same_ranges(name).and_then(|map| write(pid, name, &map)));
            if same.iter().all(Result::is_ok) {
                return Ok(Mapping::Same);
            }
        }
        // Who may not map all may map their own, once they have promised to leave the groups as they are.
        write(pid, "setgroups", "deny")?;
        write(pid, "uid_map", &format!("0 {} 1\n", self.uid))?;
        write(pid, "gid_map", &format!("0 {} 1\n", self.gid))?;
        Ok(Mapping::Single)
    }
}

impl Mapping {
    /// How the file server translates between the worker's ids and the guest's.
    pub(super) fn translation(self, own: u32) -> Option<Vec<IdMap>> {
        match self {
            Mapping::Same => None,
            Mapping::Single => Some(vec![
                IdMap::SquashGuest { from_guest: 0, to_host: 0, count: u32::MAX },
                IdMap::SquashHost { from_host: 0, to_guest: own, count: 1 },
                IdMap::SquashHost { from_host: NOBODY, to_guest: 0, count: 1 },
            ]),
        }
    }
}

/// Most that is read of the ranges: there are 340 at most (user_namespaces(7)).
const MAP_MAX: u64 = 1 << 16;

/// Every range of ids that we have, mapped to itself.
fn same_ranges(name: &str) -> Result<String, Error> {
    let path = PathBuf::from("/proc/self").join(name);
    // Its size is not told; this is more, but for a hundred ranges.
    let mut map = String::with_capacity(4096);
    File::open(&path)
        .and_then(|file| file.take(MAP_MAX).read_to_string(&mut map))
        .map_err(|source| Error::Read { path, source })?;
    Ok(identical(&map))
}

fn identical(map: &str) -> String {
    map.lines()
        .filter_map(|line| {
            let mut fields = line.split_ascii_whitespace();
            let (first, _, count) = (fields.next()?, fields.next()?, fields.next()?);
            Some(format!("{first} {first} {count}\n"))
        })
        .collect()
}

fn write(pid: u32, name: &str, text: &str) -> Result<(), Error> {
    let path = PathBuf::from(format!("/proc/{pid}/{name}"));
    std::fs::write(&path, text).map_err(|source| Error::Write { path, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_mapped_to_themselves() {
        assert_eq!(identical("         0          0 4294967295\n"), "0 0 4294967295\n");
        assert_eq!(identical("0 100000 65536\n70000 5 1\n"), "0 0 65536\n70000 70000 1\n");
    }
}
