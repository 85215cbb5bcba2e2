// SPDX-License-Identifier: Apache-2.0
//! Tiny guests on whatever `/dev/kvm` there is, one for each way out of a guest. They are kernels as any other: loaded
//! from an ELF file and entered in long mode with the first GiB mapped. They use no instruction that a software KVM
//! might lack.
//!
//! Without `/dev/kvm` they say so and pass, or fail under `SANDBOX_STRICT=1`.

mod code;
mod hostile;

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kvm_bindings::{KVM_MP_STATE_RUNNABLE, kvm_mp_state, kvm_segment, kvm_sregs};
use vm_memory::{Bytes, GuestAddress, GuestAddressSpace};

use super::vcpu::Team;
use super::vm::{Boot, Parts, Start, Vm};
use super::{Ending, Registers, layout, state};
use crate::memory::{self, Memory};
use crate::sys::eventfd;
use crate::virtio::mmio::Backing;
use crate::virtio::rng::Rng;
use code::*;

const MEMORY: u64 = 4 << 20;

/// A guest may be slow on a busy host; this is for one that never ends.
const LIMIT: Duration = Duration::from_secs(20);

struct Guest {
    vm: Vm,
    memory: Memory,
    console: UnixStream,
}

/// A machine that will run these instructions, with the entropy device in the first window. None without KVM.
fn guest(cpus: u32, code: &[u8]) -> Option<Guest> {
    let kvm = match File::options().read(true).write(true).open("/dev/kvm") {
        Ok(kvm) => kvm,
        Err(error) => {
            assert!(std::env::var_os("SANDBOX_STRICT").is_none_or(|strict| strict != "1"), "/dev/kvm: {error}");
            eprintln!("skipped: /dev/kvm: {error}");
            return None;
        }
    };
    let (file, _) = memory::create(MEMORY).unwrap();
    let memory = memory::map(&file, &layout::memory(MEMORY)).unwrap();
    let mut kernel = tempfile::tempfile().unwrap();
    kernel.write_all(&elf(code)).unwrap();
    let (ours, console) = UnixStream::pair().unwrap();
    console.set_read_timeout(Some(LIMIT)).unwrap();
    let vm = Vm::new(Parts {
        kvm: kvm.into(),
        memory: memory.clone(),
        shared: memory.clone(),
        start: Start::Boot(Boot { kernel, initramfs: tempfile::tempfile().unwrap(), command_line: String::new() }),
        console: ours,
        cpus,
        devices: vec![Backing::Local(Box::new(Rng::new()), || Ok(()))],
        announced: 1,
        nested: false,
    });
    Some(Guest { vm: vm.unwrap(), memory, console })
}

impl Guest {
    fn team(self) -> (Team, UnixStream) {
        (Team::start(self.vm.cpus, Arc::new(self.vm.machine), || Ok(())).unwrap(), self.console)
    }

    /// Runs until the machine ends; what the guest printed, and what it left where [`save`] puts it.
    fn run(self) -> (Ending, String, u32) {
        let Self { vm, memory, mut console } = self;
        let (sender, ended) = std::sync::mpsc::channel();
        std::thread::spawn(move || sender.send(vm.start(|| Ok(())).unwrap().wait()));
        let ending = ended.recv_timeout(LIMIT).expect("the guest ends");
        let mut printed = String::new();
        console.set_nonblocking(true).unwrap();
        match console.read_to_string(&mut printed) {
            Err(error) if error.kind() != ErrorKind::WouldBlock => panic!("console: {error}"),
            _ => {}
        }
        (ending, printed, memory.memory().read_obj(GuestAddress(RESULT)).unwrap())
    }
}

fn is_virtualized_by_the_processor() -> bool {
    let flags = std::fs::read_to_string("/proc/cpuinfo").unwrap();
    flags.split_whitespace().any(|flag| flag == "svm" || flag == "vmx")
}

/// Waits until the guest has printed this.
fn expect(console: &mut UnixStream, what: u8) {
    let mut seen = [0; 2];
    console.read_exact(&mut seen).unwrap();
    assert_eq!(seen, [what, b'\n']);
}

#[test]
fn a_port_is_written_and_the_machine_reset() {
    let Some(guest) = guest(1, &[print(b'K'), print(b'!'), reset()].concat()) else { return };
    assert_eq!(guest.run(), (Ending::Reset, "K\n!\n".to_owned(), 0));
}

#[test]
fn the_other_way_to_reset_works_too() {
    let Some(guest) = guest(1, &[port_out(0xcf9, 6), forever()].concat()) else { return };
    assert_eq!(guest.run().0, Ending::Reset);
}

#[test]
fn a_port_is_read() {
    let Some(serial) = guest(1, &[port_in(0x3fd), save(), reset()].concat()) else { return };
    assert_eq!(serial.run().2 & 0xff, 0x60, "the transmitter is empty");
    let nobody = guest(1, &[port_in_long(0x1234), save(), reset()].concat()).unwrap();
    assert_eq!(nobody.run().2, u32::MAX);
}

#[test]
fn a_register_of_a_device_is_read() {
    let code = [map(layout::window(0).start), load(MAPPED), save(), reset()].concat();
    let Some(guest) = guest(1, &code) else { return };
    assert_eq!(guest.run().2.to_le_bytes(), *b"virt");
}

#[test]
fn a_register_of_a_device_is_written() {
    const STATUS: u64 = MAPPED + 0x70;
    let code = [map(layout::window(0).start), store(STATUS, 1), load(STATUS), save(), reset()].concat();
    let Some(guest) = guest(1, &code) else { return };
    assert_eq!(guest.run().2, 1, "the driver's acknowledgement is kept");
}

#[test]
fn where_nothing_is_writes_vanish_and_reads_give_all_ones() {
    let code = [map(0xe000_0000), store(MAPPED, 7), load(MAPPED), save(), reset()].concat();
    let Some(guest) = guest(1, &code) else { return };
    assert_eq!(guest.run().2, u32::MAX);
}

#[test]
fn a_fault_without_handlers_is_a_triple_fault() {
    let Some(guest) = guest(1, &[print(b'T'), undefined()].concat()) else { return };
    let (ending, printed, _) = guest.run();
    assert_eq!(printed, "T\n");
    let Ending::TripleFault { at } = ending else { panic!("{ending:?}") };
    assert_ne!(at, Registers::default(), "where it was is told, or that nobody knows");
}

#[test]
fn code_where_no_memory_is_is_an_internal_error() {
    let Some(guest) = guest(1, &[map(0xe000_0000), jump(MAPPED)].concat()) else { return };
    let (ending, _, _) = guest.run();
    assert!(matches!(ending, Ending::InternalError { suberror: 1, .. }), "{ending:?}");
}

#[test]
fn a_processor_that_cannot_be_entered_says_so() {
    let Some(guest) = guest(1, &reset()) else { return };
    let good = state::system_registers();
    // neither 64-bit nor 32-bit code, but both
    let bad = kvm_sregs { cs: kvm_segment { db: 1, ..good.cs }, ..good };
    guest.vm.cpus[0].fd().set_sregs(&bad).unwrap();
    let (ending, _, _) = guest.run();
    if is_virtualized_by_the_processor() {
        assert!(matches!(ending, Ending::EntryFailure { .. }), "{ending:?}");
    } else {
        assert_eq!(ending, Ending::Reset, "a KVM of software does not mind");
    }
}

#[test]
fn a_processor_that_spins_or_halts_with_interrupts_off_is_stopped() {
    for rest in [forever(), halt()] {
        let Some(guest) = guest(1, &[print(b'S'), rest].concat()) else { return };
        let (mut team, mut console) = guest.team();
        expect(&mut console, b'S');
        let begun = Instant::now();
        assert!(team.stop(), "every thread has ended");
        assert!(begun.elapsed() < Duration::from_millis(500), "{:?}", begun.elapsed());
    }
}

#[test]
fn the_first_processor_to_end_ends_them_all() {
    let spin = [print(b'2'), forever()].concat();
    let first = [port_in(0x3fd), save(), load_loop(RESULT + 8), reset()].concat();
    let Some(guest) = guest(2, &[first.clone(), spin].concat()) else { return };
    let second = guest.vm.cpus[1].fd();
    second.set_sregs(&state::system_registers()).unwrap();
    second.set_regs(&state::registers(layout::HIGH + first.len() as u64)).unwrap();
    second.set_mp_state(kvm_mp_state { mp_state: KVM_MP_STATE_RUNNABLE }).unwrap();
    let memory = guest.memory.clone();
    let (team, mut console) = guest.team();
    expect(&mut console, b'2');
    memory.memory().write_obj(1_u32, GuestAddress(RESULT + 8)).unwrap();
    let begun = Instant::now();
    assert_eq!(team.wait(), Ending::Reset);
    assert!(begun.elapsed() < LIMIT);
}

#[test]
fn a_kick_goes_past_the_processor() {
    let notify = MAPPED + crate::virtio::mmio::NOTIFY;
    let code = [map(layout::window(0).start), store(notify, 0), store(notify, 1), reset()].concat();
    let Some(mut guest) = guest(1, &code) else { return };
    // the window is taken away, so that nobody but KVM itself can signal the kick
    let windows = std::mem::replace(&mut guest.vm.machine.windows, super::wiring::Windows::new(vec![]));
    let kick = windows.window(0).unwrap().kicks()[0].clone();
    assert_eq!(guest.run().0, Ending::Reset);
    let mut count = [0; 8];
    assert_eq!(rustix::io::read(&kick, &mut count), Ok(8));
    assert_eq!(u64::from_ne_bytes(count), 1, "the other ring's number does not fit");
}

#[test]
fn an_interrupt_wakes_a_halted_processor() {
    const VECTOR: u8 = 0x40;
    let irq = layout::irq(0);
    let entry = 0x10 + 2 * irq;
    let mut code = [
        map(layout::IO_APIC),
        // the input's entry: this vector, edge triggered, to processor 0
        store(MAPPED, entry),
        store(MAPPED + 0x10, u32::from(VECTOR)),
        store(MAPPED, entry + 1),
        store(MAPPED + 0x10, 0),
        map_second(layout::LOCAL_APIC),
        // the local APIC is on
        store(MAPPED_SECOND + 0xf0, 0x1ff),
        load_interrupt_table(),
        print(b'R'),
        wait_for_interrupts(),
    ]
    .concat();
    let handler = layout::HIGH + code.len() as u64;
    code.extend([print(b'I'), reset()].concat());
    let Some(guest) = guest(1, &code) else { return };
    let memory = guest.memory.memory();
    memory.write_slice(&gate(handler), GuestAddress(GATES + u64::from(VECTOR) * 16)).unwrap();
    memory.write_slice(&gates(), GuestAddress(GATES_POINTER)).unwrap();
    let interrupt = guest.vm.machine.windows.window(0).unwrap().interrupt().try_clone().unwrap();
    let (team, mut console) = guest.team();
    expect(&mut console, b'R');
    eventfd::signal(&interrupt).unwrap();
    expect(&mut console, b'I');
    assert_eq!(team.wait(), Ending::Reset);
}
