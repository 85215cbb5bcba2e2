// SPDX-License-Identifier: Apache-2.0
//! Registers that are not the driver's to read or write, or not now (virtio 1.2 §4.2.2.2).

use crate::device::{After, Device, PATIENCE, wait};
use crate::machine::Machine;
use crate::ring::WRITE;
use crate::verdict::{Case, PASS, REJECT, Verdict, case, ensure};
use crate::window::{
    ACKNOWLEDGE, CONFIG, DEVICE_BANK, DEVICE_FEATURES, DEVICE_ID, DRIVER, DRIVER_BANK, DRIVER_FEATURES, GENERATION,
    INTERRUPT, INTERRUPT_ACK, MAGIC, NOTIFY, READY, SELECT, SHARED_MEMORY, SIZE, SIZE_MAX, STATUS, TABLE, VENDOR,
    VERSION, VERSION_1, Window,
};
use crate::{bare, rng, window};

const LAYOUT: &str = "4.2.2.2";

#[rustfmt::skip]
pub(super) const CASES: &[Case] = &[
    case(101, "T7", LAYOUT, "identity of every window", identity),
    case(102, "T7", LAYOUT, "write to read-only registers", read_only),
    case(103, "T7", LAYOUT, "read write-only registers", write_only),
    case(104, "T7", LAYOUT, "read registers that the table does not have", |m| undescribed_reads(m.rng.window)),
    case(105, "T7", LAYOUT, "write registers that the table does not have", undescribed_writes),
    case(106, "T7", LAYOUT, "write registers of version 1", legacy),
    case(107, "T3", LAYOUT, "read features without choosing a bank", no_device_bank),
    case(108, "T5", LAYOUT, "write features without choosing a bank", no_driver_bank),
    case(109, "T3", LAYOUT, "choose banks that do not exist", far_banks),
    case(110, "T3", LAYOUT, "select rings that do not exist and read", far_rings_read),
    case(111, "T3", LAYOUT, "select rings that do not exist and write", far_rings_write),
    case(112, "T23", LAYOUT, "acknowledge interrupts that do not exist", acknowledge_undefined),
    case(113, "T23", LAYOUT, "acknowledge interrupts before there are any", acknowledge_early),
    case(114, "T23", "4.2.3.3", "notify rings that do not exist", notify_absent),
    case(115, "T23", "4.2.3.3", "notify a ring a thousand times with nothing in it", notify_storm),
    case(116, "T23", "3.1.1", "notify before the device lives", notify_early),
    case(117, "T7", "4.2.3.1.1", "use shared memory registers without shared memory", shared_memory),
    case(118, "T7", "2.6.1", "reset a ring by a register that is not offered", reset_ring),
    case(119, "T8", LAYOUT, "random writes to the rng window", |m| random(&mut m.rng, 1)),
    case(120, "T8", LAYOUT, "random writes to the vsock window", |m| random(&mut m.vsock, 2)),
    case(121, "T8", LAYOUT, "random writes to the fs window", |m| random(&mut m.fs, 3)),
    case(122, "T7", "5.11.4.1", "write to the configuration of fs", |m| write_config(m.fs.window, 40)),
    case(123, "T40", "2.5.1", "write to the configuration of vsock", |m| write_config(m.vsock.window, 8)),
    case(124, "T7", "2.5.1", "write to the configuration of rng, which has none", |m| write_config(m.rng.window, 0)),
    case(125, "T7", "2.5", "read configuration beyond its end", beyond_config),
];

fn windows(machine: &mut Machine) -> [Window; 3] {
    machine.devices().map(|device| device.window)
}

fn identity(machine: &mut Machine) -> Verdict {
    for window in windows(machine) {
        ensure(window.read(MAGIC) == 0x7472_6976 && window.read(VERSION) == 2, "not version 2")?;
        ensure(window.offered() & VERSION_1 != 0, "version 1 is not offered")?;
    }
    PASS
}

fn read_only(machine: &mut Machine) -> Verdict {
    for window in windows(machine) {
        window.write(SELECT, 0);
        for register in
            [MAGIC, VERSION, DEVICE_ID, VENDOR, DEVICE_FEATURES, SIZE_MAX, INTERRUPT, GENERATION, SHARED_MEMORY + 4]
        {
            let before = window.read(register);
            for value in [0, 1, u32::MAX] {
                window.write(register, value);
                ensure(window.read(register) == before, "it changed")?;
            }
        }
    }
    REJECT
}

fn write_only(machine: &mut Machine) -> Verdict {
    let window = machine.rng.window;
    ensure(machine.rng.start(), "does not start")?;
    for register in [
        DEVICE_BANK,
        DRIVER_FEATURES,
        DRIVER_BANK,
        SELECT,
        SIZE,
        NOTIFY,
        INTERRUPT_ACK,
        TABLE,
        TABLE + 4,
        window::AVAILABLE,
        window::USED,
    ] {
        ensure(window.read(register) == 0, "not 0")?;
    }
    ensure(rng::good(&mut machine.rng), "does not work afterwards")?;
    PASS
}

/// Offsets below the configuration that are no register of version 2.
fn undescribed() -> impl Iterator<Item = u64> {
    let known = [
        0x00, 0x04, 0x08, 0x0c, 0x10, 0x14, 0x20, 0x24, 0x30, 0x34, 0x38, 0x44, 0x50, 0x60, 0x64, 0x70, 0x80, 0x84,
        0x90, 0x94, 0xa0, 0xa4, 0xac, 0xb0, 0xb4, 0xb8, 0xbc, 0xc0, 0xfc,
    ];
    (0..CONFIG).step_by(4).filter(move |offset| !known.contains(offset))
}

fn undescribed_reads(window: Window) -> Verdict {
    for offset in undescribed() {
        ensure(window.read(offset) == 0, "not 0")?;
    }
    PASS
}

fn undescribed_writes(machine: &mut Machine) -> Verdict {
    ensure(machine.rng.start(), "does not start")?;
    for offset in undescribed() {
        machine.rng.window.write(offset, 0);
        machine.rng.window.write(offset, u32::MAX);
    }
    ensure(machine.rng.window.status() == window::LIVE, "the status changed")?;
    ensure(rng::good(&mut machine.rng), "does not work afterwards")?;
    REJECT
}

fn legacy(machine: &mut Machine) -> Verdict {
    let window = machine.rng.window;
    ensure(machine.rng.prepare(VERSION_1, 16), "does not start")?;
    window.write(SELECT, 0);
    // Guest page size, alignment, and the ring's page: all it takes in version 1.
    for (register, value) in [(0x28, 0x1000), (SIZE, 16), (0x3c, 0x1000), (0x40, 0x1000)] {
        window.write(register, value);
    }
    ensure(window.read(0x40) == 0 && window.read(READY) == 0, "it was taken")?;
    REJECT
}

fn no_device_bank(machine: &mut Machine) -> Verdict {
    let window = machine.rng.window;
    let low = window.offered() as u32;
    window.reset();
    ensure(window.read(DEVICE_FEATURES) == low, "not the first bank")?;
    PASS
}

fn no_driver_bank(machine: &mut Machine) -> Verdict {
    let window = machine.rng.window;
    window.reset();
    window.write(STATUS, ACKNOWLEDGE);
    window.write(STATUS, ACKNOWLEDGE | DRIVER);
    window.write(DRIVER_FEATURES, 1);
    window.write(STATUS, window::LAYING_OUT);
    ensure(window.status() & window::FEATURES_OK == 0, "agreed to a bit that is not offered")?;
    REJECT
}

fn far_banks(machine: &mut Machine) -> Verdict {
    for window in windows(machine) {
        for bank in [2, 3, 0x8000_0000, u32::MAX] {
            window.write(DEVICE_BANK, bank);
            ensure(window.read(DEVICE_FEATURES) == 0, "features beyond the 64th")?;
        }
    }
    PASS
}

/// Numbers that select nothing: all small ones, and those around powers of two.
fn far_rings() -> impl Iterator<Item = u32> {
    (3..0x100).chain((8..32).flat_map(|bit| [(1 << bit) - 1, 1 << bit, (1 << bit) + 1])).chain([u32::MAX])
}

fn far_rings_read(machine: &mut Machine) -> Verdict {
    let window = machine.vsock.window;
    for ring in far_rings() {
        window.write(SELECT, ring);
        ensure(window.read(SIZE_MAX) == 0 && window.read(READY) == 0, "a ring that does not exist")?;
    }
    PASS
}

fn far_rings_write(machine: &mut Machine) -> Verdict {
    ensure(machine.rng.prepare(VERSION_1, 16), "does not start")?;
    let window = machine.rng.window;
    machine.rng.rings[0].lay_out(window);
    for ring in far_rings().chain([1, 2]) {
        window.write(SELECT, ring);
        window.write(SIZE, 8);
        window.write_address(TABLE, u64::MAX);
        window.write(READY, 1);
        ensure(window.read(READY) == 0, "a ring that does not exist is ready")?;
    }
    ensure(window.go_live() && rng::good(&mut machine.rng), "ring 0 does not work")?;
    REJECT
}

fn acknowledge_undefined(machine: &mut Machine) -> Verdict {
    ensure(machine.rng.start() && rng::good(&mut machine.rng), "does not start")?;
    let window = machine.rng.window;
    let told = wait(PATIENCE, || (window.read(INTERRUPT) == 1).then_some(()));
    ensure(told.is_some(), "no interrupt")?;
    for undefined in [4, 0x80, 0xffff_fffc] {
        window.write(INTERRUPT_ACK, undefined);
        ensure(window.read(INTERRUPT) == 1, "another was acknowledged")?;
    }
    window.write(INTERRUPT_ACK, u32::MAX);
    ensure(window.read(INTERRUPT) == 0, "not acknowledged")?;
    REJECT
}

fn acknowledge_early(machine: &mut Machine) -> Verdict {
    for window in windows(machine) {
        window.reset();
        for value in [0, 1, 2, u32::MAX] {
            window.write(INTERRUPT_ACK, value);
        }
        ensure(window.status() == 0, "the status changed")?;
    }
    REJECT
}

fn notify_absent(machine: &mut Machine) -> Verdict {
    for device in machine.devices() {
        ensure(device.start(), "does not start")?;
        for ring in far_rings() {
            device.window.notify(ring);
        }
        ensure(device.window.status() == window::LIVE, "the status changed")?;
    }
    ensure(rng::good(&mut machine.rng), "does not work afterwards")?;
    REJECT
}

fn notify_storm(machine: &mut Machine) -> Verdict {
    for device in machine.devices() {
        ensure(device.start(), "does not start")?;
        for _ in 0..1000 {
            device.window.notify(device.main() as u32);
        }
        ensure(device.quiet(device.main()) == After::Silence, "something was used")?;
        ensure(device.window.status() == window::LIVE, "the status changed")?;
    }
    PASS
}

fn notify_early(machine: &mut Machine) -> Verdict {
    let device = &mut machine.rng;
    ensure(device.prepare(VERSION_1, 16), "does not start")?;
    device.rings[0].lay_out(device.window);
    device.rings[0].describe(0, device.buffers, 32, WRITE, 0);
    device.rings[0].offer(0);
    for _ in 0..100 {
        device.window.notify(0);
    }
    ensure(device.quiet(0) == After::Silence, "it works before it lives")?;
    // What was offered before is served once it lives.
    ensure(device.window.go_live() && matches!(device.after(0), After::Used { .. }), "not served later")?;
    REJECT
}

fn shared_memory(machine: &mut Machine) -> Verdict {
    for window in windows(machine) {
        for region in [0, 1, u32::MAX] {
            window.write(SHARED_MEMORY, region);
            for half in [0x0b0, 0x0b4, 0x0b8, 0x0bc] {
                ensure(window.read(half) == u32::MAX, "a region that does not exist")?;
            }
        }
    }
    PASS
}

fn reset_ring(machine: &mut Machine) -> Verdict {
    ensure(machine.rng.start(), "does not start")?;
    machine.rng.window.write(SELECT, 0);
    machine.rng.window.write(0x0c0, 1);
    ensure(machine.rng.window.read(0x0c0) == 0, "it says that it is resetting")?;
    ensure(rng::good(&mut machine.rng), "the ring is gone")?;
    REJECT
}

/// Anything anywhere, but the same each time.
fn random(device: &mut Device, seed: u64) -> Verdict {
    ensure(device.start(), "does not start")?;
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    for _ in 0..3000 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let (offset, value) = (state >> 33 & 0xffc, (state >> 7) as u32);
        // Mostly registers, and mostly values that mean something.
        let offset = if state & 3 == 0 { offset } else { offset & 0xfc };
        let value = if state & 4 == 0 { value } else { value & 0x1f };
        device.window.write(offset, value);
    }
    PASS
}

fn write_config(window: Window, length: u64) -> Verdict {
    let bytes = || (0..length.max(8)).map(|at| bare::peek::<u8>(window.0 + CONFIG + at));
    let sum = bytes().fold(0_u64, |sum, byte| sum.rotate_left(7) ^ u64::from(byte));
    for at in (0..length.max(8)).step_by(4) {
        window.write(CONFIG + at, 0xa5a5_a5a5);
        bare::poke(window.0 + CONFIG + at, 0x5a_u8);
    }
    ensure(bytes().fold(0_u64, |sum, byte| sum.rotate_left(7) ^ u64::from(byte)) == sum, "it changed")?;
    REJECT
}

fn beyond_config(machine: &mut Machine) -> Verdict {
    for (window, length) in windows(machine).into_iter().zip([0, 8, 40]) {
        for at in (length..0xf00).step_by(4).take(64).chain([0xefc]) {
            ensure(window.read(CONFIG + at) == 0, "not 0")?;
        }
    }
    PASS
}
