// SPDX-License-Identifier: Apache-2.0
//! What kvm-ioctls cannot offer safely: a memory slot, descriptors from elsewhere, the details of an internal error.
#![expect(unsafe_code, reason = "the kernel is told where our memory is, and a union is read")]

use std::os::fd::{FromRawFd, IntoRawFd, OwnedFd};
use std::sync::Arc;

use kvm_bindings::{KVM_EXIT_INTERNAL_ERROR, kvm_userspace_memory_region};
use kvm_ioctls::{Kvm, VcpuFd, VmFd};
use vm_memory::{GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion};
use vmm_sys_util::errno;
use vmm_sys_util::eventfd::EventFd;

/// The KVM device behind an open `/dev/kvm`.
pub(crate) fn device(file: OwnedFd) -> Kvm {
    adopt(file)
}

/// The same descriptor as a type that kvm-ioctls takes.
pub(crate) fn event(fd: OwnedFd) -> EventFd {
    adopt(fd)
}

fn adopt<T: FromRawFd>(fd: OwnedFd) -> T {
    // SAFETY: the descriptor is open and ours, and is given away here. That it is of the right kind is not a matter of
    // memory: the kernel answers a call that does not fit with an error.
    unsafe { T::from_raw_fd(fd.into_raw_fd()) }
}

/// A virtual machine together with the memory it runs in, so that the mapping lives as long as the machine.
#[derive(Debug)]
pub(crate) struct Slots {
    vm: Arc<VmFd>,
    memory: Arc<GuestMemoryMmap>,
}

impl Slots {
    /// The machine may run in this memory only.
    pub(crate) fn new(vm: VmFd, memory: Arc<GuestMemoryMmap>) -> Self {
        Self { vm: Arc::new(vm), memory }
    }

    pub(crate) fn vm(&self) -> &VmFd {
        &self.vm
    }

    /// Shows region `slot` of the memory to the guest, at the region's address.
    pub(crate) fn set(&self, slot: u32) -> Result<(), errno::Error> {
        let region = self.memory.iter().nth(slot as usize).ok_or_else(|| errno::Error::new(libc::EINVAL))?;
        let region = kvm_userspace_memory_region {
            slot,
            flags: 0,
            guest_phys_addr: region.start_addr().0,
            memory_size: region.len(),
            userspace_addr: region.as_ptr() as u64,
        };
        // SAFETY: the range is a whole mapping of guest memory, which is shared with the guest by design and never
        // referenced as Rust memory; it stays mapped while `self.memory` lives, and every vCPU keeps that (`Cpu`).
        unsafe { self.vm.set_user_memory_region(region) }
    }

    /// Makes a vCPU.
    pub(crate) fn cpu(&self, id: u32) -> Result<Cpu, errno::Error> {
        Ok(Cpu { fd: self.vm.create_vcpu(u64::from(id))?, _vm: self.vm.clone(), _memory: self.memory.clone() })
    }
}

/// A vCPU. It keeps the memory that its guest code can reach, and the machine: when the last descriptor of that is
/// closed, KVM takes away its irqfds, though its vCPUs run on.
#[derive(Debug)]
pub(crate) struct Cpu {
    fd: VcpuFd,
    _vm: Arc<VmFd>,
    _memory: Arc<GuestMemoryMmap>,
}

impl Cpu {
    pub(crate) fn fd(&self) -> &VcpuFd {
        &self.fd
    }

    pub(crate) fn fd_mut(&mut self) -> &mut VcpuFd {
        &mut self.fd
    }

    /// What KVM tells of the internal error it just ended with: its kind, and data for whoever knows KVM's source.
    pub(crate) fn internal_error(&mut self) -> Option<(u32, Vec<u64>)> {
        let run = self.fd.get_kvm_run();
        if run.exit_reason != KVM_EXIT_INTERNAL_ERROR {
            return None;
        }
        // SAFETY: the exit reason says that the kernel has filled this member; it consists of integers, for which any
        // bytes are valid.
        let error = unsafe { run.__bindgen_anon_1.internal };
        let count = usize::try_from(error.ndata).unwrap_or(usize::MAX).min(error.data.len());
        Some((error.suberror, error.data.iter().take(count).copied().collect()))
    }
}
