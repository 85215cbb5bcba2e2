// SPDX-License-Identifier: Apache-2.0
//! What only a driver with registers can do, and what takes a whole device to see.

use super::driver::{self, Buffer, DATA, Driver, RING, WRITE};
use super::front::Kind;
use super::window::{LIVE, NEEDS_RESET, STATUS, read, wait, write};
use super::{each, each_of, serves};
use crate::virtio::rng::Rng;

fn each_window(case: impl Fn(&mut Driver)) {
    each_of(&Kind::REGISTERS, case);
}

fn buffer(address: u64, length: u32) -> Buffer {
    Buffer { address, length, flags: WRITE }
}

#[test]
fn interrupt_says_what_it_is_about() {
    each_window(|driver| {
        assert_eq!(read(driver.window(), 0x060) & 2, 0);
        driver.offer(0, &[buffer(DATA, 8)]);
        driver.kick(0);
        assert_eq!(wait(driver.window()), 1);
        assert_eq!(driver.pending(0), 0);
    });
}

#[test]
fn geometry_written_too_late_changes_nothing() {
    each_window(|driver| {
        assert!(serves(driver));
        for ring in [0, 1, u32::MAX] {
            write(driver.window(), 0x030, ring);
            for register in (0x038..=0x0ac).step_by(4).filter(|register| ![0x050, 0x070].contains(register)) {
                for value in [1, 2, 0x2_0000, u32::MAX] {
                    write(driver.window(), register, value);
                }
            }
        }
        assert!(serves(driver));
        assert_eq!(read(driver.window(), STATUS), LIVE);
    });
}

#[test]
fn stopped_ring_is_left_alone() {
    each_window(|driver| {
        assert!(serves(driver));
        driver.stop(0);
        driver.offer(0, &[buffer(DATA, 8)]);
        driver.kick(0);
        // Whatever it was about to do, it has done before the reset ends.
        driver.reset();
        assert_eq!(driver.pending(0), 1);
        driver.clear_ring(0);
        driver.start(0);
        assert!(serves(driver));
    });
}

#[test]
fn driver_that_has_lost_its_way_is_served_no_more() {
    each_window(|driver| {
        for _ in 0..20 {
            write(driver.window(), STATUS, 1);
            assert_eq!(read(driver.window(), STATUS), LIVE | NEEDS_RESET);
            for _ in 0..RING {
                driver.offer(0, &[buffer(DATA, 64 << 10)]);
                driver.kick(0);
            }
            driver.reset();
            assert_eq!(driver.pending(0), RING);
            driver.clear_ring(0);
            driver.start(0);
            assert!(serves(driver));
        }
    });
}

#[test]
fn nothing_is_written_after_a_reset_with_requests_in_flight() {
    each_window(|driver| {
        for _ in 0..20 {
            for _ in 0..RING {
                driver.offer(0, &[buffer(DATA, 64 << 10)]);
            }
            driver.kick(0);
            driver.reset();
            driver.clear_ring(0);
            driver.write_memory(DATA, &[0; 64 << 10]);
            driver.start(0);
            driver.offer(0, &[buffer(DATA + (1 << 20), 64)]);
            driver.kick(0);
            assert_eq!(driver.wait_used(0), 64);
            assert!(driver.read_memory(DATA, 64 << 10).iter().all(|byte| *byte == 0));
        }
    });
}

#[test]
fn indices_wrap_without_a_loss() {
    each(|driver| {
        let (batch, rounds) = (RING / 2, (1 << 16) / u32::from(RING / 2) + 3);
        for round in 0..rounds {
            let heads: Vec<u16> = (0..batch).map(|_| driver.offer(0, &[buffer(DATA, 8)])).collect();
            driver.kick(0);
            for head in heads {
                assert_eq!(driver.wait_used_head(0), (u32::from(head), 8), "round {round}");
            }
            assert_eq!(driver.pending(0), 0);
        }
    });
}

#[test]
fn impossible_index_is_told_once_however_often_it_is_kicked() {
    each_of(&[Kind::Window], |driver| {
        driver.skip_available(0, RING + 1);
        driver.kick(0);
        assert_eq!(wait(driver.window()), 2);
        for step in 0..100_000 {
            if step % 1000 == 0 {
                write(driver.window(), STATUS, LIVE);
            }
            driver.kick(0);
        }
        assert_eq!(read(driver.window(), STATUS), LIVE | NEEDS_RESET);
        // Whatever the device's thread was about to do, it has done before the reset ends.
        driver.reset();
        assert!(rustix::io::read(driver.window().interrupt(), &mut [0; 8]).is_err(), "told again");
    });
}

#[test]
fn head_offered_twice_is_no_harm() {
    each(|driver| {
        driver.set_descriptor(0, 5, buffer(DATA, 8), 0);
        driver.offer_head(0, 5);
        driver.offer_head(0, 5);
        driver.kick(0);
        assert_eq!(driver.wait_used_head(0), (5, 8));
        assert_eq!(driver.wait_used_head(0), (5, 8));
        assert!(serves(driver));
    });
}

#[test]
fn parts_that_lie_on_each_other_are_no_harm() {
    each_of(&[Kind::Window], |driver| {
        // The used ring on the descriptors, on the available ring, in the middle of either; buffers on all of them.
        for offset in [0, 4, 0x1000, 0x1004, 0x0ffc, 0x1084] {
            driver.reset();
            driver.clear_ring(0);
            driver.sides[0].used_offset = offset;
            driver.start(0);
            for _ in 0..4 {
                driver.offer(0, &[buffer(0x1_0000, 0x3000)]);
                driver.kick(0);
            }
            // The device has finished, well or badly, when this has.
            driver.reset();
            assert!(driver.window().fault().is_none(), "{offset:#x}");
        }
        driver.sides[0].used_offset = 0x2000;
        driver.clear_ring(0);
        driver.start(0);
        assert!(serves(driver));
    });
}

#[test]
fn any_wish_for_notifications_loses_none_that_counts() {
    each(|driver| {
        let event_at = driver.sides[0].available() + 4 + 2 * u64::from(RING);
        let mut random = 0x5eed_u64;
        for _ in 0..200 {
            for _ in 0..RING / 2 {
                random = random.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
                driver.write_memory(event_at, &((random >> 40) as u16).to_le_bytes());
                driver.offer(0, &[buffer(DATA, 8)]);
                driver.kick(0);
            }
            for _ in 0..RING / 2 {
                assert_eq!(driver.wait_used(0), 8);
            }
        }
    });
}

#[test]
fn device_ends_with_requests_in_flight() {
    for kind in Kind::REGISTERS {
        let mut driver = Driver::new(kind, Box::new(Rng::new()));
        driver.start_all();
        for _ in 0..RING {
            driver.offer(0, &[buffer(DATA, 64 << 10)]);
        }
        driver.kick(0);
        drop(driver);
    }
}

#[test]
fn memory_in_pieces_is_served_piecewise_and_never_between_them() {
    for kind in Kind::REGISTERS {
        let mut driver = Driver::in_pieces(kind, Box::new(Rng::new()));
        driver.start_all();
        assert!(serves(&mut driver));
        let (seam, low_end, high) = (driver::SEAM, driver::LOW_END, driver::HIGH);
        // Two pieces that touch, then each side of a gap, then across it.
        for (address, length, written) in [
            (seam - 8, 16, 16),
            (low_end - 16, 16, 16),
            (high, 16, 16),
            (low_end - 8, 16, 0),
            (low_end, 16, 0),
            (high - 8, 16, 0),
            (low_end - 8, u32::try_from(high - low_end).expect("small") + 16, 0),
        ] {
            driver.offer(0, &[buffer(address, length)]);
            driver.kick(0);
            assert_eq!(driver.wait_used(0), written, "{kind:?} {address:#x}");
            if written > 0 {
                let seen = driver.read_memory(address, 16);
                assert!(seen[..8] != [0; 8] && seen[8..] != [0; 8], "{kind:?} {address:#x}: {seen:?}");
            }
        }
        assert!(serves(&mut driver));
    }
}
