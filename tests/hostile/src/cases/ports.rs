// SPDX-License-Identifier: Apache-2.0
//! I/O ports and addresses where there is little or nothing (no section of virtio's: the machine is a PC's remains).

use crate::bare::{input, input_string, output, output_string, peek, poke};
use crate::machine::Machine;
use crate::rng;
use crate::verdict::{Case, PASS, REJECT, Verdict, case, ensure};
use crate::window::MAGIC;

#[rustfmt::skip]
pub(super) const CASES: &[Case] = &[
    case(601, "T9", "-", "read every port below 0x1000 by bytes", |_| read_ports(0..0x1000, 1)),
    case(602, "T9", "-", "read every port below 0x1000 by words", |_| read_ports(0..0x1000, 2)),
    case(603, "T9", "-", "read every port below 0x1000 by double words", |_| read_ports(0..0x1000, 4)),
    case(604, "T9", "-", "read every 13th port", |_| read_far_ports()),
    case(605, "T9", "-", "write to every port below 0x1000 that does something to nobody", |_| write_ports(0..0x1000, 1)),
    case(606, "T9", "-", "write to every 13th port", |_| write_far_ports()),
    case(607, "T9", "-", "port accesses that reach over a device's end", |_| straddling()),
    case(608, "T9", "-", "string instructions from and to ports", strings),
    case(609, "T9", "-", "reset registers by what is no reset", |_| no_reset()),
    case(610, "T9", "-", "read around every boundary of the address space", boundaries_read),
    case(611, "T9", "-", "write around every boundary of the address space", boundaries_write),
    case(612, "T9", "-", "read where windows could be but are not", |_| absent_windows()),
    case(613, "T9", "-", "the serial port's every register", |_| serial()),
    case(614, "T9", "-", "I/O APIC registers that do not exist", io_apic),
    case(615, "T8", "-", "random bytes all over a hole", hole),
];

/// Ports that are something: a write may stop or change the machine, or garble what is printed.
fn is_device(port: u16) -> bool {
    matches!(port, 0x20 | 0x21 | 0xa0 | 0xa1 | 0x4d0 | 0x4d1 | 0x3f8..0x400 | 0x64 | 0xcf9)
}

/// All ones where nothing is.
fn read_ports(ports: impl Iterator<Item = u16>, width: u8) -> Verdict {
    let ones = u32::MAX >> (32 - 8 * u32::from(width));
    for port in ports {
        let value = input(port, width);
        let reaches = (port..port.saturating_add(width.into())).any(is_device);
        ensure(reaches || value == ones, "a port that is not there")?;
    }
    PASS
}

fn read_far_ports() -> Verdict {
    for width in [1, 2, 4] {
        read_ports((0x1000..=0xffff).step_by(13).chain([0xfffc, 0xffff]), width)?;
    }
    PASS
}

fn write_ports(ports: impl Iterator<Item = u16>, width: u8) -> Verdict {
    for port in ports.filter(|port| !(*port..port.saturating_add(width.into())).any(is_device)) {
        output(port, width, 0);
        output(port, width, u32::MAX);
    }
    REJECT
}

fn write_far_ports() -> Verdict {
    for width in [1, 2, 4] {
        write_ports((0x1000..=0xffff).step_by(13).chain([0xfffc, 0xffff]), width)?;
    }
    REJECT
}

fn straddling() -> Verdict {
    for port in [0x3f6, 0x3f7, 0x3fe, 0x3ff, 0x62, 0x63, 0xcf6, 0xcf8] {
        input(port, 4);
        input(port, 2);
    }
    // Wide writes begin before a reset register, whose byte they would hold.
    output(0x63, 2, 0xfeff);
    output(0x61, 4, 0xfeff_ffff);
    output(0xcf8, 2, 0x06ff);
    output(0xcf8, 4, 0x0606_06ff);
    REJECT
}

fn strings(machine: &mut Machine) -> Verdict {
    let at = machine.rng.buffers;
    crate::ring::zero(at, 0x4000);
    input_string(0x80, at, 0x3000);
    ensure(peek::<u64>(at) == u64::MAX && peek::<u64>(at + 0x2ff8) == u64::MAX, "not all ones")?;
    ensure(peek::<u64>(at + 0x3000) == 0, "more than was asked for")?;
    input_string(0x3fd, at, 0x1000);
    ensure(peek::<u8>(at + 0xfff) & 0x60 == 0x60, "the serial port is not ready")?;
    output_string(0x80, at, 0x3000);
    PASS
}

fn no_reset() -> Verdict {
    for command in (0..=0xff).filter(|command| *command != 0xfe) {
        output(0x64, 1, command);
    }
    for value in (0..=0xff).filter(|value| value & 4 == 0) {
        output(0xcf9, 1, value);
    }
    ensure(input(0x64, 1) & 2 == 0, "the keyboard controller is never ready")?;
    PASS
}

/// Where memory ends, the device area begins, and each of its parts begins and ends.
fn boundaries(end: u64) -> impl Iterator<Item = u64> {
    [
        end,
        0xc000_0000,
        0xd000_0000,
        0xd000_3000,
        0xd000_8000,
        0xfec0_0000,
        0xfec0_1000,
        0xfee0_0000,
        0xfee0_1000,
        0xfffb_c000,
        0xfffc_0000,
    ]
    .into_iter()
}

fn boundaries_read(machine: &mut Machine) -> Verdict {
    for boundary in boundaries(machine.memory) {
        for at in boundary - 8..boundary + 8 {
            peek::<u8>(at);
            peek::<u16>(at);
            peek::<u32>(at);
            peek::<u64>(at);
        }
    }
    ensure(peek::<u64>(machine.memory) == u64::MAX, "something behind memory")?;
    ensure(peek::<u32>(0xffff_fff0) == u32::MAX, "something at the end")?;
    PASS
}

/// Not the APICs' own registers.
fn boundaries_write(machine: &mut Machine) -> Verdict {
    let end = machine.memory;
    for boundary in boundaries(end).filter(|at| *at < 0xfec0_0000 || *at > 0xfef0_0000) {
        for at in boundary..boundary + 8 {
            poke(at, 0xff_u8);
            poke(at, u16::MAX);
            poke(at, u32::MAX);
            poke(at, u64::MAX);
        }
    }
    ensure(peek::<u64>(end) == u64::MAX, "something behind memory")?;
    REJECT
}

fn absent_windows() -> Verdict {
    for window in (0xd000_3000..0xd000_8000_u64).step_by(0x1000) {
        for at in (0..0x1000).step_by(0x44) {
            ensure(peek::<u32>(window + at) == u32::MAX, "a window that is not there")?;
            poke(window + at, 0_u32);
        }
        ensure(peek::<u32>(window + MAGIC) == u32::MAX, "a window that is not there")?;
    }
    REJECT
}

/// Divisor, FIFO, modem and scratch registers; loopback would swallow what is printed, so it is undone.
fn serial() -> Verdict {
    for value in [0xff, 0x80, 0x55, 0] {
        output(0x3fb, 1, value);
        for port in 0x3f8..0x400 {
            input(port, 1);
        }
        // The divisor, if that is selected; else no interrupt, and nothing is sent.
        output(0x3f9, 1, 0);
        output(0x3fa, 1, value);
        output(0x3fc, 1, value & 0xef);
        output(0x3fd, 1, value);
        output(0x3fe, 1, value);
        output(0x3ff, 1, value);
        ensure(input(0x3ff, 1) == value, "the scratch register")?;
    }
    output(0x3fb, 1, 3);
    PASS
}

fn io_apic(machine: &mut Machine) -> Verdict {
    const SELECT: u64 = 0xfec0_0000;
    const WINDOW: u64 = 0xfec0_0010;
    for register in 0x40..0x100_u32 {
        poke(SELECT, register);
        peek::<u32>(WINDOW);
        poke(WINDOW, u32::MAX);
    }
    for at in (0x20..0x1000).step_by(4) {
        peek::<u32>(SELECT + at);
    }
    ensure(rng::good_after_start(&mut machine.rng), "does not work afterwards")?;
    REJECT
}

fn hole(machine: &mut Machine) -> Verdict {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    for _ in 0..2000 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let at = 0xd000_8000 + (state >> 36) % (0xfec0_0000 - 0xd000_8000 - 8);
        poke(at, state);
        ensure(peek::<u64>(at) == u64::MAX, "something in the hole")?;
    }
    ensure(rng::good_after_start(&mut machine.rng), "does not work afterwards")?;
    REJECT
}
