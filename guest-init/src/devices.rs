// SPDX-License-Identifier: Apache-2.0
//! Devices that came after the kernel had looked for them: a copy of a frozen machine has what the frozen one had not
//! (Documentation/ABI/testing/sysfs-bus-platform; driver binding, Documentation/driver-api/driver-model/binding.rst).
//!
//! Not for what they do. Which they are the kernel's command line says, as it does in every machine; new is only that
//! something answers at their addresses.

use rustix::{
    fd::AsFd,
    fs::{Mode, OFlags, openat},
    io::{Errno, Result, write},
    mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen},
};

/// By the names that the kernel gives to what its command line lists, in that order.
const NAMES: [&[u8]; 3] = [b"virtio-mmio.0", b"virtio-mmio.1", b"virtio-mmio.2"];

/// The one after them.
const DISK: &[u8] = b"virtio-mmio.3";

/// Has the kernel drive the machine's devices.
///
/// # Errors
/// The kernel's answer if one of them is not there.
pub fn bind() -> Result<()> {
    let context = fsopen(c"sysfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_create(context.as_fd())?;
    let system = fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?;
    let driver = c"bus/platform/drivers/virtio-mmio/bind";
    let driver = openat(&system, driver, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    NAMES.iter().try_for_each(|name| write(&driver, name).map(drop))?;
    match write(&driver, DISK) {
        // Most machines have none, and their kernels have not been told of one.
        Err(Errno::NODEV) => Ok(()),
        other => other.map(drop),
    }
}
