// SPDX-License-Identifier: Apache-2.0
//! Packets of the socket device that belong to no connection, and buffers that hold none (virtio 1.2 §5.10.6).

use crate::bare::poke;
use crate::device::{After, Device};
use crate::machine::Machine;
use crate::ring::{NEXT, WRITE};
use crate::verdict::{Case, PASS, REJECT, Verdict, case, ensure};
use crate::vsock::{
    CREDIT_REQUEST, CREDIT_UPDATE, ECHO, EVENT, HEADER, NOBODY, Packet, REQUEST, RESPONSE, RST, RW, RX, SHUTDOWN, TX,
    expect_reset, incoming, is_reset, listen, nothing_comes, outgoing, receive, send, send_as, start,
};
use crate::window::VERSION_1;

const PACKETS: &str = "5.10.6.4";
const ADDRESSES: &str = "5.10.6.2";

#[rustfmt::skip]
pub(super) const CASES: &[Case] = &[
    case(701, "T39", ADDRESSES, "ports that nobody has", nobody),
    case(702, "T39", ADDRESSES, "five hundred requests for ports that nobody has", many_ports),
    case(703, "T40", PACKETS, "source is the host", |m| from(m, 2)),
    case(704, "T40", PACKETS, "source is a sibling", |m| from(m, 4)),
    case(705, "T40", PACKETS, "source is reserved", |m| from(m, 0)),
    case(706, "T40", PACKETS, "source is anybody", |m| from(m, 0xffff_ffff)),
    case(707, "T40", ADDRESSES, "source with upper bits", |m| from(m, 1 << 32 | 3)),
    case(708, "T40", ADDRESSES, "destination is a sibling", |m| to(m, 4)),
    case(709, "T40", ADDRESSES, "destination is the guest itself", |m| to(m, 3)),
    case(710, "T40", ADDRESSES, "destination is the hypervisor", |m| to(m, 0)),
    case(711, "T40", ADDRESSES, "destination with upper bits", |m| to(m, 1 << 63 | 2)),
    case(712, "T38", PACKETS, "sequenced packets, which are not offered", |m| kind(m, 2)),
    case(713, "T38", PACKETS, "unknown types", kinds),
    case(714, "T38", PACKETS, "unknown operations", operations),
    case(715, "T38", "5.10.6.6", "answer without a request", |m| stray(m, RESPONSE)),
    case(716, "T38", "5.10.6.6", "payload without a connection", |m| stray(m, RW)),
    case(717, "T38", "5.10.6.6", "shutdown without a connection", |m| stray(m, SHUTDOWN)),
    case(718, "T38", "5.10.6.3", "credit without a connection", |m| stray(m, CREDIT_UPDATE)),
    case(719, "T38", "5.10.6.3", "question for credit without a connection", |m| stray(m, CREDIT_REQUEST)),
    case(720, "T38", "5.10.6.6", "RST without a connection", lone_reset),
    case(721, "T38", PACKETS, "packets shorter than a header", short),
    case(722, "T38", PACKETS, "length more than the chain has", |m| length(m, 100, 50)),
    case(723, "T38", PACKETS, "length less than the chain has", |m| length(m, 50, 100)),
    case(724, "T38", PACKETS, "length of 4 GiB less one byte", |m| length(m, u32::MAX, 0)),
    case(725, "T38", PACKETS, "length 1 and no payload", |m| length(m, 1, 0)),
    case(726, "T20", PACKETS, "header byte by byte", pieces),
    case(727, "T12", PACKETS, "packet in a writable buffer", |m| writable(m, 0)),
    case(728, "T12", PACKETS, "packet with room for an answer behind it", |m| writable(m, HEADER)),
    case(729, "T35", "5.10.6.3", "1 MiB of payload without a connection", huge),
    case(730, "T36", "5.10.6.1.1", "two hundred requests without receive buffers", no_buffers),
    case(731, "T12", PACKETS, "readable receive buffers", |m| receive_buffers(m, 0x1000, 0)),
    case(732, "T12", PACKETS, "receive buffers shorter than a header", |m| receive_buffers(m, 43, WRITE)),
    case(733, "T12", PACKETS, "receive buffers of a header and no payload", |m| receive_buffers(m, HEADER, WRITE)),
    case(734, "T12", PACKETS, "receive buffers behind memory", receive_behind_memory),
    case(735, "T20", PACKETS, "receive buffer in single bytes", receive_pieces),
    case(736, "T13", "5.10.6.8", "anything in the event ring", events),
    case(737, "T13", "5.10.6.8", "impossible index in the event ring", event_index),
    case(738, "T13", PACKETS, "impossible index in the receive ring", receive_index),
];

/// A packet that is answered by RST, and by nothing else.
fn refused(device: &mut Device, packet: &Packet) -> Verdict {
    is_reset(device, packet)?;
    ensure(nothing_comes(device), "more than one answer")?;
    REJECT
}

fn nobody(machine: &mut Machine) -> Verdict {
    start(&mut machine.vsock)?;
    for to_port in [0, 1, NOBODY, 0xffff, 0x1_0000, ECHO << 16, u32::MAX] {
        is_reset(&mut machine.vsock, &Packet { to_port, ..Packet::new(REQUEST) })?;
    }
    REJECT
}

fn many_ports(machine: &mut Machine) -> Verdict {
    start(&mut machine.vsock)?;
    for number in 0..500 {
        let packet = Packet { to_port: 0x1_0000 + number * 131, from_port: number, ..Packet::new(REQUEST) };
        is_reset(&mut machine.vsock, &packet)?;
    }
    REJECT
}

fn from(machine: &mut Machine, from: u64) -> Verdict {
    start(&mut machine.vsock)?;
    for to_port in [ECHO, NOBODY] {
        refused(&mut machine.vsock, &Packet { from, to_port, ..Packet::new(REQUEST) })?;
    }
    REJECT
}

fn to(machine: &mut Machine, to: u64) -> Verdict {
    start(&mut machine.vsock)?;
    for to_port in [ECHO, NOBODY] {
        refused(&mut machine.vsock, &Packet { to, to_port, ..Packet::new(REQUEST) })?;
    }
    REJECT
}

fn kind(machine: &mut Machine, kind: u16) -> Verdict {
    start(&mut machine.vsock)?;
    refused(&mut machine.vsock, &Packet { kind, to_port: ECHO, ..Packet::new(REQUEST) })
}

fn kinds(machine: &mut Machine) -> Verdict {
    start(&mut machine.vsock)?;
    for kind in [0, 3, 0x100, 0x8000, u16::MAX] {
        is_reset(&mut machine.vsock, &Packet { kind, to_port: ECHO, ..Packet::new(REQUEST) })?;
    }
    REJECT
}

fn operations(machine: &mut Machine) -> Verdict {
    start(&mut machine.vsock)?;
    for op in [0].into_iter().chain(8..40).chain([0x100, 0x8000, u16::MAX]) {
        is_reset(&mut machine.vsock, &Packet { to_port: ECHO, ..Packet::new(op) })?;
    }
    REJECT
}

fn stray(machine: &mut Machine, op: u16) -> Verdict {
    start(&mut machine.vsock)?;
    for to_port in [ECHO, NOBODY] {
        refused(&mut machine.vsock, &Packet { to_port, flags: u32::MAX, ..Packet::new(op) })?;
    }
    REJECT
}

/// An RST in answer to an RST would go on for ever.
fn lone_reset(machine: &mut Machine) -> Verdict {
    start(&mut machine.vsock)?;
    let sent = send(&mut machine.vsock, &Packet::new(RST));
    ensure(sent == After::Used { head: 0, length: 0 }, "packet not taken")?;
    ensure(nothing_comes(&mut machine.vsock), "an answer to RST")?;
    REJECT
}

fn short(machine: &mut Machine) -> Verdict {
    let device = &mut machine.vsock;
    start(device)?;
    let at = outgoing(device);
    Packet::new(REQUEST).write(at);
    for bytes in 0..HEADER {
        device.rings[TX].describe(0, at, bytes, 0, 0);
        ensure(device.serve(0) == After::Used { head: 0, length: 0 }, "not handed back")?;
    }
    ensure(nothing_comes(device), "an answer to less than a packet")?;
    REJECT
}

fn length(machine: &mut Machine, length: u32, payload: u32) -> Verdict {
    let device = &mut machine.vsock;
    start(device)?;
    for op in [RW, REQUEST, CREDIT_UPDATE] {
        let packet = Packet { length, ..Packet::new(op) };
        ensure(send_as(device, &packet, payload) == After::Used { head: 0, length: 0 }, "packet not taken")?;
        expect_reset(device, &packet)?;
    }
    REJECT
}

/// 44 descriptors of a byte each, which is as good as one.
fn pieces(machine: &mut Machine) -> Verdict {
    let device = &mut machine.vsock;
    start(device)?;
    let (at, packet) = (outgoing(device), Packet::new(REQUEST));
    packet.write(at);
    for slot in 0..HEADER as u16 {
        let flags = if u32::from(slot) + 1 < HEADER { NEXT } else { 0 };
        device.rings[TX].describe(slot, at + u64::from(slot), 1, flags, slot + 1);
    }
    ensure(device.serve(0) == After::Used { head: 0, length: 0 }, "packet not taken")?;
    expect_reset(device, &packet)?;
    PASS
}

fn writable(machine: &mut Machine, readable: u32) -> Verdict {
    let device = &mut machine.vsock;
    start(device)?;
    let at = outgoing(device);
    Packet::new(REQUEST).write(at);
    device.rings[TX].describe(0, at, readable, NEXT, 1);
    device.rings[TX].describe(1, at + 0x1000, 0x1000, WRITE, 0);
    ensure(device.serve(0) == After::Used { head: 0, length: 0 }, "written to")?;
    if readable == 0 {
        ensure(nothing_comes(device), "an answer to nothing")?;
        return REJECT;
    }
    expect_reset(device, &Packet::new(REQUEST))?;
    PASS
}

fn huge(machine: &mut Machine) -> Verdict {
    let device = &mut machine.vsock;
    start(device)?;
    let packet = Packet { length: 0x10_0000, ..Packet::new(RW) };
    refused(device, &packet)
}

/// Answers pile up to a limit, then packets wait; none is lost.
fn no_buffers(machine: &mut Machine) -> Verdict {
    let device = &mut machine.vsock;
    ensure(device.start_with(VERSION_1, 256), "does not start")?;
    let at = outgoing(device);
    for slot in 0..200_u16 {
        let place = at + 64 * u64::from(slot);
        Packet { from_port: slot.into(), ..Packet::new(REQUEST) }.write(place);
        device.rings[TX].describe(slot, place, HEADER, 0, 0);
        device.rings[TX].offer(slot);
    }
    device.window.notify(TX as u32);
    let mut taken = 0;
    while matches!(device.quiet(TX), After::Used { .. }) {
        taken += 1;
    }
    ensure(taken < 200, "answers pile up without limit")?;
    listen(device);
    for from_port in 0..200 {
        expect_reset(device, &Packet { from_port, ..Packet::new(REQUEST) })?;
    }
    ensure(nothing_comes(device), "more answers than packets")?;
    PASS
}

/// Receive buffers that hold no packet come back empty, and good ones behind them are used.
fn receive_buffers(machine: &mut Machine, bytes: u32, flags: u16) -> Verdict {
    let device = &mut machine.vsock;
    ensure(device.start(), "does not start")?;
    for slot in 8..12 {
        let at = incoming(device, slot);
        device.rings[RX].describe(slot, at, bytes, flags, 0);
        device.rings[RX].offer(slot);
    }
    listen(device);
    ensure(send(device, &Packet::new(REQUEST)) == After::Used { head: 0, length: 0 }, "packet not taken")?;
    for slot in 8..12 {
        ensure(device.after(RX) == After::Used { head: slot, length: 0 }, "not handed back")?;
    }
    expect_reset(device, &Packet::new(REQUEST))?;
    REJECT
}

fn receive_behind_memory(machine: &mut Machine) -> Verdict {
    let end = machine.memory;
    let device = &mut machine.vsock;
    ensure(device.start(), "does not start")?;
    for slot in 8..12 {
        device.rings[RX].describe(slot, end - 16, 0x1000, WRITE, 0);
        device.rings[RX].offer(slot);
    }
    listen(device);
    ensure(send(device, &Packet::new(REQUEST)) == After::Used { head: 0, length: 0 }, "packet not taken")?;
    for slot in 8..12 {
        ensure(device.after(RX) == After::Used { head: slot, length: 0 }, "not handed back")?;
    }
    expect_reset(device, &Packet::new(REQUEST))?;
    REJECT
}

fn receive_pieces(machine: &mut Machine) -> Verdict {
    let device = &mut machine.vsock;
    ensure(device.start_with(VERSION_1, 64), "does not start")?;
    let at = incoming(device, 0);
    for slot in 0..64 {
        let flags = if slot < 63 { WRITE | NEXT } else { WRITE };
        device.rings[RX].describe(slot, at + u64::from(slot), 1, flags, slot + 1);
    }
    device.rings[RX].offer(0);
    device.window.notify(RX as u32);
    ensure(send(device, &Packet::new(REQUEST)) == After::Used { head: 0, length: 0 }, "packet not taken")?;
    expect_reset(device, &Packet::new(REQUEST))?;
    PASS
}

/// Nothing ever happens to this device, so nothing comes of it.
fn events(machine: &mut Machine) -> Verdict {
    let device = &mut machine.vsock;
    start(device)?;
    for slot in 0..16_u16 {
        device.rings[EVENT].describe(slot, u64::from(slot) << 60, u32::MAX, slot, u16::MAX);
        device.rings[EVENT].offer(slot.wrapping_mul(7));
    }
    for _ in 0..100 {
        device.window.notify(EVENT as u32);
    }
    is_reset(device, &Packet::new(REQUEST))?;
    PASS
}

fn event_index(machine: &mut Machine) -> Verdict {
    let device = &mut machine.vsock;
    start(device)?;
    device.rings[EVENT].set_index(0x8000);
    device.window.notify(EVENT as u32);
    // A ring that is never read cannot be found broken.
    ensure(device.window.is_broken() || is_reset(device, &Packet::new(REQUEST)).is_ok(), "neither works nor gives up")?;
    PASS
}

fn receive_index(machine: &mut Machine) -> Verdict {
    let device = &mut machine.vsock;
    start(device)?;
    device.rings[RX].set_index(0x8000);
    poke(device.rings[RX].available, 0_u16);
    device.window.notify(RX as u32);
    send(device, &Packet::new(REQUEST));
    ensure(device.after(RX) == After::Broken || receive(device).is_none(), "it serves")?;
    ensure(device.window.is_broken(), "it does not say so")?;
    REJECT
}
