// SPDX-License-Identifier: Apache-2.0
//! The order of a device's life: status, features, faults, reset.

use super::*;
use crate::virtio::ring::{self, Notify};

#[test]
fn every_short_sequence_of_statuses_goes_live_by_the_one_way_or_not_at_all() {
    const WRITES: [u32; 10] = [0, 1, 2, 3, 11, 15, 7, 0x4f, 0x8f, 0x1_0003];
    let (window, count) = window();
    for number in 0..WRITES.len().pow(5) {
        // What should be, said without a table: only a bit in its turn counts, anything else ends it until a 0.
        let (mut held, mut lost, mut lives) = (0, false, 0);
        let mut rest = number;
        let mut written = Vec::new();
        for _ in 0..5 {
            let value = WRITES[rest % WRITES.len()];
            rest /= WRITES.len();
            written.push(value);
            write(&window, STATUS, value);
            let plain = value & !0x40;
            match (held, plain) {
                (_, 0) if value == 0 => (held, lost) = (0, false),
                (held, plain) if held == plain => {}
                (0, 1) | (1, 3) | (3, 11) | (11, 15) if !lost => {
                    held = plain;
                    lives += usize::from(held == 15);
                }
                (15, 0x8f) => held = 0x8f,
                _ => lost = true,
            }
            let expected = if lost { held | 0x40 } else { held };
            assert_eq!(read(&window, STATUS), expected, "{written:x?}");
            match expected {
                3 => accept(&window, ring::FEATURES),
                11 => lay_out(&window, 64),
                _ => {}
            }
        }
        assert_eq!(starts(&window, &count), lives, "{written:x?}");
    }
}

#[test]
fn features_that_are_not_offered_are_not_agreed_on() {
    let version = ring::FEATURES & (1 << 32);
    let (window, _) = window();
    for (features, agreed) in [
        (version, true),
        (ring::FEATURES, true),
        (ring::FEATURES | 1 << 3, true),
        (0, false),
        (ring::FEATURES & !version, false),
        (version | 1 << 2, false),
        (version | 1 << 33, false),
        (version | 1 << 40, false),
        (u64::MAX, false),
    ] {
        for status in [0, 1, 3] {
            write(&window, STATUS, status);
        }
        accept(&window, features);
        write(&window, STATUS, 11);
        assert_eq!(read(&window, STATUS), if agreed { 11 } else { 3 }, "{features:#x}");
    }
}

#[test]
fn features_beyond_the_64th_are_not_agreed_on() {
    for bank in [2, 3, u32::MAX] {
        let (window, _) = window();
        for status in [1, 3] {
            write(&window, STATUS, status);
        }
        accept(&window, ring::FEATURES);
        write(&window, DRIVER_BANK, bank);
        write(&window, DRIVER_FEATURES, 0);
        write(&window, DRIVER_FEATURES, 1);
        write(&window, STATUS, 11);
        assert_eq!(read(&window, STATUS), 3);
    }
}

#[test]
fn features_count_only_between_driver_and_agreement() {
    let (window, _) = window();
    accept(&window, ring::FEATURES);
    write(&window, STATUS, 1);
    accept(&window, ring::FEATURES);
    write(&window, STATUS, 3);
    write(&window, STATUS, 11);
    assert_eq!(read(&window, STATUS), 3, "accepted before the driver had introduced itself");
    accept(&window, ring::FEATURES);
    write(&window, STATUS, 11);
    accept(&window, u64::MAX);
    lay_out(&window, 64);
    write(&window, STATUS, 15);
    assert_eq!(window.state().accepted, ring::FEATURES);
}

#[test]
fn offered_features_are_read_in_banks() {
    let (window, _) = window();
    let read_bank = |bank| {
        write(&window, DEVICE_BANK, bank);
        read(&window, DEVICE_FEATURES)
    };
    let low = read_bank(0);
    let high = read_bank(1);
    assert_eq!(u64::from(low) | u64::from(high) << 32, ring::FEATURES | 1 << 3);
    assert_eq!((read_bank(2), read_bank(u32::MAX)), (0, 0));
}

#[test]
fn fault_of_the_guest_asks_for_a_reset_and_interrupts() {
    let (window, count) = live();
    let memory = window.memory.memory();
    vm_memory::Bytes::write_obj(&*memory, 65_u16, vm_memory::GuestAddress(PARTS[1].1 + 2)).expect("write");
    write(&window, NOTIFY, 0);
    wait_for_interrupt(&window);
    assert_eq!(read(&window, STATUS), 15 | 0x40);
    assert_eq!(read(&window, INTERRUPT_STATUS), 2);
    assert!(window.fault().is_none(), "it is the guest's own");
    vm_memory::Bytes::write_obj(&*memory, 0_u16, vm_memory::GuestAddress(PARTS[1].1 + 2)).expect("write");
    assert_eq!(starts(&window, &count), 1);
    assert_eq!((read(&window, STATUS), read(&window, INTERRUPT_STATUS)), (0, 0));
    negotiate(&window);
    lay_out(&window, 64);
    write(&window, STATUS, 15);
    assert_eq!((read(&window, STATUS), starts(&window, &count)), (15, 1));
}

#[test]
fn illegal_write_to_a_live_device_stops_it_and_interrupts() {
    for written in [1, 14, 31, 0x10f, u32::MAX] {
        let (window, _) = live();
        write(&window, STATUS, written);
        assert_eq!(read(&window, STATUS), 15 | 0x40);
        assert!(interrupted(&window));
        assert_eq!(read(&window, INTERRUPT_STATUS), 2);
        // The driver goes on as if nothing were.
        write(&window, STATUS, 15);
        write(&window, NOTIFY, 0);
        assert_eq!(read(&window, STATUS), 15 | 0x40);
        assert!(!interrupted(&window));
    }
}

#[test]
fn illegal_write_before_does_not_interrupt() {
    let (window, _) = window();
    write(&window, STATUS, 4);
    assert_eq!(read(&window, STATUS), 0x40);
    assert!(!interrupted(&window));
    write(&window, STATUS, 1);
    assert_eq!(read(&window, STATUS), 0x40, "only a reset helps");
    write(&window, STATUS, 0);
    write(&window, STATUS, 1);
    assert_eq!(read(&window, STATUS), 1);
}

#[test]
fn panic_of_ours_is_for_good_and_told() {
    struct Broken;
    impl Device for Broken {
        fn traits(&self) -> Traits {
            Traits { id: Id::Rng, features: 0, rings: &[64], config: 0 }
        }
        fn config(&self, _offset: usize, _out: &mut [u8]) {}
        fn started(&mut self, _features: u64, _io: &mut Io<'_>) -> Result<(), Fault> {
            panic!("a test's own");
        }
        fn kicked(&mut self, _ring: u16, _io: &mut Io<'_>) -> Result<(), Fault> {
            Ok(())
        }
        fn ready(&mut self, _source: Token, _io: &mut Io<'_>) -> Result<(), Fault> {
            Ok(())
        }
        fn reset(&mut self) {}
    }
    let (_, memory) = memory::create(1 << 20).expect("memory");
    let window = Window::new(Backing::Local(Box::new(Broken), || Ok(())), memory).expect("window");
    negotiate(&window);
    lay_out(&window, 64);
    write(&window, STATUS, 15);
    wait_for_interrupt(&window);
    assert!(matches!(window.fault(), Some(Fault::Panicked)));
    write(&window, STATUS, 0);
    assert_eq!(read(&window, STATUS), 0x40);
}

#[test]
fn reset_makes_everything_new() {
    let (window, count) = live();
    write(&window, ACKNOWLEDGE, 0);
    window.line.need_reset(true);
    assert_eq!(starts(&window, &count), 1);
    for register in [STATUS, INTERRUPT_STATUS, READY] {
        assert_eq!(read(&window, register), 0);
    }
    assert_eq!(window.state().accepted, 0);
    // None of what was laid out remains.
    negotiate(&window);
    write(&window, READY, 1);
    assert_eq!(read(&window, READY), 0);
}

#[test]
fn acknowledged_reasons_are_gone_and_no_others() {
    let (window, _) = window();
    window.line.need_reset(true);
    Bell(Arc::clone(&window.line)).notify().expect("notify");
    assert_eq!(read(&window, INTERRUPT_STATUS), 3);
    write(&window, ACKNOWLEDGE, 1);
    assert_eq!(read(&window, INTERRUPT_STATUS), 2);
    write(&window, ACKNOWLEDGE, u32::MAX);
    assert_eq!(read(&window, INTERRUPT_STATUS), 0);
}

fn wait_for_interrupt(window: &Window) {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let deadline = Timespec { tv_sec: 10, tv_nsec: 0 };
    assert_eq!(poll(&mut [PollFd::new(window.interrupt(), PollFlags::IN)], Some(&deadline)), Ok(1), "no interrupt");
}
