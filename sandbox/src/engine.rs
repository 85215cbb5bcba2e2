// SPDX-License-Identifier: Apache-2.0
//! What runs the virtual machine.
//!
//! An engine takes [`Parts`], which name no engine, and gives a [`Machine`], which does not say whose it is. A third
//! engine would add a variant here and a file below.

mod console;
mod freeze;
pub(crate) mod kvm;
mod probe;
mod process;
mod qemu;
mod template;

use std::fs::{File, Metadata};
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixStream;

use crate::sys::signals::Signals;
use crate::sys::tsc::Moment;
use crate::virtio::{Device, Id};

pub use console::Console;
pub(crate) use console::legible;
pub use probe::apart::{SUBCOMMAND as TRIAL, answer as try_kvm};
pub use probe::{Error as ProbeError, Finding, distrust_kvm, kvm, probe, qemu as find_qemu, survey};
pub(crate) use template::Frozen;
pub use template::Template;

/// What can run a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Engine {
    /// Our own monitor on KVM: this program started once more, given by its path.
    Kvm(std::path::PathBuf),
    /// Emulation in a QEMU process, given by its path; our devices serve it over vhost-user.
    Qemu(std::path::PathBuf),
}

/// What keeps the guest in its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isolation {
    /// The processor's virtualization, driven by KVM.
    Hardware,
    /// Software emulation, which its makers do not call a security boundary.
    Emulated,
}

impl Isolation {
    /// The name in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Hardware => "hardware",
            Self::Emulated => "emulated",
        }
    }
}

/// Everything a machine is assembled from.
#[derive(Debug)]
pub struct Parts {
    /// Its processors and memory.
    pub model: Model,
    /// What they begin with.
    pub start: Start,
    /// What the devices are connected to.
    pub sockets: Sockets,
    /// Makes the devices, in the order of their addresses, wherever the machine runs.
    pub devices: fn(Sockets) -> io::Result<Vec<Attachment>>,
}

/// What sort of machine it is. This and what it boots decide what it is when it has booted; nothing of a run does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Model {
    /// Memory in bytes.
    pub memory: u64,
    /// Virtual CPUs.
    pub cpus: u32,
    /// Whether the CPUs can virtualize in turn; the kernel must be of the flavour that uses it.
    pub nested: bool,
    /// Whether it has a disk.
    pub disk: bool,
    /// Whether its kernel clears each page before it reads a file into it.
    pub clears_file_pages: bool,
}

/// What a machine begins with.
#[derive(Debug)]
pub enum Start {
    /// Its kernel.
    Boot(Boot),
    /// Where another had come to when it was frozen.
    Clone(Template),
}

/// What a machine boots.
#[derive(Debug)]
pub struct Boot {
    /// Guest kernel, an ELF file.
    pub kernel: File,
    /// Guest init's archive.
    pub initramfs: File,
    /// Kernel command line, the same for every run; engines add what follows from the machine they make.
    pub command_line: &'static str,
    /// A moment of the past, to measure the processor's counter from.
    pub(crate) begun: Moment,
}

/// The machine's ends of what its devices are connected to.
#[derive(Debug)]
pub struct Sockets {
    /// Host ports that the guest may dial, each with its stream.
    pub ports: Vec<(u32, UnixStream)>,
    /// The file server's vhost-user connection.
    pub files: UnixStream,
    /// Where further ports come from while the machine runs, if any may.
    pub supply: Option<OwnedFd>,
    /// The disk, if the machine has one.
    pub disk: Option<File>,
}

/// A device, wherever it runs.
pub enum Attachment {
    /// One of ours, served by this process.
    Local(Box<dyn Device>),
    /// A vhost-user backend in a process of its own.
    Remote(Remote),
}

/// A device behind a vhost-user connection.
#[derive(Debug)]
pub struct Remote {
    /// What it is.
    pub id: Id,
    /// What its driver knows it by, if its type has such a name (virtio 1.2 §5.11.4).
    pub tag: Option<&'static str>,
    /// The connection's front end.
    pub socket: UnixStream,
}

impl std::fmt::Debug for Attachment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Local(device) => write!(f, "Local({:?})", device.traits()),
            Self::Remote(remote) => remote.fmt(f),
        }
    }
}

/// Why a machine could not be started.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The KVM engine's reason.
    #[error(transparent)]
    Kvm(#[from] kvm::Error),
    /// The QEMU engine's reason.
    #[error(transparent)]
    Qemu(#[from] qemu::Error),
    /// A machine that was to be frozen was not.
    #[error(transparent)]
    Freeze(#[from] freeze::Error),
}

impl Error {
    /// The signal that this is about, if it is about one.
    pub(crate) fn signal(&self) -> Option<i32> {
        match self {
            Self::Freeze(freeze::Error::Cancelled(signal)) => Some(*signal),
            _ => None,
        }
    }
}

/// A running machine. Dropping it ends it.
#[derive(Debug)]
pub enum Machine {
    /// In a process of ours.
    Kvm(kvm::Vmm),
    /// In a QEMU process.
    Qemu(qemu::Qemu),
}

impl Engine {
    /// The name in reports.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Kvm(_) => "kvm",
            Self::Qemu(_) => "qemu",
        }
    }

    /// What keeps the guest in its place.
    #[must_use]
    pub fn isolation(&self) -> Isolation {
        match self {
            Self::Kvm(_) => Isolation::Hardware,
            Self::Qemu(_) => Isolation::Emulated,
        }
    }

    /// What takes part in the boot of such a machine besides kernel and initramfs, as text.
    ///
    /// # Errors
    /// If the engine's program cannot be looked at.
    pub(crate) fn boots_with(&self, model: Model, command_line: &'static str) -> io::Result<String> {
        match self {
            Self::Kvm(program) => kvm::boots_with(program, model, command_line),
            Self::Qemu(program) => qemu::boots_with(program, model, command_line),
        }
    }

    /// Boots a machine without devices and freezes it. Of `signals` those that end a run end this, too; others are for a
    /// command, and there is none.
    ///
    /// # Errors
    /// Why there is no frozen machine.
    pub(crate) fn freeze(&self, model: Model, boot: Boot, signals: Option<&Signals>) -> Result<Frozen, Error> {
        match self {
            Self::Kvm(program) => kvm::freeze(program, model, boot, signals),
            Self::Qemu(program) => qemu::freeze(program, model, boot, signals),
        }
    }

    /// Starts a machine.
    ///
    /// # Errors
    /// What could not be made or started.
    pub fn start(&self, parts: Parts) -> Result<Machine, Error> {
        match self {
            Self::Kvm(program) => Ok(Machine::Kvm(kvm::start(program, parts)?)),
            Self::Qemu(program) => Ok(Machine::Qemu(qemu::start(program, parts)?)),
        }
    }
}

impl Machine {
    fn process(&self) -> &process::Process {
        match self {
            Self::Kvm(vmm) => &vmm.process,
            Self::Qemu(qemu) => &qemu.process,
        }
    }

    fn process_mut(&mut self) -> &mut process::Process {
        match self {
            Self::Kvm(vmm) => &mut vmm.process,
            Self::Qemu(qemu) => &mut qemu.process,
        }
    }

    /// Becomes readable when the machine has ended.
    pub fn end_fd(&self) -> BorrowedFd<'_> {
        self.process().end_fd()
    }

    /// What the guest's kernel has printed.
    pub fn console(&self) -> &Console {
        self.process().console()
    }

    /// Takes what the guest's kernel has printed since.
    pub fn read_console(&mut self) {
        self.process_mut().read_console();
    }

    /// Ends the machine if it still runs; how its process ended, if that was not our doing.
    ///
    /// # Errors
    /// Those of waiting for a process.
    pub fn end(&mut self) -> io::Result<Ending> {
        self.process_mut().end()
    }
}

/// What tells a version of a file from others.
fn identity(file: &Metadata) -> [u64; 5] {
    [file.dev(), file.ino(), file.size(), file.mtime() as u64, file.mtime_nsec() as u64]
}

/// How a machine's process ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// We ended it.
    Ours,
    /// The guest reset the machine or made it stop; how.
    Guest(String),
    /// It failed; how.
    Crash(String),
}
