// SPDX-License-Identifier: Apache-2.0
//! The socket device's packets (virtio 1.2 §5.10.6), and what its good driver asks for.

use crate::bare::{peek, poke};
use crate::device::{After, Device, wait};
use crate::machine::Machine;
use crate::ring::WRITE;
use crate::verdict::ensure;
use crate::window::VERSION_1;

pub(crate) const GUEST: u64 = 3;
pub(crate) const HOST: u64 = 2;
/// A host port that nobody declares, and those that are declared: each of the latter has a stream that sends back what
/// it gets.
pub(crate) const NOBODY: u32 = 9;
pub(crate) const ECHO: u32 = 1024;
/// The port that packets come from.
pub(crate) const PORT: u32 = 77;

pub(crate) const STREAM: u16 = 1;
pub(crate) const REQUEST: u16 = 1;
pub(crate) const RESPONSE: u16 = 2;
pub(crate) const RST: u16 = 3;
pub(crate) const SHUTDOWN: u16 = 4;
pub(crate) const RW: u16 = 5;
pub(crate) const CREDIT_UPDATE: u16 = 6;
pub(crate) const CREDIT_REQUEST: u16 = 7;

/// Bytes of a header.
pub(crate) const HEADER: u32 = 44;

pub(crate) const RX: usize = 0;
pub(crate) const TX: usize = 1;
pub(crate) const EVENT: usize = 2;

/// Receive buffers: this many of this size, in front of what is sent.
const RECEIVE: u16 = 8;
const RECEIVE_SIZE: u32 = 0x1000;
const SEND_AT: u64 = 0x1_0000;

/// A packet's header.
#[derive(Clone, Copy)]
pub(crate) struct Packet {
    pub(crate) from: u64,
    pub(crate) to: u64,
    pub(crate) from_port: u32,
    pub(crate) to_port: u32,
    pub(crate) length: u32,
    pub(crate) kind: u16,
    pub(crate) op: u16,
    pub(crate) flags: u32,
    pub(crate) room: u32,
    pub(crate) taken: u32,
}

impl Packet {
    /// A good one to the port nobody has.
    pub(crate) fn new(op: u16) -> Self {
        Self {
            from: GUEST,
            to: HOST,
            from_port: PORT,
            to_port: NOBODY,
            length: 0,
            kind: STREAM,
            op,
            flags: 0,
            room: 0x1_0000,
            taken: 0,
        }
    }

    pub(crate) fn write(&self, at: u64) {
        poke(at, self.from);
        poke(at + 8, self.to);
        poke(at + 16, self.from_port);
        poke(at + 20, self.to_port);
        poke(at + 24, self.length);
        poke(at + 28, self.kind);
        poke(at + 30, self.op);
        poke(at + 32, self.flags);
        poke(at + 36, self.room);
        poke(at + 40, self.taken);
    }

    fn read(at: u64) -> Self {
        Self {
            from: peek(at),
            to: peek(at + 8),
            from_port: peek(at + 16),
            to_port: peek(at + 20),
            length: peek(at + 24),
            kind: peek(at + 28),
            op: peek(at + 30),
            flags: peek(at + 32),
            room: peek(at + 36),
            taken: peek(at + 40),
        }
    }
}

/// Where packets to send are written.
pub(crate) fn outgoing(device: &Device) -> u64 {
    device.buffers + SEND_AT
}

/// Where the receive buffer of this descriptor is.
pub(crate) fn incoming(device: &Device, slot: u16) -> u64 {
    device.buffers + u64::from(slot) * u64::from(RECEIVE_SIZE)
}

/// Offers every receive buffer.
pub(crate) fn listen(device: &mut Device) {
    for slot in 0..RECEIVE {
        let at = incoming(device, slot);
        device.rings[RX].describe(slot, at, RECEIVE_SIZE, WRITE, 0);
        device.rings[RX].offer(slot);
    }
    device.window.notify(RX as u32);
}

/// Starts the device with receive buffers.
pub(crate) fn start(device: &mut Device) -> Result<(), &'static str> {
    ensure(device.start_with(VERSION_1, 64), "does not start")?;
    listen(device);
    Ok(())
}

/// Sends a packet with as much payload as its header says, whatever bytes are there.
pub(crate) fn send(device: &mut Device, packet: &Packet) -> After {
    send_as(device, packet, packet.length)
}

/// Sends a packet with this much payload.
pub(crate) fn send_as(device: &mut Device, packet: &Packet, payload: u32) -> After {
    let at = outgoing(device);
    packet.write(at);
    device.rings[TX].describe(0, at, HEADER + payload, 0, 0);
    device.serve(0)
}

/// The next packet from the device, whose buffer is offered again.
pub(crate) fn receive(device: &mut Device) -> Option<Packet> {
    match device.after(RX) {
        After::Used { head, length } => Some(received(device, head as u16, length)),
        _ => None,
    }
}

/// Whether nothing comes.
pub(crate) fn nothing_comes(device: &mut Device) -> bool {
    device.quiet(RX) == After::Silence
}

fn received(device: &mut Device, slot: u16, length: u32) -> Packet {
    let packet = Packet::read(incoming(device, slot));
    device.rings[RX].offer(slot);
    device.window.notify(RX as u32);
    // What was not written must not be believed.
    if length < HEADER { Packet { op: 0, ..packet } } else { packet }
}

/// Sends a packet and takes the answer, which must be RST to the right port.
pub(crate) fn is_reset(device: &mut Device, packet: &Packet) -> Result<(), &'static str> {
    ensure(send(device, packet) == After::Used { head: 0, length: 0 }, "packet not taken")?;
    expect_reset(device, packet)
}

/// The next packet is RST in answer to this one.
pub(crate) fn expect_reset(device: &mut Device, packet: &Packet) -> Result<(), &'static str> {
    let answer = receive(device).ok_or("no answer")?;
    ensure(answer.op == RST, "the answer is no RST")?;
    ensure(answer.to == GUEST, "the answer is for another guest")?;
    ensure((answer.from_port, answer.to_port) == (packet.to_port, packet.from_port), "the answer is for another port")
}

/// Asks a port that nobody has for a connection, which is refused.
pub(crate) fn good(device: &mut Device) -> bool {
    listen(device);
    is_reset(device, &Packet::new(REQUEST)).is_ok()
}

/// A packet of the connection that [`connect`] makes.
pub(crate) fn on_stream(op: u16) -> Packet {
    Packet { to_port: ECHO, ..Packet::new(op) }
}

/// Starts the device and opens a connection to a stream that nobody has used.
pub(crate) fn connect(machine: &mut Machine) -> Result<(), &'static str> {
    connect_with(machine, &on_stream(REQUEST))
}

/// The same by a packet that is not quite as usual.
pub(crate) fn connect_with(machine: &mut Machine, request: &Packet) -> Result<(), &'static str> {
    start(&mut machine.vsock)?;
    connect_again(machine, request)
}

/// Opens one more connection.
pub(crate) fn connect_again(machine: &mut Machine, request: &Packet) -> Result<(), &'static str> {
    let Some(left) = machine.streams.checked_sub(1) else {
        machine.wants_stream = true;
        return Err("no stream is left");
    };
    machine.streams = left;
    ensure(send(&mut machine.vsock, request) == After::Used { head: 0, length: 0 }, "request not taken")?;
    let answer = receive(&mut machine.vsock).ok_or("no answer to a request")?;
    ensure(answer.op == RESPONSE && answer.to_port == request.from_port, "not connected")
}

/// Sends this many bytes on a connection and waits until as many came back; `room` and `taken` are what is said of
/// the guest's own buffers.
pub(crate) fn echo(device: &mut Device, packet: &Packet) -> Result<(), &'static str> {
    ensure(send(device, packet) == After::Used { head: 0, length: 0 }, "payload not taken")?;
    let mut left = packet.length;
    while left > 0 {
        let answer = receive(device).ok_or("no echo")?;
        ensure(answer.op != RST, "the connection was reset")?;
        if answer.op == RW {
            left = left.checked_sub(answer.length).ok_or("more came than was sent")?;
        }
    }
    Ok(())
}

/// Waits for RST among whatever else comes.
pub(crate) fn ends(device: &mut Device) -> Result<(), &'static str> {
    let mut packets = 0;
    let over = wait(u64::MAX, || {
        packets += 1;
        match receive(device) {
            Some(packet) if packet.op == RST => Some(Ok(())),
            None => Some(Err("not reset")),
            _ if packets > 10_000 => Some(Err("packets without end")),
            _ => None,
        }
    });
    over.unwrap_or(Err("not reset"))
}
