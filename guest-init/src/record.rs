// SPDX-License-Identifier: Apache-2.0
//! How init tells of files: a stream of records, each a header of fixed length, a path, and what the file holds.
//!
//! Plain bytes, since a walk may tell of a hundred thousand files and of gigabytes. Nothing here is checked but the form:
//! whoever reads it must take names, types and sizes for a guest's word.

/// Length of a header in words.
const WORDS: usize = 6;
/// Length of a header in bytes.
pub const HEADER_LEN: usize = 8 * WORDS;

/// Longest path that init tells of.
pub const PATH_MAX: usize = 4095;

/// What a record is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A directory.
    Directory,
    /// A regular file.
    File,
    /// A symbolic link.
    Link,
    /// A device, FIFO or socket.
    Special,
    /// Nothing: all has been told.
    End,
    /// Nothing: this could not be told of, for the error number that stands in the place of the size. What has been told of a
    /// file of this path does not count. Without a path: nothing could. More may follow.
    Failed,
}

/// What has become of it, compared with what was there before the command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It was not there.
    Added,
    /// It was different, or of another kind.
    Changed,
    /// It is not there any more. The rest of the record tells of what it was.
    Removed,
}

/// One record without its path and content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record {
    /// What it is about.
    pub kind: Kind,
    /// What has become of it.
    pub state: State,
    /// Permissions and the three bits above.
    pub mode: u16,
    /// Length of the path.
    pub path_len: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Time of the last change of its content, in seconds since 1970.
    pub seconds: i64,
    /// And nanoseconds.
    pub nanoseconds: u32,
    /// How many names it has.
    pub links: u32,
    /// The same for all names of one file.
    pub inode: u64,
    /// Bytes of content: of a file if content was asked for, and always of a link.
    pub size: u64,
}

impl Record {
    /// As it travels: words of 64 bits, the lowest byte first.
    #[must_use]
    pub fn words(&self) -> [u64; WORDS] {
        let low = u64::from(self.kind as u8) | u64::from(self.state as u8) << 8 | u64::from(self.mode) << 16;
        [
            low | u64::from(self.path_len) << 32,
            u64::from(self.uid) | u64::from(self.gid) << 32,
            self.seconds.cast_unsigned(),
            u64::from(self.nanoseconds) | u64::from(self.links) << 32,
            self.inode,
            self.size,
        ]
    }

    /// Reads one, if it is one.
    #[must_use]
    pub fn parse(bytes: &[u8; HEADER_LEN]) -> Option<Self> {
        let kinds = [Kind::Directory, Kind::File, Kind::Link, Kind::Special, Kind::End, Kind::Failed];
        let states = [State::Added, State::Changed, State::Removed];
        let mut words = [0; WORDS];
        for (word, bytes) in words.iter_mut().zip(bytes.as_chunks().0) {
            *word = u64::from_le_bytes(*bytes);
        }
        let [first, owner, seconds, more, inode, size] = words;
        Some(Self {
            kind: *kinds.get(usize::from(first as u8))?,
            state: *states.get(usize::from((first >> 8) as u8))?,
            mode: (first >> 16) as u16,
            path_len: (first >> 32) as u16,
            uid: owner as u32,
            gid: (owner >> 32) as u32,
            seconds: seconds.cast_signed(),
            nanoseconds: more as u32,
            links: (more >> 32) as u32,
            inode,
            size,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_is_understood() {
        let record = Record {
            kind: Kind::Link,
            state: State::Removed,
            mode: 0o7777,
            path_len: 4095,
            uid: 1,
            gid: 2,
            seconds: -3,
            nanoseconds: 4,
            links: 5,
            inode: 6,
            size: u64::MAX,
        };
        let bytes = |record: Record| -> [u8; HEADER_LEN] {
            let words = record.words();
            core::array::from_fn(|at| words[at / 8].to_le_bytes()[at % 8])
        };
        assert_eq!(Record::parse(&bytes(record)), Some(record));
        for end in [Kind::Directory, Kind::File, Kind::Special, Kind::End, Kind::Failed] {
            assert_eq!(Record::parse(&bytes(Record { kind: end, ..record })).map(|record| record.kind), Some(end));
        }
        for (at, value) in [(0, 6), (1, 3), (0, 255)] {
            let mut bytes = bytes(record);
            bytes[at] = value;
            assert_eq!(Record::parse(&bytes), None);
        }
    }
}
