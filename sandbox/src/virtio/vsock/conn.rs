// SPDX-License-Identifier: Apache-2.0
//! One connection's rules, as a machine without descriptors (virtio 1.2 §5.10.6.3 to §5.10.6.6).
//!
//! Plain data: packets and the stream's news go in, packets to send come out. Each direction ends on its own, so a
//! stream's half-close is a half-close to the guest and the other way round. Once a connection has ended, only bytes
//! that the guest had sent before remain, until the stream has taken them. Not for streams, see [`super::mux`].

use super::packet::{Header, TYPE_STREAM, op, shutdown};
use super::{GUEST_CID, HOST_CID};
use std::collections::VecDeque;
use std::num::Wrapping;

/// Bytes a connection may hold on the host, whatever the guest says: what we offer as credit.
pub(crate) const BUFFER_MAX: u32 = 256 << 10;

/// What the multiplexer must do about a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Nothing; the connection may have something to send now.
    Noted,
    /// Pass its payload on to the stream.
    Payload,
    /// The guest will send no more: end the stream's writing when the last byte has gone.
    GuestSent,
    /// The guest ended the connection, both ways, and expects RST.
    Goodbye,
    /// The guest aborted the connection, and expects nothing.
    Aborted,
    /// The guest broke the rules; the connection is at its end, and the guest is told so by RST.
    Broken,
}

/// A connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Conn {
    host_port: u32,
    guest_port: u32,

    /// Bytes the guest has sent.
    received: Wrapping<u32>,
    /// Those of them that have left us, to the stream or to nowhere.
    forwarded: Wrapping<u32>,
    /// `forwarded` as the guest knows it.
    announced: Wrapping<u32>,
    /// The rest: bytes that the stream would not take yet.
    backlog: VecDeque<u8>,

    /// Bytes sent to the guest.
    sent: Wrapping<u32>,
    /// Those of them that the guest says its reader took.
    taken: Wrapping<u32>,
    /// Bytes the guest says it keeps for us.
    window: u32,

    /// RESPONSE is due.
    respond: bool,
    /// CREDIT_UPDATE is due.
    update: bool,
    /// Directions that the guest has shut.
    guest_shut: u32,
    /// Directions that the host has shut.
    host_shut: u32,
    /// `host_shut` as the guest knows it.
    told_shut: u32,
    /// There is no connection any more.
    ended: bool,
}

impl Conn {
    /// Accepts a REQUEST.
    pub(crate) fn accept(request: &Header) -> Self {
        Self {
            host_port: request.dst_port,
            guest_port: request.src_port,
            received: Wrapping(0),
            forwarded: Wrapping(0),
            announced: Wrapping(0),
            backlog: VecDeque::new(),
            sent: Wrapping(0),
            taken: Wrapping(request.fwd_cnt),
            window: request.buf_alloc,
            respond: true,
            update: false,
            guest_shut: 0,
            host_shut: 0,
            told_shut: 0,
            ended: false,
        }
    }

    /// Whether a packet of these ports belongs to it.
    pub(crate) fn is_between(&self, guest_port: u32, host_port: u32) -> bool {
        !self.ended && (self.guest_port, self.host_port) == (guest_port, host_port)
    }

    /// Takes a packet of the guest. `length` is that of its payload, which is known to be what the header says.
    pub(crate) fn take(&mut self, header: &Header) -> Step {
        self.window = header.buf_alloc;
        self.taken = Wrapping(header.fwd_cnt);
        let step = match header.op {
            op::RW => self.take_payload(header.len),
            op::SHUTDOWN => self.take_shutdown(header.flags),
            op::RST => Step::Aborted,
            op::CREDIT_UPDATE => Step::Noted,
            op::CREDIT_REQUEST => {
                self.update = true;
                Step::Noted
            }
            _ => Step::Broken,
        };
        if matches!(step, Step::Goodbye | Step::Aborted | Step::Broken) {
            self.end();
        }
        self.weigh_update();
        step
    }

    fn take_payload(&mut self, length: u32) -> Step {
        if self.guest_shut & shutdown::SEND != 0 {
            return Step::Broken;
        }
        // What the guest knows to be forwarded can only be older than `announced`, so an honest one never fails here;
        // and `announced` is at most `forwarded`, so the backlog stays below the limit.
        if credit(BUFFER_MAX, self.received, self.announced) < length {
            return Step::Broken;
        }
        self.received += length;
        Step::Payload
    }

    fn take_shutdown(&mut self, flags: u32) -> Step {
        self.guest_shut |= flags & shutdown::BOTH;
        match self.guest_shut {
            shutdown::BOTH => Step::Goodbye,
            shut if shut & shutdown::SEND != 0 => Step::GuestSent,
            _ => Step::Noted,
        }
    }

    /// Ends it: nothing is sent any more, and nothing of the guest belongs to it.
    pub(crate) fn end(&mut self) {
        self.ended = true;
        self.guest_shut = shutdown::BOTH;
        (self.respond, self.update) = (false, false);
    }

    /// Whether it has ended.
    pub(crate) fn has_ended(&self) -> bool {
        self.ended
    }

    /// `count` bytes of the guest have left us.
    pub(crate) fn forwarded(&mut self, count: usize) {
        self.forwarded += u32::try_from(count).unwrap_or(u32::MAX);
        self.weigh_update();
    }

    /// Keeps bytes that the stream would not take.
    pub(crate) fn keep(&mut self, bytes: &[u8]) {
        self.backlog.extend(bytes);
    }

    /// Bytes kept, from the first; perhaps not all.
    pub(crate) fn backlog(&self) -> &[u8] {
        self.backlog.as_slices().0
    }

    /// The stream has taken the first `count` bytes of the backlog.
    pub(crate) fn drained(&mut self, count: usize) {
        self.backlog.drain(..count.min(self.backlog.len()));
        self.forwarded(count);
    }

    /// Nobody will read what the guest sends: forgets the backlog, and has the guest told.
    pub(crate) fn shut_receive(&mut self) {
        let count = self.backlog.len();
        self.backlog = VecDeque::new();
        self.forwarded(count);
        self.host_shut |= shutdown::RECEIVE;
    }

    /// The host will send no more: has the guest told.
    pub(crate) fn shut_send(&mut self) {
        self.host_shut |= shutdown::SEND;
    }

    /// Whether the host takes no more bytes of the guest.
    pub(crate) fn is_receive_shut(&self) -> bool {
        self.host_shut & shutdown::RECEIVE != 0
    }

    /// Whether the host sends no more: it said so, or the guest will not listen.
    pub(crate) fn is_send_shut(&self) -> bool {
        self.host_shut & shutdown::SEND != 0 || self.guest_shut & shutdown::RECEIVE != 0
    }

    /// Whether the guest sends no more.
    pub(crate) fn has_guest_sent_all(&self) -> bool {
        self.guest_shut & shutdown::SEND != 0
    }

    /// Whether the guest listens no more.
    pub(crate) fn is_guest_deaf(&self) -> bool {
        self.guest_shut & shutdown::RECEIVE != 0
    }

    /// Bytes that may be sent to the guest now.
    pub(crate) fn credit(&self) -> usize {
        if self.respond || self.is_send_shut() {
            return 0;
        }
        credit(self.window, self.sent, self.taken) as usize
    }

    /// Whether a packet without payload is due.
    pub(crate) fn has_control(&self) -> bool {
        !self.ended && (self.respond || self.update || self.host_shut != self.told_shut)
    }

    /// The next packet without payload.
    pub(crate) fn control(&mut self) -> Option<Header> {
        if !self.has_control() {
            return None;
        }
        if std::mem::take(&mut self.respond) {
            return Some(self.header(op::RESPONSE, 0));
        }
        if self.host_shut != self.told_shut {
            self.told_shut = self.host_shut;
            return Some(self.header(op::SHUTDOWN, self.host_shut));
        }
        Some(self.header(op::CREDIT_UPDATE, 0))
    }

    /// The header of `count` bytes of payload, which must be sent.
    pub(crate) fn payload(&mut self, count: usize) -> Header {
        self.sent += u32::try_from(count).unwrap_or(u32::MAX);
        self.header(op::RW, 0)
    }

    /// A header to the guest. Each one tells the guest its credit.
    fn header(&mut self, op: u16, flags: u32) -> Header {
        self.announced = self.forwarded;
        self.update = false;
        Header {
            src_cid: HOST_CID,
            dst_cid: GUEST_CID,
            src_port: self.host_port,
            dst_port: self.guest_port,
            len: 0,
            kind: TYPE_STREAM,
            op,
            flags,
            buf_alloc: BUFFER_MAX,
            fwd_cnt: self.forwarded.0,
        }
    }

    /// Makes CREDIT_UPDATE due when half of what the guest may have in flight has been forwarded without its knowing.
    /// That is less than we allow if its own buffers are smaller: Linux sends no more than it would receive.
    fn weigh_update(&mut self) {
        let half = (BUFFER_MAX.min(self.window) / 2).max(1);
        if !self.ended && !self.has_guest_sent_all() && (self.forwarded - self.announced).0 >= half {
            self.update = true;
        }
    }

    #[cfg(test)]
    pub(crate) fn backlog_len(&self) -> usize {
        self.backlog.len()
    }
}

/// Bytes that may be sent: the receiver keeps `window`, and of `sent` it has passed on `taken`. Both count modulo 2^32,
/// and all but our own count is the peer's word: the answer is then 0 or too much for the peer, never for us.
fn credit(window: u32, sent: Wrapping<u32>, taken: Wrapping<u32>) -> u32 {
    window.saturating_sub((sent - taken).0)
}

#[cfg(test)]
mod tests;
