// SPDX-License-Identifier: Apache-2.0
//! The process that a machine lives in, whichever engine's: started with descriptors and constants only, watched by a
//! pidfd, dead when we are.
//!
//! Not for what the process does, nor for what its end means: the engine that started it judges that.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus};

use command_fds::{CommandFdExt, FdMapping};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::{Console, Ending};
use crate::sys::child;

/// What its end means, given the exit status and what it printed on standard error.
pub(super) type Judge = Box<dyn Fn(ExitStatus, &str) -> Ending + Send>;

/// A running process. Dropping it ends it.
pub(super) struct Process {
    child: Child,
    pidfd: OwnedFd,
    errors: File,
    console: Console,
    judge: Judge,
    ended: Option<Ending>,
}

impl std::fmt::Debug for Process {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Process").field("child", &self.child).field("ended", &self.ended).finish_non_exhaustive()
    }
}

impl Process {
    /// Starts a program with an empty environment. It gets `descriptors` besides the standard input and output that
    /// `command` has, and a standard error that is kept for the day it fails. In the child, `first` runs before
    /// anything else ([`child::die_with_parent`]).
    pub(super) fn start(
        mut command: Command,
        descriptors: Descriptors,
        first: impl Fn() -> io::Result<()> + Send + Sync + 'static,
        console: Console,
        judge: Judge,
    ) -> io::Result<Self> {
        let after = descriptors.next();
        command.env_clear().current_dir("/").fd_mappings(descriptors.0).map_err(io::Error::other)?;
        child::die_with_parent(&mut command, after, first);
        Self::spawn(command, console, judge)
    }

    /// Starts our own executable, which looks after its descriptors and its parent's death itself
    /// ([`crate::confine::begin`], [`crate::confine::die_with`]). Without a hook in the child it is started without a copy
    /// of our memory's tables.
    pub(super) fn start_own(mut command: Command, console: Console, judge: Judge) -> io::Result<Self> {
        child::ours(&mut command);
        Self::spawn(command, console, judge)
    }

    fn spawn(mut command: Command, console: Console, judge: Judge) -> io::Result<Self> {
        let errors = File::from(rustix::fs::memfd_create("stderr", rustix::fs::MemfdFlags::CLOEXEC)?);
        let mut child = command.stderr(errors.try_clone()?).spawn()?;
        match pidfd_open(Pid::from_child(&child), PidfdFlags::empty()) {
            Ok(pidfd) => Ok(Self { child, pidfd, errors, console, judge, ended: None }),
            Err(error) => {
                // Without its pidfd the child has no owner yet: end it here.
                drop(child.kill());
                drop(child.wait());
                Err(error.into())
            }
        }
    }

    /// Readable when the process has ended.
    pub(super) fn end_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    pub(super) fn console(&self) -> &Console {
        &self.console
    }

    pub(super) fn read_console(&mut self) {
        self.console.read();
    }

    /// Ends the process if it still runs; how it ended, if that was not our doing.
    pub(super) fn end(&mut self) -> io::Result<Ending> {
        if let Some(ending) = &self.ended {
            return Ok(ending.clone());
        }
        let ending = match self.child.try_wait()? {
            Some(status) => {
                let said = self.last_words();
                (self.judge)(status, &said)
            }
            None => {
                self.child.kill()?;
                self.child.wait()?;
                Ending::Ours
            }
        };
        self.console.drain();
        self.ended = Some(ending.clone());
        Ok(ending)
    }

    /// The end of what the process printed on standard error, in one line.
    fn last_words(&mut self) -> String {
        let mut text = Vec::new();
        let read = self.errors.rewind().and_then(|()| (&self.errors).take(4096).read_to_end(&mut text));
        match read {
            Ok(_) => String::from_utf8_lossy(&text).trim().replace('\n', "; "),
            Err(error) => format!("(its messages cannot be read: {error})"),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Nothing is left to tell an error to; the kernel kills the child with us in any case.
        drop(self.end());
    }
}

/// How a process of this name ended that ended on its own, in words.
pub(super) fn describe(name: &str, status: ExitStatus, said: &str) -> String {
    let how = match (status.code(), status.signal()) {
        (Some(code), _) => format!("{name} exited with status {code}"),
        (None, Some(signal)) => format!("signal {signal} killed {name}"),
        (None, None) => format!("{name} ended with {status}"),
    };
    if said.is_empty() { how } else { format!("{how}: {said}") }
}

/// Descriptors that a child gets, numbered in the order they were given.
#[derive(Default)]
pub(super) struct Descriptors(Vec<FdMapping>);

impl Descriptors {
    /// First number after the standard streams.
    const FIRST: i32 = 3;

    fn next(&self) -> i32 {
        Self::FIRST + self.0.len() as i32
    }

    /// Hands one over; its number in the child.
    pub(super) fn give(&mut self, fd: impl Into<OwnedFd>) -> i32 {
        let child_fd = self.next();
        self.0.push(FdMapping { parent_fd: fd.into(), child_fd });
        child_fd
    }
}
