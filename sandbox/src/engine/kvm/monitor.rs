// SPDX-License-Identifier: Apache-2.0
//! The monitor's process, from its parent's side.
//!
//! It is our own executable, started again with the hidden subcommand [`SUBCOMMAND`] and an empty environment; what it
//! needs comes over its standard input: a [`Plan`] and descriptors, `/dev/kvm` among them. So it has no path to open and
//! nothing of the caller's memory, and can be confined to nothing. Its last [`Word`] says how the machine ended; if it
//! ends without one, it crashed.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::time::Instant;

use super::link::{Plan, Word};
use crate::engine::process::{self, Process};
use crate::engine::{Console, Ending, Parts, Start};
use crate::packets::{self, Packets};

/// The hidden subcommand that runs a machine.
pub(crate) const SUBCOMMAND: &str = "vmm";

/// Where KVM is.
const DEVICE: &str = "/dev/kvm";

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
    /// A machine of this engine cannot begin as a copy of another yet, nor be frozen for that.
    #[error("the kvm engine has no templates")]
    Template,
    /// The plan has a form that cannot be written down.
    #[error("cannot write down what the virtual machine monitor is to run")]
    Encode(#[source] postcard::Error),
}

/// A running monitor. Dropping it ends it.
#[derive(Debug)]
pub struct Vmm {
    pub(in crate::engine) process: Process,
}

/// Starts a monitor with these parts.
pub(in crate::engine) fn start(parts: Parts) -> Result<Vmm, Error> {
    launch(Path::new("/proc/self/exe"), parts)
}

/// The same by an executable that knows [`SUBCOMMAND`]: a test's own does not.
pub(super) fn launch(program: &Path, parts: Parts) -> Result<Vmm, Error> {
    let Start::Boot(boot) = parts.start else { return Err(Error::Template) };
    let kvm = File::options().read(true).write(true).open(DEVICE).map_err(Error::Open)?;
    let (ours, theirs) = UnixStream::pair().map_err(Error::Start)?;
    let console = Console::new(ours).map_err(Error::Start)?;
    let plan = Plan {
        parent: std::process::id(),
        memory: parts.model.memory,
        cpus: parts.model.cpus,
        nested: parts.model.nested,
        command_line: boot.command_line.to_owned(),
        ports: parts.sockets.ports.iter().map(|(port, _)| *port).collect(),
    };
    let mut descriptors: Vec<BorrowedFd<'_>> =
        vec![kvm.as_fd(), boot.kernel.as_fd(), boot.initramfs.as_fd(), theirs.as_fd(), parts.sockets.files.as_fd()];
    descriptors.extend(parts.sockets.ports.iter().map(|(_, stream)| stream.as_fd()));

    let (link, inherited) = packets::pair().map_err(Error::Tell)?;
    link.send(&plan.encode().map_err(Error::Encode)?, &descriptors).map_err(Error::Tell)?;
    let mut command = Command::new(program);
    command.arg(SUBCOMMAND).stdin(Stdio::from(inherited)).stdout(Stdio::null());
    let judge = Box::new(move |status, said: &str| judge(&link, status, said));
    let process = Process::start_own(command, console, judge).map_err(Error::Start)?;
    Ok(Vmm { process })
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
