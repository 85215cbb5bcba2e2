// SPDX-License-Identifier: Apache-2.0
//! A machine, from its parts to its end.
//!
//! THE RULE of order: memory slots → vCPUs → state → ioeventfd and irqfd. A registration on a machine's buses waits for
//! a grace period of the host's RCU, or makes the next slot or vCPU wait for one; so they come last. The one exception
//! is KVM's: the interrupt chips must be there before a vCPU. `/dev/kvm` is closed before the first instruction.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use kvm_bindings::{kvm_cpuid_entry2, kvm_regs, kvm_sregs};
use vm_memory::{GuestAddressSpace, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion};
use vmm_sys_util::errno::Error as Errno;
use vmm_sys_util::eventfd::EventFd;

use super::calls::{self, Host, Machine as _};
use super::platform::{self, Platform};
use super::state::{self, cpuid};
use super::vcpu::{self, Machine, Team};
use super::wiring::Windows;
use super::{boot, layout};
use crate::memory::Memory;
use crate::sys::kvm::{self, Cpu};
use crate::virtio::mmio::{self, Backing, NOTIFY, Window};

/// What a machine is made of.
pub(crate) struct Parts {
    /// An open `/dev/kvm`.
    pub(crate) kvm: OwnedFd,
    /// Guest memory, in the parts that [`layout::memory`] gives.
    pub(crate) memory: Memory,
    /// What of it devices in other processes may be told of.
    pub(crate) shared: Memory,
    /// What it begins with.
    pub(crate) start: Start,
    /// Takes what the guest's kernel prints.
    pub(crate) console: UnixStream,
    /// Virtual CPUs.
    pub(crate) cpus: u32,
    /// Devices in the order of their addresses.
    pub(crate) devices: Vec<Backing>,
    /// How many of them a kernel is told of that boots; they may come only when it is a copy.
    pub(crate) announced: usize,
    /// Whether the guest may be a host of machines itself.
    pub(crate) nested: bool,
}

/// What a machine begins with.
#[derive(Debug)]
pub(crate) enum Start {
    /// A kernel.
    Boot(Boot),
    /// Where another had come to: its memory is in its place ([`guest_init::frozen`]).
    Clone,
}

/// What a machine boots.
#[derive(Debug)]
pub(crate) struct Boot {
    /// Guest kernel, an ELF file.
    pub(crate) kernel: File,
    /// Guest init's archive.
    pub(crate) initramfs: File,
    /// Kernel command line without the words for devices.
    pub(crate) command_line: String,
}

/// Why there is no machine.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// More than the layout has room for.
    #[error("a machine has at most {most} {what}, not {count}")]
    Many {
        /// Of what.
        what: &'static str,
        /// The most.
        most: usize,
        /// How many were asked for.
        count: usize,
    },
    /// What goes into guest memory.
    #[error(transparent)]
    Boot(#[from] boot::Error),
    /// A device's register window.
    #[error("cannot make the register window of device {number}")]
    Window {
        /// Its place in the list.
        number: usize,
        /// Why not.
        #[source]
        source: mmio::Error,
    },
    /// The serial port.
    #[error(transparent)]
    Platform(#[from] platform::Error),
    /// A descriptor.
    #[error("cannot duplicate a device's descriptor")]
    Descriptor(#[source] io::Error),
    /// A call to KVM.
    #[error("{call} failed")]
    Kvm {
        /// Which.
        call: &'static str,
        /// Why.
        #[source]
        source: Errno,
    },
    /// The threads.
    #[error(transparent)]
    Team(#[from] vcpu::Error),
}

/// A machine that has not run yet.
#[derive(Debug)]
pub(crate) struct Vm {
    pub(super) cpus: Vec<Cpu>,
    pub(super) machine: Machine,
}

impl Vm {
    /// Assembles a machine. `/dev/kvm` is closed when this returns.
    ///
    /// # Errors
    /// What was refused, and by whom.
    pub(crate) fn new(mut parts: Parts) -> Result<Self, Error> {
        check("virtual CPUs", parts.cpus as usize, layout::CPUS as usize)?;
        check("devices", parts.devices.len().max(parts.announced), layout::DEVICES)?;
        let platform = Platform::new(parts.console)?;
        let mut windows = Vec::new();
        for (number, backing) in parts.devices.into_iter().enumerate() {
            let memory = if let Backing::Remote(_) = backing { &parts.shared } else { &parts.memory };
            let window = Window::new(backing, memory.clone());
            windows.push(window.map_err(|source| Error::Window { number, source })?);
        }
        let wires = Wires::of(&platform, &windows)?;
        let memory = parts.memory.memory().into_inner();
        let ((system, general), clock) = match &mut parts.start {
            Start::Boot(boot) => {
                let image = boot::Image {
                    command_line: &format!("{}{}", boot.command_line, layout::device_words(parts.announced)),
                    kernel: &mut boot.kernel,
                    initramfs: &mut boot.initramfs,
                    devices: parts.announced,
                    cpus: parts.cpus,
                };
                (state::at_entry(boot::load(&memory, &ranges(&memory), image)?), None)
            }
            Start::Clone => (state::at_thaw(), Some(state::THAW_CLOCK)),
        };
        let host = calls::Device::new(parts.kvm);
        let plan = Plan { system, general, clock, cpus: parts.cpus, nested: parts.nested, wires };
        let cpus = plan.carry_out(&host, memory)?;
        Ok(Self { cpus, machine: Machine { platform, windows: Windows::new(windows) } })
    }

    /// Starts the vCPUs' threads, each of which calls `confine` before its first instruction.
    ///
    /// # Errors
    /// If a thread cannot be started.
    pub(crate) fn start(self, confine: impl Fn() -> io::Result<()> + Send + Sync + 'static) -> Result<Team, Error> {
        Ok(Team::start(self.cpus, Arc::new(self.machine), confine)?)
    }
}

/// The parts of the guest's address space that are memory.
fn ranges(memory: &GuestMemoryMmap) -> Vec<Range<u64>> {
    memory.iter().map(|region| region.start_addr().0..region.start_addr().0 + region.len()).collect()
}

fn check(what: &'static str, count: usize, most: usize) -> Result<(), Error> {
    if count <= most { Ok(()) } else { Err(Error::Many { what, most, count }) }
}

/// The descriptors that KVM reads and writes by itself.
#[derive(Debug)]
struct Wires {
    /// Kicks, with address and ring.
    kicks: Vec<(EventFd, u64, u32)>,
    /// Interrupts, with their number.
    interrupts: Vec<(EventFd, u32)>,
}

impl Wires {
    fn of(platform: &Platform, windows: &[Window]) -> Result<Self, Error> {
        let duplicate = |fd: &OwnedFd| fd.try_clone().map(kvm::event).map_err(Error::Descriptor);
        let serial = platform.interrupt().try_clone().map_err(Error::Descriptor)?;
        let mut wires = Self { kicks: Vec::new(), interrupts: vec![(serial, layout::SERIAL_IRQ)] };
        for (number, window) in windows.iter().enumerate() {
            let address = layout::window(number).start + NOTIFY;
            for (ring, kick) in (0..).zip(window.kicks()) {
                wires.kicks.push((duplicate(kick)?, address, ring));
            }
            wires.interrupts.push((duplicate(window.interrupt())?, layout::irq(number)));
        }
        Ok(wires)
    }
}

/// What KVM is asked for.
#[derive(Debug)]
struct Plan {
    /// Of the first processor.
    system: kvm_sregs,
    general: kvm_regs,
    /// Where the guest's clock goes on, if not from zero, in nanoseconds.
    clock: Option<u64>,
    cpus: u32,
    nested: bool,
    wires: Wires,
}

impl Plan {
    fn carry_out<H: Host>(
        &self,
        host: &H,
        memory: Arc<GuestMemoryMmap>,
    ) -> Result<Vec<<H::Machine as calls::Machine>::Cpu>, Error> {
        let supported = host.supported_cpuid().map_err(call("KVM_GET_SUPPORTED_CPUID"))?;
        let msrs = state::msrs(&host.msr_indices().map_err(call("KVM_GET_MSR_INDEX_LIST"))?);
        let slots = memory.num_regions() as u32;
        let machine = host.create(memory).map_err(call("KVM_CREATE_VM"))?;

        if is_intel(&supported) {
            machine.set_tss_address(layout::TSS).map_err(call("KVM_SET_TSS_ADDR"))?;
        }
        for slot in 0..slots {
            machine.set_memory(slot).map_err(call("KVM_SET_USER_MEMORY_REGION"))?;
        }
        machine.create_irqchip().map_err(call("KVM_CREATE_IRQCHIP"))?;
        let cpus = (0..self.cpus).map(|id| machine.create_cpu(id)).collect::<Result<Vec<_>, _>>();
        let cpus = cpus.map_err(call("KVM_CREATE_VCPU"))?;

        for (id, cpu) in (0..).zip(&cpus) {
            let place = cpuid::Place { id, count: self.cpus };
            let answers = cpuid::answers(&supported, place, self.nested);
            machine.set_cpuid(cpu, &answers).map_err(call("KVM_SET_CPUID2"))?;
            if !msrs.is_empty() {
                machine.set_msrs(cpu, &msrs).map_err(call("KVM_SET_MSRS"))?;
            }
        }
        // The others wait in KVM until the first one starts them.
        if let Some(first) = cpus.first() {
            machine.set_system_registers(first, &self.system).map_err(call("KVM_SET_SREGS"))?;
            machine.set_registers(first, &self.general).map_err(call("KVM_SET_REGS"))?;
        }

        if let Some(clock) = self.clock {
            machine.set_clock(clock).map_err(call("KVM_SET_CLOCK"))?;
        }

        for (kick, address, ring) in &self.wires.kicks {
            machine.ioeventfd(kick, *address, *ring).map_err(call("KVM_IOEVENTFD"))?;
        }
        for (interrupt, irq) in &self.wires.interrupts {
            machine.irqfd(interrupt, *irq).map_err(call("KVM_IRQFD"))?;
        }
        Ok(cpus)
    }
}

fn call(call: &'static str) -> impl FnOnce(Errno) -> Error {
    move |source| Error::Kvm { call, source }
}

/// Whether this is VMX by its processor's maker, which alone needs pages of its own in the guest's address space.
fn is_intel(supported: &[kvm_cpuid_entry2]) -> bool {
    const AMD: [&[u8; 4]; 2] = [b"Auth", b"Hygo"];
    let leaf = supported.iter().find(|leaf| leaf.function == 0);
    leaf.is_none_or(|leaf| !AMD.contains(&&leaf.ebx.to_le_bytes()))
}

#[cfg(test)]
mod tests;
