// SPDX-License-Identifier: Apache-2.0
//! The command's control group: its limit, and what it used (cgroups(7), Documentation/admin-guide/cgroup-v2.rst).
//!
//! Not for the processes in it: [`crate::namespace`] starts the command inside. The hierarchy is mounted nowhere; init
//! holds a descriptor of it, so that there is no path to it in the command's tree.

use crate::{
    failure::{Failure, at},
    wire::{Met, Step, Usage},
};
use rustix::{
    fd::{AsFd, BorrowedFd, OwnedFd},
    fs::{AtFlags, Mode, OFlags, mkdirat, openat, unlinkat},
    io::{Errno, Result, read, write},
    mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_flag, fsmount, fsopen},
};

/// Longest file of the kernel's that is read here; the longest of them is `memory.stat`.
const FILE_MAX: usize = 4096;

/// The group of the command.
#[derive(Debug)]
pub struct Group {
    directory: OwnedFd,
    /// Whose it is.
    number: u32,
}

/// How a group's directory is opened.
const PLACE: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

impl Group {
    /// Makes the group. Nothing in it depends on the run, so this may happen before the host says what to run.
    ///
    /// # Errors
    /// [`Step::Cgroup`].
    pub fn create() -> core::result::Result<Self, Failure> {
        Self::assemble().map_err(at(Step::Cgroup))
    }

    fn assemble() -> Result<Self> {
        let context = fsopen(c"cgroup2", FsOpenFlags::FSOPEN_CLOEXEC)?;
        // The command's own cgroup namespace then cannot lift the limits that are set from outside.
        fsconfig_set_flag(context.as_fd(), c"nsdelegate")?;
        fsconfig_create(context.as_fd())?;
        let root = fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?;
        // While no process is in a group below the root this is free; later it would wait for an RCU grace period.
        put(root.as_fd(), c"cgroup.subtree_control", b"+memory +pids")?;
        // Not for us: for commands that make groups of their own. A kernel without it is fine.
        _ = put(root.as_fd(), c"cgroup.subtree_control", b"+cpu");
        mkdirat(&root, c"command", Mode::from_raw_mode(0o755))?;
        let directory = openat(&root, c"command", PLACE, Mode::empty())?;
        Ok(Self { directory, number: 0 })
    }

    /// Makes another beside this one, for the command of this number.
    ///
    /// # Errors
    /// [`Step::Cgroup`].
    pub fn another(&self, number: u32) -> core::result::Result<Self, Failure> {
        let make = || {
            let beside = openat(&self.directory, c"..", PLACE, Mode::empty())?;
            let mut digits = [0; 20];
            let name = decimal(u64::from(number), &mut digits);
            mkdirat(&beside, name, Mode::from_raw_mode(0o755))?;
            openat(&beside, name, PLACE, Mode::empty())
        };
        make().map(|directory| Self { directory, number }).map_err(at(Step::Cgroup))
    }

    /// Removes a group that [`Group::another`] has made, once no process is in it. One in which a command has made groups
    /// of its own stays, and is in nobody's way.
    pub fn remove(&self) {
        let mut digits = [0; 20];
        let name = decimal(u64::from(self.number), &mut digits);
        _ = openat(&self.directory, c"..", PLACE, Mode::empty())
            .and_then(|beside| unlinkat(&beside, name, AtFlags::REMOVEDIR));
    }

    /// Limits the memory of the group.
    ///
    /// # Errors
    /// [`Step::Cgroup`].
    pub fn limit_memory(&self, bytes: u64) -> core::result::Result<(), Failure> {
        let mut digits = [0; 20];
        put(self.directory.as_fd(), c"memory.max", decimal(bytes, &mut digits)).map_err(at(Step::Cgroup))
    }

    /// Limits the processes and threads of the group.
    ///
    /// # Errors
    /// [`Step::Cgroup`].
    pub fn limit_processes(&self, count: u64) -> core::result::Result<(), Failure> {
        let mut digits = [0; 20];
        put(self.directory.as_fd(), c"pids.max", decimal(count, &mut digits)).map_err(at(Step::Cgroup))
    }

    /// The directory of the group, for clone3(2).
    pub fn directory(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }

    /// What the group has used so far; zero where the kernel does not tell.
    pub fn usage(&self) -> Usage {
        let times = self.text(c"cpu.stat");
        let memory = self.text(c"memory.stat");
        Usage {
            user_us: field(&times, b"user_usec").unwrap_or(0),
            system_us: field(&times, b"system_usec").unwrap_or(0),
            memory_peak: number(&self.text(c"memory.peak")).unwrap_or(0),
            processes_peak: number(&self.text(c"pids.peak")).unwrap_or(0),
            faults: field(&memory, b"pgfault").unwrap_or(0),
            major_faults: field(&memory, b"pgmajfault").unwrap_or(0),
            ..Usage::default()
        }
    }

    /// Which of its limits the group has met.
    pub fn met(&self) -> Met {
        let kills = field(&self.text(c"memory.events"), b"oom_kill").unwrap_or(0);
        let refused = field(&self.text(c"pids.events"), b"max").unwrap_or(0);
        Met { oom_kills: u32::try_from(kills).unwrap_or(u32::MAX), processes_refused: refused, ..Met::default() }
    }

    /// The start of a file of the group, padded with NUL bytes.
    fn text(&self, name: &core::ffi::CStr) -> [u8; FILE_MAX] {
        let mut text = [0; FILE_MAX];
        if let Ok(file) = openat(&self.directory, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()) {
            while read(&file, &mut text[..]) == Err(Errno::INTR) {}
        }
        text
    }
}

fn put(directory: BorrowedFd<'_>, name: &core::ffi::CStr, value: &[u8]) -> Result<()> {
    let file = openat(directory, name, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    write(&file, value).map(drop)
}

/// The digits of `value`, without the size of `core::fmt`.
pub fn decimal(mut value: u64, digits: &mut [u8; 20]) -> &[u8] {
    let mut first = digits.len();
    loop {
        first -= 1;
        digits[first] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            return &digits[first..];
        }
    }
}

/// The number at the start of `text`, if there is one.
fn number(text: &[u8]) -> Option<u64> {
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit());
    digits.fold(None, |value: Option<u64>, digit| {
        Some(value.unwrap_or(0).saturating_mul(10).saturating_add(u64::from(digit - b'0')))
    })
}

/// The number in the line `name number` of a flat keyed file.
pub(crate) fn field(text: &[u8], name: &[u8]) -> Option<u64> {
    text.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(name)?.strip_prefix(b" ")).and_then(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_by_their_whole_name() {
        let events = b"low 0\nhigh 0\nmax 12\noom 3\noom_kill 2\noom_group_kill 1\n\0\0";
        assert_eq!(field(events, b"oom_kill"), Some(2));
        assert_eq!(field(events, b"oom"), Some(3));
        assert_eq!(field(events, b"kill"), None);
        let times = b"usage_usec 30\nuser_usec 10\nsystem_usec 20";
        assert_eq!((field(times, b"user_usec"), field(times, b"system_usec")), (Some(10), Some(20)));
    }

    #[test]
    fn what_is_not_a_number_is_none() {
        assert_eq!(number(b"4096\n"), Some(4096));
        assert_eq!(number(b"max\n"), None);
        assert_eq!(number(&[0; 8]), None);
        assert_eq!(number(b"99999999999999999999999"), Some(u64::MAX));
    }

    #[test]
    fn decimals_read_back() {
        for value in [0, 7, 10, 4096, u64::MAX] {
            assert_eq!(decimal(value, &mut [0; 20]), value.to_string().as_bytes());
        }
    }
}
