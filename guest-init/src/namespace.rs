// SPDX-License-Identifier: Apache-2.0
//! The command's PID namespace and its first process, which is this program too (pid_namespaces(7), clone3(2)).
//!
//! The command is not that first process: signals that it sends itself would not kill it, and no one would reap what it
//! leaves behind. So the first process makes the command, reaps whatever becomes its child, and reports through a pipe.
//! When it is killed, the kernel kills everything else in the namespace: it is the handle by which a run is ended.
//!
//! It stays outside the command's cgroup, where the memory limit cannot make the kernel pick it.

use crate::{
    cgroup::{self, Group},
    exec::{Program, become_command},
    failure::{Failure, at},
    progress::{Event, Report},
    sys::{self, Clone, Closing, Standard, Watch, standard},
    terminal::lead_session,
    wire::{self, Decoder, End, Exec, Step, Transfer},
};
use rustix::{
    fd::{AsFd, OwnedFd},
    fs::{Mode, OFlags, fcntl_setfl, open},
    io::{Errno, pread, read, write},
    mount::{MountFlags, mount},
    pipe::{PipeFlags, pipe_with},
    process::{Pid, PidfdGetfdFlags, Signal, WaitOptions, pidfd_getfd, set_parent_process_death_signal, wait, waitpid},
    stdio::{dup2_stdin, dup2_stdout},
};

/// The number under which the first process holds the descriptor of the command's process.
const COMMAND_AT: i32 = 1;

/// A running namespace, seen from init.
#[derive(Debug)]
pub struct Namespace {
    pid: Pid,
    /// Readable when the first process has ended.
    pidfd: OwnedFd,
    /// Carries [`Report`]s, up to its end; never blocks.
    reports: Option<OwnedFd>,
    /// At its end when the command's process has replaced its program, or has ended.
    gate: Option<OwnedFd>,
    decoder: Decoder<Report>,
}

impl Namespace {
    /// Starts the command on these streams.
    ///
    /// # Errors
    /// [`Step::Fork`] and [`Step::Stream`]; what goes wrong later is reported.
    pub fn start(exec: &Exec, group: &Group, streams: [OwnedFd; 3]) -> Result<Self, Failure> {
        let program = Program::new(exec)?;
        let (reports, report) = pipe_with(PipeFlags::CLOEXEC).map_err(at(Step::Stream))?;
        let (gate, held) = pipe_with(PipeFlags::CLOEXEC).map_err(at(Step::Stream))?;
        fcntl_setfl(&reports, OFlags::NONBLOCK).map_err(at(Step::Stream))?;
        match sys::clone(sys::NEW_MOUNT_AND_PID, None).map_err(at(Step::Fork))? {
            Clone::Child => First { exec, program, group, streams, report }.serve(),
            Clone::Parent { pid, pidfd } => {
                drop(held);
                Ok(Self { pid, pidfd, reports: Some(reports), gate: Some(gate), decoder: Decoder::default() })
            }
        }
    }

    /// What to poll for: reports, the gate, the end. What is at its end is not watched, or it would be news for ever.
    pub fn watches(&self) -> [Watch; 3] {
        let watch = |pipe: &Option<OwnedFd>| pipe.as_ref().map_or(Watch::NOTHING, |pipe| Watch::new(pipe, Watch::IN));
        [watch(&self.reports), watch(&self.gate), Watch::new(&self.pidfd, Watch::IN)]
    }

    /// Takes what the poll of [`Namespace::watches`] has seen; `deliver` gets each event in the order of its cause. So
    /// reports come first: whatever opened the gate or ended the namespace has reported before it did.
    pub fn serve(&mut self, [_, gate, end]: [Watch; 3], mut deliver: impl FnMut(Event)) {
        self.read_reports(&mut deliver);
        if gate.seen != 0 {
            self.gate = None;
            deliver(Event::GateOpen);
        }
        if end.seen != 0
            && let Ok(Some((_, status))) = waitpid(Some(self.pid), WaitOptions::NOHANG)
        {
            deliver(Event::NamespaceEnded(status.terminating_signal()));
        }
    }

    fn read_reports(&mut self, mut deliver: impl FnMut(Event)) {
        let mut bytes = [0; 256];
        while let Some(pipe) = &self.reports {
            let read = match read(pipe, &mut bytes[..]) {
                Err(Errno::AGAIN) => return,
                Err(Errno::INTR) => continue,
                Err(_) => 0,
                Ok(count) => count,
            };
            let reports = self.decoder.push(&bytes[..read], |report| deliver(Event::Report(report)));
            // What is no report ends the reports: whoever wrote it has broken into the first process.
            if read == 0 || reports.is_err() {
                self.reports = None;
            }
        }
    }

    /// A descriptor of the command's process, once it is [`Report::Forked`].
    pub fn command(&self) -> Option<OwnedFd> {
        pidfd_getfd(&self.pidfd, COMMAND_AT, PidfdGetfdFlags::empty()).ok()
    }

    /// Kills every process of the namespace, and waits until none is left.
    pub fn end(&self) {
        self.kill();
        // Fails only if it was waited for already.
        while waitpid(Some(self.pid), WaitOptions::empty()).is_err_and(|errno| errno == Errno::INTR) {}
    }

    /// Kills every process of the namespace.
    pub fn kill(&self) {
        const SIGKILL: i32 = 9;
        // Fails only if it is dead already.
        _ = sys::send_signal(&self.pidfd, SIGKILL, false);
    }
}

/// The first process.
struct First<'a> {
    exec: &'a Exec,
    program: Program<'a>,
    group: &'a Group,
    streams: [OwnedFd; 3],
    report: OwnedFd,
}

impl First<'_> {
    fn serve(self) -> ! {
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        // Should what watches over this namespace be killed, nobody could end it any more. Nothing else can fail here.
        _ = set_parent_process_death_signal(Some(Signal::KILL));
        let terminal = self.exec.terminal.as_ref().map(|_| &self.streams[0]);
        // /proc shows the namespace of whoever mounts it.
        let made = mount(c"proc", c"/proc", c"proc", flags, c"")
            .map_err(at(Step::MountSystem))
            .and_then(|()| lead_session(terminal).map_err(at(Step::Terminal)))
            .and_then(|()| sys::clone(0, Some(self.group.directory())).map_err(at(Step::Fork)));
        match made {
            Ok(Clone::Child) => {
                let failure = become_command(self.exec, &self.program, &self.streams);
                fail(&self.report, failure)
            }
            Ok(Clone::Parent { pid, pidfd }) => match take_post(&self.report, &pidfd) {
                Ok(()) => reap(pid, accounts()),
                Err(errno) => fail(&self.report, Failure { step: Step::Stream, errno }),
            },
            Err(failure) => fail(&self.report, failure),
        }
    }
}

/// Tells init of a failure and ends this process.
fn fail(report: &OwnedFd, Failure { step, errno }: Failure) -> ! {
    say(report, Report::Failed(step, errno.raw_os_error()));
    sys::exit(1)
}

/// Keeps the report pipe and the command's descriptor, at numbers that are known, and nothing else: whatever of the
/// command's streams stayed open here would never come to its end. Closing the rest opens the gate, so the report that
/// the process exists is sent first.
fn take_post(report: &OwnedFd, pidfd: &OwnedFd) -> rustix::io::Result<()> {
    dup2_stdin(report)?;
    dup2_stdout(pidfd)?;
    say(standard(Standard::Input), Report::Forked);
    sys::close_from(2, Closing::Now)?;
    // Not before the command exists, which would inherit it. Without it the kernel might choose this process in need,
    // and the ending of the command would be lost.
    if let Ok(file) = open(c"/proc/self/oom_score_adj", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty()) {
        _ = write(&file, b"-1000");
    }
    Ok(())
}

/// Reaps until nothing is left, then waits for the end of the machine. To exit would be to take the namespace's mounts
/// down one by one, while init has the ending to tell.
fn reap(command: Pid, accounts: Option<OwnedFd>) -> ! {
    loop {
        match wait(WaitOptions::UNTRACED) {
            Ok(Some((pid, status))) if pid == command => {
                let report = match status.stopping_signal() {
                    Some(signal) => Report::Stopped(signal as u8),
                    None => Report::Ended(ending(status.as_raw()), accounts.as_ref().and_then(transferred)),
                };
                say(standard(Standard::Input), report);
            }
            Ok(_) | Err(Errno::INTR) => {}
            Err(_) => _ = sys::poll(&mut [], None),
        }
    }
}

/// This process's own account of input and output, to which that of each process it reaps is added; opened while no one
/// has laid anything over `/proc`.
fn accounts() -> Option<OwnedFd> {
    open(c"/proc/self/io", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()
}

/// What has been added up. What this process itself has moved by then is a few dozen bytes.
fn transferred(accounts: &OwnedFd) -> Option<Transfer> {
    let mut text = [0; 512];
    pread(accounts, &mut text[..], 0).ok()?;
    Some(Transfer { read: cgroup::field(&text, b"rchar:")?, written: cgroup::field(&text, b"wchar:")? })
}

/// Pipes take a report whole or, if init is gone, not at all.
fn say(pipe: impl AsFd, report: Report) {
    if let Ok(frame) = wire::encode(&report) {
        while write(&pipe, &frame) == Err(Errno::INTR) {}
    }
}

/// Reads a wait status of a process that has ended (wait(2)).
pub fn ending(status: i32) -> End {
    match status & 0x7f {
        0 => End::Exited((status >> 8) as u8),
        signal => End::Signaled(signal as u8),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endings_are_exits_or_signals() {
        assert_eq!(ending(0), End::Exited(0));
        assert_eq!(ending(255 << 8), End::Exited(255));
        assert_eq!(ending(9), End::Signaled(9));
        assert_eq!(ending(11 | 0x80), End::Signaled(11), "with a core dump");
    }
}
