// SPDX-License-Identifier: Apache-2.0
//! Connections whose guest keeps no rule (virtio 1.2 §5.10.6.3, §5.10.6.6). Each uses up a stream of the host, which sends
//! back what it gets.

use crate::device::{After, Device};
use crate::machine::Machine;
use crate::verdict::{Case, PASS, REJECT, Verdict, case, ensure};
use crate::vsock::{
    CREDIT_REQUEST, CREDIT_UPDATE, Packet, REQUEST, RESPONSE, RST, RW, SHUTDOWN, connect, connect_again, connect_with,
    echo, ends, expect_reset, is_reset, nothing_comes, on_stream, receive, send, send_as, start,
};

const CREDIT: &str = "5.10.6.3";
const STREAMS: &str = "5.10.6.6";

#[rustfmt::skip]
pub(super) const CASES: &[Case] = &[
    case(751, "T37", STREAMS, "a good connection", good),
    case(752, "T38", STREAMS, "request on a connection", |m| breaks(m, REQUEST)),
    case(753, "T38", STREAMS, "answer on a connection", |m| breaks(m, RESPONSE)),
    case(754, "T38", STREAMS, "unknown operation on a connection", |m| breaks(m, 8)),
    case(755, "T38", STREAMS, "invalid operation on a connection", |m| breaks(m, 0)),
    case(756, "T38", STREAMS, "length that is not the payload's", |m| mismatch(m, 10, 20)),
    case(757, "T38", STREAMS, "length without payload", |m| mismatch(m, 10, 0)),
    case(758, "T38", STREAMS, "payload without bytes", empty),
    case(759, "T38", STREAMS, "unknown flags", unknown_flags),
    case(760, "T38", STREAMS, "another type on a connection", other_kind),
    case(761, "T40", STREAMS, "a sibling's packet on a connection", sibling),
    case(762, "T38", STREAMS, "shutdown of nothing", |m| shutdown_flags(m, 0)),
    case(763, "T38", STREAMS, "shutdown with unknown flags", |m| shutdown_flags(m, 0xffff_fffc)),
    case(764, "T38", STREAMS, "payload after the guest said it sends no more", after_shutdown),
    case(765, "T38", STREAMS, "shutdown that is taken back", taken_back),
    case(766, "T38", STREAMS, "shutdown of both directions", both),
    case(767, "T38", STREAMS, "payload after RST", after_reset),
    case(768, "T35", CREDIT, "a packet of more than the credit", |m| over_credit(m, 0x4_0001)),
    case(769, "T35", CREDIT, "ten times the credit without waiting", ten_times),
    case(770, "T34", CREDIT, "credit that shrinks below what is in flight", shrinks),
    case(771, "T34", CREDIT, "more taken than was sent", more_taken),
    case(772, "T34", CREDIT, "count of what was taken goes around its end", around),
    case(773, "T34", CREDIT, "no credit at all, and some later", no_credit),
    case(774, "T36", CREDIT, "credit of 4 GiB, and receive buffers that stay full", never_reads),
    case(775, "T36", CREDIT, "a thousand questions for credit", questions),
    case(776, "T37", CREDIT, "one connection floods, another trickles", flood_and_trickle),
    case(777, "T6", STREAMS, "packets of a connection from before a reset", before_reset),
    case(778, "T39", STREAMS, "two connections from one port to one port", same_ports),
];

fn good(machine: &mut Machine) -> Verdict {
    connect(machine)?;
    for length in [1, 100, 4096] {
        echo(&mut machine.vsock, &Packet { length, ..answered(0) })?;
    }
    PASS
}

/// A packet with payload from a guest whose buffers are so large that it need not count.
fn answered(taken: u32) -> Packet {
    Packet { room: u32::MAX / 2, taken, length: 100, ..on_stream(RW) }
}

/// A packet that ends the connection it is part of.
fn breaks(machine: &mut Machine, op: u16) -> Verdict {
    connect(machine)?;
    is_reset(&mut machine.vsock, &on_stream(op))?;
    // It is over: payload belongs to nobody.
    is_reset(&mut machine.vsock, &answered(0))?;
    REJECT
}

fn mismatch(machine: &mut Machine, length: u32, payload: u32) -> Verdict {
    connect(machine)?;
    let packet = Packet { length, ..on_stream(RW) };
    ensure(send_as(&mut machine.vsock, &packet, payload) == After::Used { head: 0, length: 0 }, "packet not taken")?;
    expect_reset(&mut machine.vsock, &packet)?;
    REJECT
}

fn empty(machine: &mut Machine) -> Verdict {
    connect(machine)?;
    for _ in 0..10 {
        let sent = send(&mut machine.vsock, &on_stream(RW));
        ensure(sent == After::Used { head: 0, length: 0 }, "packet not taken")?;
    }
    echo(&mut machine.vsock, &answered(0))?;
    PASS
}

fn unknown_flags(machine: &mut Machine) -> Verdict {
    connect(machine)?;
    echo(&mut machine.vsock, &Packet { flags: u32::MAX, ..answered(0) })?;
    PASS
}

fn other_kind(machine: &mut Machine) -> Verdict {
    connect(machine)?;
    is_reset(&mut machine.vsock, &Packet { kind: 2, ..answered(0) })?;
    REJECT
}

/// It is refused, and the connection does not suffer.
fn sibling(machine: &mut Machine) -> Verdict {
    connect(machine)?;
    is_reset(&mut machine.vsock, &Packet { from: 4, ..answered(0) })?;
    echo(&mut machine.vsock, &answered(0))?;
    REJECT
}

fn shutdown_flags(machine: &mut Machine, flags: u32) -> Verdict {
    connect(machine)?;
    let sent = send(&mut machine.vsock, &Packet { flags, ..on_stream(SHUTDOWN) });
    ensure(sent == After::Used { head: 0, length: 0 }, "packet not taken")?;
    echo(&mut machine.vsock, &answered(0))?;
    PASS
}

fn shut(device: &mut Device, flags: u32) -> Result<(), &'static str> {
    let sent = send(device, &Packet { flags, ..on_stream(SHUTDOWN) });
    ensure(sent == After::Used { head: 0, length: 0 }, "packet not taken")
}

fn after_shutdown(machine: &mut Machine) -> Verdict {
    connect(machine)?;
    shut(&mut machine.vsock, 2)?;
    let sent = send(&mut machine.vsock, &answered(0));
    ensure(sent == After::Used { head: 0, length: 0 }, "packet not taken")?;
    ends(&mut machine.vsock)?;
    REJECT
}

fn taken_back(machine: &mut Machine) -> Verdict {
    connect(machine)?;
    shut(&mut machine.vsock, 2)?;
    shut(&mut machine.vsock, 0)?;
    let sent = send(&mut machine.vsock, &answered(0));
    ensure(sent == After::Used { head: 0, length: 0 }, "packet not taken")?;
    ends(&mut machine.vsock)?;
    REJECT
}

fn both(machine: &mut Machine) -> Verdict {
    connect(machine)?;
    shut(&mut machine.vsock, 3)?;
    ends(&mut machine.vsock)?;
    PASS
}

fn after_reset(machine: &mut Machine) -> Verdict {
    connect(machine)?;
    let sent = send(&mut machine.vsock, &on_stream(RST));
    ensure(sent == After::Used { head: 0, length: 0 }, "packet not taken")?;
    ensure(nothing_comes(&mut machine.vsock), "an answer to RST")?;
    is_reset(&mut machine.vsock, &answered(0))?;
    REJECT
}

fn over_credit(machine: &mut Machine, length: u32) -> Verdict {
    connect(machine)?;
    let sent = send(&mut machine.vsock, &Packet { length, ..on_stream(RW) });
    ensure(sent == After::Used { head: 0, length: 0 }, "packet not taken")?;
    ends(&mut machine.vsock)?;
    REJECT
}

/// The guest takes nothing back, so the host's buffers fill up: then it is over.
fn ten_times(machine: &mut Machine) -> Verdict {
    connect_with(machine, &Packet { room: 0, ..on_stream(REQUEST) })?;
    let packet = Packet { length: 0x1_0000, room: 0, ..on_stream(RW) };
    for _ in 0..40 {
        ensure(send(&mut machine.vsock, &packet) == After::Used { head: 0, length: 0 }, "packet not taken")?;
    }
    ends(&mut machine.vsock)?;
    REJECT
}

fn shrinks(machine: &mut Machine) -> Verdict {
    let device = {
        connect(machine)?;
        &mut machine.vsock
    };
    echo(device, &Packet { length: 4096, room: 8192, ..on_stream(RW) })?;
    // 4096 bytes are not taken yet, and the buffer holds ten.
    let sent = send(device, &Packet { length: 100, room: 10, ..on_stream(RW) });
    ensure(sent == After::Used { head: 0, length: 0 }, "packet not taken")?;
    quiet_but_for_credit(device)?;
    // All is taken, and there is room again.
    let sent = send(device, &Packet { room: 8192, taken: 4096, ..on_stream(CREDIT_UPDATE) });
    ensure(sent == After::Used { head: 0, length: 0 }, "packet not taken")?;
    payload(device, 100)?;
    PASS
}

/// No payload comes.
fn quiet_but_for_credit(device: &mut Device) -> Result<(), &'static str> {
    match device.quiet(crate::vsock::RX) {
        After::Used { length, .. } if length > crate::vsock::HEADER => Err("payload without credit"),
        After::Broken => Err("gave up"),
        _ => Ok(()),
    }
}

/// So many bytes come.
fn payload(device: &mut Device, bytes: u32) -> Result<(), &'static str> {
    let mut left = bytes;
    while left > 0 {
        let packet = receive(device).ok_or("no payload")?;
        ensure(packet.op != RST, "the connection was reset")?;
        if packet.op == RW {
            left = left.checked_sub(packet.length).ok_or("more came than was sent")?;
        }
    }
    Ok(())
}

fn more_taken(machine: &mut Machine) -> Verdict {
    connect(machine)?;
    let device = &mut machine.vsock;
    for taken in [1, 0x8000_0000, u32::MAX] {
        let sent = send(device, &Packet { taken, room: 4096, ..on_stream(CREDIT_UPDATE) });
        ensure(sent == After::Used { head: 0, length: 0 }, "packet not taken")?;
    }
    // Whatever it made of that: with sense in both numbers, it goes on.
    let sent = send(device, &Packet { length: 100, room: 0, taken: 0x8000_0000, ..on_stream(RW) });
    ensure(sent == After::Used { head: 0, length: 0 }, "packet not taken")?;
    quiet_but_for_credit(device)?;
    let sent = send(device, &Packet { room: 4096, ..on_stream(CREDIT_UPDATE) });
    ensure(sent == After::Used { head: 0, length: 0 }, "packet not taken")?;
    payload(device, 100)?;
    PASS
}

/// A count that does not begin at 0 is as good as any.
fn around(machine: &mut Machine) -> Verdict {
    let begin = u32::MAX - 50;
    connect_with(machine, &Packet { taken: begin, room: 1, ..on_stream(REQUEST) })?;
    let device = &mut machine.vsock;
    let sent = send(device, &Packet { length: 200, taken: begin, room: 0, ..on_stream(RW) });
    ensure(sent == After::Used { head: 0, length: 0 }, "packet not taken")?;
    quiet_but_for_credit(device)?;
    let sent = send(device, &Packet { room: 4096, ..on_stream(CREDIT_UPDATE) });
    ensure(sent == After::Used { head: 0, length: 0 }, "packet not taken")?;
    payload(device, 200)?;
    PASS
}

fn no_credit(machine: &mut Machine) -> Verdict {
    connect_with(machine, &Packet { room: 0, ..on_stream(REQUEST) })?;
    let device = &mut machine.vsock;
    let sent = send(device, &Packet { length: 1000, room: 0, ..on_stream(RW) });
    ensure(sent == After::Used { head: 0, length: 0 }, "packet not taken")?;
    quiet_but_for_credit(device)?;
    let sent = send(device, &Packet { room: 1000, ..on_stream(CREDIT_UPDATE) });
    ensure(sent == After::Used { head: 0, length: 0 }, "packet not taken")?;
    payload(device, 1000)?;
    PASS
}

/// The device gets buffers for eight packets and no more.
fn never_reads(machine: &mut Machine) -> Verdict {
    connect_with(machine, &Packet { room: u32::MAX, ..on_stream(REQUEST) })?;
    let device = &mut machine.vsock;
    // Within the device's credit: what the stream sends back waits on the host.
    for _ in 0..3 {
        let sent = send(device, &Packet { length: 0x1_0000, room: u32::MAX, ..on_stream(RW) });
        ensure(sent == After::Used { head: 0, length: 0 }, "packet not taken")?;
    }
    while matches!(device.quiet(crate::vsock::RX), After::Used { .. }) {}
    ensure(!device.window.is_broken(), "gave up")?;
    // Other packets get through.
    let sent = send(device, &on_stream(CREDIT_REQUEST));
    ensure(sent == After::Used { head: 0, length: 0 }, "packet not taken")?;
    PASS
}

fn questions(machine: &mut Machine) -> Verdict {
    connect(machine)?;
    let device = &mut machine.vsock;
    for _ in 0..1000 {
        let sent = send(device, &on_stream(CREDIT_REQUEST));
        ensure(sent == After::Used { head: 0, length: 0 }, "packet not taken")?;
    }
    receive(device).ok_or("no answer")?;
    let mut answers = 1;
    while let After::Used { head, .. } = device.quiet(crate::vsock::RX) {
        answers += 1;
        device.rings[crate::vsock::RX].offer(head as u16);
        device.window.notify(crate::vsock::RX as u32);
    }
    ensure(answers <= 1000, "more answers than questions")?;
    echo(device, &answered(0))?;
    PASS
}

fn flood_and_trickle(machine: &mut Machine) -> Verdict {
    connect(machine)?;
    let other = Packet { from_port: 78, ..on_stream(REQUEST) };
    connect_again(machine, &other)?;
    let device = &mut machine.vsock;
    let mut taken = [0, 0];
    for _ in 0..40 {
        for (flow, (from_port, length)) in [(78, 10), (crate::vsock::PORT, 16_000)].into_iter().enumerate() {
            let packet = Packet { from_port, length, taken: taken[flow], room: 0x1_0000, ..on_stream(RW) };
            echo(device, &packet)?;
            taken[flow] += length;
        }
    }
    PASS
}

fn before_reset(machine: &mut Machine) -> Verdict {
    connect(machine)?;
    start(&mut machine.vsock)?;
    ensure(nothing_comes(&mut machine.vsock), "something from before the reset")?;
    is_reset(&mut machine.vsock, &answered(0))?;
    REJECT
}

fn same_ports(machine: &mut Machine) -> Verdict {
    connect(machine)?;
    let device = &mut machine.vsock;
    // The second request belongs to the first one's connection, and breaks it.
    is_reset(device, &on_stream(REQUEST))?;
    is_reset(device, &answered(0))?;
    REJECT
}
