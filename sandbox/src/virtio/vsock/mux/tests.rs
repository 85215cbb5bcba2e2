// SPDX-License-Identifier: Apache-2.0
use super::*;
use crate::virtio::vsock::conn::BUFFER_MAX;
use crate::virtio::vsock::packet::shutdown;
use std::cell::RefCell;
use std::io;
use std::rc::Rc;

/// A stream in memory, and its other end.
#[derive(Debug, Default)]
struct Pipe {
    /// Bytes from the host.
    from_host: VecDeque<u8>,
    host_ended: bool,
    /// Bytes that the host has got.
    to_host: Vec<u8>,
    /// Bytes that it will still take.
    room: usize,
    host_deaf: bool,
    write_ended: bool,
    read_ended: bool,
}

#[derive(Clone, Default)]
struct Memory(Rc<RefCell<Pipe>>);

impl Stream for Memory {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let mut pipe = self.0.borrow_mut();
        if pipe.from_host.is_empty() && !pipe.host_ended {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        io::Read::read(&mut pipe.from_host, out)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut pipe = self.0.borrow_mut();
        if pipe.host_deaf {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let count = bytes.len().min(pipe.room);
        if count == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        pipe.room -= count;
        pipe.to_host.extend(&bytes[..count]);
        Ok(count)
    }

    fn end_write(&mut self) {
        self.0.borrow_mut().write_ended = true;
    }

    fn end_read(&mut self) {
        self.0.borrow_mut().read_ended = true;
    }

    fn is_hung_up(&self) -> bool {
        self.0.borrow().host_deaf && self.0.borrow().host_ended
    }
}

struct Guest {
    mux: Mux<Memory>,
    streams: Vec<Memory>,
}

/// A guest that has dialled each of `count` ports from 1024 on.
fn guest(count: u32) -> Guest {
    let streams: Vec<Memory> = (0..count).map(|_| Memory::default()).collect();
    let mut mux = Mux::new((1024..).zip(streams.iter().cloned()).collect());
    for port in 1024..1024 + count {
        mux.take(&packet(port, op::REQUEST, 0, 0), &[]);
    }
    let mut guest = Guest { mux, streams };
    for _ in 0..count {
        assert_eq!(guest.next().map(|(header, _)| header.op), Some(op::RESPONSE));
    }
    assert_eq!(guest.next(), None);
    guest
}

fn packet(port: u32, op: u16, len: u32, flags: u32) -> Header {
    Header {
        src_cid: GUEST_CID,
        dst_cid: HOST_CID,
        src_port: port + 5000,
        dst_port: port,
        len,
        kind: TYPE_STREAM,
        op,
        flags,
        buf_alloc: BUFFER_MAX,
        fwd_cnt: 0,
    }
}

impl Guest {
    fn next(&mut self) -> Option<(Header, Vec<u8>)> {
        let mut out = vec![0; 1000];
        let (header, count) = self.mux.next(1000, &mut out)?;
        out.truncate(count);
        Some((header, out))
    }

    fn write(&mut self, port: u32, bytes: &[u8]) {
        self.mux.take(&packet(port, op::RW, bytes.len() as u32, 0), bytes);
    }

    fn pipe(&self, index: usize) -> std::cell::RefMut<'_, Pipe> {
        self.streams[index].0.borrow_mut()
    }
}

#[test]
fn port_serves_once() {
    let mut guest = guest(1);
    guest.mux.take(&Header { src_port: 1, ..packet(1024, op::REQUEST, 0, 0) }, &[]);
    let (header, _) = guest.next().expect("answer");
    assert_eq!((header.op, header.dst_port, header.src_port), (op::RST, 1, 1024));
    guest.mux.take(&packet(1024, op::RST, 0, 0), &[]);
    guest.mux.take(&packet(1024, op::REQUEST, 0, 0), &[]);
    assert_eq!(guest.next().map(|(header, _)| header.op), Some(op::RST), "used up");
}

#[test]
fn everything_unknown_is_reset_but_resets() {
    let mut guest = guest(1);
    let known = packet(1024, op::RW, 0, 0);
    for strange in [
        Header { dst_cid: 1, ..known },
        Header { dst_cid: u64::MAX, ..known },
        Header { src_cid: 2, ..known },
        Header { src_cid: 4, ..known },
        Header { kind: 2, ..known },
        Header { kind: 0, ..known },
        Header { src_port: 1, ..known },
        Header { dst_port: 1, ..known },
        Header { dst_port: 1, op: op::REQUEST, ..known },
    ] {
        guest.mux.take(&strange, &[]);
        let (header, payload) = guest.next().expect("answer");
        assert_eq!((header.op, header.dst_cid, header.len), (op::RST, GUEST_CID, 0), "{strange:?}");
        assert_eq!((header.dst_port, header.src_port), (strange.src_port, strange.dst_port));
        assert!(payload.is_empty());
        guest.mux.take(&Header { op: op::RST, ..strange }, &[]);
        assert_eq!(guest.next(), None);
    }
    guest.pipe(0).room = 10;
    guest.write(1024, b"unharmed");
    assert_eq!(guest.pipe(0).to_host, b"unharmed");
}

#[test]
fn packet_of_wrong_length_ends_its_connection() {
    let mut guest = guest(1);
    guest.mux.refuse(&packet(1024, op::RW, 5, 0));
    assert_eq!(guest.next().map(|(header, _)| header.op), Some(op::RST));
    assert!(guest.pipe(0).write_ended);
}

#[test]
fn slow_reader_holds_back_only_its_own_connection() {
    let mut guest = guest(2);
    guest.pipe(1).room = 100;
    guest.write(1024, &[1; 1000]);
    guest.write(1025, &[2; 100]);
    assert!(guest.pipe(0).to_host.is_empty());
    assert_eq!(guest.pipe(1).to_host, [2; 100]);
    guest.pipe(0).room = 600;
    guest.mux.ready(0);
    assert_eq!(guest.pipe(0).to_host.len(), 600);
    guest.write(1024, &[3; 10]);
    guest.pipe(0).room = 600;
    guest.mux.ready(0);
    assert_eq!(guest.pipe(0).to_host[1000..], [3; 10], "in order");
}

#[test]
fn connections_take_turns() {
    let mut guest = guest(3);
    for index in 0..3 {
        guest.pipe(index).from_host.extend([index as u8; 5000]);
        guest.mux.ready(index as u32);
    }
    let ports: Vec<u32> = (0..9).map(|_| guest.next().expect("data").0.src_port).collect();
    let mut counts = ports.clone();
    counts.sort_unstable();
    assert_eq!(counts, [1024, 1024, 1024, 1025, 1025, 1025, 1026, 1026, 1026]);
    assert_ne!(ports[0], ports[1]);
}

#[test]
fn host_sends_no_more_than_the_guest_keeps() {
    let mut guest = guest(1);
    guest.pipe(0).from_host.extend([0; 5000]);
    guest.mux.ready(0);
    guest.mux.take(&Header { buf_alloc: 1500, ..packet(1024, op::CREDIT_UPDATE, 0, 0) }, &[]);
    let mut sent = 0;
    while let Some((_, payload)) = guest.next() {
        sent += payload.len();
    }
    assert_eq!(sent, 1500);
    assert!(!guest.mux.wants_to_send(), "no credit is no reason to look");
    guest.mux.take(&Header { buf_alloc: 1500, fwd_cnt: 200, ..packet(1024, op::CREDIT_UPDATE, 0, 0) }, &[]);
    assert_eq!(guest.next().map(|(_, payload)| payload.len()), Some(200));
}

#[test]
fn stream_sees_the_guests_end_after_its_last_byte() {
    let mut guest = guest(1);
    guest.write(1024, &[1; 1000]);
    guest.mux.take(&packet(1024, op::SHUTDOWN, 0, shutdown::SEND), &[]);
    assert!(!guest.pipe(0).write_ended);
    guest.pipe(0).room = 2000;
    guest.mux.ready(0);
    assert!(guest.pipe(0).write_ended);
    assert_eq!(guest.pipe(0).to_host.len(), 1000);
}

#[test]
fn bytes_survive_their_connection() {
    for end in [packet(1024, op::SHUTDOWN, 0, shutdown::BOTH), packet(1024, op::RST, 0, 0)] {
        let mut guest = guest(1);
        guest.write(1024, &[1; 1000]);
        guest.mux.take(&end, &[]);
        let answer = guest.next().map(|(header, _)| header.op);
        assert_eq!(answer, (end.op == op::SHUTDOWN).then_some(op::RST));
        guest.pipe(0).room = 2000;
        guest.mux.ready(0);
        assert_eq!(guest.pipe(0).to_host.len(), 1000);
        assert_eq!(Rc::strong_count(&guest.streams[0].0), 1, "the stream is let go");
    }
}

#[test]
fn bytes_survive_a_reset() {
    let mut guest = guest(1);
    guest.write(1024, &[1; 1000]);
    guest.mux.reset();
    assert_eq!(guest.next(), None);
    guest.pipe(0).room = 2000;
    guest.mux.ready(0);
    assert_eq!(guest.pipe(0).to_host.len(), 1000);
    assert_eq!(Rc::strong_count(&guest.streams[0].0), 1);
}

#[test]
fn guest_is_told_that_the_reader_went() {
    let mut guest = guest(1);
    guest.write(1024, &[1; 1000]);
    guest.pipe(0).host_deaf = true;
    guest.mux.ready(0);
    let (header, _) = guest.next().expect("shutdown");
    assert_eq!((header.op, header.flags, header.fwd_cnt), (op::SHUTDOWN, shutdown::RECEIVE, 1000));
    guest.write(1024, &[1; 1000]);
    assert_eq!(guest.next(), None, "late bytes are dropped without a word");
    guest.pipe(0).from_host.extend(b"still");
    guest.mux.ready(0);
    assert_eq!(guest.next().map(|(_, payload)| payload), Some(b"still".to_vec()), "the other direction goes on");
}

#[test]
fn guest_is_told_that_both_went_without_writing() {
    let mut guest = guest(1);
    (guest.pipe(0).host_ended, guest.pipe(0).host_deaf) = (true, true);
    guest.mux.ready(0);
    assert_eq!(guest.next().map(|(header, _)| header.flags), Some(shutdown::BOTH));
}

#[test]
fn streams_writer_is_told_that_the_guest_is_deaf() {
    let mut guest = guest(1);
    guest.pipe(0).from_host.extend([0; 5000]);
    guest.mux.take(&packet(1024, op::SHUTDOWN, 0, shutdown::RECEIVE), &[]);
    assert!(guest.pipe(0).read_ended && !guest.pipe(0).write_ended);
    guest.mux.ready(0);
    assert_eq!(guest.next(), None);
}

#[test]
fn streams_are_watched_as_needed() {
    let mut guest = guest(2);
    let mut seen = Vec::new();
    let mut look = |guest: &mut Guest| {
        seen.clear();
        let result: Result<(), ()> = guest.mux.rewatch(|_, token, interest| {
            seen.push((token.0, interest));
            Ok(())
        });
        result.expect("rewatch");
        seen.clone()
    };
    let read = Some(Interest::Read);
    assert_eq!(look(&mut guest), [(0, read), (1, read)]);
    guest.write(1025, &[0; 10]);
    assert_eq!(look(&mut guest), [(1, Some(Interest::ReadWrite))]);
    guest.pipe(1).room = 10;
    guest.mux.ready(1);
    assert_eq!(look(&mut guest), [(1, read)]);
}

mod hostile;

#[test]
fn a_port_that_comes_later_serves_one_connection_too() {
    let mut guest = guest(1);
    let dial = packet(2048, op::REQUEST, 0, 0);
    guest.mux.take(&dial, &[]);
    assert_eq!(guest.next().map(|(header, _)| header.op), Some(op::RST), "nobody has declared it yet");

    // In the place of the first one, once that is used up, and beside it before.
    let (second, third) = (Memory::default(), Memory::default());
    guest.mux.declare(2048, second);
    guest.mux.take(&dial, &[]);
    assert_eq!(guest.next().map(|(header, _)| header.op), Some(op::RESPONSE));
    guest.mux.take(&packet(1024, op::RST, 0, 0), &[]);
    guest.mux.declare(2049, third);
    guest.mux.take(&packet(2049, op::REQUEST, 0, 0), &[]);
    assert_eq!(guest.next().map(|(header, _)| header.op), Some(op::RESPONSE));
    guest.mux.take(&packet(2049, op::REQUEST, 0, 0), &[]);
    assert_eq!(guest.next().map(|(header, _)| header.op), Some(op::RST), "it is used up");
    assert_eq!(guest.mux.slots.len(), 2);
}
