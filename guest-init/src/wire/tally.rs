// SPDX-License-Identifier: Apache-2.0
//! What the guest tells of a command's consumption. All of it is the guest's word: it decides no more than which
//! name a run is given that has failed anyway.

use serde::{Deserialize, Serialize};

/// What the command and its children used, and which limits they met.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// What was used.
    pub usage: Usage,
    /// Which limits were met.
    pub met: Met,
}

/// Limits that the command met, whether or not it ended by them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Met {
    /// Processes of the command's cgroup that the guest's kernel killed for want of memory.
    pub oom_kills: u32,
    /// Processes and threads that could not be made for [`Exec::processes_max`](crate::wire::Exec::processes_max).
    pub processes_refused: u64,
    /// File systems that are full now, a bit for each: see [`full`].
    pub full: u64,
}

/// Bits of [`Met::full`].
pub mod full {
    /// The private layer.
    pub const PRIVATE: u64 = 1;
    /// `/dev/shm`.
    pub const SHM: u64 = 2;
    /// The first of [`Mount::tmpfs`](crate::wire::Mount::tmpfs); the others follow, as far as there are bits.
    pub const TMPFS: u64 = 4;
}

/// What the command and its children used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// CPU time in user mode, microseconds.
    pub user_us: u64,
    /// CPU time in the kernel, microseconds.
    pub system_us: u64,
    /// Highest memory use, bytes (cgroup v2 `memory.peak`).
    pub memory_peak: u64,
    /// Most processes and threads at one time (cgroup v2 `pids.peak`); 0 if the kernel does not tell.
    pub processes_peak: u64,
    /// Page faults.
    pub faults: u64,
    /// Those of them that waited for a file.
    pub major_faults: u64,
    /// What the private layer holds, bytes.
    pub private_bytes: u64,
    /// What was read and written, once the command has ended; none before, and if the kernel does not tell.
    pub transfer: Option<Transfer>,
}

/// Bytes that the command, and those of its descendants that had ended before it, read and wrote, by whatever calls and
/// from and to whatever descriptors (`rchar` and `wchar` of proc_pid_io(5)).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transfer {
    /// Bytes read.
    pub read: u64,
    /// Bytes written.
    pub written: u64,
}
