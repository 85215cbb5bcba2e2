// SPDX-License-Identifier: Apache-2.0
//! The monitor's process, from its parent's side.
//!
//! It is our own executable, started again with the hidden subcommand [`SUBCOMMAND`] and an empty environment; what it
//! needs comes over its standard input: a [`Plan`] and descriptors, `/dev/kvm` among them. So it has no path to open and
//! nothing of the caller's memory, and can be confined to nothing. Its last [`Word`] says how the machine ended; if it
//! ends without one, it crashed.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::time::Instant;

use super::layout;
use super::link::{Begin, Plan, Word};
use crate::engine::process::{self, Process};
use crate::engine::{self, Boot, Console, Ending, Frozen, Model, Parts, Sockets, Start};
use crate::memory;
use crate::packets::{self, Packets};
use crate::sys::signals::Signals;

/// The hidden subcommand that runs a machine.
pub(crate) const SUBCOMMAND: &str = "vmm";

/// Where KVM is.
const DEVICE: &str = "/dev/kvm";

/// What it is made of, where it is not a part of the kernel.
const MODULES: [&str; 3] = ["/sys/module/kvm", "/sys/module/kvm_amd", "/sys/module/kvm_intel"];

/// Why the monitor could not be started.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// KVM cannot be opened.
    #[error("cannot open {DEVICE}")]
    Open(#[source] io::Error),
    /// The process.
    #[error("cannot start the virtual machine monitor")]
    Start(#[source] io::Error),
    /// The plan could not be handed over.
    #[error("cannot tell the virtual machine monitor what to run")]
    Tell(#[source] packets::Error),
    /// Guest memory.
    #[error("cannot make guest memory")]
    Memory(#[from] memory::Error),
    /// The memory of a machine that was frozen.
    #[error("cannot read a frozen machine's memory")]
    Read(#[source] io::Error),
    /// The plan has a form that cannot be written down.
    #[error("cannot write down what the virtual machine monitor is to run")]
    Encode(#[source] postcard::Error),
}

/// A running monitor. Dropping it ends it.
#[derive(Debug)]
pub struct Vmm {
    pub(in crate::engine) process: Process,
}

/// Starts a monitor with these parts, by an executable that knows [`SUBCOMMAND`].
pub(in crate::engine) fn start(program: &Path, parts: Parts) -> Result<Vmm, Error> {
    let memory = memory::file(parts.model.memory)?;
    Ok(Vmm { process: begin(program, parts.model, parts.start, &memory, Some(parts.sockets))? })
}

/// A machine that has frozen itself.
pub(in crate::engine) fn freeze(
    program: &Path,
    model: Model,
    boot: Boot,
    signals: Option<&Signals>,
) -> Result<Frozen, engine::Error> {
    let memory = memory::file(model.memory).map_err(Error::Memory)?;
    let process = begin(program, model, Start::Boot(boot), &memory, None)?;
    let kept = engine::freeze::complete(process, &memory, signals)?;
    let kept = layout::large(kept, model.memory);
    Ok(Frozen::new(memory, kept).map_err(Error::Read)?)
}

/// What decides what such a machine is when it has booted, kernel and initramfs apart: this program, and this KVM.
pub(in crate::engine) fn boots_with(program: &Path, model: Model, command_line: &'static str) -> io::Result<String> {
    let own = engine::identity(&fs::metadata(program)?);
    // Loaded anew, perhaps with other options, a module has another place here; built in or not there, none.
    let modules = MODULES.map(|module| fs::metadata(module).map_or(0, |module| module.ino()));
    Ok(format!("kvm {own:?} {modules:?} {model:?} {command_line}"))
}

/// Without `sockets` the machine has no devices.
fn begin(
    program: &Path,
    model: Model,
    start: Start,
    memory: &File,
    sockets: Option<Sockets>,
) -> Result<Process, Error> {
    let kvm = File::options().read(true).write(true).open(DEVICE).map_err(Error::Open)?;
    let (ours, theirs) = UnixStream::pair().map_err(Error::Start)?;
    let console = Console::new(ours).map_err(Error::Start)?;
    let mut descriptors: Vec<BorrowedFd<'_>> = vec![kvm.as_fd(), theirs.as_fd(), memory.as_fd()];
    let begin = match &start {
        Start::Boot(boot) => {
            descriptors.extend([boot.kernel.as_fd(), boot.initramfs.as_fd()]);
            Begin::Boot(boot.command_line.to_owned())
        }
        Start::Clone(template) => {
            descriptors.push(template.file().as_fd());
            Begin::Clone
        }
    };
    if let Some(sockets) = &sockets {
        descriptors.push(sockets.files.as_fd());
        descriptors.extend(sockets.disk.as_ref().map(AsFd::as_fd));
        descriptors.extend(sockets.supply.as_ref().map(AsFd::as_fd));
        descriptors.extend(sockets.ports.iter().map(|(_, stream)| stream.as_fd()));
    }
    let plan = Plan {
        parent: std::process::id(),
        memory: model.memory,
        cpus: model.cpus,
        nested: model.nested,
        disk: model.disk,
        begin,
        supply: sockets.as_ref().is_some_and(|sockets| sockets.supply.is_some()),
        ports: sockets.as_ref().map(|sockets| sockets.ports.iter().map(|(port, _)| *port).collect()),
    };

    let (link, inherited) = packets::pair().map_err(Error::Tell)?;
    link.send(&plan.encode().map_err(Error::Encode)?, &descriptors).map_err(Error::Tell)?;
    let mut command = Command::new(program);
    command.arg(SUBCOMMAND).stdin(Stdio::from(inherited)).stdout(Stdio::null());
    let judge = Box::new(move |status, said: &str| judge(&link, status, said));
    Process::start_own(command, console, judge).map_err(Error::Start)
}

/// What the monitor's end means: what it said last, unless it had no time to.
fn judge(link: &Packets, status: ExitStatus, said: &str) -> Ending {
    let word = link.receive(Instant::now()).ok().flatten().and_then(|packet| Word::decode(&packet.bytes).ok());
    match word {
        Some(Word::Guest(how)) => Ending::Guest(how),
        Some(Word::Failed(how)) => Ending::Crash(how),
        None => Ending::Crash(process::describe("the virtual machine monitor", status, said)),
    }
}
