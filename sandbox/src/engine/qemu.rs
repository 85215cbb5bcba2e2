// SPDX-License-Identifier: Apache-2.0
//! The qemu engine: a QEMU process that emulates the CPU, and our own devices behind vhost-user.
//!
//! QEMU gets constants and descriptor numbers for arguments, an empty environment, no monitor, disk or network. It
//! dies with us because the kernel kills it when this thread ends, and with it end the connections of its devices.
//! What it prints on standard error is kept for the day it fails.

mod args;

use std::fs::File;
use std::io::{self, Read, Seek};
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::{self, JoinHandle};

use command_fds::{CommandFdExt, FdMapping};
use rustix::process::PidfdFlags;

use super::{Attachment, Console, Ending, Parts, Remote};
use crate::memory;
use crate::sys::child;
use crate::virtio::vhost_user;

/// Why QEMU could not be started.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Guest memory.
    #[error("cannot make {bytes} bytes of guest memory")]
    Memory {
        /// How much.
        bytes: u64,
        /// Why not.
        #[source]
        source: memory::Error,
    },
    /// A connection between QEMU and a device or the console.
    #[error("cannot make the connection of {what}")]
    Connection {
        /// Whose.
        what: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A device cannot be served.
    #[error("cannot serve the {device} device")]
    Device {
        /// Its name.
        device: &'static str,
        /// Why not.
        #[source]
        source: vhost_user::Error,
    },
    /// The process.
    #[error("cannot start {program}")]
    Start {
        /// Its path.
        program: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// A running QEMU with the servers of its devices. Dropping it ends all.
#[derive(Debug)]
pub(super) struct Process {
    child: Child,
    pidfd: OwnedFd,
    errors: File,
    console: Console,
    ended: Option<Ending>,
    // Ended after the process: declared last, dropped last.
    _servers: Vec<vhost_user::Server>,
    warming: Option<JoinHandle<()>>,
}

/// Starts QEMU with these parts.
pub(super) fn start(program: &Path, parts: Parts) -> Result<Process, Error> {
    let failed = |source| Error::Start { program: program.to_owned(), source };
    let bytes = parts.memory;
    let (memory, _) = memory::create(bytes).map_err(|source| Error::Memory { bytes, source })?;
    let warming = warm(&memory, bytes).map_err(failed)?;
    let (ours, theirs) = pair("the console")?;
    let console = Console::new(ours).map_err(|source| connection("the console", source))?;

    let mut fds = Descriptors::default();
    let mut machine = args::Machine {
        kernel: fds.give(parts.kernel),
        initramfs: fds.give(parts.initramfs),
        memory: fds.give(memory),
        console: fds.give(theirs),
        command_line: parts.command_line,
        clears_file_pages: parts.clears_file_pages,
        tsc_khz: parts.begun.khz(),
        bytes,
        cpus: parts.cpus,
        devices: Vec::new(),
    };
    let mut servers = Vec::new();
    for attachment in parts.devices {
        let device = match attachment {
            Attachment::Local(device) => {
                let id = device.traits().id;
                let (ours, theirs) = pair(id.name())?;
                let served = vhost_user::serve(ours, device);
                servers.push(served.map_err(|source| Error::Device { device: id.name(), source })?);
                args::Device { id, tag: None, socket: fds.give(theirs) }
            }
            Attachment::Remote(Remote { id, tag, socket }) => args::Device { id, tag, socket: fds.give(socket) },
        };
        machine.devices.push(device);
    }

    let errors = tempfile_in_memory().map_err(failed)?;
    let mut command = Command::new(program);
    command.args(machine.arguments()).env_clear().current_dir("/");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(errors.try_clone().map_err(failed)?);
    let after = fds.next();
    command.fd_mappings(fds.0).map_err(|error| failed(io::Error::other(error)))?;
    child::die_with_parent(&mut command, after);
    let child = command.spawn().map_err(failed)?;
    let pid = rustix::process::Pid::from_child(&child);
    let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty()).map_err(|error| failed(error.into()))?;
    Ok(Process { child, pidfd, errors, console, ended: None, _servers: servers, warming: Some(warming) })
}

/// Prepares the memory that every boot touches, while QEMU starts: the first fault of a page of a shared file costs
/// several microseconds, and there are ten thousand.
fn warm(memory: &File, bytes: u64) -> io::Result<JoinHandle<()>> {
    let memory = memory.try_clone()?;
    let parts = busy(bytes);
    thread::Builder::new().name("memory".to_owned()).spawn(move || memory::collapse(&memory, &parts))
}

/// Where a boot writes nearly everywhere: the kernel and what lies around it, and the top of memory, from where Linux
/// takes its page structures (one sixty-fourth of memory) and after those its first pages.
fn busy(bytes: u64) -> [Range<u64>; 2] {
    const KERNEL: u64 = 30 << 20;
    const FIRST_PAGES: u64 = 4 << 20;
    [0..KERNEL.min(bytes), bytes.saturating_sub(bytes / 64 + FIRST_PAGES).max(KERNEL)..bytes]
}

impl Process {
    pub(super) fn end_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    pub(super) fn console(&self) -> &Console {
        &self.console
    }

    pub(super) fn read_console(&mut self) {
        self.console.read();
    }

    pub(super) fn end(&mut self) -> io::Result<Ending> {
        if let Some(ending) = &self.ended {
            return Ok(ending.clone());
        }
        let ending = match self.child.try_wait()? {
            Some(status) => self.judge(status),
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

    fn judge(&mut self, status: ExitStatus) -> Ending {
        let said = self.last_words();
        // With -no-reboot QEMU exits with 0 when the guest resets; and also when a signal asks it to end.
        if status.success() && !said.contains("terminating on signal") {
            return Ending::Guest;
        }
        let how = match (status.code(), status.signal()) {
            (Some(code), _) => format!("qemu exited with status {code}"),
            (None, Some(signal)) => format!("signal {signal} killed qemu"),
            (None, None) => format!("qemu ended with {status}"),
        };
        Ending::Crash(if said.is_empty() { how } else { format!("{how}: {said}") })
    }

    /// The end of what QEMU printed on standard error, in one line.
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
        if let Some(warming) = self.warming.take() {
            drop(warming.join());
        }
    }
}

/// Descriptors that the child gets, numbered in the order they were given.
#[derive(Default)]
struct Descriptors(Vec<FdMapping>);

impl Descriptors {
    /// First number after the standard streams.
    const FIRST: i32 = 3;

    fn next(&self) -> i32 {
        Self::FIRST + self.0.len() as i32
    }

    fn give(&mut self, fd: impl Into<OwnedFd>) -> i32 {
        let child_fd = self.next();
        self.0.push(FdMapping { parent_fd: fd.into(), child_fd });
        child_fd
    }
}

fn tempfile_in_memory() -> io::Result<File> {
    let flags = rustix::fs::MemfdFlags::CLOEXEC;
    Ok(File::from(rustix::fs::memfd_create("qemu-stderr", flags)?))
}

fn pair(what: &str) -> Result<(UnixStream, UnixStream), Error> {
    UnixStream::pair().map_err(|source| connection(what, source))
}

fn connection(what: &str, source: io::Error) -> Error {
    Error::Connection { what: what.to_owned(), source }
}
