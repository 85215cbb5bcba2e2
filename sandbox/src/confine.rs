// SPDX-License-Identifier: Apache-2.0
//! How a process of ours gives up what it does not need: namespaces of its own, a root of its own, capabilities, and a
//! filter of system calls (user_namespaces(7), pivot_root(2), capabilities(7), seccomp(2)).
//!
//! Not for what each process keeps: that stands with the process.

mod cage;
mod program;

pub(crate) use cage::Cage;

use crate::sys::calls;
use crate::sys::namespace::{self, Closing};
use program::Actions;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::CWD;
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MoveMountFlags, UnmountFlags, fsconfig_create,
    fsconfig_set_string, fsmount, fsopen, mount_remount, move_mount, unmount,
};
use rustix::process::{Pid, Signal, chdir, fchdir, getppid, pivot_root, set_parent_process_death_signal};
use rustix::thread::{CapabilitiesSecureBits, CapabilitySet, CapabilitySets, UnshareFlags};
use seccompiler::SeccompAction;
use std::collections::BTreeMap;
use std::io;

/// Why a process could not be confined.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A system call failed.
    #[error("{doing}")]
    Step {
        /// What was attempted.
        doing: &'static str,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The parent has ended.
    #[error("find the parent alive")]
    Orphan,
    /// The kernel did not take the filter.
    #[error("install the system call filter")]
    Install(#[from] seccompiler::Error),
}

fn step<E: Into<io::Error>>(doing: &'static str) -> impl FnOnce(E) -> Error {
    move |source| Error::Step { doing, source: source.into() }
}

/// Begins a process of ours that serves another: a panic in any of its threads ends it, since half of it would leave a
/// guest waiting for ever, and what our parent did not mean to hand down is closed. For its very beginning, when it has
/// no descriptor of its own beyond the standard streams.
pub(crate) fn begin() -> io::Result<()> {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        std::process::abort();
    }));
    namespace::close_from(3, Closing::Now)
}

/// Ends this process when its parent ends, even if it has done so by now. A change of credentials clears this
/// (prctl(2)), so it is asked for again after [`give_up_rights`].
pub(crate) fn die_with(parent: u32) -> Result<(), Error> {
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(step("ask for the death signal"))?;
    if getppid().map(Pid::as_raw_pid).map(i64::from) == Some(i64::from(parent)) { Ok(()) } else { Err(Error::Orphan) }
}

/// Moves this process, which must have one thread only, into a user and a mount namespace of its own. Not a network's, which costs
/// more than all other confinement of ours (docs/decisions.md): filters let none of our processes make a socket.
pub(crate) fn separate() -> Result<(), Error> {
    let spaces = UnshareFlags::NEWUSER | UnshareFlags::NEWNS;
    namespace::unshare(spaces).map_err(step("take a user namespace (are they forbidden here?)"))
}

/// A tmpfs that is to become the root. It is mounted over the present one, which stays reachable by absolute paths until
/// [`Root::enter`].
#[derive(Debug)]
pub(crate) struct Root(OwnedFd);

impl Root {
    /// Makes it, in a mount namespace of our own.
    pub(crate) fn new() -> Result<Self, Error> {
        let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC).map_err(step("open a tmpfs"))?;
        fsconfig_set_string(context.as_fd(), "mode", "0755").map_err(step("set the mode of a tmpfs"))?;
        fsconfig_set_string(context.as_fd(), "size", "4m").map_err(step("set the size of a tmpfs"))?;
        fsconfig_create(context.as_fd()).map_err(step("create a tmpfs"))?;
        let attributes =
            MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV | MountAttrFlags::MOUNT_ATTR_NOEXEC;
        let base = fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)
            .map_err(step("make a mount of a tmpfs"))?;
        move_mount(base.as_fd(), "", CWD, "/", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
            .map_err(step("mount a tmpfs"))?;
        Ok(Self(base))
    }

    /// Makes it the root, lets go of the old one and makes the root itself read-only; what is mounted on it is
    /// restricted in its own way.
    pub(crate) fn enter(&self) -> Result<(), Error> {
        fchdir(&self.0).map_err(step("enter the new root"))?;
        pivot_root(".", ".").map_err(step("change the root"))?;
        // The old root lies on top of the new one now (pivot_root(2), "pivot_root(".", ".")").
        unmount(".", UnmountFlags::DETACH).map_err(step("let go of the host's root"))?;
        chdir("/").map_err(step("enter the root"))?;
        let flags = MountFlags::BIND | MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        mount_remount("/", flags, "").map_err(step("make the root read-only"))
    }
}

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Gives up every capability but those `kept`, for good. The process must still have one thread only.
pub(crate) fn give_up_rights(kept: CapabilitySet) -> Result<(), Error> {
    let failed = || step::<Errno>("give up rights");
    // Root is a user like any other from now on, and no_new_privs takes from files what they might grant.
    let bits = CapabilitiesSecureBits::NO_ROOT | CapabilitiesSecureBits::NO_ROOT_LOCKED;
    rustix::thread::set_capabilities_secure_bits(bits).map_err(failed())?;
    rustix::thread::clear_ambient_capability_set().map_err(failed())?;
    let sets = CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() };
    rustix::thread::set_capabilities(None, sets).map_err(failed())?;
    rustix::thread::set_no_new_privs(true).map_err(failed())
}

/// System calls that a filter names, each with what its arguments must be.
pub(crate) type Rules = BTreeMap<i64, Rule>;

/// When a filter's action is taken for a system call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Rule {
    /// Whatever its arguments are.
    Always,
    /// If one of these holds.
    Where(Vec<Check>),
    /// Never: the call is said to be missing on this system.
    Missing,
}

/// What an argument of a system call must be: of the bits in `mask`, those in `value` are set and no others; or, unless
/// `equal`, anything else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Check {
    argument: u8,
    mask: u64,
    value: u64,
    equal: bool,
}

/// Rules that name each of these calls, whatever its arguments are.
pub(crate) fn allow(allowed: &[i64]) -> Rules {
    allowed.iter().map(|call| (*call, Rule::Always)).collect()
}

/// An argument of a call has this value.
pub(crate) fn argument(argument: u8, value: u64) -> Check {
    Check { argument, mask: u64::MAX, value, equal: true }
}

/// An argument of a call has none of these bits.
pub(crate) fn argument_without(argument: u8, bits: u64) -> Check {
    Check { argument, mask: bits, value: 0, equal: true }
}

/// Adds what making threads takes, which also names them. clone3(2) is said to be missing: a filter cannot see its
/// arguments, and the C library falls back to clone(2).
pub(crate) fn allow_threads(rules: &mut Rules) {
    let thread = Check { argument: 0, mask: calls::THREAD, value: calls::THREAD, equal: true };
    rules.insert(calls::CLONE3, Rule::Missing);
    rules.insert(calls::CLONE, Rule::Where(vec![thread]));
    rules.insert(calls::PRCTL, Rule::Where(vec![argument(0, calls::SET_NAME)]));
}

/// What stands in for a network namespace is that no filter has any of these: socket(2) and connect(2); bind(2) and listen(2);
/// socketpair(2); io_uring_setup(2) to io_uring_register(2), by which all of them can be asked for.
#[cfg(test)]
pub(crate) const SOCKETS: [i64; 8] = [41, 42, 49, 50, 53, 425, 426, 427];

/// Leaves this thread, and every one it starts, with these system calls. Any other ends the process: it has a reason
/// only if somebody has taken it over.
pub(crate) fn filter(rules: &Rules) -> Result<(), Error> {
    let actions = Actions { named: SeccompAction::Allow, missing: missing(), other: SeccompAction::KillProcess };
    Ok(seccompiler::apply_filter(&program::compile(rules, &actions))?)
}

/// What a system says of a call that it does not have.
fn missing() -> SeccompAction {
    SeccompAction::Errno(Errno::NOSYS.raw_os_error().unsigned_abs())
}
