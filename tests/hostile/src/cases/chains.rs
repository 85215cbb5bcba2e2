// SPDX-License-Identifier: Apache-2.0
//! Chains of descriptors that make no sense (virtio 1.2 §2.7.4, §2.7.5, §5.4.6).

use crate::bare::poke;
use crate::device::{After, Device};
use crate::machine::Machine;
use crate::ring::{NEXT, WRITE};
use crate::verdict::{Case, PASS, REJECT, Verdict, case, ensure};
use crate::window::VERSION_1;
use crate::{bare, fs, rng, vsock};

const TABLE: &str = "2.7.5";
const WINDOW: u64 = 0xd000_0000;

#[rustfmt::skip]
pub(super) const CASES: &[Case] = &[
    case(401, "T10", TABLE, "buffer behind memory", |m| one(m, |end| (end, 16))),
    case(402, "T10", TABLE, "buffer half behind memory", |m| one(m, |end| (end - 8, 16))),
    case(403, "T10", TABLE, "buffer whose last byte is behind memory", |m| one(m, |end| (end - 15, 16))),
    case(404, "T10", TABLE, "buffer that ends where memory ends", last),
    case(405, "T10", TABLE, "buffer over the end of all addresses", |m| one(m, |_| (u64::MAX - 7, 16))),
    case(406, "T10", TABLE, "buffer at the last address", |m| one(m, |_| (u64::MAX, 1))),
    case(407, "T10", TABLE, "buffer of 4 GiB less one byte", |m| one(m, |_| (0, u32::MAX))),
    case(408, "T18", TABLE, "buffer in a window", |m| one(m, |_| (WINDOW, 64))),
    case(409, "T18", TABLE, "buffer in the local APIC", |m| one(m, |_| (0xfee0_0000, 64))),
    case(410, "T11", TABLE, "buffer from memory into the hole behind it", |m| one(m, |end| (end - 0x1000, 0x1000_0000))),
    case(411, "T10", TABLE, "buffer without bytes", |m| one(m, |_| (0x100_0000, 0))),
    case(412, "T10", TABLE, "buffer without bytes behind memory", |m| one(m, |end| (end, 0))),
    case(413, "T12", TABLE, "descriptor that leads to itself", |m| links(m, &[0])),
    case(414, "T12", TABLE, "two descriptors in a circle", |m| links(m, &[1, 0])),
    case(415, "T12", TABLE, "circle that the head is not part of", |m| links(m, &[1, 2, 1])),
    case(416, "T12", TABLE, "next descriptor just outside of the table", |m| links(m, &[16])),
    case(417, "T12", TABLE, "next descriptor far outside of the table", |m| links(m, &[u16::MAX])),
    case(418, "T12", TABLE, "chain of every descriptor", full),
    case(419, "T12", TABLE, "chain of more than 2^32 bytes", enormous),
    case(420, "T12", "2.7.4.2", "readable buffer after a writable one", order),
    case(421, "T12", TABLE, "flags that do not exist", unknown_flags),
    case(422, "T12", "5.4.6.1", "readable buffer for entropy", |m| entropy(m, &[0])),
    case(423, "T33", "5.4.6.1", "readable and writable buffers for entropy", |m| entropy(m, &[0, WRITE])),
    case(424, "T12", "2.7.6", "head just outside of the table", |m| head(m, 16)),
    case(425, "T12", "2.7.6", "head far outside of the table", |m| head(m, u16::MAX)),
    case(426, "T16", "2.7.6", "same head twice", twice),
    case(427, "T16", "2.7.6", "same receive buffer twice", same_receive_buffer),
    case(428, "T21", "2.7.6", "descriptors that change while they are read", racing_descriptors),
    case(429, "T21", "2.7.6", "packet that changes while it is read", racing_packet),
    case(430, "T20", "2.7.6", "request to files that changes while it is read", racing_request),
    case(431, "T33", "5.4.6", "request for 64 MiB of entropy", long_request),
    case(432, "T33", "5.4.6", "256 requests for 64 KiB of entropy", many_requests),
    case(433, "T12", TABLE, "bad chains and good ones in turn", in_turn),
];

/// One writable buffer of this address and length, by the end of memory, for the entropy source and the files.
fn one(machine: &mut Machine, buffer: fn(u64) -> (u64, u32)) -> Verdict {
    let (address, length) = buffer(machine.memory);
    let device = &mut machine.rng;
    ensure(device.start(), "does not start")?;
    device.rings[0].describe(0, address, length, WRITE, 0);
    device.serve(0).refused()?;
    ensure(device.window.is_broken() || rng::good(device), "does not work afterwards")?;

    let device = &mut machine.fs;
    fs::start(device)?;
    device.rings[1].describe(0, address, length, 0, 0);
    device.serve(0).refused()?;
    fs::Body::new(device, fs::GETATTR, fs::ROOT).u32(0).u32(0).u64(0).send(device).done()?;
    REJECT
}

fn last(machine: &mut Machine) -> Verdict {
    let at = machine.memory - 16;
    let device = &mut machine.rng;
    ensure(device.start(), "does not start")?;
    poke(at, 0_u64);
    device.rings[0].describe(0, at, 16, WRITE, 0);
    ensure(device.serve(0) == After::Used { head: 0, length: 16 }, "not served")?;
    ensure(bare::peek::<u64>(at) != 0, "nothing was written")?;
    PASS
}

/// Descriptors with these links, each with one byte.
fn links(machine: &mut Machine, links: &[u16]) -> Verdict {
    for device in [&mut machine.rng, &mut machine.vsock, &mut machine.fs] {
        ensure(device.start(), "does not start")?;
        let (main, flags) = (device.main(), if device.main() == 0 { WRITE } else { 0 });
        for (slot, next) in (0..).zip(links) {
            device.rings[main].describe(slot, device.buffers + u64::from(slot), 1, NEXT | flags, *next);
        }
        device.serve(0).refused()?;
    }
    REJECT
}

fn full(machine: &mut Machine) -> Verdict {
    let device = &mut machine.rng;
    ensure(device.start(), "does not start")?;
    for slot in 0..16 {
        let flags = if slot == 15 { WRITE } else { WRITE | NEXT };
        device.rings[0].describe(slot, device.buffers + u64::from(slot), 1, flags, slot + 1);
    }
    ensure(device.serve(0) == After::Used { head: 0, length: 16 }, "not served")?;
    PASS
}

/// The same 32 MiB, 256 times.
fn enormous(machine: &mut Machine) -> Verdict {
    let device = &mut machine.rng;
    ensure(device.start_with(VERSION_1, 256), "does not start")?;
    for slot in 0..256 {
        let flags = if slot == 255 { WRITE } else { WRITE | NEXT };
        device.rings[0].describe(slot, 0x400_0000, 0x200_0000, flags, slot + 1);
    }
    device.serve(0).answered()
}

fn order(machine: &mut Machine) -> Verdict {
    for device in [&mut machine.rng, &mut machine.vsock] {
        ensure(device.start(), "does not start")?;
        let ring = device.rings[device.main()];
        ring.describe(0, device.buffers, 64, WRITE | NEXT, 1);
        ring.describe(1, device.buffers + 64, 64, 0, 0);
        device.serve(0).refused()?;
    }
    REJECT
}

fn unknown_flags(machine: &mut Machine) -> Verdict {
    let device = &mut machine.rng;
    ensure(device.start(), "does not start")?;
    for flag in (3..16).map(|bit| 1 << bit) {
        device.rings[0].describe(0, device.buffers, 16, WRITE | flag, 0);
        device.serve(0).answered()?;
    }
    PASS
}

fn entropy(machine: &mut Machine, flags: &[u16]) -> Verdict {
    let device = &mut machine.rng;
    ensure(device.start(), "does not start")?;
    let at = device.buffers;
    poke(at, 0x1111_1111_1111_1111_u64);
    for (slot, flags) in (0..).zip(flags) {
        device.rings[0].describe(slot, at + 64 * u64::from(slot), 16, flags | NEXT, slot + 1);
    }
    let last = flags.len() as u16 - 1;
    device.rings[0].describe(last, at + 64 * u64::from(last), 16, flags[usize::from(last)], 0);
    let verdict = device.serve(0).answered();
    ensure(bare::peek::<u64>(at) == 0x1111_1111_1111_1111, "a readable buffer was written")?;
    verdict
}

fn head(machine: &mut Machine, head: u16) -> Verdict {
    for device in [&mut machine.rng, &mut machine.vsock] {
        ensure(device.start(), "does not start")?;
        device.serve(head).refused()?;
    }
    REJECT
}

fn twice(machine: &mut Machine) -> Verdict {
    let device = &mut machine.rng;
    ensure(device.start(), "does not start")?;
    device.rings[0].describe(0, device.buffers, 0x1000, WRITE, 0);
    for _ in 0..8 {
        device.rings[0].offer(0);
    }
    device.window.notify(0);
    for _ in 0..8 {
        device.after(0).answered()?;
    }
    ensure(device.quiet(0) == After::Silence, "completed more often than offered")?;
    PASS
}

/// The device holds receive buffers until something comes; each packet then goes into the same one.
fn same_receive_buffer(machine: &mut Machine) -> Verdict {
    let device = &mut machine.vsock;
    ensure(device.start(), "does not start")?;
    device.rings[vsock::RX].describe(0, device.buffers, 0x1000, WRITE, 0);
    for _ in 0..8 {
        device.rings[vsock::RX].offer(0);
    }
    device.window.notify(vsock::RX as u32);
    for _ in 0..8 {
        let sent = vsock::send(device, &vsock::Packet::new(vsock::REQUEST));
        ensure(sent == After::Used { head: 0, length: 0 }, "packet not taken")?;
        device.after(vsock::RX).answered()?;
    }
    ensure(device.quiet(vsock::RX) == After::Silence, "completed more often than offered")?;
    PASS
}

/// Changes 64 bits of memory there and back until a chain was used.
fn flip(device: &mut Device, ring: usize, at: u64, values: [u64; 2]) -> After {
    device.rings[ring].offer(0);
    device.window.notify(ring as u32);
    for turn in 0..1_000_000_usize {
        poke(at, values[turn % 2]);
        if device.rings[ring].used_index() != device.rings[ring].seen {
            break;
        }
    }
    device.after(ring)
}

fn racing_descriptors(machine: &mut Machine) -> Verdict {
    let end = machine.memory;
    let device = &mut machine.rng;
    for _ in 0..50 {
        ensure(device.start(), "does not start")?;
        let (at, good) = (device.rings[0].table, device.buffers);
        device.rings[0].describe(0, good, 64, WRITE, 0);
        ensure(flip(device, 0, at, [good, end]) != After::Silence, "no answer")?;
        device.rings[0].describe(0, good, 64, WRITE, 0);
        // Length, flags and link: one byte, or everything and a circle.
        let values = [u64::from(WRITE) << 32 | 1, u64::from(NEXT | WRITE) << 32 | 0xffff_ffff];
        ensure(device.window.is_broken() || flip(device, 0, at + 8, values) != After::Silence, "no answer")?;
    }
    PASS
}

fn racing_packet(machine: &mut Machine) -> Verdict {
    let device = &mut machine.vsock;
    for _ in 0..50 {
        vsock::start(device)?;
        let at = vsock::outgoing(device);
        vsock::Packet::new(vsock::REQUEST).write(at);
        device.rings[vsock::TX].describe(0, at, vsock::HEADER, 0, 0);
        // Length and kind of the packet.
        let values = [0x0001_0001_0000_0000, 0x0005_0001_ffff_ffff];
        ensure(flip(device, vsock::TX, at + 24, values) != After::Silence, "no answer")?;
    }
    PASS
}

fn racing_request(machine: &mut Machine) -> Verdict {
    let device = &mut machine.fs;
    fs::start(device)?;
    for _ in 0..50 {
        let at = device.buffers;
        fs::Body::new(device, fs::GETATTR, fs::ROOT).u32(0).u32(0).u64(0);
        poke(at, 56_u32);
        device.rings[1].describe(0, at, 56, NEXT, 1);
        device.rings[1].describe(1, fs::answer_at(device), 0x1000, WRITE, 0);
        // Length and opcode.
        let values = [u64::from(fs::GETATTR) << 32 | 56, u64::from(fs::FUSE_WRITE) << 32 | 0xffff_ffff];
        ensure(flip(device, 1, at, values) != After::Silence, "no answer")?;
    }
    PASS
}

fn long_request(machine: &mut Machine) -> Verdict {
    let device = &mut machine.rng;
    ensure(device.start(), "does not start")?;
    device.rings[0].describe(0, 0x300_0000, 0x400_0000, WRITE, 0);
    match device.serve(0) {
        After::Used { length: 1..=0x1_0000, .. } => PASS,
        _ => Err("not served, or more than 64 KiB of it"),
    }
}

fn many_requests(machine: &mut Machine) -> Verdict {
    let device = &mut machine.rng;
    ensure(device.start_with(VERSION_1, 256), "does not start")?;
    for slot in 0..256 {
        device.rings[0].describe(slot, device.buffers, 0x1_0000, WRITE, 0);
        device.rings[0].offer(slot);
    }
    device.window.notify(0);
    for _ in 0..256 {
        device.after(0).answered()?;
    }
    PASS
}

fn in_turn(machine: &mut Machine) -> Verdict {
    let end = machine.memory;
    let device = &mut machine.rng;
    ensure(device.start(), "does not start")?;
    for _ in 0..100 {
        device.rings[0].describe(0, end, 16, WRITE, 0);
        ensure(device.serve(0) == After::Used { head: 0, length: 0 }, "not handed back")?;
        ensure(rng::good(device), "does not work afterwards")?;
    }
    REJECT
}
