// SPDX-License-Identifier: Apache-2.0
//! Children that die with us.
#![expect(unsafe_code, reason = "a hook between fork and exec can only be installed unsafely")]

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Has the kernel kill the child when the calling thread ends, by SIGKILL too (`PR_SET_PDEATHSIG`, prctl(2)), and
/// puts it in a process group of its own, so that a terminal's interrupt reaches us and not the child.
///
/// The thread that spawns must outlive the child's usefulness: the kernel watches the thread, not the process.
pub(crate) fn die_with_parent(command: &mut Command) {
    let parent = rustix::process::getpid();
    command.process_group(0);
    let hook = move || {
        rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
        // The parent may have died before the call above; then nobody would tell us.
        if rustix::process::getppid() != Some(parent) {
            return Err(io::Error::from(rustix::io::Errno::SRCH));
        }
        Ok(())
    };
    // SAFETY: the hook makes two system calls and neither allocates nor takes a lock, so it may run between fork and
    // exec of a process with threads.
    unsafe { command.pre_exec(hook) };
}
