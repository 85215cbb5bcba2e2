// SPDX-License-Identifier: Apache-2.0
//! Children, and how they die with us.
#![expect(unsafe_code, reason = "a hook between fork and exec can only be installed unsafely")]

use super::namespace::{Closing, close_from};
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Prepares our own executable as a child: with an empty environment, and in a process group of its own, so that a terminal's
/// interrupt reaches us and not the child.
///
/// The rest it does itself. It keeps our current directory until then: to change it would take a hook, and so a fork with
/// all of our memory's tables.
pub(crate) fn ours(command: &mut Command) {
    command.env_clear().process_group(0);
}

/// Has the kernel kill the child when the calling thread ends, by SIGKILL too (`PR_SET_PDEATHSIG`, prctl(2)), puts it in
/// a process group of its own, so that a terminal's interrupt reaches us and not the child, and lets it keep no
/// descriptor from `first_unwanted` on: what our own caller left open for us is not for the child.
///
/// Before that, `first` runs in the child. It must make system calls only: the process may have threads, and one of them
/// may hold any lock at the fork.
///
/// The thread that spawns must outlive the child's usefulness: the kernel watches the thread, not the process.
pub(crate) fn die_with_parent(
    command: &mut Command,
    first_unwanted: i32,
    first: impl Fn() -> io::Result<()> + Send + Sync + 'static,
) {
    let parent = rustix::process::getpid();
    command.process_group(0);
    let hook = move || {
        first()?;
        rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
        // The parent may have died before the call above; then nobody would tell us.
        if rustix::process::getppid() != Some(parent) {
            return Err(io::Error::from(rustix::io::Errno::SRCH));
        }
        // Marked, not closed: the standard library reports a failed exec through one of them.
        close_from(first_unwanted, Closing::OnExec)
    };
    // SAFETY: the hook, `first` included by its contract, makes system calls and neither allocates nor takes a lock, so it may run between fork and
    // exec of a process with threads.
    unsafe { command.pre_exec(hook) };
}
