// SPDX-License-Identifier: Apache-2.0
//! Entries to a `newc` archive: pure bytes, the same for the same entries. The one place that names the `cpio` crate.
//!
//! Format: Linux, Documentation/driver-api/early-userspace/buffer-format.rst. Not for reading archives.

use ::cpio::newc::{self, Builder, ModeFileType};
use std::io::{self, Write as _};

/// The magic number every archive begins with.
pub(crate) const MAGIC: &[u8; 6] = b"070701";

/// One thing in an archive. Names are relative to the root, without a slash in front.
#[derive(Debug, Clone, Copy)]
pub enum Entry<'a> {
    /// A directory.
    Directory {
        /// Its path.
        name: &'a str,
        /// Permissions.
        mode: u32,
    },
    /// A device node.
    CharacterDevice {
        /// Its path.
        name: &'a str,
        /// Permissions.
        mode: u32,
        /// What kind of device.
        major: u32,
        /// Which one.
        minor: u32,
    },
    /// A file.
    File {
        /// Its path.
        name: &'a str,
        /// Permissions.
        mode: u32,
        /// What is in it.
        bytes: &'a [u8],
    },
}

/// Packs entries in the order given: owned by root, made in 1970, numbered from one.
///
/// # Errors
/// If a file is too large for the format.
pub fn pack(entries: &[Entry<'_>]) -> io::Result<Vec<u8>> {
    let mut archive = Vec::new();
    for (number, entry) in (1..).zip(entries) {
        let (builder, bytes) = describe(entry);
        let size = u32::try_from(bytes.len()).map_err(|error| io::Error::new(io::ErrorKind::FileTooLarge, error))?;
        let mut writer = builder.ino(number).write(&mut archive, size);
        writer.write_all(bytes)?;
        writer.finish()?;
    }
    newc::trailer(archive)
}

fn describe<'a>(entry: &Entry<'a>) -> (Builder, &'a [u8]) {
    match *entry {
        Entry::Directory { name, mode } => {
            (Builder::new(name).mode(mode).nlink(2).set_mode_file_type(ModeFileType::Directory), &[])
        }
        Entry::CharacterDevice { name, mode, major, minor } => {
            let builder = Builder::new(name).mode(mode).rdev_major(major).rdev_minor(minor);
            (builder.set_mode_file_type(ModeFileType::Char), &[])
        }
        Entry::File { name, mode, bytes } => {
            (Builder::new(name).mode(mode).set_mode_file_type(ModeFileType::Regular), bytes)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::cpio::newc::Reader;
    use std::io::Read as _;

    const ENTRIES: &[Entry<'_>] = &[
        Entry::Directory { name: "dev", mode: 0o755 },
        Entry::CharacterDevice { name: "dev/console", mode: 0o600, major: 5, minor: 1 },
        Entry::File { name: "init", mode: 0o755, bytes: b"program" },
    ];

    #[test]
    fn the_same_entries_give_the_same_bytes() {
        assert_eq!(pack(ENTRIES).unwrap(), pack(ENTRIES).unwrap());
    }

    #[test]
    fn entries_come_back_as_they_were_described() {
        let archive = pack(ENTRIES).unwrap();

        let mut rest = &archive[..];
        let mut found = Vec::new();
        loop {
            let mut reader = Reader::new(rest).unwrap();
            if reader.entry().is_trailer() {
                break;
            }
            let entry = reader.entry().clone();
            let mut bytes = Vec::new();
            reader.read_to_end(&mut bytes).unwrap();
            found.push((entry.name().to_owned(), entry.mode(), entry.rdev_major(), entry.mtime(), entry.ino(), bytes));
            rest = reader.finish().unwrap();
        }

        assert_eq!(
            found,
            [
                ("dev".to_owned(), 0o040_755, 0, 0, 1, vec![]),
                ("dev/console".to_owned(), 0o020_600, 5, 0, 2, vec![]),
                ("init".to_owned(), 0o100_755, 0, 0, 3, b"program".to_vec()),
            ]
        );
    }
}
