// SPDX-License-Identifier: Apache-2.0
//! Rings where no ring can be: unaligned, outside of memory, in a window, over each other (virtio 1.2 §2.7.1, §4.2.3.2).

use crate::device::Device;
use crate::machine::Machine;
use crate::ring::{Ring, WRITE};
use crate::rng;
use crate::verdict::{Case, PASS, REJECT, Verdict, case, ensure};
use crate::window::{DRIVER_OK, VERSION_1};

const ALIGNMENT: &str = "2.7.1";
const PLACES: &str = "4.2.3.2";

/// Half of a table of 16 descriptors. The other half leads to buffers, or the device would write over this program.
const HALF: u64 = 128;

#[rustfmt::skip]
pub(super) const CASES: &[Case] = &[
    case(301, "T18", ALIGNMENT, "descriptor table unaligned", |m| refused(m, |ring, _| ring.table += 8)),
    case(302, "T18", ALIGNMENT, "available ring unaligned", |m| refused(m, |ring, _| ring.available += 1)),
    case(303, "T18", ALIGNMENT, "used ring unaligned", |m| refused(m, |ring, _| ring.used += 2)),
    case(304, "T18", PLACES, "descriptor table in a window", |m| refused(m, |ring, _| ring.table = 0xd000_0000)),
    case(305, "T18", PLACES, "available ring in a window", |m| refused(m, |ring, _| ring.available = 0xd000_1000)),
    case(306, "T18", PLACES, "used ring in a window", |m| refused(m, |ring, _| ring.used = 0xd000_2000)),
    case(307, "T10", PLACES, "descriptor table behind memory", |m| refused(m, |ring, end| ring.table = end)),
    case(308, "T10", PLACES, "available ring behind memory", |m| refused(m, |ring, end| ring.available = end)),
    case(309, "T10", PLACES, "used ring behind memory", |m| refused(m, |ring, end| ring.used = end)),
    case(310, "T10", PLACES, "descriptor table half behind memory", |m| refused(m, |ring, end| ring.table = end - 16)),
    case(311, "T10", PLACES, "available ring half behind memory", |m| refused(m, |ring, end| ring.available = end - 8)),
    case(312, "T10", PLACES, "used ring half behind memory", |m| refused(m, |ring, end| ring.used = end - 8)),
    case(313, "T10", PLACES, "descriptor table at the end of all addresses", |m| refused(m, |ring, _| ring.table = !15)),
    case(314, "T10", PLACES, "available ring at the end of all addresses", |m| refused(m, |ring, _| ring.available = !1)),
    case(315, "T10", PLACES, "used ring at the end of all addresses", |m| refused(m, |ring, _| ring.used = !3)),
    case(316, "T18", PLACES, "descriptor table in the local APIC", |m| refused(m, |ring, _| ring.table = 0xfee0_0000)),
    case(317, "T18", PLACES, "used ring in the I/O APIC", |m| refused(m, |ring, _| ring.used = 0xfec0_0000)),
    case(318, "T18", PLACES, "every part at address 0", |m| refused(m, nowhere)),
    case(319, "T10", PLACES, "a ring that ends where memory ends", at_the_end),
    case(320, "T19", PLACES, "used ring over half of the descriptor table", |m| aliased(m, |ring| ring.used = ring.table + HALF)),
    case(321, "T19", PLACES, "used ring over the available ring", |m| aliased(m, |ring| ring.used = ring.available)),
    case(322, "T19", PLACES, "available ring over half of the table", |m| aliased(m, |ring| ring.available = ring.table + HALF)),
    case(323, "T18", PLACES, "two rings in one place", two_in_one),
    case(324, "T18", PLACES, "buffers over the ring that offers them", buffers_over_ring),
];

/// Lays the main ring of each device out where `place` puts it: none may live, or serve anything.
fn refused(machine: &mut Machine, place: fn(&mut Ring, u64)) -> Verdict {
    let end = machine.memory;
    for device in machine.devices() {
        ensure(device.prepare(VERSION_1, 16), "does not start")?;
        let mut ring = device.rings[device.main()];
        place(&mut ring, end);
        ring.lay_out(device.window);
        device.window.go_live();
        ensure(device.window.status() & DRIVER_OK == 0 || device.window.is_broken(), "it lives")?;
        device.window.notify(ring.number);
    }
    REJECT
}

fn nowhere(ring: &mut Ring, _end: u64) {
    (ring.table, ring.available, ring.used) = (0, 0, 0);
}

/// Everything is in memory to the last byte, so everything works.
fn at_the_end(machine: &mut Machine) -> Verdict {
    let end = machine.memory;
    let device = &mut machine.rng;
    ensure(device.prepare(VERSION_1, 16), "does not start")?;
    let before = device.rings[0];
    // The last byte of a used ring of 16 is its 134th, so its aligned place ends two bytes early.
    (device.rings[0].used, device.rings[0].available, device.rings[0].table) = (end - 136, end - 256, end - 512);
    device.rings[0].clear(16);
    device.rings[0].lay_out(device.window);
    let works = device.window.go_live() && rng::good(device);
    device.rings[0] = before;
    ensure(works, "does not work")?;
    PASS
}

/// Two parts share their bytes. What comes of it is the driver's affair, but nobody else's.
fn aliased(machine: &mut Machine, alias: fn(&mut Ring)) -> Verdict {
    let device = &mut machine.rng;
    ensure(device.prepare(VERSION_1, 16), "does not start")?;
    let before = device.rings[0];
    alias(&mut device.rings[0]);
    device.rings[0].lay_out(device.window);
    if device.window.go_live() {
        for _ in 0..50 {
            device.rings[0].describe(0, device.buffers, 32, WRITE, 0);
            device.rings[0].offer(0);
            device.window.notify(0);
            device.window.status();
        }
        device.quiet(0);
    }
    device.rings[0] = before;
    PASS
}

fn two_in_one(machine: &mut Machine) -> Verdict {
    let device = &mut machine.vsock;
    ensure(device.prepare(VERSION_1, 16), "does not start")?;
    let before = device.rings;
    for ring in 0..3 {
        device.rings[ring] = Ring { number: ring as u32, ..device.rings[0] };
        device.rings[ring].lay_out(device.window);
    }
    if device.window.go_live() {
        storm(device);
    }
    device.rings = before;
    PASS
}

fn storm(device: &mut Device) {
    for round in 0..50_u16 {
        let flags = if round % 2 == 0 { WRITE } else { 0 };
        device.rings[0].describe(round % 16, device.buffers, 64, flags, 0);
        device.rings[0].offer(round % 16);
        for ring in 0..3 {
            device.window.notify(ring);
        }
        device.window.status();
    }
    device.quiet(0);
}

/// The device writes entropy over the table it reads from, and over both rings.
fn buffers_over_ring(machine: &mut Machine) -> Verdict {
    let device = &mut machine.rng;
    ensure(device.start(), "does not start")?;
    let ring = device.rings[0];
    for (slot, at) in (0..).zip([ring.table, ring.available, ring.used]) {
        device.rings[0].describe(slot, at, 256, WRITE, 0);
        device.rings[0].offer(slot);
    }
    device.window.notify(0);
    device.quiet(0);
    PASS
}
