// SPDX-License-Identifier: Apache-2.0
//! What the kernel says of this process in one file (proc_pid_status(5)), which would otherwise be a question each.

use std::fs::File;
use std::io::{self, Read};

const PLACE: &str = "/proc/self/status";

/// Most that is read of it: some groups are 65,536.
const SIZE_MAX: u64 = 1 << 20;

/// The file's text.
pub(super) struct Status(String);

impl Status {
    /// Reads it.
    ///
    /// # Errors
    /// If there is no `/proc`.
    pub(super) fn read() -> io::Result<Self> {
        let named = |error: io::Error| io::Error::new(error.kind(), format!("cannot read {PLACE}: {error}"));
        // Its size is not told; this is more, but for a user of hundreds of groups.
        let mut text = String::with_capacity(4096);
        File::open(PLACE).and_then(|file| file.take(SIZE_MAX).read_to_string(&mut text)).map_err(named)?;
        Ok(Self(text))
    }

    /// The words after a name.
    fn words(&self, name: &str) -> io::Result<impl Iterator<Item = &str>> {
        let line = self.0.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        Ok(line.ok_or_else(|| io::Error::other(format!("{PLACE} has no {name}")))?.split_ascii_whitespace())
    }

    /// The first number after a name.
    fn number<N>(&self, name: &str, read: impl FnOnce(&str) -> Option<N>) -> io::Result<N> {
        let number = self.words(name)?.next().and_then(read);
        number.ok_or_else(|| io::Error::other(format!("{PLACE} says nothing of {name} that makes sense")))
    }

    /// The file mode mask.
    pub(super) fn umask(&self) -> io::Result<u32> {
        self.number("Umask", |text| u32::from_str_radix(text, 8).ok())
    }

    /// The signals that are ignored: for number n the bit n - 1.
    pub(super) fn ignored(&self) -> io::Result<u64> {
        self.number("SigIgn", |text| u64::from_str_radix(text, 16).ok())
    }

    /// The real user.
    pub(super) fn user(&self) -> io::Result<u32> {
        self.number("Uid", |text| text.parse().ok())
    }

    /// The real group.
    pub(super) fn group(&self) -> io::Result<u32> {
        self.number("Gid", |text| text.parse().ok())
    }

    /// The supplementary groups.
    pub(super) fn groups(&self) -> io::Result<Vec<u32>> {
        let groups = self.words("Groups")?.map(str::parse).collect::<Result<_, _>>();
        groups.map_err(|error| io::Error::other(format!("{PLACE}: Groups: {error}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::{getgid, getgroups, getuid};

    #[test]
    fn it_says_what_the_calls_say() {
        let status = Status::read().expect("there is /proc");
        assert_eq!(status.user().expect("said"), getuid().as_raw());
        assert_eq!(status.group().expect("said"), getgid().as_raw());
        let groups: Vec<u32> = getgroups().expect("told").into_iter().map(|group| group.as_raw()).collect();
        assert_eq!(status.groups().expect("said"), groups);
        // SIGPIPE, by Rust.
        assert_eq!(status.ignored().expect("said") >> 12 & 1, 1);
        assert!(status.umask().expect("said") <= 0o777);
    }

    #[test]
    fn numbers_are_read_as_they_are_written() {
        let status = Status("Umask:\t0027\nUid:\t7\t8\t9\t10\nSigIgn:\t0000000000001003\nGroups:\t4 20 \n".to_owned());
        assert_eq!(status.umask().expect("said"), 0o27);
        assert_eq!(status.user().expect("said"), 7);
        assert_eq!(status.ignored().expect("said"), 0x1003);
        assert_eq!(status.groups().expect("said"), [4, 20]);
        assert!(status.group().expect_err("not said").to_string().contains("no Gid"));
    }
}
