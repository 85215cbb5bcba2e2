// SPDX-License-Identifier: Apache-2.0
//! The socket device behind either front-end, by its rings.

use super::driver::{Buffer, DATA, Driver, WRITE};
use super::front::{Kind, Remains};
use crate::virtio::vsock::packet::{HEADER_LEN, Header, TYPE_STREAM, op, shutdown};
use crate::virtio::vsock::{GUEST_CID, HOST_CID, Vsock};
use std::collections::HashMap;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

const RX: usize = 0;
const TX: usize = 1;
const PORT: u32 = 1024;
const GUEST_PORT: u32 = 40_000;
/// Receive buffers lie here, one per page.
const RX_DATA: u64 = 2 << 20;

/// A guest with one declared port, and the host's end of it.
struct Guest {
    driver: Driver,
    host: UnixStream,
    /// Address and head of the receive buffers in flight.
    posted: HashMap<u32, u64>,
    next_post: u16,
    window: u32,
}

fn each(case: impl Fn(&mut Guest)) {
    for kind in Kind::ALL {
        let (device, host) = UnixStream::pair().expect("pair");
        host.set_read_timeout(Some(std::time::Duration::from_secs(10))).expect("timeout");
        let mut driver = Driver::new(kind, Box::new(Vsock::new(vec![(PORT, device)], None)));
        // QEMU keeps the event ring: these two are all there is.
        driver.start_rings(&[RX, TX]);
        let mut guest = Guest { driver, host, posted: HashMap::new(), next_post: 0, window: 1 << 18 };
        case(&mut guest);
    }
}

impl Guest {
    fn post(&mut self, count: u16, length: u32) {
        for _ in 0..count {
            let head = self.next_post % super::RING;
            let address = RX_DATA + 0x10000 * u64::from(head % 32);
            self.posted.insert(u32::from(head), address);
            self.next_post = self.next_post.wrapping_add(1);
            self.driver.offer(RX, &[Buffer { address, length, flags: WRITE }]);
        }
        self.driver.kick(RX);
    }

    fn send(&mut self, op: u16, flags: u32, payload: &[u8]) {
        let header = Header {
            src_cid: GUEST_CID,
            dst_cid: HOST_CID,
            src_port: GUEST_PORT,
            dst_port: PORT,
            len: payload.len() as u32,
            kind: TYPE_STREAM,
            op,
            flags,
            buf_alloc: self.window,
            fwd_cnt: 0,
        };
        self.send_raw(&header, payload);
    }

    /// Sends in the shape of Linux 6.12: the header, then the payload in pieces of at most 32 KiB.
    fn send_raw(&mut self, header: &Header, payload: &[u8]) {
        self.driver.write_memory(DATA, &header.bytes());
        self.driver.write_memory(DATA + 4096, payload);
        let mut buffers = vec![Buffer { address: DATA, length: HEADER_LEN as u32, flags: 0 }];
        let mut address = DATA + 4096;
        for piece in payload.chunks(32 << 10) {
            buffers.push(Buffer { address, length: piece.len() as u32, flags: 0 });
            address += piece.len() as u64;
        }
        self.driver.offer(TX, &buffers);
        self.driver.kick(TX);
        assert_eq!(self.driver.wait_used(TX), 0);
    }

    fn receive(&mut self) -> (Header, Vec<u8>) {
        let (head, length) = self.driver.wait_used_head(RX);
        let address = self.posted.remove(&head).expect("a posted buffer");
        let bytes = self.driver.read_memory(address, length as usize);
        let (header, payload) = bytes.split_first_chunk().expect("a header");
        let header = Header::parse(header);
        assert_eq!(header.len as usize, payload.len());
        assert_eq!((header.src_cid, header.dst_cid), (HOST_CID, GUEST_CID));
        (header, payload.to_vec())
    }

    fn connect(&mut self) {
        self.post(8, 4096);
        self.send(op::REQUEST, 0, &[]);
        assert_eq!(self.receive().0.op, op::RESPONSE);
    }
}

#[test]
fn configuration_is_the_guest_cid() {
    each(|guest| {
        assert_eq!(guest.driver.config(0, 8), GUEST_CID.to_le_bytes());
        assert_eq!(guest.driver.config(4, 4), [0; 4]);
    });
}

#[test]
fn bytes_travel_both_ways() {
    each(|guest| {
        guest.connect();
        guest.send(op::RW, 0, b"from the guest");
        let mut seen = [0; 14];
        guest.host.read_exact(&mut seen).expect("read");
        assert_eq!(&seen, b"from the guest");
        guest.host.write_all(b"from the host").expect("write");
        let (header, payload) = guest.receive();
        assert_eq!((header.op, payload.as_slice()), (op::RW, b"from the host".as_slice()));
    });
}

#[test]
fn one_packet_may_lie_in_many_buffers() {
    each(|guest| {
        guest.connect();
        for length in [(32 << 10) + 1, 64 << 10, 96 << 10] {
            let payload: Vec<u8> = (0..length).map(|byte| (byte * 7 % 251) as u8).collect();
            guest.send(op::RW, 0, &payload);
            let mut seen = vec![0; length];
            guest.host.read_exact(&mut seen).expect("read");
            assert_eq!(seen, payload);
        }
    });
}

#[test]
fn stream_is_read_only_when_the_guest_has_buffers() {
    each(|guest| {
        guest.post(1, 4096);
        guest.send(op::REQUEST, 0, &[]);
        assert_eq!(guest.receive().0.op, op::RESPONSE);
        guest.host.write_all(&[7; 10_000]).expect("write");
        let mut got = Vec::new();
        while got.len() < 10_000 {
            assert_eq!(guest.driver.pending(RX), 0);
            guest.post(1, 4096);
            got.extend(guest.receive().1);
        }
        assert_eq!(got, [7; 10_000]);
    });
}

#[test]
fn endings_travel_one_way_at_a_time() {
    each(|guest| {
        guest.connect();
        guest.host.write_all(b"last").expect("write");
        guest.host.shutdown(std::net::Shutdown::Write).expect("shutdown");
        assert_eq!(guest.receive().1, b"last");
        let (header, _) = guest.receive();
        assert_eq!((header.op, header.flags), (op::SHUTDOWN, shutdown::SEND));
        guest.send(op::RW, 0, b"reply");
        guest.send(op::SHUTDOWN, shutdown::SEND, &[]);
        let mut seen = Vec::new();
        guest.host.read_to_end(&mut seen).expect("read");
        assert_eq!(seen, b"reply");
        guest.send(op::SHUTDOWN, shutdown::BOTH, &[]);
        assert_eq!(guest.receive().0.op, op::RST);
    });
}

#[test]
fn guest_learns_that_nobody_reads() {
    each(|guest| {
        guest.connect();
        let (_, other) = UnixStream::pair().expect("pair");
        drop(std::mem::replace(&mut guest.host, other));
        let mut told = 0;
        while told != shutdown::BOTH {
            let (header, _) = guest.receive();
            assert_eq!(header.op, op::SHUTDOWN);
            told = header.flags;
        }
    });
}

#[test]
fn short_packets_complete_and_short_buffers_are_skipped() {
    each(|guest| {
        guest.driver.offer(TX, &[Buffer { address: DATA, length: HEADER_LEN as u32 - 1, flags: 0 }]);
        guest.driver.kick(TX);
        assert_eq!(guest.driver.wait_used(TX), 0);
        for length in [1, HEADER_LEN as u32 - 1, HEADER_LEN as u32] {
            guest.post(1, length);
        }
        guest.post(4, 4096);
        guest.send(op::REQUEST, 0, &[]);
        for _ in 0..3 {
            assert_eq!(guest.driver.wait_used(RX), 0);
        }
        assert_eq!(guest.receive().0.op, op::RESPONSE);
    });
}

#[test]
fn answers_wait_for_buffers_and_packets_for_answers() {
    each(|guest| {
        let unknown = |port| Header {
            src_cid: GUEST_CID,
            dst_cid: HOST_CID,
            src_port: port,
            dst_port: 9,
            kind: TYPE_STREAM,
            op: op::REQUEST,
            ..Header::default()
        };
        // As many as may wait for receive buffers; the next one is not even taken.
        for port in 0..crate::virtio::vsock::mux::RESETS_MAX as u32 {
            guest.send_raw(&unknown(port), &[]);
        }
        guest.driver.write_memory(DATA, &unknown(1000).bytes());
        guest.driver.offer(TX, &[Buffer { address: DATA, length: HEADER_LEN as u32, flags: 0 }]);
        guest.driver.kick(TX);
        for port in 0..crate::virtio::vsock::mux::RESETS_MAX as u32 {
            guest.post(1, 4096);
            let (header, _) = guest.receive();
            assert_eq!((header.op, header.dst_port), (op::RST, port));
        }
        assert_eq!(guest.driver.wait_used(TX), 0);
        guest.post(1, 4096);
        assert_eq!(guest.receive().0.dst_port, 1000);
    });
}

#[test]
fn what_the_guest_sent_arrives_though_it_dies_at_once() {
    for kind in [Kind::VhostUser, Kind::Window, Kind::Remote] {
        let (device, mut host) = UnixStream::pair().expect("pair");
        host.set_read_timeout(Some(std::time::Duration::from_secs(10))).expect("timeout");
        let mut driver = Driver::new(kind, Box::new(Vsock::new(vec![(PORT, device)], None)));
        driver.start_rings(&[RX, TX]);
        let (_, other) = UnixStream::pair().expect("pair");
        let mut guest = Guest { driver, host: other, posted: HashMap::new(), next_post: 0, window: 1 << 18 };
        guest.connect();
        for _ in 0..3 {
            guest.send(op::RW, 0, &[9; 64 << 10]);
        }
        // The last one is offered but never kicked: the guest dies before.
        let header = Header {
            src_cid: GUEST_CID,
            dst_cid: HOST_CID,
            src_port: GUEST_PORT,
            dst_port: PORT,
            len: 4096,
            kind: TYPE_STREAM,
            op: op::RW,
            ..Header::default()
        };
        guest.driver.write_memory(DATA, &header.bytes());
        let first = Buffer { address: DATA, length: HEADER_LEN as u32, flags: 0 };
        guest.driver.offer(TX, &[first, Buffer { address: DATA + 4096, length: 4096, flags: 0 }]);
        let remains = guest.driver.die();
        let mut seen = Vec::new();
        host.read_to_end(&mut seen).expect("read");
        assert_eq!(seen.len(), (3 * (64 << 10)) + 4096, "{kind:?}");
        match remains {
            Remains::Server(server) => {
                assert!(matches!(server.ending(), None | Some(crate::virtio::vhost_user::Ending::Closed)));
            }
            Remains::Window(window) => assert!(window.fault().is_none()),
        }
    }
}
