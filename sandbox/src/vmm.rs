// SPDX-License-Identifier: Apache-2.0
//! The monitor's own story, from the hidden subcommand to the machine's end.
//!
//! Not for the parent's side ([`crate::engine`]), nor for what a machine is made of. The order matters: the plan, the
//! confinement of the process while it has one thread, the devices, the machine, the filter of each thread, and only then
//! the guest's first instruction.

mod filters;

use crate::confine::{self, Root};
use crate::devices;
use crate::engine::kvm::{self, Begin, Plan, Word, layout, vm};
use crate::engine::{Attachment, Remote, Sockets, Template};
use crate::memory;
use crate::packets::{self, Packets};
use crate::virtio::mmio::Backing;
use crate::virtio::remote::{self, Backend};
use filters::Role;
use rustix::fd::{AsFd, OwnedFd};
use rustix::thread::CapabilitySet;
use std::fs::File;
use std::io;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

/// The hidden subcommand that calls [`serve()`].
pub const SUBCOMMAND: &str = kvm::SUBCOMMAND;

/// The plan was sent before we were started.
const PLAN: Duration = Duration::from_secs(5);

/// Why there is no machine.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("cannot hear what to run")]
    Link(#[from] packets::Error),
    #[error("what to run makes no sense (this command is for internal use)")]
    Plan(#[source] postcard::Error),
    #[error("the plan comes without all of its descriptors (this command is for internal use)")]
    Descriptors,
    #[error("cannot confine the virtual machine monitor")]
    Confine(#[from] confine::Error),
    #[error("cannot confine the virtual machine monitor's first thread")]
    Filter(#[source] io::Error),
    #[error("cannot map guest memory")]
    Memory(#[from] memory::Error),
    #[error("cannot make a copy of the template")]
    Template(#[source] io::Error),
    #[error("the template is damaged")]
    Damaged,
    #[error("cannot look at the disk")]
    Disk(#[source] io::Error),
    #[error("cannot take in the device of another process")]
    Remote(#[from] remote::Error),
    #[error("cannot assemble the virtual machine")]
    Machine(#[from] vm::Error),
}

/// Runs the machine that the plan on standard input describes. For the subcommand `vmm`, before the process has any
/// thread or descriptor of its own.
#[must_use]
pub fn serve() -> ExitCode {
    let Ok(link) = confine::begin().and_then(|()| io::stdin().as_fd().try_clone_to_owned()) else {
        return ExitCode::FAILURE;
    };
    let link = Packets::inherited(link);
    let word = run(&link).unwrap_or_else(|error| Word::Failed(crate::explain(&error)));
    // A parent that cannot be told takes our end for a crash.
    match word.encode().map(|word| link.send(&word, &[])) {
        Ok(Ok(())) => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

fn run(link: &Packets) -> Result<Word, Error> {
    let packet = link.receive(Instant::now() + PLAN)?.ok_or(Error::Descriptors)?;
    let plan = Plan::decode(&packet.bytes).map_err(Error::Plan)?;
    let given = Given::of(packet.descriptors, &plan)?;

    confine::die_with(plan.parent)?;
    confine::separate()?;
    Root::new()?.enter()?;
    confine::give_up_rights(CapabilitySet::empty())?;
    confine::die_with(plan.parent)?;

    let memory = memory::map(&given.memory, &layout::memory(plan.memory))?;
    let (start, kept) = match given.source {
        Source::Boot(boot) => {
            // Before anything is written, so that nothing has to be moved.
            memory::warm(&memory, &layout::busy(plan.memory));
            (vm::Start::Boot(boot), Vec::new())
        }
        Source::Template(file) => {
            let template = Template::open(file, plan.memory).map_err(Error::Template)?;
            let kept = template.ok_or(Error::Damaged)?.lay(&given.memory, &memory).map_err(Error::Template)?;
            (vm::Start::Clone, kept)
        }
    };
    let shared = memory::map_without(&given.memory, &layout::memory(plan.memory), &kept)?;
    let parts = vm::Parts {
        kvm: given.kvm,
        devices: given.sockets.map_or(Ok(Vec::new()), backings)?,
        announced: devices::count(plan.disk),
        memory,
        shared,
        start,
        console: given.console,
        cpus: plan.cpus,
        nested: plan.nested,
    };
    live(parts, plan.cpus)
}

/// Runs the machine to its end. No virtual CPU enters the guest before every thread is confined.
fn live(parts: vm::Parts, cpus: u32) -> Result<Word, Error> {
    let confined = Arc::new(Barrier::new(cpus as usize + 1));
    let gate = Arc::clone(&confined);
    let team = vm::Vm::new(parts)?.start(move || {
        let entered = Role::Cpu.enter();
        gate.wait();
        entered
    })?;
    Role::First.enter().map_err(Error::Filter)?;
    confined.wait();
    Ok(team.wait().into())
}

/// What came with the plan.
struct Given {
    kvm: OwnedFd,
    console: UnixStream,
    memory: File,
    source: Source,
    sockets: Option<Sockets>,
}

/// What memory is filled from.
enum Source {
    Boot(vm::Boot),
    Template(File),
}

impl Given {
    fn of(descriptors: Vec<OwnedFd>, plan: &Plan) -> Result<Self, Error> {
        let mut descriptors = descriptors.into_iter();
        let mut next = || descriptors.next().ok_or(Error::Descriptors);
        let (kvm, console, memory) = (next()?, next()?.into(), next()?.into());
        let source = match &plan.begin {
            Begin::Boot(command_line) => Source::Boot(vm::Boot {
                kernel: next()?.into(),
                initramfs: next()?.into(),
                command_line: command_line.clone(),
            }),
            Begin::Clone => Source::Template(next()?.into()),
        };
        let sockets = match &plan.ports {
            None => None,
            Some(ports) => Some(Sockets {
                files: next()?.into(),
                disk: if plan.disk { Some(next()?.into()) } else { None },
                supply: if plan.supply { Some(next()?) } else { None },
                ports: ports.iter().map(|port| Ok((*port, next()?.into()))).collect::<Result<_, Error>>()?,
            }),
        };
        Ok(Self { kvm, console, memory, source, sockets })
    }
}

/// What the machine's windows are made for.
fn backings(sockets: Sockets) -> Result<Vec<Backing>, Error> {
    let backing = |attachment| match attachment {
        Attachment::Local(device) => Ok(Backing::Local(device, || Role::Device.enter())),
        Attachment::Remote(Remote { id, tag, socket }) => Ok(Backing::Remote(Backend::of(id, tag, socket)?)),
    };
    devices::list(sockets).map_err(Error::Disk)?.into_iter().map(backing).collect()
}
