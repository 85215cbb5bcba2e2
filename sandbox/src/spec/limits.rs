// SPDX-License-Identifier: Apache-2.0
//! What a command may use at most, beside memory, processors, time and output.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use super::{Error, Spec};

/// Resource limits by docker's names, with Linux's numbers (getrlimit(2)).
pub const ULIMITS: [(&str, u32); 16] = [
    ("as", 9),
    ("core", 4),
    ("cpu", 0),
    ("data", 2),
    ("fsize", 1),
    ("locks", 10),
    ("memlock", 8),
    ("msgqueue", 12),
    ("nice", 13),
    ("nofile", 7),
    ("nproc", 6),
    ("rss", 5),
    ("rtprio", 14),
    ("rttime", 15),
    ("sigpending", 11),
    ("stack", 3),
];

/// Most that a file system of the guest may hold, in bytes: what ext4 has with its plainest layout.
pub const DISK_MAX: u64 = 1 << 40;
/// Least that one may hold.
pub const DISK_MIN: u64 = 1 << 20;

/// Limits that are unset unless asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Limits {
    /// Processes and threads, the command itself included.
    pub processes: Option<u64>,
    /// Resource limits of each process, in the place of the caller's.
    pub ulimits: Vec<Ulimit>,
    /// Bytes in the private layer; half of the memory if not said.
    pub private: Option<u64>,
    /// Bytes in `/dev/shm`; half of the memory if not said.
    pub shm: Option<u64>,
    /// File systems in memory.
    pub tmpfs: Vec<Tmpfs>,
}

/// One `--ulimit NAME=SOFT[:HARD]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ulimit {
    /// Its name.
    pub name: &'static str,
    /// Linux's number.
    pub resource: u32,
    /// Soft limit; `u64::MAX` is "unlimited".
    pub soft: u64,
    /// Hard limit; likewise.
    pub hard: u64,
}

/// One `--tmpfs DST[:options]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tmpfs {
    /// Absolute path in the guest.
    pub target: PathBuf,
    /// Bytes it holds; half of the memory if not said.
    pub size: Option<u64>,
    /// Mode of its root.
    pub mode: u32,
    /// Whether programs in it may be executed.
    pub executable: bool,
}

impl Spec {
    /// Resource limits the command starts with: the caller's, but for those that are set for it.
    #[must_use]
    pub fn rlimits(&self) -> Vec<(u32, u64, u64)> {
        let set = &self.limits.ulimits;
        let inherited = self.process.rlimits.iter().copied();
        let kept = inherited.filter(|(number, ..)| set.iter().all(|limit| limit.resource != *number));
        // The last of a name counts.
        let last =
            set.iter().enumerate().filter(|(at, limit)| set[at + 1..].iter().all(|later| later.name != limit.name));
        kept.chain(last.map(|(_, limit)| (limit.resource, limit.soft, limit.hard))).collect()
    }

    /// Bytes that the private layer holds if it needs a disk: more than a file system in memory may.
    #[must_use]
    pub fn disk(&self) -> Option<u64> {
        self.limits.private.filter(|bytes| *bytes > self.half_of_memory())
    }

    /// Bytes that a file system in memory holds unless its size is said: half of the memory, as Linux has it.
    #[must_use]
    pub fn half_of_memory(&self) -> u64 {
        self.memory / 2
    }
}

impl Limits {
    pub(super) fn check(&self) -> Result<(), Error> {
        if self.processes == Some(0) {
            return Err(Error::Processes);
        }
        if let Some(limit) = self.ulimits.iter().find(|limit| limit.soft > limit.hard) {
            return Err(Error::Ulimit(limit.name));
        }
        let sizes = [("--disk-size", self.private), ("--shm-size", self.shm)];
        let tmpfs = self.tmpfs.iter().map(|tmpfs| ("--tmpfs", tmpfs.size));
        for (option, size) in sizes.into_iter().chain(tmpfs) {
            if size.is_some_and(|size| !(DISK_MIN..=DISK_MAX).contains(&size)) {
                return Err(Error::Size(option));
            }
        }
        for (at, tmpfs) in self.tmpfs.iter().enumerate() {
            if !is_plain(&tmpfs.target) {
                return Err(Error::TmpfsTarget(tmpfs.target.clone()));
            }
            if self.tmpfs[..at].iter().any(|other| other.target == tmpfs.target) {
                return Err(Error::TmpfsTwice(tmpfs.target.clone()));
            }
        }
        Ok(())
    }
}

/// Whether a path is absolute, without `.` and `..`, and neither the root nor in what the guest's kernel shows.
fn is_plain(target: &Path) -> bool {
    let plain = target.is_absolute() && target.components().skip(1).all(|part| matches!(part, Component::Normal(_)));
    let reserved = ["/proc", "/sys", "/dev"].iter().any(|reserved| target.starts_with(reserved));
    plain && !reserved && target != Path::new("/") && !OsStr::as_bytes(target.as_os_str()).contains(&0)
}
