// SPDX-License-Identifier: Apache-2.0
//! What the guest's root is made of.

use super::Clock;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

/// How to assemble the guest's root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// The time now; what is made from here on carries it.
    pub clock: Clock,
    /// Fresh random bytes: file systems draw their identities when they are mounted.
    pub entropy: [u8; 32],
    /// Size limit of the private layer, in bytes.
    pub private_bytes: u64,
    /// Whether the private layer is on the disk, which has that size already, and not in memory.
    pub disk: bool,
    /// Size limit of `/dev/shm`, in bytes.
    pub shm_bytes: u64,
    /// Destinations of the volumes; entry *n* is served as `volumes/n` of the share.
    pub volumes: Vec<Volume>,
    /// File systems in memory, beside the private layer.
    pub tmpfs: Vec<Tmpfs>,
}

/// One `-v SRC:DST[:ro]`, as the guest needs to know it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// Absolute path in the guest, without a NUL byte.
    pub target: ByteBuf,
    /// Whether the entry is a directory (else a file).
    pub directory: bool,
    /// Whether to mount it read-only. The host enforces it on its own; this makes the error come early.
    pub read_only: bool,
}

/// One `--tmpfs DST[:options]`, as the guest needs to know it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tmpfs {
    /// Absolute path in the guest, without a NUL byte.
    pub target: ByteBuf,
    /// Options of mount(2), without a NUL byte.
    pub options: ByteBuf,
    /// Whether programs in it may be executed.
    pub executable: bool,
    /// How many of the volumes are mounted before it.
    pub after: u32,
}
