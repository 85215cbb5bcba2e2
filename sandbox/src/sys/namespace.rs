// SPDX-License-Identifier: Apache-2.0
//! Namespaces, mount attributes and inherited descriptors: unshare(2), mount_setattr(2), close_range(2).
#![expect(unsafe_code, reason = "rustix has no safe form of these calls")]

use rustix::fd::{AsFd, AsRawFd, RawFd};
use rustix::thread::UnshareFlags;
use std::io;

/// Moves this process into new namespaces. It must have one thread only; the kernel refuses otherwise where it
/// matters (`CLONE_NEWUSER`).
pub(crate) fn unshare(flags: UnshareFlags) -> io::Result<()> {
    assert!(!flags.contains(UnshareFlags::FILES), "descriptors stay shared among threads");
    // SAFETY: without CLONE_FILES, which is ruled out above, no descriptor changes its meaning in any thread.
    unsafe { rustix::thread::unshare_unsafe(flags) }.map_err(io::Error::from)
}

/// What becomes of the descriptors of [`close_from`].
#[derive(Debug, Clone, Copy)]
pub(crate) enum Closing {
    /// They are closed.
    Now,
    /// They are closed when the program is replaced.
    OnExec,
}

/// Closes every descriptor from `first` on, whoever opened it (close_range(2)). Makes a system call only.
///
/// At once only at the start of a process, before anything owns a descriptor from `first` on.
pub(crate) fn close_from(first: RawFd, when: Closing) -> io::Result<()> {
    let flags = match when {
        Closing::Now => 0,
        Closing::OnExec => libc::CLOSE_RANGE_CLOEXEC,
    };
    // SAFETY: takes no pointers. Callers promise that no object of this process owns a descriptor that is closed at
    // once; a mark changes nothing for its owner.
    match unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, flags) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Restrictions of a mount, all of them kept by the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Restrict {
    /// Nothing can be changed through it.
    pub(crate) read_only: bool,
    /// Symbolic links on it are not followed. (They can still be read.)
    pub(crate) no_follow: bool,
}

/// Restricts a mount and every mount below it, on top of what restricts them already: no set-user-id, no devices, no
/// execution by this process, and what `restrict` says. Cuts them off from mounts made elsewhere later.
pub(crate) fn restrict(mount: impl AsFd, restrict: Restrict) -> io::Result<()> {
    let mut set = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV | libc::MOUNT_ATTR_NOEXEC;
    if restrict.read_only {
        set |= libc::MOUNT_ATTR_RDONLY;
    }
    if restrict.no_follow {
        set |= libc::MOUNT_ATTR_NOSYMFOLLOW;
    }
    let attributes = libc::mount_attr { attr_set: set, attr_clr: 0, propagation: libc::MS_PRIVATE, userns_fd: 0 };
    // SAFETY: the path is a valid empty C string and `attributes` a valid structure of the size given; both outlive
    // the call, which writes to neither.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_fd().as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | libc::AT_RECURSIVE,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
