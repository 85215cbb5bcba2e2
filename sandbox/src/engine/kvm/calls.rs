// SPDX-License-Identifier: Apache-2.0
//! The calls to KVM that make a machine, one method each: so that a test can record their order.
//!
//! No decision is taken here; what is called, when and with what is [`super::vm`]'s.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use kvm_bindings::{CpuId, Msrs, kvm_clock_data, kvm_cpuid_entry2, kvm_msr_entry, kvm_regs, kvm_sregs};
use kvm_ioctls::{IoEventAddress, Kvm};
use vm_memory::GuestMemoryMmap;
use vmm_sys_util::errno::{Error as Errno, Result};
use vmm_sys_util::eventfd::EventFd;

use crate::sys::kvm::{self, Cpu, Slots};

/// More leaves than any kernel has (its own limit is 256).
const LEAVES: usize = 256;

/// KVM before there is a machine.
pub(super) trait Host {
    type Machine: Machine;

    fn supported_cpuid(&self) -> Result<Vec<kvm_cpuid_entry2>>;
    fn msr_indices(&self) -> Result<Vec<u32>>;
    fn create(&self, memory: Arc<GuestMemoryMmap>) -> Result<Self::Machine>;
}

/// A machine in the making.
pub(super) trait Machine {
    type Cpu;

    fn set_tss_address(&self, address: u64) -> Result<()>;
    fn set_memory(&self, slot: u32) -> Result<()>;
    fn create_irqchip(&self) -> Result<()>;
    fn create_cpu(&self, id: u32) -> Result<Self::Cpu>;
    fn set_cpuid(&self, cpu: &Self::Cpu, leaves: &[kvm_cpuid_entry2]) -> Result<()>;
    fn set_msrs(&self, cpu: &Self::Cpu, entries: &[kvm_msr_entry]) -> Result<()>;
    fn set_system_registers(&self, cpu: &Self::Cpu, registers: &kvm_sregs) -> Result<()>;
    fn set_registers(&self, cpu: &Self::Cpu, registers: &kvm_regs) -> Result<()>;
    fn set_clock(&self, nanoseconds: u64) -> Result<()>;
    fn ioeventfd(&self, kick: &EventFd, address: u64, ring: u32) -> Result<()>;
    fn irqfd(&self, interrupt: &EventFd, irq: u32) -> Result<()>;
}

/// The KVM of this host.
#[derive(Debug)]
pub(super) struct Device(Kvm);

impl Device {
    /// By an open `/dev/kvm`, which is closed when this is dropped.
    pub(super) fn new(file: OwnedFd) -> Self {
        Self(kvm::device(file))
    }
}

impl Host for Device {
    type Machine = Slots;

    fn supported_cpuid(&self) -> Result<Vec<kvm_cpuid_entry2>> {
        Ok(self.0.get_supported_cpuid(LEAVES)?.as_slice().to_vec())
    }

    fn msr_indices(&self) -> Result<Vec<u32>> {
        Ok(self.0.get_msr_index_list()?.as_slice().to_vec())
    }

    fn create(&self, memory: Arc<GuestMemoryMmap>) -> Result<Slots> {
        Ok(Slots::new(self.0.create_vm()?, memory))
    }
}

impl Machine for Slots {
    type Cpu = Cpu;

    fn set_tss_address(&self, address: u64) -> Result<()> {
        self.vm().set_tss_address(address as usize)
    }

    fn set_memory(&self, slot: u32) -> Result<()> {
        self.set(slot)
    }

    fn create_irqchip(&self) -> Result<()> {
        self.vm().create_irq_chip()
    }

    fn create_cpu(&self, id: u32) -> Result<Cpu> {
        self.cpu(id)
    }

    fn set_cpuid(&self, cpu: &Cpu, leaves: &[kvm_cpuid_entry2]) -> Result<()> {
        cpu.fd().set_cpuid2(&CpuId::from_entries(leaves).map_err(too_many)?)
    }

    fn set_msrs(&self, cpu: &Cpu, entries: &[kvm_msr_entry]) -> Result<()> {
        let set = cpu.fd().set_msrs(&Msrs::from_entries(entries).map_err(too_many)?)?;
        // KVM stops at the first that it does not take.
        if set == entries.len() { Ok(()) } else { Err(Errno::new(rustix::io::Errno::INVAL.raw_os_error())) }
    }

    fn set_system_registers(&self, cpu: &Cpu, registers: &kvm_sregs) -> Result<()> {
        cpu.fd().set_sregs(registers)
    }

    fn set_registers(&self, cpu: &Cpu, registers: &kvm_regs) -> Result<()> {
        cpu.fd().set_regs(registers)
    }

    fn set_clock(&self, nanoseconds: u64) -> Result<()> {
        self.vm().set_clock(&kvm_clock_data { clock: nanoseconds, ..Default::default() })
    }

    fn ioeventfd(&self, kick: &EventFd, address: u64, ring: u32) -> Result<()> {
        self.vm().register_ioevent(kick, &IoEventAddress::Mmio(address), ring)
    }

    fn irqfd(&self, interrupt: &EventFd, irq: u32) -> Result<()> {
        self.vm().register_irqfd(interrupt, irq)
    }
}

/// A list that is longer than its type allows.
fn too_many(_: vmm_sys_util::fam::Error) -> Errno {
    Errno::new(rustix::io::Errno::TOOBIG.raw_os_error())
}
