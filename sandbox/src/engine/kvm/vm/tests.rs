// SPDX-License-Identifier: Apache-2.0
//! The order of calls, on a KVM that only records them.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;

use kvm_bindings::kvm_msr_entry;
use vm_memory::GuestAddress;
use vmm_sys_util::errno::Result;

use super::*;
use crate::virtio::rng::Rng;

/// Calls in their order, with what makes two of them the same.
type Log = Rc<RefCell<Vec<(&'static str, String)>>>;

struct Recorder {
    vendor: &'static [u8; 4],
    log: Log,
}

struct Recorded(Log);

impl Recorder {
    fn note(&self, call: &'static str) {
        self.log.borrow_mut().push((call, String::new()));
    }
}

impl Recorded {
    fn note(&self, call: &'static str, what: impl std::fmt::Debug) -> Result<()> {
        self.0.borrow_mut().push((call, format!("{what:?}")));
        Ok(())
    }
}

impl Host for Recorder {
    type Machine = Recorded;

    fn supported_cpuid(&self) -> Result<Vec<kvm_cpuid_entry2>> {
        self.note("supported");
        Ok(vec![kvm_cpuid_entry2 { eax: 0xd, ebx: u32::from_le_bytes(*self.vendor), ..Default::default() }])
    }

    fn msr_indices(&self) -> Result<Vec<u32>> {
        self.note("indices");
        Ok(vec![0x1a0])
    }

    fn create(&self, _: Arc<GuestMemoryMmap>) -> Result<Recorded> {
        self.note("create");
        Ok(Recorded(self.log.clone()))
    }
}

impl calls::Machine for Recorded {
    type Cpu = u32;

    fn set_tss_address(&self, address: u64) -> Result<()> {
        self.note("tss", address)
    }
    fn set_memory(&self, slot: u32) -> Result<()> {
        self.note("slot", slot)
    }
    fn create_irqchip(&self) -> Result<()> {
        self.note("irqchip", ())
    }
    fn create_cpu(&self, id: u32) -> Result<u32> {
        self.note("vcpu", id).map(|()| id)
    }
    fn set_cpuid(&self, cpu: &u32, _: &[kvm_cpuid_entry2]) -> Result<()> {
        self.note("cpuid", cpu)
    }
    fn set_msrs(&self, cpu: &u32, _: &[kvm_msr_entry]) -> Result<()> {
        self.note("msrs", cpu)
    }
    fn set_system_registers(&self, cpu: &u32, _: &kvm_sregs) -> Result<()> {
        self.note("sregs", cpu)
    }
    fn set_registers(&self, cpu: &u32, _: &kvm_regs) -> Result<()> {
        self.note("regs", cpu)
    }
    fn set_clock(&self, nanoseconds: u64) -> Result<()> {
        self.note("clock", nanoseconds)
    }
    fn ioeventfd(&self, _: &EventFd, address: u64, ring: u32) -> Result<()> {
        self.note("ioeventfd", (address, ring))
    }
    fn irqfd(&self, _: &EventFd, irq: u32) -> Result<()> {
        self.note("irqfd", irq)
    }
}

/// What a machine with this many processors and devices, and memory on both sides of the gap, asks of KVM.
fn calls(vendor: &'static [u8; 4], cpus: u32, devices: usize) -> Vec<(&'static str, String)> {
    let parts = [(GuestAddress(0), 0x1000), (GuestAddress(layout::GAP.end), 0x1000)];
    let memory = GuestMemoryMmap::from_ranges(&parts).unwrap();
    let window = |_| Window::new(Backing::Local(Box::new(Rng::new()), || Ok(())), Memory::new(memory.clone())).unwrap();
    let windows: Vec<Window> = (0..devices).map(window).collect();
    let platform = Platform::new(UnixStream::pair().unwrap().0).unwrap();
    let wires = Wires::of(&platform, &windows).unwrap();
    let recorder = Recorder { vendor, log: Log::default() };
    let (system, general) = state::at_entry(layout::HIGH);
    let plan = Plan { system, general, clock: Some(1), cpus, nested: false, wires };
    plan.carry_out(&recorder, Arc::new(memory)).unwrap();
    recorder.log.take()
}

/// The place of each call in the rule.
fn stage(call: &str) -> usize {
    let stages: [&[&str]; 7] = [
        &["supported", "indices"],
        &["create"],
        &["tss", "slot"],
        &["irqchip"],
        &["vcpu"],
        &["cpuid", "msrs", "sregs", "regs", "clock"],
        &["ioeventfd", "irqfd"],
    ];
    stages.iter().position(|stage| stage.contains(&call)).expect("every call has its place")
}

#[test]
fn memory_comes_before_vcpus_and_these_before_state_and_wires_come_last() {
    for (cpus, devices) in [(1, 0), (1, 3), (4, 8)] {
        let stages: Vec<usize> = calls(b"Auth", cpus, devices).iter().map(|(call, _)| stage(call)).collect();
        assert!(stages.is_sorted(), "{cpus} vCPUs, {devices} devices: {stages:?}");
    }
}

#[test]
fn no_call_is_made_twice() {
    let calls = calls(b"Genu", 4, 8);
    let distinct: BTreeSet<_> = calls.iter().collect();
    assert_eq!(distinct.len(), calls.len(), "{calls:?}");
}

#[test]
fn each_call_is_made_for_what_needs_it_and_nothing_else() {
    let calls = calls(b"Auth", 3, 2);
    let count = |name| calls.iter().filter(|(call, _)| *call == name).count();
    assert_eq!((count("slot"), count("vcpu"), count("cpuid"), count("msrs")), (2, 3, 3, 3));
    assert_eq!((count("sregs"), count("regs")), (1, 1), "the others are started by the first");
    assert_eq!((count("ioeventfd"), count("irqfd")), (2, 3), "a kick for each ring, the serial port's interrupt");
    assert_eq!(count("tss"), 0, "not on AMD");
}

#[test]
fn only_vmx_gets_pages_of_its_own() {
    assert!(calls(b"Genu", 1, 0).iter().any(|(call, _)| *call == "tss"));
    assert!(calls(b"Hygo", 1, 0).iter().all(|(call, _)| *call != "tss"));
}

#[test]
fn a_machine_with_one_vcpu_takes_few_calls() {
    // vsock has three rings, the file system two or more, the source of entropy one
    const RINGS_BEYOND_ONE: usize = 3;
    // of create(): KVM_GET_VCPU_MMAP_SIZE
    const HIDDEN: usize = 1;
    let count = calls(b"Genu", 1, 3).len() + RINGS_BEYOND_ONE + HIDDEN;
    assert!(count <= 60, "{count}");
    assert_eq!(count, 24);
}
