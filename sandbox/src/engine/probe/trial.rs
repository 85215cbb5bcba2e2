// SPDX-License-Identifier: Apache-2.0
//! Runs the probe's guest on KVM, in this process (Documentation/virt/kvm/api.rst). It may never come back: whoever
//! calls it must be a process that somebody else can end ([`super::apart`]).

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use kvm_bindings::{CpuId, KVM_API_VERSION, KVM_MAX_CPUID_ENTRIES, kvm_dtable, kvm_regs, kvm_segment, kvm_sregs};
use kvm_ioctls::{Cap, Kvm, VcpuExit, VcpuFd};
use rustix::io::Errno;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};
use vmm_sys_util::errno;

use super::Finding;
use super::guest::{self, Features, Guest};
use crate::sys::kvm::{self, Cpu, Slots};

/// What the engine cannot do without, as people know it.
const NEEDED: [(Cap, &str); 9] = [
    (Cap::UserMemory, "KVM_CAP_USER_MEMORY"),
    (Cap::SetTssAddr, "KVM_CAP_SET_TSS_ADDR"),
    (Cap::ExtCpuid, "KVM_CAP_EXT_CPUID"),
    (Cap::Irqchip, "KVM_CAP_IRQCHIP"),
    (Cap::Pit2, "KVM_CAP_PIT2"),
    (Cap::Ioeventfd, "KVM_CAP_IOEVENTFD"),
    (Cap::Irqfd, "KVM_CAP_IRQFD"),
    (Cap::MpState, "KVM_CAP_MP_STATE"),
    (Cap::ImmediateExit, "KVM_CAP_IMMEDIATE_EXIT"),
];

/// Where the pages lie that KVM needs on Intel processors without unrestricted guests: away from the guest's memory.
const TASK_STATE: usize = 0xfffb_d000;

/// CPUID leaf 1, ECX; and leaf 7, EBX.
const XSAVE: u32 = 1 << 26;
const AVX: u32 = 1 << 28;
const BMI1: u32 = 1 << 3;

/// CR0: protection, coprocessor monitoring, extension type, numeric errors, write protection, paging.
const CR0: u64 = 1 | 1 << 1 | 1 << 4 | 1 << 5 | 1 << 16 | 1 << 31;
/// CR4: page table entries of 64 bits, fxsave, SIMD exceptions; and xsave.
const CR4: u64 = 1 << 5 | 1 << 9 | 1 << 10;
const OSXSAVE: u64 = 1 << 18;
/// EFER: long mode, asked for and in use.
const EFER: u64 = 1 << 8 | 1 << 10;
/// The bit that is always set; interrupts are off.
const RFLAGS: u64 = 1 << 1;

/// How a guest stopped.
#[derive(Debug, PartialEq, Eq)]
enum Stop {
    Halt,
    /// In any other way.
    Otherwise(String),
}

/// Tries this `/dev/kvm`.
pub(super) fn run(device: File) -> Finding {
    match attempt(kvm::device(OwnedFd::from(device))) {
        Ok(finding) => finding,
        Err(Failure { what, error }) if error.errno() == Errno::BUSY.raw_os_error() => {
            Finding::Busy(format!("{what}: {error}"))
        }
        Err(Failure { what, error }) => Finding::Unfit(format!("{what} failed: {error}")),
    }
}

/// A call of KVM's that failed.
struct Failure {
    what: &'static str,
    error: errno::Error,
}

fn call(what: &'static str) -> impl Fn(errno::Error) -> Failure {
    move |error| Failure { what, error }
}

fn attempt(kvm: Kvm) -> Result<Finding, Failure> {
    if kvm.get_api_version() < 0 {
        return Ok(Finding::Broken("it is not KVM".to_owned()));
    }
    if let Some(lack) = lack(kvm.get_api_version(), |capability| kvm.check_extension(capability)) {
        return Ok(Finding::Old(lack));
    }
    let vm = kvm.create_vm().map_err(call("KVM_CREATE_VM"))?;
    let cpuid = kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES).map_err(call("KVM_GET_SUPPORTED_CPUID"))?;
    let features = features(&cpuid);
    let guest = Guest::new(features);
    let Some(memory) = memory(&guest) else { return Ok(Finding::Unfit("no memory for the trial".to_owned())) };
    let slots = Slots::new(vm, Arc::clone(&memory));
    slots.vm().set_tss_address(TASK_STATE).map_err(call("KVM_SET_TSS_ADDR"))?;
    slots.set(0).map_err(call("KVM_SET_USER_MEMORY_REGION"))?;
    let mut cpu = slots.cpu(0).map_err(call("KVM_CREATE_VCPU"))?;
    prepare(cpu.fd(), &cpuid, features)?;
    let stop = stop(&mut cpu);
    let mut after = vec![0; guest::SIZE];
    Ok(match memory.read_slice(&mut after, GuestAddress(0)) {
        Ok(()) => judge(&guest, &stop, &after, unknown(cpu.fd(), features)?),
        Err(error) => Finding::Unfit(error.to_string()),
    })
}

/// What KVM lacks of what the engine needs.
fn lack(version: i32, has: impl Fn(Cap) -> bool) -> Option<String> {
    if version != KVM_API_VERSION as i32 {
        return Some(format!("its interface has version {version} and not {KVM_API_VERSION}"));
    }
    let missing: Vec<&str> = NEEDED.iter().filter(|(capability, _)| !has(*capability)).map(|(_, name)| *name).collect();
    (!missing.is_empty()).then(|| format!("it has no {}", missing.join(", ")))
}

fn features(cpuid: &CpuId) -> Features {
    let leaf = |number| cpuid.as_slice().iter().find(|entry| entry.function == number && entry.index == 0);
    let first = leaf(1).map_or(0, |entry| entry.ecx);
    let seventh = leaf(7).map_or(0, |entry| entry.ebx);
    Features { xsave: first & XSAVE != 0, avx: first & AVX != 0, bmi: seventh & BMI1 != 0 }
}

fn memory(guest: &Guest) -> Option<Arc<GuestMemoryMmap>> {
    let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), guest::SIZE)]).ok()?;
    memory.write_slice(&guest.memory, GuestAddress(0)).ok()?;
    Some(Arc::new(memory))
}

fn prepare(cpu: &VcpuFd, cpuid: &CpuId, features: Features) -> Result<(), Failure> {
    cpu.set_cpuid2(cpuid).map_err(call("KVM_SET_CPUID2"))?;
    let reset = cpu.get_sregs().map_err(call("KVM_GET_SREGS"))?;
    cpu.set_sregs(&system_registers(reset, features)).map_err(call("KVM_SET_SREGS"))?;
    let registers = kvm_regs { rip: guest::CODE, rsp: guest::STACK, rflags: RFLAGS, ..Default::default() };
    cpu.set_regs(&registers).map_err(call("KVM_SET_REGS"))
}

/// Long mode at CPL 0 with the guest's tables; the rest as after reset.
fn system_registers(reset: kvm_sregs, features: Features) -> kvm_sregs {
    let segment = kvm_segment { limit: u32::MAX, present: 1, s: 1, g: 1, ..Default::default() };
    let data = kvm_segment { selector: guest::DATA_SEGMENT, type_: 0b0011, db: 1, ..segment };
    let table = |base, size: usize| kvm_dtable { base, limit: size as u16 - 1, ..Default::default() };
    kvm_sregs {
        cs: kvm_segment { selector: guest::CODE_SEGMENT, type_: 0b1011, l: 1, ..segment },
        ds: data,
        es: data,
        fs: data,
        gs: data,
        ss: data,
        gdt: table(guest::GDT, size_of_val(&guest::SEGMENTS)),
        idt: table(guest::IDT, 32 * 16),
        cr0: CR0,
        cr3: guest::PML4,
        cr4: if features.xsave { CR4 | OSXSAVE } else { CR4 },
        efer: EFER,
        ..reset
    }
}

/// Runs the guest until it stops.
fn stop(cpu: &mut Cpu) -> Stop {
    let stop = loop {
        break match cpu.fd_mut().run() {
            Ok(VcpuExit::Hlt) => Stop::Halt,
            Ok(VcpuExit::InternalError) => Stop::Otherwise(String::new()),
            Ok(VcpuExit::FailEntry(reason, _)) => Stop::Otherwise(format!("a failed entry ({reason:#x})")),
            Ok(VcpuExit::Shutdown) => Stop::Otherwise("a triple fault".to_owned()),
            Ok(VcpuExit::MmioRead(address, _)) => Stop::Otherwise(format!("a read of no memory at {address:#x}")),
            Ok(VcpuExit::MmioWrite(address, _)) => Stop::Otherwise(format!("a write of no memory at {address:#x}")),
            Ok(exit) => Stop::Otherwise(format!("{exit:?}")),
            Err(error) if error.errno() == Errno::INTR.raw_os_error() => continue,
            Err(error) => Stop::Otherwise(format!("failure of KVM_RUN ({})", io::Error::from(error))),
        };
    };
    match cpu.internal_error() {
        Some((kind, _)) => Stop::Otherwise(format!("internal error {kind} of KVM")),
        None => stop,
    }
}

/// What KVM does not know of the guest's doing. Processors emulated by QEMU 7.2 do not tell KVM of xsetbv, so that it saves
/// less of the guest's state than there is.
fn unknown(cpu: &VcpuFd, features: Features) -> Result<Option<String>, Failure> {
    let Some(expected) = features.xcr0() else { return Ok(None) };
    let known = cpu.get_xcrs().map_err(call("KVM_GET_XCRS"))?.xcrs[0].value;
    Ok((known != expected).then(|| format!("XCR0 is {known:#x} to KVM and {expected:#x} to the guest after xsetbv")))
}

fn judge(guest: &Guest, stop: &Stop, memory: &[u8], unknown: Option<String>) -> Finding {
    let flaw = match stop {
        Stop::Halt => guest.flaw(memory).or(unknown),
        Stop::Otherwise(how) => Some(format!("{how} at {}", guest.step(memory))),
    };
    flaw.map_or(Finding::Usable, Finding::Unfit)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Features = Features { xsave: true, avx: true, bmi: true };

    #[test]
    fn an_old_interface_is_told_from_a_missing_capability() {
        assert_eq!(lack(12, |_| true), None);
        assert!(lack(11, |_| true).is_some_and(|lack| lack.contains("version 11")));
        let lack = lack(12, |capability| capability != Cap::Irqfd && capability != Cap::Pit2);
        assert_eq!(lack.as_deref(), Some("it has no KVM_CAP_PIT2, KVM_CAP_IRQFD"));
    }

    #[test]
    fn a_stop_is_named_with_its_place() {
        let guest = Guest::new(ALL);
        let stop = Stop::Otherwise("internal error 1 of KVM".to_owned());
        let finding = judge(&guest, &stop, &guest.memory, Some("XCR0".to_owned()));
        assert_eq!(finding, Finding::Unfit("internal error 1 of KVM at the first instruction".to_owned()));
    }

    #[test]
    fn a_halt_alone_proves_nothing() {
        let guest = Guest::new(ALL);
        assert!(matches!(judge(&guest, &Stop::Halt, &guest.memory, None), Finding::Unfit(_)));
    }

    #[test]
    fn xsave_is_switched_on_only_where_it_is() {
        let cr4 = |features| system_registers(kvm_sregs::default(), features).cr4;
        assert_eq!(cr4(ALL) & OSXSAVE, OSXSAVE);
        assert_eq!(cr4(Features { xsave: false, ..ALL }) & OSXSAVE, 0);
    }
}
