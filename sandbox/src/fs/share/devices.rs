// SPDX-License-Identifier: Apache-2.0
//! Inode numbers that are unique over several file systems.
//!
//! Each file system gets a number in order of appearance, which goes into the upper bits of its inode numbers. The
//! first keeps its numbers. Not for telling mounts apart: two mounts of one file system have the same inodes, and
//! hard links between them are hard links.
//!
//! File systems are told apart by `f_fsid` (statfs(2)). The few that have none count as one.

use std::sync::{PoisonError, RwLock};

/// Bits that inode numbers keep to, except on file systems that use them for something else (overlayfs, ZFS shares).
const BITS: u32 = 47;

/// The file systems seen.
pub(super) struct Devices {
    skeleton: u64,
    seen: RwLock<Vec<u64>>,
}

/// The number of one file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Number(u64);

impl Devices {
    /// `skeleton` is the file system of the view's own directories; `known` are the others, in order.
    pub(super) fn new(skeleton: u64, mut known: Vec<u64>) -> Devices {
        if !known.contains(&skeleton) {
            known.push(skeleton);
        }
        Devices { skeleton, seen: RwLock::new(known) }
    }

    pub(super) fn is_skeleton(&self, device: u64) -> bool {
        device == self.skeleton
    }

    pub(super) fn number(&self, device: u64) -> Number {
        let position = |seen: &[u64]| seen.iter().position(|known| *known == device).map(|at| Number(at as u64));
        if let Some(number) = position(&self.seen.read().unwrap_or_else(PoisonError::into_inner)) {
            return number;
        }
        let mut seen = self.seen.write().unwrap_or_else(PoisonError::into_inner);
        position(&seen).unwrap_or_else(|| {
            seen.push(device);
            Number(seen.len() as u64 - 1)
        })
    }

    pub(super) fn unique(&self, device: u64, inode: u64) -> u64 {
        self.number(device).unique(inode)
    }
}

impl Number {
    pub(super) fn unique(self, inode: u64) -> u64 {
        match self {
            Number(0) => inode,
            Number(number) if inode >> BITS == 0 => inode | number << BITS,
            // No room: spread over the upper half, where a collision needs two such file systems and bad luck.
            Number(number) => inode.wrapping_add(number.wrapping_mul(0x9e37_79b9_7f4a_7c15)) | 1 << 63,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_inode_of_two_file_systems_is_two() {
        let devices = Devices::new(9, vec![7, 8]);
        let numbers: Vec<u64> = [7, 8, 9, 10].iter().map(|device| devices.unique(*device, 2)).collect();
        assert_eq!(numbers[0], 2);
        for (index, number) in numbers.iter().enumerate() {
            assert!(!numbers[..index].contains(number));
        }
    }

    #[test]
    fn a_file_system_keeps_its_number() {
        let devices = Devices::new(1, vec![]);
        assert_eq!(devices.number(5), devices.number(5));
        assert_ne!(devices.number(5), devices.number(6));
        assert!(devices.is_skeleton(1));
    }

    #[test]
    fn large_inode_numbers_stay_apart_from_small_ones() {
        let number = Number(3);
        assert_ne!(number.unique(u64::MAX), number.unique(u64::MAX - 1));
        assert_ne!(number.unique(1 << 60), number.unique(1));
    }
}
