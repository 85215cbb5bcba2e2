// SPDX-License-Identifier: Apache-2.0
//! The qemu engine: a QEMU process that emulates the CPU, and our own devices behind vhost-user.
//!
//! QEMU gets constants and descriptor numbers for arguments, an empty environment, no monitor, disk or network, and
//! runs in a [`Cage`]: guests have taken emulators over before. It
//! dies with us because the kernel kills it when this thread ends, and with it end the connections of its devices.
//! What it prints on standard error is kept for the day it fails.

mod args;
mod firmware;
mod freeze;

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::thread::{self, JoinHandle};

use super::process::{self, Descriptors, Process};
use super::{Attachment, Boot, Console, Ending, Model, Parts, Remote, Start, Template};
use crate::confine::{self, Cage};
use crate::memory;
use crate::virtio::vhost_user;

pub(super) use freeze::{boots_with, freeze};

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
    /// The disk.
    #[error("cannot look at the disk")]
    Disk(#[source] io::Error),
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
    /// A template.
    #[error("cannot make a copy of the template")]
    Clone(#[source] io::Error),
}

/// A running QEMU with the servers of its devices. Dropping it ends all.
#[derive(Debug)]
pub struct Qemu {
    pub(super) process: Process,
    // Ended after the process: declared last, dropped last.
    _servers: Vec<vhost_user::Server>,
    _warming: Option<Warming>,
}

/// Starts QEMU with these parts.
pub(super) fn start(program: &Path, parts: Parts) -> Result<Qemu, Error> {
    let mut launch = Launch::new(parts.model)?;
    let mut servers = Vec::new();
    for attachment in (parts.devices)(parts.sockets).map_err(Error::Disk)? {
        let device = match attachment {
            Attachment::Local(device) => {
                let id = device.traits().id;
                let (ours, theirs) = pair(id.name())?;
                let served = vhost_user::serve(ours, device);
                servers.push(served.map_err(|source| Error::Device { device: id.name(), source })?);
                args::Device { id, tag: None, socket: launch.fds.give(theirs) }
            }
            Attachment::Remote(Remote { id, tag, socket }) => args::Device { id, tag, socket: launch.fds.give(socket) },
        };
        launch.devices.push(device);
    }
    match parts.start {
        Start::Boot(boot) => {
            let warming = launch.warm().map_err(|source| not_started(program, source))?;
            Ok(Qemu { process: launch.boot(program, boot)?, _servers: servers, _warming: Some(warming) })
        }
        Start::Clone(template) => {
            Ok(Qemu { process: launch.clone_of(program, &template)?, _servers: servers, _warming: None })
        }
    }
}

/// A machine that is being put together.
struct Launch {
    model: Model,
    memory: File,
    fds: Descriptors,
    devices: Vec<args::Device>,
}

impl Launch {
    fn new(model: Model) -> Result<Self, Error> {
        let bytes = model.memory;
        let memory = memory::file(bytes).map_err(|source| Error::Memory { bytes, source })?;
        Ok(Self { model, memory, fds: Descriptors::default(), devices: Vec::new() })
    }

    fn boot(mut self, program: &Path, boot: Boot) -> Result<Process, Error> {
        let cage = Cage::new(program, &[&boot.kernel, &boot.initramfs]).map_err(Error::Confine)?;
        let (command_line, tsc_khz) = (boot.command_line, boot.begun.khz());
        let (kernel, initramfs) = (self.fds.give(boot.kernel), self.fds.give(boot.initramfs));
        self.launch(program, cage, args::Start::Boot { kernel, initramfs, command_line, tsc_khz })
    }

    /// Memory is filled while QEMU starts; the firmware waits for it.
    fn clone_of(mut self, program: &Path, template: &Template) -> Result<Process, Error> {
        let firmware = firmware::file().map_err(Error::Clone)?;
        // Files in memory are nobody's by name; Landlock has no say in them.
        let cage = Cage::new(program, &[]).map_err(Error::Confine)?;
        let memory = self.memory.try_clone().map_err(Error::Clone)?;
        let busy = busy(self.model.memory);
        let firmware = self.fds.give(firmware);
        let process = self.launch(program, cage, args::Start::Clone { firmware })?;
        memory::collapse(&memory, &busy);
        template.fill(&memory).map_err(Error::Clone)?;
        Ok(process)
    }

    fn launch(self, program: &Path, cage: Cage, start: args::Start) -> Result<Process, Error> {
        let Self { model, memory, mut fds, devices } = self;
        let (ours, theirs) = pair("the console")?;
        let console = Console::new(ours).map_err(|source| connection("the console", source))?;
        let (memory, theirs) = (fds.give(memory), fds.give(theirs));
        let machine = args::Machine { model, start, memory, console: theirs, devices };
        let mut command = Command::new(program);
        command.args(machine.arguments()).stdin(Stdio::null()).stdout(Stdio::null());
        let started = Process::start(command, fds, move || cage.enter(), console, Box::new(judge));
        started.map_err(|source| not_started(program, source))
    }

    /// Prepares the memory that every boot touches, while QEMU starts: the first fault of a page of a shared file costs
    /// several microseconds, and there are ten thousand.
    fn warm(&self) -> io::Result<Warming> {
        let memory = self.memory.try_clone()?;
        let parts = busy(self.model.memory);
        let thread =
            thread::Builder::new().name("memory".to_owned()).spawn(move || memory::collapse(&memory, &parts))?;
        Ok(Warming(Some(thread)))
    }
}

fn not_started(program: &Path, source: io::Error) -> Error {
    Error::Start { program: program.to_owned(), source }
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

/// Where a boot writes nearly everywhere, and a template has nearly all it holds: the kernel and what lies around it, and the top of memory.
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
