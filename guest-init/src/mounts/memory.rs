// SPDX-License-Identifier: Apache-2.0
//! File systems in memory that the caller has asked for (`--tmpfs`), at paths of the command's tree.

use super::volumes::directories;
use crate::wire::Tmpfs;
use alloc::ffi::CString;
use rustix::{
    io::{Errno, Result},
    mount::{MountFlags, mount},
};

/// Mounts one at its target, which is made if it is missing.
pub(super) fn mount_tmpfs(tmpfs: &Tmpfs) -> Result<()> {
    let Ok(options) = CString::new(&tmpfs.options[..]) else { return Err(Errno::INVAL) };
    let target = &tmpfs.target[..];
    directories(target)?;
    let safe = MountFlags::NOSUID | MountFlags::NODEV;
    let flags = if tmpfs.executable { safe } else { safe | MountFlags::NOEXEC };
    mount(c"tmpfs", target, c"tmpfs", flags, &*options)
}
