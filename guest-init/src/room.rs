// SPDX-License-Identifier: Apache-2.0
//! What is left of the file systems whose size is limited (statfs(2)).
//!
//! Not for the limits themselves, which [`crate::mounts`] sets. The kernel counts no refused writes, so only what is full
//! at the moment of the question is known.

use crate::wire::{Tmpfs, full};
use alloc::{vec, vec::Vec};
use rustix::fs::{StatFs, statfs};

/// A file system with less than this many bytes left is full: ext4 sets some blocks aside.
const LITTLE: u64 = 64 << 10;

/// Where the file systems are, in the order of the bits of [`full`].
#[derive(Debug)]
pub struct Room {
    places: Vec<Vec<u8>>,
}

/// How full they are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Filled {
    /// Those that are full.
    pub full: u64,
    /// Bytes that the private layer holds.
    pub private_bytes: u64,
}

impl Room {
    /// The root, whose figures are those of its private layer, `/dev/shm`, and these.
    pub fn new(tmpfs: &[Tmpfs]) -> Self {
        let mut places = vec![b"/".to_vec(), b"/dev/shm".to_vec()];
        places.extend(tmpfs.iter().map(|tmpfs| tmpfs.target.to_vec()));
        Self { places }
    }

    /// Looks at them. What cannot be looked at is not full.
    pub fn filled(&self) -> Filled {
        let mut filled = Filled::default();
        let mut bit = full::PRIVATE;
        for place in &self.places {
            if let Ok(state) = statfs(&place[..]) {
                if bit == full::PRIVATE {
                    filled.private_bytes = held(&state);
                }
                if is_full(&state) {
                    filled.full |= bit;
                }
            }
            bit <<= 1;
        }
        filled
    }
}

fn held(state: &StatFs) -> u64 {
    state.f_blocks.saturating_sub(state.f_bfree).saturating_mul(state.f_bsize as u64)
}

fn is_full(state: &StatFs) -> bool {
    state.f_blocks > 0 && state.f_bavail.saturating_mul(state.f_bsize as u64) < LITTLE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_is_what_has_next_to_nothing_left() {
        let mut state = statfs(c"/").unwrap();
        (state.f_bsize, state.f_blocks, state.f_bfree, state.f_bavail) = (4096, 1000, 400, 16);
        assert!(!is_full(&state));
        assert_eq!(held(&state), 600 << 12);
        state.f_bavail = 15;
        assert!(is_full(&state));
        // Not limited at all.
        (state.f_blocks, state.f_bavail) = (0, 0);
        assert!(!is_full(&state));
    }

    #[test]
    fn what_is_not_there_is_not_full() {
        let nowhere =
            Tmpfs { target: b"/no/such/place".to_vec().into(), options: vec![].into(), executable: false, after: 0 };
        assert_eq!(Room::new(&[nowhere]).filled().full & full::TMPFS, 0);
    }
}
