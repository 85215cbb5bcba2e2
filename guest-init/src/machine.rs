// SPDX-License-Identifier: Apache-2.0
//! Settings of the machine as a whole: randomness, clock, name, loopback (random(4), clock_settime(2), sethostname(2),
//! netdevice(7)).
//!
//! Not for anything that belongs to the command alone.

use crate::{
    failure::{Failure, at},
    sys,
    wire::{Clock, Exec, Step},
};
use core::ffi::CStr;
use rustix::{
    fd::{AsFd, OwnedFd},
    fs::{Mode, OFlags, open, openat},
    mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen},
    net::{AddressFamily, SocketFlags, SocketType, socket_with},
    system::sethostname,
    time::{ClockId, Timespec, clock_settime},
};

/// Sets what differs between runs. When it succeeds, the kernel has confirmed the seed and the clock.
///
/// # Errors
/// The step that failed.
pub fn personalize(exec: &Exec) -> Result<(), Failure> {
    seed(&exec.entropy)?;
    set_clock(exec.clock)?;
    sethostname(&exec.hostname).map_err(at(Step::Hostname))
}

/// Opens a file in which the kernel tells of the machine (proc(5)). Init has no `/proc`: what a command sees there is its own.
///
/// # Errors
/// The kernel's.
pub fn told(name: &CStr, how: OFlags) -> rustix::io::Result<OwnedFd> {
    let context = fsopen(c"proc", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_create(context.as_fd())?;
    let system = fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?;
    openat(&system, name, how | OFlags::CLOEXEC, Mode::empty())
}

/// Sets the wall clock.
///
/// # Errors
/// [`Step::Clock`].
pub fn set_clock(clock: Clock) -> Result<(), Failure> {
    let now = Timespec { tv_sec: clock.seconds, tv_nsec: i64::from(clock.nanoseconds) };
    clock_settime(ClockId::Realtime, now).map_err(at(Step::Clock))
}

/// Gives the kernel's generator fresh bytes.
///
/// Credited bytes alone would wait in the input pool of a clone whose generator is already running, so the second call
/// makes every later read depend on them.
///
/// # Errors
/// [`Step::Seed`].
pub fn seed(entropy: &[u8; 32]) -> Result<(), Failure> {
    let random = open(c"/dev/urandom", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).map_err(at(Step::Seed))?;
    sys::add_entropy(&random, entropy).map_err(at(Step::Seed))?;
    sys::reseed(&random).map_err(at(Step::Seed))
}

/// Brings the loopback interface up; the kernel gives it its addresses by itself.
///
/// # Errors
/// [`Step::Loopback`].
pub fn raise_loopback() -> Result<(), Failure> {
    socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)
        .and_then(sys::raise_loopback)
        .map_err(at(Step::Loopback))
}
