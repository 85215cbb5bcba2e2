// SPDX-License-Identifier: Apache-2.0
//! The last steps of a new process before it is the command (execve(2), credentials(7)).
//!
//! Not for making the process, which [`crate::namespace`] does, nor for finding the program ([`crate::lookup`]).

use crate::{
    failure::{Failure, at},
    lookup,
    sys::{self, Closing, Strings},
    terminal::lead_group,
    wire::{Exec, Rlimit, Step},
};
use alloc::vec::Vec;
use core::ffi::CStr;
use rustix::{
    fd::OwnedFd,
    fs::Mode,
    io::Errno,
    mount::{MountFlags, mount},
    process::{Gid, Uid, chdir, umask},
    stdio::{dup2_stderr, dup2_stdin, dup2_stdout},
    thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid},
};

/// What runs a file that the kernel does not know how to run, as in execvp(3).
const SHELL: &CStr = c"/bin/sh";

/// `RLIMIT_NOFILE`, and the most the kernel allows for it (`fs.nr_open`). A host may have raised its own.
const NOFILE: u32 = 7;
const NR_OPEN: u64 = 1 << 20;

/// What to execute, checked.
#[derive(Debug)]
pub struct Program<'a> {
    name: &'a CStr,
    arguments: Strings<'a>,
    environment: Strings<'a>,
    path: &'a [u8],
    absent: usize,
}

impl<'a> Program<'a> {
    /// Reads the strings of a request.
    ///
    /// # Errors
    /// [`Step::Protocol`] if they are not what the request says, or if an id is the one that means "leave as it is".
    pub fn new(exec: &'a Exec) -> Result<Self, Failure> {
        Self::read(exec).ok_or(Failure::PROTOCOL)
    }

    fn read(exec: &'a Exec) -> Option<Self> {
        let name = CStr::from_bytes_until_nul(&exec.strings).ok()?;
        let (arguments, rest) = Strings::cut(&exec.strings, usize::try_from(exec.argc).ok()?)?;
        let (environment, excess) = Strings::cut(rest, usize::try_from(exec.envc).ok()?)?;
        let ids = [exec.uid, exec.gid];
        let complete = exec.argc > 0 && excess.is_empty() && !ids.contains(&u32::MAX);
        let (path, absent) = (lookup::path(rest), usize::try_from(exec.absent).ok()?);
        complete.then_some(Self { name, arguments, environment, path, absent })
    }

    /// Turns this process into the program; returns only if that failed.
    fn execute(&self) -> Errno {
        lookup::search(self.name, self.path, self.absent, |path| {
            match sys::execve(path, &self.arguments, &self.environment) {
                Errno::NOEXEC => sys::execve(SHELL, &self.arguments.for_shell(SHELL, path), &self.environment),
                errno => errno,
            }
        })
    }
}

/// Turns this process into the command; returns only if that failed.
pub fn become_command(exec: &Exec, program: &Program<'_>, streams: &[OwnedFd; 3]) -> Failure {
    match prepare(exec, streams) {
        Ok(()) => Failure { step: Step::Exec, errno: program.execute() },
        Err(failure) => failure,
    }
}

/// Dispositions of signals need no reset: no process of ours ever changes one.
fn prepare(exec: &Exec, streams: &[OwnedFd; 3]) -> Result<(), Failure> {
    let [input, output, error] = streams;
    sys::block_signals().map_err(at(Step::Fork))?;
    lead_group(exec.terminal.as_ref().map(|_| input)).map_err(at(Step::Terminal))?;
    sys::unblock_signals().map_err(at(Step::Fork))?;
    show_cgroup();
    dup2_stdin(input).and_then(|()| dup2_stdout(output)).and_then(|()| dup2_stderr(error)).map_err(at(Step::Stream))?;
    for limit in exec.rlimits.iter().map(within_reach) {
        sys::set_limit(limit.resource, limit.soft, limit.hard).map_err(at(Step::Rlimit))?;
    }
    umask(Mode::from_raw_mode(exec.umask & 0o777));
    // As root: a process inherits its directory also where its user could not walk.
    chdir(&exec.cwd[..]).map_err(at(Step::Cwd))?;
    become_user(exec).map_err(at(Step::User))?;
    // All of ours are so already; this keeps it true.
    sys::close_from(3, Closing::OnExec).map_err(at(Step::Exec))
}

/// Lets the command see its own cgroup as the root of the hierarchy. A nicety: programs that size themselves look there.
fn show_cgroup() {
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    _ = sys::unshare_cgroup().and_then(|()| mount(c"cgroup2", c"/sys/fs/cgroup", c"cgroup2", flags, c"nsdelegate"));
}

/// The limit, with no more descriptors than the kernel can grant: the host's `fs.nr_open` is not the guest's.
fn within_reach(limit: &Rlimit) -> Rlimit {
    match limit.resource {
        NOFILE => Rlimit { soft: limit.soft.min(NR_OPEN), hard: limit.hard.min(NR_OPEN), ..*limit },
        _ => *limit,
    }
}

/// The kernel takes the capabilities of whoever stops being root, and leaves them to root.
fn become_user(exec: &Exec) -> rustix::io::Result<()> {
    let groups: Vec<Gid> = exec.groups.iter().map(|group| Gid::from_raw_unchecked(*group)).collect();
    let (gid, uid) = (Gid::from_raw_unchecked(exec.gid), Uid::from_raw_unchecked(exec.uid));
    set_thread_groups(&groups)?;
    set_thread_res_gid(gid, gid, gid)?;
    set_thread_res_uid(uid, uid, uid)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Clock;
    use serde_bytes::ByteBuf;

    fn request(argc: u32, envc: u32, strings: &[u8]) -> Exec {
        Exec {
            argc,
            envc,
            strings: ByteBuf::from(strings),
            absent: 0,
            cwd: ByteBuf::from("/"),
            uid: 0,
            gid: 0,
            groups: vec![],
            umask: 0o22,
            rlimits: vec![],
            memory_max: 1 << 20,
            processes_max: None,
            hostname: ByteBuf::from("h"),
            clock: Clock { seconds: 0, nanoseconds: 0 },
            entropy: [0; 32],
            terminal: None,
        }
    }

    #[test]
    fn strings_are_split_where_the_request_says() {
        let exec = request(2, 1, b"a\0b\0PATH=/x\0");
        let program = Program::new(&exec).unwrap();
        assert_eq!((program.name, program.path), (c"a", &b"/x"[..]));
    }

    #[test]
    fn strings_that_do_not_add_up_are_refused() {
        for (argc, envc, strings) in
            [(0, 0, &b""[..]), (0, 1, b"A=1\0"), (1, 0, b"a"), (2, 0, b"a\0"), (1, 0, b"a\0b\0"), (u32::MAX, 0, b"a\0")]
        {
            assert_eq!(Program::new(&request(argc, envc, strings)).err(), Some(Failure::PROTOCOL), "{strings:?}");
        }
    }

    #[test]
    fn an_id_that_would_keep_root_is_refused() {
        let exec = Exec { uid: u32::MAX, ..request(1, 0, b"a\0") };
        assert!(Program::new(&exec).is_err());
    }

    #[test]
    fn only_the_limit_of_descriptors_has_a_ceiling() {
        let unlimited = |resource| Rlimit { resource, soft: 1024, hard: u64::MAX };
        assert_eq!(within_reach(&unlimited(NOFILE)), Rlimit { hard: NR_OPEN, ..unlimited(NOFILE) });
        assert_eq!(within_reach(&unlimited(3)), unlimited(3));
    }
}
