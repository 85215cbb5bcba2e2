// SPDX-License-Identifier: Apache-2.0
//! Sizes that no ring has, and changes to a ring that is ready or live (virtio 1.2 §2.7, §4.2.2.2, §4.2.3.2).

use crate::device::{After, Device};
use crate::machine::Machine;
use crate::ring::WRITE;
use crate::rng;
use crate::verdict::{Case, PASS, REJECT, Verdict, case, ensure};
use crate::window::{AVAILABLE, LIVE, READY, SELECT, SIZE, SIZE_MAX, TABLE, USED, VERSION_1};

const LAYOUT: &str = "4.2.2.2";

#[rustfmt::skip]
pub(super) const CASES: &[Case] = &[
    case(331, "T1", LAYOUT, "size 0", |m| bad_size(m, 0)),
    case(332, "T1", "2.7", "size 3", |m| bad_size(m, 3)),
    case(333, "T1", "2.7", "size 65535", |m| bad_size(m, 65535)),
    case(334, "T1", LAYOUT, "size 65536", |m| bad_size(m, 65536)),
    case(335, "T1", LAYOUT, "size 2^16 + 16", |m| bad_size(m, 0x1_0010)),
    case(336, "T1", LAYOUT, "size 2^32 - 1", |m| bad_size(m, u32::MAX)),
    case(337, "T1", LAYOUT, "the largest size and one more", |m| relative_size(m, |most| most + 1)),
    case(338, "T1", LAYOUT, "twice the largest size", |m| relative_size(m, |most| most * 2)),
    case(339, "T1", "2.7", "size 1", |m| good_size(m, 1)),
    case(340, "T1", "2.7", "the largest size", |m| good_size(m, 256)),
    case(341, "T1", LAYOUT, "a good size and then a bad one", good_then_bad),
    case(342, "T2", LAYOUT, "another size of a ready ring", |m| changed_ready(m, |d| d.window.write(SIZE, 8))),
    case(343, "T2", LAYOUT, "other addresses of a ready ring", |m| changed_ready(m, elsewhere)),
    case(344, "T2", LAYOUT, "another size of a live ring", |m| changed_live(m, |d| d.window.write(SIZE, 8))),
    case(345, "T2", LAYOUT, "other addresses of a live ring", |m| changed_live(m, elsewhere)),
    case(346, "T2", LAYOUT, "halves of other addresses of a live ring", |m| changed_live(m, half_elsewhere)),
    case(347, "T2", LAYOUT, "a live ring ready once more", |m| changed_live(m, |d| d.window.write(READY, 1))),
    case(348, "T2", LAYOUT, "ready by numbers that are neither 0 nor 1", odd_ready),
    case(349, "T2", LAYOUT, "ready before features are agreed on", early_ready),
    case(350, "T2", LAYOUT, "ready without a size", |m| incomplete(m, SIZE)),
    case(351, "T2", "4.2.3.2", "ready without a descriptor table", |m| incomplete(m, TABLE)),
    case(352, "T2", "4.2.3.2", "ready without an available ring", |m| incomplete(m, AVAILABLE)),
    case(353, "T2", "4.2.3.2", "ready without a used ring", |m| incomplete(m, USED)),
    case(354, "T2", LAYOUT, "a ring that becomes ready when the device lives", late_ready),
    case(355, "T6", LAYOUT, "take a live ring away, and notify it", taken_away),
    case(356, "T6", LAYOUT, "take a live ring away, and give it back elsewhere", given_back),
    case(357, "T23", "3.1.1", "live without any ring", no_rings),
    case(358, "T23", "3.1.1", "live with some of the rings", some_rings),
];

/// No ring is ready with such a size.
fn bad_size(machine: &mut Machine, size: u32) -> Verdict {
    for device in machine.devices() {
        ensure(device.prepare(VERSION_1, 16), "does not start")?;
        device.rings[0].place(device.window);
        device.window.write(SIZE, size);
        device.window.write(READY, 1);
        ensure(device.window.read(READY) == 0, "it is ready")?;
    }
    REJECT
}

fn relative_size(machine: &mut Machine, size: fn(u32) -> u32) -> Verdict {
    for device in machine.devices() {
        ensure(device.prepare(VERSION_1, 16), "does not start")?;
        device.rings[0].place(device.window);
        let most = device.window.read(SIZE_MAX);
        ensure(most.is_power_of_two(), "the largest size is none")?;
        device.window.write(SIZE, size(most));
        device.window.write(READY, 1);
        ensure(device.window.read(READY) == 0, "it is ready")?;
    }
    REJECT
}

fn good_size(machine: &mut Machine, size: u16) -> Verdict {
    let device = &mut machine.rng;
    ensure(device.start_with(VERSION_1, size), "does not start")?;
    for _ in 0..10 {
        ensure(rng::good(device), "does not work")?;
    }
    PASS
}

fn good_then_bad(machine: &mut Machine) -> Verdict {
    let device = &mut machine.rng;
    ensure(device.prepare(VERSION_1, 16), "does not start")?;
    device.rings[0].place(device.window);
    device.window.write(SIZE, 7);
    device.window.write(READY, 1);
    ensure(device.window.read(READY) == 0, "the good one counts")?;
    REJECT
}

/// Every part somewhere in low memory, where nothing is.
fn elsewhere(device: &Device) {
    for (register, address) in [(TABLE, 0x1000), (AVAILABLE, 0x2000), (USED, 0x3000)] {
        device.window.write_address(register, address);
    }
}

fn half_elsewhere(device: &Device) {
    for register in [TABLE, AVAILABLE, USED] {
        device.window.write(register + 4, u32::MAX);
    }
}

fn changed_ready(machine: &mut Machine, change: fn(&Device)) -> Verdict {
    let device = &mut machine.rng;
    ensure(device.prepare(VERSION_1, 16), "does not start")?;
    device.rings[0].lay_out(device.window);
    change(device);
    ensure(device.window.go_live(), "does not live")?;
    // More requests than the other size has entries.
    for _ in 0..20 {
        ensure(rng::good(device), "does not work as it was laid out")?;
    }
    REJECT
}

fn changed_live(machine: &mut Machine, change: fn(&Device)) -> Verdict {
    let device = &mut machine.rng;
    ensure(device.start() && rng::good(device), "does not start")?;
    device.window.write(SELECT, 0);
    change(device);
    for _ in 0..20 {
        ensure(rng::good(device), "does not work as it was laid out")?;
    }
    REJECT
}

fn odd_ready(machine: &mut Machine) -> Verdict {
    let device = &mut machine.rng;
    for value in [2, 3, 0x100, u32::MAX] {
        ensure(device.prepare(VERSION_1, 16), "does not start")?;
        device.rings[0].place(device.window);
        device.window.write(READY, value);
        ensure(device.window.read(READY) <= 1, "neither 0 nor 1")?;
    }
    REJECT
}

fn early_ready(machine: &mut Machine) -> Verdict {
    for device in machine.devices() {
        device.window.reset();
        device.rings[0].clear(16);
        device.rings[0].lay_out(device.window);
        ensure(device.window.read(READY) == 0, "it is ready")?;
    }
    REJECT
}

/// Everything is written but one register, which is 0.
fn incomplete(machine: &mut Machine, missing: u64) -> Verdict {
    let device = &mut machine.rng;
    ensure(device.prepare(VERSION_1, 16), "does not start")?;
    device.rings[0].place(device.window);
    device.window.write(missing, 0);
    if missing != SIZE {
        device.window.write(missing + 4, 0);
    }
    device.window.write(READY, 1);
    device.window.go_live();
    device.rings[0].describe(0, device.buffers, 32, WRITE, 0);
    device.rings[0].offer(0);
    device.window.notify(0);
    let came = device.quiet(0);
    // Zero is an address like any other where there is memory, but for an available ring.
    ensure(missing != AVAILABLE || device.window.is_broken(), "it lives")?;
    ensure(missing == TABLE || !matches!(came, After::Used { .. }), "it serves")?;
    REJECT
}

fn late_ready(machine: &mut Machine) -> Verdict {
    let device = &mut machine.vsock;
    ensure(device.prepare(VERSION_1, 16), "does not start")?;
    device.rings[0].lay_out(device.window);
    ensure(device.window.go_live(), "does not live")?;
    device.rings[1].lay_out(device.window);
    ensure(device.window.read(READY) == 0, "it is ready")?;
    device.rings[1].describe(0, device.buffers, 44, 0, 0);
    device.rings[1].offer(0);
    device.window.notify(1);
    device.quiet(1).ignored()
}

fn taken_away(machine: &mut Machine) -> Verdict {
    let device = &mut machine.rng;
    ensure(device.start() && rng::good(device), "does not start")?;
    device.window.write(SELECT, 0);
    device.window.write(READY, 0);
    ensure(device.window.read(READY) == 0, "it is ready")?;
    device.rings[0].offer(0);
    device.window.notify(0);
    device.quiet(0).ignored()
}

fn given_back(machine: &mut Machine) -> Verdict {
    let device = &mut machine.rng;
    ensure(device.start() && rng::good(device), "does not start")?;
    device.window.write(SELECT, 0);
    device.window.write(READY, 0);
    elsewhere(device);
    device.window.write(READY, 1);
    ensure(device.window.read(READY) == 0, "it is ready")?;
    device.window.notify(0);
    device.quiet(0).ignored()
}

fn no_rings(machine: &mut Machine) -> Verdict {
    for device in machine.devices() {
        ensure(device.prepare(VERSION_1, 16), "does not start")?;
        ensure(device.window.go_live(), "does not live")?;
        for ring in 0..4 {
            device.window.notify(ring);
        }
        ensure(device.window.status() == LIVE, "the status changed")?;
    }
    PASS
}

/// A socket device with one ring, whichever it is, has nothing to do.
fn some_rings(machine: &mut Machine) -> Verdict {
    let device = &mut machine.vsock;
    for ring in 0..3 {
        ensure(device.prepare(VERSION_1, 16), "does not start")?;
        device.rings[ring].lay_out(device.window);
        ensure(device.window.go_live(), "does not live")?;
        device.rings[ring].describe(0, device.buffers, 0x1000, if ring == 1 { 0 } else { WRITE }, 0);
        device.rings[ring].offer(0);
        for ring in 0..3 {
            device.window.notify(ring);
        }
        ensure(device.quiet(ring) != After::Broken, "gave up")?;
    }
    PASS
}
