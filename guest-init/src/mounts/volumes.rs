// SPDX-License-Identifier: Apache-2.0
//! Volumes: entries of the share, shown at paths of the command's tree (open_tree(2), move_mount(2)).
//!
//! The share itself lies under the root by then, where no path leads, so it is held by a descriptor.

use crate::{
    cgroup::decimal,
    wire::{self, Volume},
};
use core::ffi::CStr;
use rustix::{
    fd::OwnedFd,
    fs::{CWD, Mode, OFlags, mkdir, open, openat},
    io::{Errno, Result},
    mount::{MountFlags, MoveMountFlags, OpenTreeFlags, mount_remount, move_mount, open_tree},
};

/// Where volumes come from.
pub(super) struct Source {
    share: OwnedFd,
}

impl Source {
    /// Takes hold of the share while a path still leads there.
    pub(super) fn open(share: &CStr) -> Result<Self> {
        let share = open(share, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        Ok(Self { share })
    }

    /// Shows entry `number` at its target, which is made if it is missing.
    pub(super) fn mount(&self, number: u32, volume: &Volume) -> Result<()> {
        let volumes = openat(&self.share, wire::VIEW_VOLUMES, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        let mut digits = [0; 20];
        let entry = decimal(u64::from(number), &mut digits);
        let tree = open_tree(&volumes, entry, OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC)?;
        let target = &volume.target[..];
        if volume.directory {
            directories(target)?;
        } else {
            file(target)?;
        }
        let onto = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_SYMLINKS;
        move_mount(&tree, c"", CWD, target, onto)?;
        if volume.read_only {
            mount_remount(target, MountFlags::BIND | MountFlags::RDONLY, c"")?;
        }
        Ok(())
    }
}

/// Makes a directory and the parents it lacks.
pub(super) fn directories(path: &[u8]) -> Result<()> {
    match mkdir(path, Mode::from_raw_mode(0o755)) {
        Err(Errno::NOENT) => {
            directories(parent(path).ok_or(Errno::NOENT)?)?;
            mkdir(path, Mode::from_raw_mode(0o755))
        }
        Err(Errno::EXIST) => Ok(()),
        other => other,
    }
}

/// Makes a file and the parents it lacks; one that exists is left alone.
fn file(path: &[u8]) -> Result<()> {
    let flags = OFlags::RDONLY | OFlags::CREATE | OFlags::CLOEXEC;
    let make = || open(path, flags, Mode::from_raw_mode(0o644)).map(drop);
    match make() {
        Err(Errno::NOENT) => {
            directories(parent(path).ok_or(Errno::NOENT)?)?;
            make()
        }
        other => other,
    }
}

/// The path of the directory that holds `path`; the root holds nothing that could be missing.
fn parent(path: &[u8]) -> Option<&[u8]> {
    let named = path.iter().rposition(|byte| *byte != b'/')?;
    let slash = path[..named].iter().rposition(|byte| *byte == b'/')?;
    path[..slash].iter().any(|byte| *byte != b'/').then_some(&path[..slash])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parents_end_at_the_root() {
        assert_eq!(parent(b"/a/b"), Some(&b"/a"[..]));
        assert_eq!(parent(b"/a/b//"), Some(&b"/a"[..]));
        assert_eq!(parent(b"/a"), None);
        assert_eq!(parent(b"//a"), None);
        assert_eq!(parent(b"/"), None);
        assert_eq!(parent(b""), None);
    }

    #[test]
    fn missing_parents_are_made() {
        let base = format!("{}/guest-init-volumes-{}", std::env::temp_dir().display(), std::process::id());
        directories(format!("{base}/a/b/c").as_bytes()).unwrap();
        directories(format!("{base}/a/b/c").as_bytes()).unwrap();
        file(format!("{base}/d/e").as_bytes()).unwrap();
        assert!(std::fs::metadata(format!("{base}/a/b/c")).unwrap().is_dir());
        assert!(std::fs::metadata(format!("{base}/d/e")).unwrap().is_file());
        std::fs::remove_dir_all(base).unwrap();
    }
}
