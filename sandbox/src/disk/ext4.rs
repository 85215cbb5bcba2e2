// SPDX-License-Identifier: Apache-2.0
//! An empty ext4 (Documentation/filesystems/ext4 of Linux: `super`, `group_descr`, `bitmaps`, `inodes`, `directory`).
//!
//! The plainest that overlayfs can use: no journal, since it is mounted once; no checksums; no copy of the superblock.
//! Inode tables are holes. Not for reading one, nor for any but an empty file.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::time::{SystemTime, UNIX_EPOCH};

const BLOCK: u64 = 4096;
/// Blocks of a group: as many as a bitmap of one block has bits.
const PER_GROUP: u64 = 8 * BLOCK;
/// Inodes of a group: one for 16 KiB.
const INODES: u64 = 8192;
const INODE: u64 = 256;
/// Blocks of a group's inode table.
const TABLE: u64 = INODES * INODE / BLOCK;
/// Two bitmaps and the table.
const OWN: u64 = 2 + TABLE;
/// Bytes of a group's descriptor.
const DESCRIPTOR: u64 = 32;

const ROOT: u64 = 2;
const LOST: u64 = 11;
/// Inodes up to [`LOST`] are taken.
const TAKEN: u64 = LOST;

/// Blocks that Linux sets aside for itself: a fiftieth, at most so many.
const SET_ASIDE: u64 = 4096;

/// How large a file system is, and where what lies in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shape {
    blocks: u64,
}

impl Shape {
    /// One that holds so many bytes of files, besides what it needs itself.
    pub(super) fn holding(bytes: u64) -> Self {
        let data = bytes.div_ceil(BLOCK);
        // For directories, and for lists of where a file's parts are.
        let content = data + data / 512 + 64;
        let groups = (content + content / 49 + SET_ASIDE).div_ceil(PER_GROUP - OWN) + 1;
        let aside = (content / 49).min(SET_ASIDE) + 1;
        let mut blocks = content + aside + 1 + descriptor_blocks(groups);
        blocks += OWN * blocks.div_ceil(PER_GROUP - OWN);
        // A last group that is too small for its own tables becomes one that is not.
        if (1..2 * OWN).contains(&(blocks % PER_GROUP)) {
            blocks = blocks / PER_GROUP * PER_GROUP + 2 * OWN;
        }
        Self { blocks }
    }

    /// Its size.
    pub(super) fn bytes(self) -> u64 {
        self.blocks * BLOCK
    }

    fn groups(self) -> u64 {
        self.blocks.div_ceil(PER_GROUP)
    }

    /// Blocks of a group.
    fn length(self, group: u64) -> u64 {
        (self.blocks - group * PER_GROUP).min(PER_GROUP)
    }

    /// The first of a group's own blocks; in the first group the superblock and all descriptors come before.
    fn own(self, group: u64) -> u64 {
        group * PER_GROUP + if group == 0 { 1 + descriptor_blocks(self.groups()) } else { 0 }
    }

    /// Where the two directories are.
    fn directories(self) -> u64 {
        self.own(0) + OWN
    }

    /// How many of a group's blocks are taken, all at its beginning.
    fn taken(self, group: u64) -> u64 {
        self.own(group) - group * PER_GROUP + OWN + if group == 0 { 2 } else { 0 }
    }

    /// Writes it to a file that is all hole.
    pub(super) fn write(self, file: &File) -> io::Result<()> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs() as u32);
        for group in 0..self.groups() {
            let own = self.own(group);
            file.write_all_at(&bitmap(self.taken(group), self.length(group)), own * BLOCK)?;
            file.write_all_at(&bitmap(taken_inodes(group), INODES), (own + 1) * BLOCK)?;
        }
        file.write_all_at(&self.descriptors(), BLOCK)?;
        file.write_all_at(&self.superblock(now), 1024)?;
        let (table, data) = ((self.own(0) + 2) * BLOCK, self.directories());
        file.write_all_at(&directory_inode(data, 3, 0o755, now), table + (ROOT - 1) * INODE)?;
        file.write_all_at(&directory_inode(data + 1, 2, 0o700, now), table + (LOST - 1) * INODE)?;
        file.write_all_at(&directory(&[(".", ROOT), ("..", ROOT), ("lost+found", LOST)]), data * BLOCK)?;
        file.write_all_at(&directory(&[(".", LOST), ("..", ROOT)]), (data + 1) * BLOCK)
    }

    fn descriptors(self) -> Vec<u8> {
        let mut table = Vec::new();
        for group in 0..self.groups() {
            let (own, inodes) = (self.own(group), INODES - taken_inodes(group));
            let mut fields = Fields::new(DESCRIPTOR as usize);
            fields.long(0, own).long(4, own + 1).long(8, own + 2);
            fields.short(12, self.length(group) - self.taken(group)).short(14, inodes);
            fields.short(16, if group == 0 { 2 } else { 0 });
            table.extend(fields.bytes);
        }
        table
    }

    fn superblock(self, now: u32) -> Vec<u8> {
        // EXT_ATTR, DIR_INDEX, SPARSE_SUPER2: copies of the superblock only where fields that are zero here say.
        const COMPATIBLE: u64 = 0x8 | 0x20 | 0x200;
        // FILETYPE, EXTENTS
        const INCOMPATIBLE: u64 = 0x2 | 0x40;
        // SPARSE_SUPER, LARGE_FILE, HUGE_FILE, DIR_NLINK, EXTRA_ISIZE
        const READ_ONLY: u64 = 0x1 | 0x2 | 0x8 | 0x20 | 0x40;
        let groups = self.groups();
        let free: u64 = (0..groups).map(|group| self.length(group) - self.taken(group)).sum();
        let mut fields = Fields::new(1024);
        fields.long(0, groups * INODES).long(4, self.blocks).long(12, free).long(16, groups * INODES - TAKEN);
        // log2 of the block's size, less 10, twice
        fields.long(24, 2).long(28, 2).long(32, PER_GROUP).long(36, PER_GROUP).long(40, INODES);
        // written now; never counted, clean, and errors go on
        fields.long(48, now.into()).short(54, 0xffff).short(56, 0xef53).short(58, 1).short(60, 1);
        fields.long(64, now.into()).long(76, 1).long(84, LOST).short(88, INODE);
        fields.long(92, COMPATIBLE).long(96, INCOMPATIBLE).long(100, READ_ONLY);
        fields.bytes[104..120].copy_from_slice(b"of a sandbox run");
        // names are hashed by half of MD4, as signed characters
        fields.short(252, 1).long(264, now.into()).short(348, 32).short(350, 32).long(352, 1);
        fields.bytes
    }
}

/// Blocks of all descriptors.
fn descriptor_blocks(groups: u64) -> u64 {
    (groups * DESCRIPTOR).div_ceil(BLOCK)
}

fn taken_inodes(group: u64) -> u64 {
    if group == 0 { TAKEN } else { 0 }
}

/// A bitmap of which the first bits are taken; so are those beyond what there is.
fn bitmap(taken: u64, there: u64) -> Vec<u8> {
    let byte = |at: u64| (0..8).filter(|bit| at * 8 + bit < taken || at * 8 + bit >= there).map(|bit| 1 << bit).sum();
    (0..BLOCK).map(byte).collect()
}

/// A directory of one block.
fn directory_inode(block: u64, links: u64, mode: u64, now: u32) -> Vec<u8> {
    const DIRECTORY: u64 = 0o040_000;
    const EXTENTS: u64 = 0x8_0000;
    let mut fields = Fields::new(INODE as usize);
    fields.short(0, DIRECTORY | mode).long(4, BLOCK).long(8, now.into()).long(12, now.into()).long(16, now.into());
    fields.short(26, links).long(28, BLOCK / 512).long(32, EXTENTS);
    // A header of one extent out of four, and the extent: one block from the first on.
    fields.short(40, 0xf30a).short(42, 1).short(44, 4).short(56, 1).long(60, block);
    fields.short(128, 32);
    fields.bytes
}

/// The block of a directory that holds these directories; the last entry takes what is left.
fn directory(entries: &[(&str, u64)]) -> Vec<u8> {
    const DIRECTORY: u8 = 2;
    let mut fields = Fields::new(BLOCK as usize);
    let mut at = 0;
    for (number, (name, inode)) in entries.iter().enumerate() {
        let length =
            if number + 1 == entries.len() { BLOCK as usize - at } else { (8 + name.len()).next_multiple_of(4) };
        fields.long(at, *inode).short(at + 4, length as u64);
        fields.bytes[at + 6] = name.len() as u8;
        fields.bytes[at + 7] = DIRECTORY;
        fields.bytes[at + 8..at + 8 + name.len()].copy_from_slice(name.as_bytes());
        at += length;
    }
    fields.bytes
}

/// Little-endian numbers at their places.
struct Fields {
    bytes: Vec<u8>,
}

impl Fields {
    fn new(length: usize) -> Self {
        Self { bytes: vec![0; length] }
    }

    fn long(&mut self, at: usize, value: u64) -> &mut Self {
        self.bytes[at..at + 4].copy_from_slice(&(value as u32).to_le_bytes());
        self
    }

    fn short(&mut self, at: usize, value: u64) -> &mut Self {
        self.bytes[at..at + 2].copy_from_slice(&(value as u16).to_le_bytes());
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    const SIZES: [u64; 8] = [1 << 20, 100 << 20, 126 << 20, 127 << 20, 128 << 20, 1 << 30, (16 << 30) + 4097, 1 << 40];

    #[test]
    fn what_is_asked_for_fits() {
        for bytes in SIZES {
            let shape = Shape::holding(bytes);
            let free: u64 = (0..shape.groups()).map(|group| shape.length(group) - shape.taken(group)).sum();
            let aside = (shape.blocks / 50).min(SET_ASIDE);
            assert!((free - aside) * BLOCK >= bytes, "{bytes}: {shape:?}");
            assert!(shape.bytes() < bytes + bytes / 40 + (40 << 20) && shape.blocks < 1 << 32, "{bytes}: {shape:?}");
            assert!(shape.own(0) + OWN + 2 < PER_GROUP, "the first group holds what it must");
        }
    }

    #[test]
    fn bits_beyond_the_end_are_taken() {
        let bits = bitmap(11, 20);
        assert_eq!((bits[..4].to_vec(), bits[4095]), (vec![0xff, 0b0000_0111, 0b1111_0000, 0xff], 0xff));
    }

    /// The file system's own makers find nothing to repair.
    #[test]
    fn a_checker_finds_nothing() {
        for bytes in SIZES.into_iter().take(7) {
            let image = tempfile::NamedTempFile::new().expect("file");
            let shape = Shape::holding(bytes);
            image.as_file().set_len(shape.bytes()).expect("size");
            shape.write(image.as_file()).expect("written");
            let checked = Command::new("/sbin/e2fsck").args(["-f", "-n"]).arg(image.path()).output();
            let checked = checked.expect("e2fsck (of e2fsprogs) runs");
            let said = String::from_utf8_lossy(&checked.stdout);
            assert!(checked.status.success(), "{bytes}: {said} {}", String::from_utf8_lossy(&checked.stderr));
        }
    }
}
