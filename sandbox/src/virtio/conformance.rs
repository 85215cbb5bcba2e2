// SPDX-License-Identifier: Apache-2.0
//! What every device must do behind every front-end: "written once" is a test, not a hope.
//!
//! [`driver`] plays the guest's driver, [`front`] the ways to reach a device: a bare worker with hand-made rings, a
//! vhost-user connection, a register window, and a register window on a device behind a vhost-user connection. Each
//! case runs every way that can do what it is about.

mod disk;
mod driver;
mod front;
mod registers;
mod vsock;
mod window;

use super::device::Device;
use super::ring;
use super::rng::{REQUEST_MAX, Rng};
use driver::{Buffer, DATA, Driver, INDIRECT, NEXT, RING, WRITE};
use front::{End, Kind};

/// Runs a case of a one-ring device behind each front-end.
fn each(case: impl Fn(&mut Driver)) {
    each_of(&Kind::ALL, case);
}

fn each_of(kinds: &[Kind], case: impl Fn(&mut Driver)) {
    for kind in kinds.iter().copied() {
        let device: Box<dyn Device> = Box::new(Rng::new());
        let mut driver = Driver::new(kind, device);
        driver.start_all();
        case(&mut driver);
    }
}

/// Whether the entropy device serves a plain request.
fn serves(driver: &mut Driver) -> bool {
    driver.write_memory(DATA, &[0; 64]);
    driver.offer(0, &[Buffer { address: DATA, length: 64, flags: WRITE }]);
    driver.kick(0);
    driver.wait_used(0) == 64 && driver.read_memory(DATA, 64) != [0; 64]
}

#[test]
fn features_are_offered_as_ring_and_device_have_them() {
    each(|driver| {
        assert_eq!(driver.features() & ring::FEATURES, ring::FEATURES);
    });
}

#[test]
fn stopped_ring_tells_its_position_and_goes_on_from_there() {
    each_of(&Kind::RESUMING, |driver| {
        assert!(serves(driver));
        assert!(serves(driver));
        assert_eq!(driver.stop(0), 2);
        driver.offer(0, &[Buffer { address: DATA, length: 16, flags: WRITE }]);
        driver.kick(0);
        driver.start(0);
        assert_eq!(driver.wait_used(0), 16, "what came while it was stopped is served");
        assert!(serves(driver));
        assert_eq!(driver.stop(0), 4);
    });
}

#[test]
fn indices_wrap() {
    each_of(&Kind::RESUMING, |driver| {
        driver.stop(0);
        driver.set_position(0, u16::MAX - 2);
        driver.start(0);
        for _ in 0..6 {
            assert!(serves(driver));
        }
        assert_eq!(driver.stop(0), 3);
    });
}

#[test]
fn every_offered_chain_is_served_once() {
    each(|driver| {
        for round in 0..300 {
            for _ in 0..=(round % 7) {
                driver.offer(0, &[Buffer { address: DATA, length: 8, flags: WRITE }]);
            }
            driver.kick(0);
            for _ in 0..=(round % 7) {
                assert_eq!(driver.wait_used(0), 8);
            }
        }
        assert_eq!(driver.pending(0), 0);
    });
}

#[test]
fn one_request_is_served_up_to_its_limit() {
    each(|driver| {
        driver.offer(0, &[Buffer { address: DATA, length: 1 << 20, flags: WRITE }]);
        driver.kick(0);
        assert_eq!(driver.wait_used(0) as usize, REQUEST_MAX);
    });
}

#[test]
fn bad_chain_completes_empty_and_the_ring_lives_on() {
    let beyond = driver::MEMORY;
    let buffer = |address, length, flags| Buffer { address, length, flags };
    let chains: &[(&str, Vec<Buffer>)] = &[
        ("nothing to write to", vec![buffer(DATA, 64, 0)]),
        ("zero length", vec![buffer(DATA, 0, WRITE)]),
        ("outside of memory", vec![buffer(beyond, 1, WRITE)]),
        ("across the end of memory", vec![buffer(beyond - 8, 16, WRITE)]),
        ("around the end of the address space", vec![buffer(u64::MAX - 4, 64, WRITE)]),
        ("longest length", vec![buffer(DATA, u32::MAX, WRITE)]),
        ("longer than 2^32", vec![buffer(DATA, 1 << 20, WRITE), buffer(DATA, u32::MAX, WRITE)]),
        ("readable after writable", vec![buffer(DATA, 8, WRITE), buffer(DATA, 8, 0)]),
        ("indirect table of no whole number of entries", vec![buffer(DATA, 17, INDIRECT)]),
        ("indirect table of nothing", vec![buffer(DATA, 0, INDIRECT)]),
        ("indirect table outside of memory", vec![buffer(beyond, 16, INDIRECT)]),
    ];
    each(|driver| {
        for (what, chain) in chains {
            driver.offer(0, chain);
            driver.kick(0);
            assert_eq!(driver.wait_used(0), 0, "{what}");
            assert!(serves(driver), "after {what}");
        }
    });
}

#[test]
fn endless_chain_completes_empty() {
    each(|driver| {
        // Descriptor 0 is followed by itself; then a cycle of two; then a link out of the table.
        for links in [vec![0], vec![1, 0], vec![RING], vec![u16::MAX]] {
            for (index, next) in (0..).zip(&links) {
                driver.set_descriptor(0, index, Buffer { address: DATA, length: 8, flags: WRITE | NEXT }, *next);
            }
            driver.offer_head(0, 0);
            driver.kick(0);
            assert_eq!(driver.wait_used(0), 0, "{links:?}");
        }
        assert!(serves(driver));
    });
}

#[test]
fn indirect_chain_is_served_and_a_nested_one_is_not() {
    each(|driver| {
        driver.write_descriptor(DATA + 4096, Buffer { address: DATA, length: 24, flags: WRITE }, 0);
        let table = Buffer { address: DATA + 4096, length: 16, flags: INDIRECT };
        driver.offer(0, &[table]);
        driver.kick(0);
        assert_eq!(driver.wait_used(0), 24);
        driver.write_descriptor(DATA + 4096, table, 0);
        driver.offer(0, &[table]);
        driver.kick(0);
        assert_eq!(driver.wait_used(0), 0);
        assert!(serves(driver));
    });
}

#[test]
fn chain_longer_than_the_ring_completes_empty() {
    each(|driver| {
        let entries = 2 * u32::from(RING);
        for entry in 0..entries {
            let at = DATA + 8192 + u64::from(entry) * 16;
            let next = u16::try_from(entry + 1).expect("small");
            let flags = if entry + 1 < entries { WRITE | NEXT } else { WRITE };
            driver.write_descriptor(at, Buffer { address: DATA, length: 1, flags }, next);
        }
        driver.offer(0, &[Buffer { address: DATA + 8192, length: entries * 16, flags: INDIRECT }]);
        driver.kick(0);
        assert_eq!(driver.wait_used(0), 0);
    });
}

#[test]
fn impossible_index_retires_the_device() {
    each(|driver| {
        assert!(serves(driver));
        driver.skip_available(0, RING + 1);
        driver.kick(0);
        let end = driver.end();
        assert!(matches!(end, End::Ring(0) | End::NeedsReset), "{end:?}");
    });
}

#[test]
fn head_that_the_ring_does_not_have_retires_the_device() {
    each(|driver| {
        driver.offer_head(0, RING);
        driver.kick(0);
        let end = driver.end();
        assert!(matches!(end, End::Ring(0) | End::NeedsReset), "{end:?}");
    });
}

#[test]
fn retired_device_serves_again_after_its_reset() {
    each_of(&[Kind::Bare, Kind::Window], |driver| {
        driver.skip_available(0, RING + 1);
        driver.kick(0);
        assert!(matches!(driver.end(), End::Ring(0) | End::NeedsReset));
        driver.clear_ring(0);
        driver.offer(0, &[Buffer { address: DATA, length: 8, flags: WRITE }]);
        driver.kick(0);
        assert_eq!(driver.pending(0), 1, "nothing is served before the reset");
        driver.reset();
        driver.start(0);
        assert_eq!(driver.wait_used(0), 8);
    });
}

#[test]
fn ring_outside_of_memory_is_refused() {
    for kind in Kind::ALL {
        for shift in [driver::MEMORY, driver::MEMORY - 64, u64::MAX - 32, 1] {
            let mut driver = Driver::new(kind, Box::new(Rng::new()));
            assert!(driver.try_start_at(0, shift).is_err() || driver.end() == End::Other, "{kind:?} {shift:#x}");
        }
    }
}

#[test]
fn device_ends_with_its_owner_while_the_peer_is_silent() {
    // Half a message: the server waits for the rest.
    use std::io::Write;
    let (ours, mut theirs) = std::os::unix::net::UnixStream::pair().expect("pair");
    let server = super::vhost_user::serve(ours, Box::new(Rng::new())).expect("serve");
    theirs.write_all(&[1, 0, 0]).expect("write");
    drop(server);
}
