// SPDX-License-Identifier: Apache-2.0
use super::*;
use std::io::Read;
use std::os::unix::net::UnixStream;

fn machine() -> (Machine, UnixStream) {
    let (guest, host) = UnixStream::pair().unwrap();
    host.set_nonblocking(true).unwrap();
    (Machine { platform: Platform::new(guest).unwrap(), windows: Windows::new(vec![]) }, host)
}

/// What a machine without windows does about it.
fn answer(exit: VcpuExit<'_>) -> Action {
    machine().0.act(neutral(exit))
}

#[test]
fn accesses_are_answered_and_the_guest_goes_on() {
    let (machine, mut host) = machine();
    let mut seen = [0; 4];
    assert_eq!(machine.act(neutral(VcpuExit::IoOut(0x3f8, b"x\n"))), Action::Continue);
    assert_eq!(host.read(&mut seen).unwrap(), 2);
    assert_eq!(machine.act(neutral(VcpuExit::IoIn(0x1234, &mut seen))), Action::Continue);
    assert_eq!(seen, [0xff; 4], "nobody's port");
    seen.fill(0);
    assert_eq!(machine.act(neutral(VcpuExit::MmioRead(0xe000_0000, &mut seen))), Action::Continue);
    assert_eq!(seen, [0xff; 4], "nobody's memory");
    assert_eq!(machine.act(neutral(VcpuExit::MmioWrite(0xe000_0000, &[1]))), Action::Continue);
    assert_eq!(machine.act(neutral(VcpuExit::Intr)), Action::Continue);
}

#[test]
fn every_way_to_end_has_a_name_of_its_own() {
    let end = |exit| match answer(exit) {
        Action::End(ending) => ending,
        Action::Continue => panic!("the guest went on"),
    };
    assert_eq!(end(VcpuExit::IoOut(0x64, &[0xfe])), Ending::Reset);
    assert_eq!(end(VcpuExit::Hlt), Ending::Halted);
    assert_eq!(end(VcpuExit::Shutdown), Ending::TripleFault { at: Registers::default() });
    let refused = Ending::EntryFailure { reason: 0x8000_0021, at: Registers::default() };
    assert_eq!(end(VcpuExit::FailEntry(0x8000_0021, 3)), refused);
    assert_eq!(end(VcpuExit::SystemEvent(2, &[])), Ending::SystemEvent { kind: 2 });
    let fault = VcpuExit::MemoryFault { flags: 0, gpa: 0x1000, size: 0x1000 };
    assert_eq!(end(fault), Ending::MemoryFault { address: 0x1000 });
    assert_eq!(end(VcpuExit::Unknown), Ending::Unexpected { exit: "Unknown".to_owned() });
    assert_eq!(end(VcpuExit::Unsupported(77)), Ending::Unexpected { exit: "Unsupported(77)".to_owned() });
}

#[test]
fn a_signal_interrupts_and_an_error_ends() {
    let (machine, _host) = machine();
    let errno = |error: rustix::io::Errno| Errno::new(error.raw_os_error());
    assert_eq!(machine.act(failed(errno(rustix::io::Errno::INTR))), Action::Continue);
    assert_eq!(machine.act(failed(errno(rustix::io::Errno::AGAIN))), Action::Continue);
    assert_eq!(machine.act(failed(errno(rustix::io::Errno::FAULT))), Action::End(Ending::Failed { errno: 14 }));
}
