// SPDX-License-Identifier: Apache-2.0
//! Tables of descriptors outside of the ring's own (virtio 1.2 §2.7.5.3).

use crate::bare;
use crate::device::{After, Device};
use crate::machine::Machine;
use crate::ring::{NEXT, TABLE_OF_ITS_OWN, WRITE, describe};
use crate::rng;
use crate::verdict::{Case, PASS, REJECT, Verdict, case, ensure};
use crate::window::{INDIRECT, VERSION_1};

const TABLES: &str = "2.7.5.3.1";

#[rustfmt::skip]
pub(super) const CASES: &[Case] = &[
    case(451, "T14", "2.7.5.3", "a good table", good),
    case(452, "T14", "2.7.5.3", "a good table at an odd address", odd),
    case(453, "T14", TABLES, "a table without the feature", without_feature),
    case(454, "T14", TABLES, "a table in a table", |m| table(m, 32, nested)),
    case(455, "T14", TABLES, "a table that is also continued", continued),
    case(456, "T14", "2.7.5.3", "a table of no bytes", |m| table(m, 0, plain)),
    case(457, "T14", "2.7.5.3", "a table of 15 bytes", |m| table(m, 15, plain)),
    case(458, "T14", "2.7.5.3", "a table of 17 bytes", |m| table(m, 17, plain)),
    case(459, "T14", "2.7.5.3", "a table of 4 GiB less 16 bytes", |m| table(m, 0xffff_fff0, plain)),
    case(460, "T14", "2.7.5.3", "a table behind memory", |m| table_at(m, |end| end)),
    case(461, "T14", "2.7.5.3", "a table half behind memory", |m| table_at(m, |end| end - 8)),
    case(462, "T14", "2.7.5.3", "a table in a window", |m| table_at(m, |_| 0xd000_0000)),
    case(463, "T14", "2.7.5.3", "a table at the last addresses", |m| table_at(m, |_| u64::MAX - 15)),
    case(464, "T12", TABLES, "a circle in a table", |m| table(m, 32, circle)),
    case(465, "T12", TABLES, "a link out of a table", |m| table(m, 32, outwards)),
    case(466, "T12", TABLES, "a table of more descriptors than the ring has", |m| table(m, 17 * 16, long)),
    case(467, "T12", TABLES, "a table of 65536 descriptors", |m| table(m, 65536 * 16, long)),
    case(468, "T12", TABLES, "a table of as many descriptors as the ring has", as_many),
    case(469, "T14", TABLES, "a table at the end of a chain", chained),
    case(470, "T14", "2.7.5.3.2", "a table that is said to be writable", writable),
    case(471, "T14", TABLES, "a table over the ring's own", over_own),
    case(472, "T21", TABLES, "a table that the device's answer is written over", over_answer),
];

/// Where tables are, among the buffers.
const AT: u64 = 0x8_0000;

fn start(machine: &mut Machine) -> Result<&mut Device, &'static str> {
    let device = &mut machine.rng;
    ensure(device.start_with(VERSION_1 | INDIRECT, 16), "does not start")?;
    Ok(device)
}

fn good(machine: &mut Machine) -> Verdict {
    let device = start(machine)?;
    let at = device.buffers + AT;
    describe(at, device.buffers, 16, WRITE | NEXT, 1);
    describe(at + 16, device.buffers + 64, 16, WRITE, 0);
    device.rings[0].describe(0, at, 32, TABLE_OF_ITS_OWN, 0);
    ensure(device.serve(0) == After::Used { head: 0, length: 32 }, "not served")?;
    PASS
}

fn odd(machine: &mut Machine) -> Verdict {
    let device = start(machine)?;
    let at = device.buffers + AT + 3;
    describe(at, device.buffers, 16, WRITE, 0);
    device.rings[0].describe(0, at, 16, TABLE_OF_ITS_OWN, 0);
    device.serve(0).answered()
}

/// Of what no driver may do here no section says what a device does. It may take the table as it is meant.
fn without_feature(machine: &mut Machine) -> Verdict {
    for device in machine.devices() {
        ensure(device.start(), "does not start")?;
        let (main, at) = (device.main(), device.buffers + AT);
        describe(at, device.buffers, 16, if main == 0 { WRITE } else { 0 }, 0);
        device.rings[main].describe(0, at, 16, TABLE_OF_ITS_OWN, 0);
        device.serve(0).answered()?;
    }
    PASS
}

/// As above: what follows may count or not.
fn continued(machine: &mut Machine) -> Verdict {
    let device = start(machine)?;
    let at = device.buffers + AT;
    describe(at, device.buffers, 16, WRITE, 0);
    device.rings[0].describe(0, at, 16, TABLE_OF_ITS_OWN | NEXT, 1);
    device.rings[0].describe(1, device.buffers + 64, 16, WRITE, 0);
    device.serve(0).answered()
}

/// A table of these bytes, filled by `fill`, for the entropy source and the files.
fn table(machine: &mut Machine, bytes: u32, fill: fn(u64, u64, u16)) -> Verdict {
    for device in [&mut machine.rng, &mut machine.fs] {
        ensure(device.start_with(VERSION_1 | INDIRECT, 16), "does not start")?;
        let (main, at) = (device.main(), device.buffers + AT);
        fill(at, device.buffers, if main == 0 { WRITE } else { 0 });
        device.rings[main].describe(0, at, bytes, TABLE_OF_ITS_OWN, 0);
        device.serve(0).refused()?;
    }
    REJECT
}

fn plain(at: u64, buffer: u64, flags: u16) {
    describe(at, buffer, 16, flags, 0);
    describe(at + 16, buffer, 16, flags, 0);
}

fn nested(at: u64, buffer: u64, flags: u16) {
    describe(at, at + 16, 16, TABLE_OF_ITS_OWN, 0);
    describe(at + 16, buffer, 16, flags, 0);
}

fn circle(at: u64, buffer: u64, flags: u16) {
    describe(at, buffer, 16, flags | NEXT, 1);
    describe(at + 16, buffer, 16, flags | NEXT, 0);
}

fn outwards(at: u64, buffer: u64, flags: u16) {
    describe(at, buffer, 16, flags | NEXT, 2);
    describe(at + 16, buffer, 16, flags, 0);
    describe(at + 32, buffer, 16, flags, 0);
}

/// Each leads to the next one; what is behind the first few hundred does not matter any more.
fn long(at: u64, buffer: u64, flags: u16) {
    for number in 0..300 {
        let flags = if number == 16 { flags } else { flags | NEXT };
        describe(at + 16 * u64::from(number), buffer, 1, flags, number + 1);
    }
}

fn table_at(machine: &mut Machine, place: fn(u64) -> u64) -> Verdict {
    let at = place(machine.memory);
    for device in [&mut machine.rng, &mut machine.vsock, &mut machine.fs] {
        ensure(device.start_with(VERSION_1 | INDIRECT, 16), "does not start")?;
        let main = device.main();
        device.rings[main].describe(0, at, 16, TABLE_OF_ITS_OWN, 0);
        device.serve(0).refused()?;
    }
    REJECT
}

fn as_many(machine: &mut Machine) -> Verdict {
    let device = start(machine)?;
    let at = device.buffers + AT;
    for number in 0..16 {
        let flags = if number == 15 { WRITE } else { WRITE | NEXT };
        describe(at + 16 * u64::from(number), device.buffers + u64::from(number), 1, flags, number + 1);
    }
    device.rings[0].describe(0, at, 16 * 16, TABLE_OF_ITS_OWN, 0);
    ensure(device.serve(0) == After::Used { head: 0, length: 16 }, "not served")?;
    PASS
}

fn chained(machine: &mut Machine) -> Verdict {
    let device = start(machine)?;
    let at = device.buffers + AT;
    describe(at, device.buffers, 16, WRITE, 0);
    device.rings[0].describe(0, device.buffers + 64, 16, WRITE | NEXT, 1);
    device.rings[0].describe(1, at, 16, TABLE_OF_ITS_OWN, 0);
    device.serve(0).answered()
}

/// The device MUST ignore that.
fn writable(machine: &mut Machine) -> Verdict {
    let device = start(machine)?;
    let at = device.buffers + AT;
    describe(at, device.buffers, 16, WRITE, 0);
    device.rings[0].describe(0, at, 16, TABLE_OF_ITS_OWN | WRITE, 0);
    device.serve(0).answered()
}

fn over_own(machine: &mut Machine) -> Verdict {
    let device = start(machine)?;
    let ring = device.rings[0];
    ring.describe(0, ring.table, 16 * 16, TABLE_OF_ITS_OWN, 0);
    device.serve(0).refused()
}

/// The table that was read describes itself as the buffer.
fn over_answer(machine: &mut Machine) -> Verdict {
    let device = start(machine)?;
    let at = device.buffers + AT;
    describe(at, at, 32, WRITE | NEXT, 1);
    describe(at + 16, device.buffers, 32, WRITE, 0);
    device.rings[0].describe(0, at, 32, TABLE_OF_ITS_OWN, 0);
    ensure(device.serve(0) == After::Used { head: 0, length: 64 }, "not served as it was read")?;
    ensure(bare::peek::<u64>(at) != at, "nothing was written")?;
    ensure(rng::good(device), "does not work afterwards")?;
    PASS
}
