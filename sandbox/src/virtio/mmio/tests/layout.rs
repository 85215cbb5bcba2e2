// SPDX-License-Identifier: Apache-2.0
//! Rings: their size, place and number, and when they may change.

use super::*;

/// What the registers of every ring hold.
fn kept(window: &Window) -> String {
    format!("{:?}", window.state().rings)
}

#[test]
fn ring_of_an_impossible_size_never_is_ready() {
    let (window, count) = window();
    for size in [0, 3, 63, 128, 65535, 65536, 0x1_0040, 0x8000_0000, u32::MAX] {
        negotiate(&window);
        lay_out(&window, 64);
        write(&window, READY, 0);
        write(&window, SIZE, size);
        write(&window, READY, 1);
        assert_eq!(read(&window, READY), 0, "{size:#x}");
        write(&window, STATUS, 15);
        assert_eq!((read(&window, STATUS), starts(&window, &count)), (15, 0), "{size:#x}");
    }
    for size in [1, 2, 4, 32, 64] {
        negotiate(&window);
        lay_out(&window, size);
        assert_eq!(read(&window, READY), 1, "{size}");
        write(&window, STATUS, 15);
        assert_eq!((read(&window, STATUS), starts(&window, &count)), (15, 1), "{size}");
    }
}

#[test]
fn ring_elsewhere_than_in_memory_is_refused_when_the_device_goes_live() {
    let end = 1 << 20;
    for (part, register) in [0x080, 0x090, 0x0a0].into_iter().enumerate() {
        for address in [end, end - 16, end + 0x1000, 0xd000_0000, 1 << 32, u64::MAX - 15, 0x1_0001, 0x2_0002] {
            if part == 1 && address == 0x2_0002 {
                continue; // An available ring may lie there.
            }
            let (window, count) = window();
            negotiate(&window);
            lay_out(&window, 64);
            write(&window, READY, 0);
            write(&window, register, address as u32);
            write(&window, register + 4, (address >> 32) as u32);
            write(&window, READY, 1);
            write(&window, STATUS, 15);
            assert_eq!(read(&window, STATUS), 15 | 0x40, "part {part} at {address:#x}");
            assert_eq!(read(&window, INTERRUPT_STATUS), 2);
            assert!(interrupted(&window));
            assert_eq!(starts(&window, &count), 0);
        }
    }
}

#[test]
fn none_starts_if_one_is_refused() {
    let (window, count) = window();
    negotiate(&window);
    lay_out(&window, 64);
    write(&window, SELECT, 1);
    write(&window, SIZE, 128);
    write(&window, READY, 1);
    write(&window, STATUS, 15);
    assert_eq!(read(&window, STATUS), 15 | 0x40);
    assert_eq!(starts(&window, &count), 0);
}

#[test]
fn nothing_of_a_ring_changes_out_of_turn() {
    // Before features are agreed on, while the ring is ready, while the device lives, and after it has failed.
    let scribble = |window: &Window, rings: &[u32]| {
        let before = kept(window);
        for ring in rings {
            write(window, SELECT, *ring);
            let others = |offset: &u64| ![READY, NOTIFY, ACKNOWLEDGE, STATUS].contains(offset);
            for offset in (0x038..=0x0fc).step_by(4).filter(others) {
                for value in [0, 1, 32, 0x2_0000, u32::MAX] {
                    write(window, offset, value);
                }
            }
            write(window, READY, 1);
        }
        assert_eq!(kept(window), before);
    };
    let (window, count) = window();
    for status in [0, 1, 3] {
        write(&window, STATUS, status);
        scribble(&window, &[0, 1]);
    }
    negotiate(&window);
    lay_out(&window, 64);
    scribble(&window, &[0]);
    write(&window, STATUS, 15);
    scribble(&window, &[0, 1]);
    write(&window, STATUS, 1);
    scribble(&window, &[0, 1]);
    assert_eq!(starts(&window, &count), 1);
    negotiate(&window);
    write(&window, STATUS, 1);
    assert_eq!(read(&window, STATUS), 11 | 0x40);
    scribble(&window, &[0, 1]);
}

#[test]
fn ring_that_was_stopped_stays_so_until_the_reset() {
    let (window, count) = live();
    write(&window, READY, 0);
    assert_eq!(read(&window, READY), 0);
    write(&window, READY, 1);
    assert_eq!(read(&window, READY), 0);
    assert_eq!((read(&window, STATUS), starts(&window, &count)), (15, 1));
    negotiate(&window);
    lay_out(&window, 64);
    assert_eq!(read(&window, READY), 1);
}

#[test]
fn other_values_than_0_and_1_do_not_make_ready_or_stop() {
    let (window, _) = window();
    negotiate(&window);
    lay_out(&window, 64);
    for value in [2, 3, 0x8000_0000, u32::MAX] {
        write(&window, READY, value);
        assert_eq!(read(&window, READY), 1);
    }
    write(&window, READY, 0);
    for value in [2, 3, 0x8000_0000, u32::MAX] {
        write(&window, READY, value);
        assert_eq!(read(&window, READY), 0);
    }
}

#[test]
fn ring_that_does_not_exist_reads_zero_and_takes_nothing() {
    let (window, count) = window();
    negotiate(&window);
    lay_out(&window, 64);
    let before = kept(&window);
    for ring in (2..=0xffff).chain([0x1_0000, 0x1_0001, 0x8000_0000, u32::MAX]) {
        write(&window, SELECT, ring);
        write(&window, SIZE, 16);
        write(&window, READY, 1);
        write(&window, READY, 0);
        write(&window, 0x080, 0x3_0000);
        assert_eq!((read(&window, SIZE_MAX), read(&window, READY)), (0, 0), "{ring:#x}");
    }
    assert_eq!(kept(&window), before);
    write(&window, SELECT, 1);
    assert_eq!((read(&window, SIZE_MAX), read(&window, READY)), (128, 0));
    write(&window, STATUS, 15);
    assert_eq!(starts(&window, &count), 1);
}

#[test]
fn notice_of_a_ring_that_does_not_exist_is_ignored() {
    let (window, _) = live();
    for number in 0..100_000_u32 {
        write(&window, NOTIFY, 2 + number * 7919 % (u32::MAX - 2));
    }
    for kick in &window.kicks {
        assert!(rustix::io::read(kick, &mut [0; 8]).is_err(), "it was signalled");
    }
    write(&window, NOTIFY, 1);
    assert!(rustix::io::read(&window.kicks[1], &mut [0; 8]).is_ok());
    assert_eq!(read(&window, STATUS), 15);
}
