// SPDX-License-Identifier: Apache-2.0
//! Every offset, with every width.

use super::*;

const WIDTHS: [usize; 7] = [0, 1, 2, 3, 4, 8, 16];

/// What is read from a live device in a place that is not the configuration space.
fn expected(offset: u64) -> u32 {
    match offset {
        0x000 => u32::from_le_bytes(*b"virt"),
        0x004 => 2,
        0x008 => 19,
        0x010 => 1 << 3 | 1 << 28 | 1 << 29,
        0x034 => 64,
        0x044 => 1,
        0x070 => 15,
        0x0b0 | 0x0b4 | 0x0b8 | 0x0bc => u32::MAX,
        _ => 0,
    }
}

#[test]
fn every_offset_reads_as_defined_with_every_width() {
    let (window, _) = live();
    for offset in 0..0x1000 + 16 {
        for width in WIDTHS {
            let mut data = vec![0xee; width];
            window.read(offset, &mut data);
            let right: Vec<u8> = if offset >= 0x100 {
                let byte = |at: u64| if at < 0x108 { 0xa0 + (at - 0x100) as u8 } else { 0 };
                (offset..).take(width).map(byte).collect()
            } else if width == 4 {
                expected(offset).to_le_bytes().to_vec()
            } else {
                vec![0; width]
            };
            assert_eq!(data, right, "{width} at {offset:#x}");
        }
    }
}

#[test]
fn offsets_up_to_the_last_are_no_danger() {
    let (window, _) = live();
    for offset in [0x1000, u64::from(u32::MAX), u64::MAX - 3, u64::MAX] {
        let mut data = [0xee; 8];
        window.read(offset, &mut data);
        assert_eq!(data, [0; 8]);
        window.write(offset, &data);
    }
}

#[test]
fn writes_of_another_width_or_elsewhere_have_no_effect() {
    let (window, count) = live();
    let state = |window: &Window| format!("{:?} {:?}", window.state().rings, window.line);
    let before = state(&window);
    for offset in 0..0x1000_u64 {
        for width in WIDTHS {
            // Those that do something as 32 bits, aligned, below the configuration space.
            if width == 4 && offset.is_multiple_of(4) && offset < 0x100 {
                continue;
            }
            for byte in [0, 1, 0xff] {
                window.write(offset, &vec![byte; width]);
            }
        }
    }
    assert_eq!(state(&window), before);
    assert_eq!(read(&window, STATUS), 15);
    for kick in &window.kicks {
        assert!(rustix::io::read(kick, &mut [0; 8]).is_err());
    }
    assert_eq!(starts(&window, &count), 1);
}

#[test]
fn registers_for_reading_cannot_be_written() {
    let (window, _) = live();
    for offset in [0x000, 0x004, 0x008, 0x00c, 0x010, 0x034, 0x060, 0x0b0, 0x0b8, 0x0c0, 0x0fc] {
        let before = read(&window, offset);
        for value in [0, 1, u32::MAX] {
            write(&window, offset, value);
        }
        assert_eq!(read(&window, offset), before, "{offset:#x}");
    }
}

#[test]
fn any_writes_leave_a_window_that_a_reset_makes_new() {
    let mut random = 0x5eed_u64;
    let mut below = |limit: u64| {
        random = random.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        (random >> 33) % limit
    };
    let (window, _) = window();
    for _ in 0..300 {
        for _ in 0..200 {
            let values = [0, 1, 3, 11, 15, 64, 0x1_0000, 0x1_1000, below(1 << 32) as u32, u32::MAX];
            let (offset, value) = (below(64) * 4, values[below(10) as usize]);
            match below(4) {
                0 => drop(read(&window, offset)),
                1 => write(&window, STATUS, [0, 1, 3, 11, 15][below(5) as usize]),
                2 => accept(&window, window.traits.features),
                _ => write(&window, offset, value),
            }
        }
        negotiate(&window);
        lay_out(&window, 64);
        write(&window, STATUS, 15);
        assert_eq!(read(&window, STATUS), 15);
    }
    assert!(window.fault().is_none());
}
