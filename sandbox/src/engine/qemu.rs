// SPDX-License-Identifier: Apache-2.0
//! The qemu engine: a QEMU process that emulates the CPU, and our own devices behind vhost-user.
//!
//! QEMU gets constants and descriptor numbers for arguments, an empty environment, no monitor, disk or network, and
//! runs in a [`Cage`]: guests have taken emulators over before. It
//! dies with us because the kernel kills it when this thread ends, and with it end the connections of its devices.
//! What it prints on standard error is kept for the day it fails.

mod args;

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::thread::{self, JoinHandle};

use super::process::{self, Descriptors, Process};
use super::{Attachment, Console, Ending, Parts, Remote};
use crate::confine::{self, Cage};
use crate::memory;
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
    /// The cage that it runs in.
    #[error("cannot prepare the confinement of QEMU")]
    Confine(#[source] confine::Error),
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
pub struct Qemu {
    pub(super) process: Process,
    // Ended after the process: declared last, dropped last.
    _servers: Vec<vhost_user::Server>,
    _warming: Warming,
}

/// Starts QEMU with these parts.
pub(super) fn start(program: &Path, parts: Parts) -> Result<Qemu, Error> {
    let failed = |source| Error::Start { program: program.to_owned(), source };
    let bytes = parts.memory;
    let (memory, _) = memory::create(bytes).map_err(|source| Error::Memory { bytes, source })?;
    let warming = warm(&memory, bytes).map_err(failed)?;
    let (ours, theirs) = pair("the console")?;
    let console = Console::new(ours).map_err(|source| connection("the console", source))?;

    let cage = Cage::new(program, &[&parts.kernel, &parts.initramfs]).map_err(Error::Confine)?;
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
        nested: parts.nested,
        devices: Vec::new(),
    };
    let mut servers = Vec::new();
    for attachment in (parts.devices)(parts.sockets) {
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

    let mut command = Command::new(program);
    command.args(machine.arguments()).stdin(Stdio::null()).stdout(Stdio::null());
    let process = Process::start(command, fds, move || cage.enter(), console, Box::new(judge)).map_err(failed)?;
    Ok(Qemu { process, _servers: servers, _warming: warming })
}

/// With `-no-reboot` QEMU exits with 0 when the guest resets; and also when a signal asks it to end.
fn judge(status: ExitStatus, said: &str) -> Ending {
    if status.success() && !said.contains("terminating on signal") {
        return Ending::Guest("the machine was reset".to_owned());
    }
    Ending::Crash(process::describe("qemu", status, said))
}

/// The thread that prepares memory, waited for when the machine goes.
#[derive(Debug)]
struct Warming(Option<JoinHandle<()>>);

impl Drop for Warming {
    fn drop(&mut self) {
        if let Some(thread) = self.0.take() {
            // A panic in it would have been printed; memory only stays cold.
            drop(thread.join());
        }
    }
}

/// Prepares the memory that every boot touches, while QEMU starts: the first fault of a page of a shared file costs
/// several microseconds, and there are ten thousand.
fn warm(memory: &File, bytes: u64) -> io::Result<Warming> {
    let memory = memory.try_clone()?;
    let parts = busy(bytes);
    let thread = thread::Builder::new().name("memory".to_owned()).spawn(move || memory::collapse(&memory, &parts))?;
    Ok(Warming(Some(thread)))
}

/// Where a boot writes nearly everywhere: the kernel and what lies around it, and the top of memory.
fn busy(bytes: u64) -> [Range<u64>; 2] {
    const KERNEL: u64 = 30 << 20;
    let top = memory::top(bytes);
    [0..KERNEL.min(bytes), top.start.max(KERNEL)..top.end]
}

fn pair(what: &str) -> Result<(UnixStream, UnixStream), Error> {
    UnixStream::pair().map_err(|source| connection(what, source))
}

fn connection(what: &str, source: io::Error) -> Error {
    Error::Connection { what: what.to_owned(), source }
}
