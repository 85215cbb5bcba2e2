// SPDX-License-Identifier: Apache-2.0
//! Registers by accesses of another width than 32 bits, or unaligned: the driver MUST use neither (virtio 1.2 §4.2.2.2).

use crate::bare::{copy_wide, exchange, peek, poke};
use crate::machine::Machine;
use crate::rng;
use crate::verdict::{Case, PASS, REJECT, Verdict, case, ensure};
use crate::window::{CONFIG, LIVE, MAGIC, SELECT, SIZE_MAX, STATUS, TABLE, VERSION, Window};

const LAYOUT: &str = "4.2.2.2";

#[rustfmt::skip]
pub(super) const CASES: &[Case] = &[
    case(131, "T7", LAYOUT, "read registers by 8 bits", |m| narrow_reads(m.rng.window)),
    case(132, "T7", LAYOUT, "read registers by 16 bits", |m| half_reads(m.rng.window)),
    case(133, "T7", LAYOUT, "read registers by 64 bits", |m| wide_reads(m.rng.window)),
    case(134, "T7", LAYOUT, "read registers by 128 bits", |m| widest_reads(m.rng.buffers, m.rng.window)),
    case(135, "T7", LAYOUT, "read registers unaligned", |m| unaligned_reads(m.rng.window)),
    case(136, "T7", LAYOUT, "write registers by 8 bits", |m| writes(m, |w, at| poke(w.0 + at, 0_u8))),
    case(137, "T7", LAYOUT, "write registers by 16 bits", |m| writes(m, |w, at| poke(w.0 + at, 0_u16))),
    case(138, "T7", LAYOUT, "write registers by 64 bits", |m| writes(m, |w, at| poke(w.0 + at, 0_u64))),
    case(139, "T7", LAYOUT, "write registers by 128 bits", writes_widest),
    case(140, "T7", LAYOUT, "write registers unaligned", |m| writes(m, |w, at| poke(w.0 + at + 1, 0_u32))),
    case(141, "T7", LAYOUT, "an unaligned write that reaches into status", into_status),
    case(142, "T7", LAYOUT, "exchange registers by locked instructions", locked),
    case(143, "T7", LAYOUT, "every offset of the rng window by every width", |m| every_offset(m.rng.window)),
    case(144, "T7", LAYOUT, "every offset of the vsock window by every width", |m| every_offset(m.vsock.window)),
    case(145, "T7", LAYOUT, "every offset of the fs window by every width", |m| every_offset(m.fs.window)),
    case(146, "T7", LAYOUT, "accesses across a window's end", across),
    case(147, "T7", "2.5.1", "configuration by every width", config_widths),
];

fn narrow_reads(window: Window) -> Verdict {
    for at in [MAGIC, MAGIC + 3, VERSION, SIZE_MAX, STATUS] {
        ensure(peek::<u8>(window.0 + at) == 0, "not 0")?;
    }
    REJECT
}

fn half_reads(window: Window) -> Verdict {
    for at in [MAGIC, MAGIC + 2, VERSION, SIZE_MAX, STATUS] {
        ensure(peek::<u16>(window.0 + at) == 0, "not 0")?;
    }
    REJECT
}

fn wide_reads(window: Window) -> Verdict {
    for at in [MAGIC, VERSION - 4, SELECT, STATUS] {
        ensure(peek::<u64>(window.0 + at) == 0, "not 0")?;
    }
    REJECT
}

/// A processor splits it as it likes; all that can be asked for is that the registers stay as they are.
fn widest_reads(buffer: u64, window: Window) -> Verdict {
    for at in (0..0x100).step_by(16) {
        copy_wide(window.0 + at, buffer);
    }
    ensure(window.read(MAGIC) == 0x7472_6976, "no window any more")?;
    PASS
}

fn unaligned_reads(window: Window) -> Verdict {
    for at in (0..CONFIG - 4).filter(|at| at % 4 != 0) {
        ensure(window.read(at) == 0, "not 0")?;
    }
    REJECT
}

/// A live device's registers, all but the configuration, by writes that would end it: a zero in status is a reset.
fn writes(machine: &mut Machine, write: impl Fn(Window, u64)) -> Verdict {
    let device = &mut machine.rng;
    ensure(device.start(), "does not start")?;
    for at in (0..CONFIG - 8).step_by(4) {
        write(device.window, at);
    }
    ensure(device.window.status() == LIVE, "the status changed")?;
    ensure(rng::good(device), "does not work afterwards")?;
    REJECT
}

fn writes_widest(machine: &mut Machine) -> Verdict {
    let zeros = machine.rng.buffers;
    crate::ring::zero(zeros, 16);
    let device = &mut machine.rng;
    ensure(device.start(), "does not start")?;
    for at in (0..CONFIG).step_by(16) {
        copy_wide(zeros, device.window.0 + at);
    }
    ensure(device.window.status() == LIVE, "the status changed")?;
    ensure(rng::good(device), "does not work afterwards")?;
    REJECT
}

fn into_status(machine: &mut Machine) -> Verdict {
    let device = &mut machine.rng;
    ensure(device.start(), "does not start")?;
    for at in STATUS - 3..STATUS + 4 {
        if at != STATUS {
            poke(device.window.0 + at, 0_u32);
        }
    }
    ensure(device.window.status() == LIVE, "the status changed")?;
    ensure(rng::good(device), "does not work afterwards")?;
    REJECT
}

fn locked(machine: &mut Machine) -> Verdict {
    let device = &mut machine.rng;
    ensure(device.start(), "does not start")?;
    // What is exchanged is written, after it was read or not: a processor does not lock what is no memory.
    exchange(device.window.0 + STATUS, LIVE);
    exchange(device.window.0 + SELECT, 7);
    exchange(device.window.0 + MAGIC, 0);
    exchange(device.window.0 + TABLE, 0xdead_0000);
    ensure(device.window.status() == LIVE, "the status changed")?;
    ensure(rng::good(device), "does not work afterwards")?;
    PASS
}

fn every_offset(window: Window) -> Verdict {
    window.reset();
    for at in 0..0xff8 {
        peek::<u8>(window.0 + at);
        peek::<u16>(window.0 + at);
        peek::<u32>(window.0 + at);
        peek::<u64>(window.0 + at);
    }
    ensure(window.status() == 0 && window.read(MAGIC) == 0x7472_6976, "reading changed something")?;
    PASS
}

/// From the last bytes of a window into whatever is behind it, and from before the first one into it.
fn across(machine: &mut Machine) -> Verdict {
    let windows = machine.devices().map(|device| device.window);
    for window in windows {
        for back in 1..8 {
            peek::<u64>(window.0 + 0x1000 - back);
            peek::<u64>(window.0 - back);
            poke(window.0 - back, 0_u64);
        }
        ensure(window.read(MAGIC) == 0x7472_6976, "no window any more")?;
    }
    REJECT
}

fn config_widths(machine: &mut Machine) -> Verdict {
    let config = machine.vsock.window.0 + CONFIG;
    ensure(peek::<u64>(config) == 3, "by 64 bits")?;
    ensure(peek::<u32>(config) == 3 && peek::<u32>(config + 4) == 0, "by 32 bits")?;
    ensure(peek::<u16>(config) == 3 && peek::<u16>(config + 2) == 0, "by 16 bits")?;
    ensure(peek::<u8>(config) == 3 && peek::<u8>(config + 1) == 0, "by 8 bits")?;
    PASS
}
