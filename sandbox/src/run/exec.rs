// SPDX-License-Identifier: Apache-2.0
//! The command as the guest is told of it, and the guest's answers as causes. Pure but for the clock and the entropy.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::time::{SystemTime, UNIX_EPOCH};

use guest_init::wire::{self, Clock, End, Ended, Exec, Rlimit, Step};
use rustix::rand::{GetRandomFlags, getrandom};
use serde_bytes::ByteBuf;

use super::lookup;
use crate::outcome::{Cause, Victim};
use crate::spec::Spec;
use crate::terminal::Terminal;

/// The guest's name for itself.
const HOSTNAME: &[u8] = b"sandbox";

/// Memory that stays out of the command's reach, so that the guest's kernel and init survive whatever it does, in
/// bytes.
const RESERVE: u64 = 32 << 20;

const ENOENT: i32 = 2;
const E2BIG: i32 = 7;
const ENOTDIR: i32 = 20;
const EISDIR: i32 = 21;
const EINVAL: i32 = 22;

/// Everything about the command that the guest needs, made at the last moment: the clock should be right.
pub(super) fn message(spec: &Spec, terminal: &Terminal) -> io::Result<Exec> {
    let mut strings = Vec::new();
    for argument in &spec.command {
        strings.extend_from_slice(argument.as_bytes());
        strings.push(0);
    }
    let environment = spec.guest_environment();
    for (name, value) in &environment {
        strings.extend_from_slice(name.as_bytes());
        strings.push(b'=');
        strings.extend_from_slice(value.as_bytes());
        strings.push(0);
    }
    Ok(Exec {
        argc: spec.command.len() as u32,
        envc: environment.len() as u32,
        strings: ByteBuf::from(strings),
        absent: lookup::absent_places(spec),
        cwd: bytes(spec.workdir.as_os_str()),
        uid: spec.user.uid,
        gid: spec.user.gid,
        groups: spec.user.groups.clone(),
        umask: spec.process.umask,
        rlimits: spec.rlimits().into_iter().map(|(resource, soft, hard)| Rlimit { resource, soft, hard }).collect(),
        memory_max: spec.memory - RESERVE,
        processes_max: spec.limits.processes,
        hostname: ByteBuf::from(HOSTNAME),
        clock: clock()?,
        entropy: entropy()?,
        terminal: spec.terminal.map(|own| wire::Terminal {
            size: terminal.size(),
            modes: terminal.modes().map_or_else(ByteBuf::new, |modes| ByteBuf::from(modes.termios())),
            error: own.error,
        }),
    })
}

/// The time now, as the wire carries it.
pub(super) fn clock() -> io::Result<Clock> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_err(io::Error::other)?;
    Ok(Clock { seconds: now.as_secs() as i64, nanoseconds: now.subsec_nanos() })
}

/// Random bytes that no other machine gets.
pub(super) fn entropy() -> io::Result<[u8; 32]> {
    let mut bytes = [0; 32];
    match getrandom(&mut bytes, GetRandomFlags::empty())? {
        32 => Ok(bytes),
        _ => Err(io::Error::other("the kernel gave too few random bytes")),
    }
}

/// A string as the wire carries it.
pub(super) fn bytes(text: &OsStr) -> ByteBuf {
    ByteBuf::from(text.as_bytes())
}

/// What it means that the command has ended so.
pub(super) fn ended(ended: &Ended) -> Cause {
    match ended.end {
        // A shell reports the killed child as 137; either way the memory was the reason.
        End::Signaled(9) | End::Exited(137) if ended.tally.met.oom_kills > 0 => {
            Cause::Oom { victim: Victim::Command(None), peak: ended.tally.usage.memory_peak }
        }
        End::Exited(status) => Cause::Exited(status),
        End::Signaled(signal) => Cause::Signaled(signal),
        End::Reset => Cause::GuestReset("the command called reboot(2)".to_owned()),
        End::Lost => Cause::LostContact("the process that watches the command in the guest was killed".to_owned()),
    }
}

/// What it means that the command could not be started.
pub(super) fn not_started(spec: &Spec, step: Step, errno: i32) -> Cause {
    let program = spec.command.first().map(|program| program.to_string_lossy()).unwrap_or_default();
    let program = if program.is_empty() { "\"\"".into() } else { program };
    let error = io::Error::from_raw_os_error(errno);
    match (step, errno) {
        (Step::Exec, ENOENT | ENOTDIR) if program.contains('/') => {
            Cause::NotFound(format!("cannot run {program}: no such file in the guest (see --explain for what it sees)"))
        }
        (Step::Exec, ENOENT | ENOTDIR) => {
            Cause::NotFound(format!("cannot run {program}: not found in the guest's PATH (see --explain)"))
        }
        (Step::Exec, E2BIG) => Cause::NotExecutable(format!(
            "cannot run {program}: argument list too long (one string may have 128 KiB, all together a quarter of the \
             stack limit)"
        )),
        (Step::Exec, _) => Cause::NotExecutable(format!("cannot run {program}: {error}")),
        (Step::Cwd, _) => Cause::SetupError(format!(
            "cannot enter the working directory {} in the guest: {error}; show it with -v",
            spec.workdir.display()
        )),
        _ => failed(spec, step, errno),
    }
}

/// What it means that guest init failed at a step.
pub(super) fn failed(spec: &Spec, step: Step, errno: i32) -> Cause {
    let error = io::Error::from_raw_os_error(errno);
    let what = match step {
        Step::Protocol => "understand the host".to_owned(),
        Step::MountView => "mount the share of the host's files".to_owned(),
        Step::MountRoot => "mount its root".to_owned(),
        Step::MountSystem => "mount its system directories".to_owned(),
        Step::MountVolume(number) => return unmounted(spec, number, errno),
        Step::MountTmpfs(number) => mount_tmpfs(spec, number),
        Step::EnterRoot => "enter its root".to_owned(),
        Step::Seed => "seed its random number generator".to_owned(),
        Step::Clock => "set its clock".to_owned(),
        Step::Hostname => "set its host name".to_owned(),
        Step::Loopback => "bring its loopback interface up".to_owned(),
        Step::Cgroup => "make the command's cgroup".to_owned(),
        Step::Stream => "connect the command's standard streams".to_owned(),
        Step::Terminal => "make the command's terminal".to_owned(),
        Step::Fork => "make a process".to_owned(),
        Step::Rlimit => "set the command's resource limits".to_owned(),
        Step::User => "become the command's user".to_owned(),
        Step::Cwd => "enter the working directory".to_owned(),
        Step::Exec => "execute the program".to_owned(),
    };
    Cause::SetupError(format!("the guest could not {what}: {error}"))
}

/// What the guest could not do, by the place of `--tmpfs` on the command line.
fn mount_tmpfs(spec: &Spec, number: u32) -> String {
    let tmpfs = usize::try_from(number).ok().and_then(|number| spec.limits.tmpfs.get(number));
    match tmpfs {
        Some(tmpfs) => format!("mount the tmpfs at {}", tmpfs.target.display()),
        None => format!("mount the tmpfs of number {number}"),
    }
}

/// What it means that the guest could not mount a volume, by its place on the command line.
fn unmounted(spec: &Spec, number: u32, errno: i32) -> Cause {
    let error = io::Error::from_raw_os_error(errno);
    let volume = usize::try_from(number).ok().and_then(|number| spec.sight.volumes.get(number));
    let which = volume.map_or_else(
        || format!("volume number {number}"),
        |volume| format!("{} at {}", volume.source.display(), volume.target.display()),
    );
    let what_to_do = match errno {
        EISDIR | ENOTDIR | EINVAL => {
            "; a file needs a place where no directory is, and a directory one where no file is"
        }
        _ => "",
    };
    Cause::SetupError(format!("the guest could not show the volume {which}: {error}{what_to_do}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use guest_init::wire::{Met, Tally};

    fn cause(end: End, oom_kills: u32) -> Cause {
        let met = Met { oom_kills, ..Met::default() };
        ended(&Ended { end, tally: Tally { met, ..Tally::default() } })
    }

    #[test]
    fn want_of_memory_is_told_from_a_kill() {
        assert_eq!(cause(End::Signaled(9), 0), Cause::Signaled(9));
        let oom = Cause::Oom { victim: Victim::Command(None), peak: 0 };
        assert_eq!(cause(End::Signaled(9), 1), oom);
        assert_eq!(cause(End::Exited(137), 1), oom);
        assert_eq!(cause(End::Exited(1), 1), Cause::Exited(1));
    }

    #[test]
    fn a_lost_command_is_never_a_success() {
        assert_eq!(cause(End::Lost, 0).code(), 125);
        assert_eq!(cause(End::Reset, 0).name(), "guest_reset");
    }
}
