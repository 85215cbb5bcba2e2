// SPDX-License-Identifier: Apache-2.0
//! The streams behind the connections, one for each declared port.
//!
//! Takes the guest's packets, moves bytes between connections and streams without ever blocking, and says what to send
//! next, in turns. Each declared port serves one connection and is then used up, so there are never more connections
//! than ports that the host has declared. Not for rings: it is driven as well without any. Follows virtio 1.2 §5.10.6.

pub(crate) mod link;

use super::conn::{Conn, Step};
use super::packet::{Header, TYPE_STREAM, op};
use super::{GUEST_CID, HOST_CID};
use crate::virtio::device::{Interest, Token};
use link::{Link, Stream};
use std::collections::VecDeque;

/// Answers to packets without a connection that may wait for receive buffers. With so many, the guest's packets wait.
pub(crate) const RESETS_MAX: usize = 64;

/// Connections and their streams.
pub(crate) struct Mux<S> {
    slots: Vec<Slot<S>>,
    /// The slot that is served first next time.
    turn: usize,
    /// RST packets of no connection.
    resets: VecDeque<Header>,
}

struct Slot<S> {
    port: u32,
    state: State<S>,
    /// What the stream is watched for.
    watched: Option<Interest>,
}

enum State<S> {
    /// Nobody has connected yet.
    Declared(S),
    Connected(Link<S>),
    /// The port is used up.
    Used,
}

impl<S: Stream> Mux<S> {
    pub(crate) fn new(ports: Vec<(u32, S)>) -> Self {
        let slot = |(port, stream)| Slot { port, state: State::Declared(stream), watched: None };
        Self { slots: ports.into_iter().map(slot).collect(), turn: 0, resets: VecDeque::new() }
    }

    /// Declares a further port, in the place of one that is used up if there is any.
    pub(crate) fn declare(&mut self, port: u32, stream: S) {
        let slot = Slot { port, state: State::Declared(stream), watched: None };
        match self.slots.iter_mut().find(|slot| matches!(slot.state, State::Used)) {
            Some(used) => *used = slot,
            None => self.slots.push(slot),
        }
    }

    /// Takes a packet of the guest with its payload, whose length is the header's.
    pub(crate) fn take(&mut self, header: &Header, payload: &[u8]) {
        let addressed = header.src_cid == GUEST_CID && header.dst_cid == HOST_CID && header.kind == TYPE_STREAM;
        if !addressed {
            return self.answer_reset(header);
        }
        if let Some(slot) = self.slots.iter_mut().find(|slot| slot.serves(header)) {
            if slot.take(header, payload) {
                self.answer_reset(header);
            }
        } else if header.op != op::REQUEST || !self.connect(header) {
            self.answer_reset(header);
        }
    }

    /// Takes a packet whose payload is not what its header says: an error of its connection, if it has one.
    pub(crate) fn refuse(&mut self, header: &Header) {
        // No operation has this number, so it breaks whatever connection it belongs to. RST ends that anyway.
        let op = if header.op == op::RST { op::RST } else { u16::MAX };
        self.take(&Header { op, ..*header }, &[]);
    }

    /// Whether the guest's packets have to wait until [`Mux::next`] has been called.
    pub(crate) fn congested(&self) -> bool {
        self.resets.len() >= RESETS_MAX
    }

    /// Whether [`Mux::next`] may have something.
    pub(crate) fn wants_to_send(&self) -> bool {
        !self.resets.is_empty() || self.slots.iter().any(Slot::wants_to_send)
    }

    /// The next packet to the guest, with at most `room` bytes of payload in `out`; how many is also returned. The
    /// payload may be sent in pieces under the same header.
    pub(crate) fn next(&mut self, room: usize, out: &mut [u8]) -> Option<(Header, usize)> {
        if let Some(header) = self.resets.pop_front() {
            return Some((header, 0));
        }
        for step in 0..self.slots.len() {
            let index = (self.turn.wrapping_add(step)) % self.slots.len();
            let Some(slot) = self.slots.get_mut(index) else {
                continue;
            };
            if let Some(found) = slot.next(room, out) {
                self.turn = index.wrapping_add(1);
                return Some(found);
            }
        }
        None
    }

    /// The stream of this slot may have become readable or writable.
    pub(crate) fn ready(&mut self, index: u32) {
        let slot = usize::try_from(index).ok().and_then(|index| self.slots.get_mut(index));
        if let Some(slot) = slot {
            slot.ready();
        }
    }

    /// Ends every connection without a word to the guest. Bytes that it had sent still go to their streams.
    pub(crate) fn reset(&mut self) {
        self.resets.clear();
        for slot in &mut self.slots {
            if let State::Connected(link) = &mut slot.state {
                link.conn.end();
                slot.settle();
            }
        }
    }

    /// Reports each stream whose interest has changed.
    pub(crate) fn rewatch<E>(
        &mut self,
        mut apply: impl FnMut(&S, Token, Option<Interest>) -> Result<(), E>,
    ) -> Result<(), E> {
        for (index, slot) in (0..).zip(&mut self.slots) {
            let State::Connected(link) = &slot.state else {
                continue;
            };
            let interest = Some(link.interest());
            if slot.watched != interest {
                apply(&link.stream, Token(index), interest)?;
                slot.watched = interest;
            }
        }
        Ok(())
    }

    /// Attaches a REQUEST to its port's stream, if the port still has one.
    fn connect(&mut self, header: &Header) -> bool {
        let declared = |slot: &&mut Slot<S>| slot.port == header.dst_port && matches!(slot.state, State::Declared(_));
        let Some(slot) = self.slots.iter_mut().find(declared) else {
            return false;
        };
        if let State::Declared(stream) = std::mem::replace(&mut slot.state, State::Used) {
            slot.state = State::Connected(Link::new(Conn::accept(header), stream));
        }
        true
    }

    /// Queues RST in answer to a packet, unless it is one itself.
    fn answer_reset(&mut self, header: &Header) {
        if header.op == op::RST {
            return;
        }
        // The guest's own address, whatever it says; and of its words only numbers that mean nothing to us.
        self.resets.push_back(Header {
            src_cid: header.dst_cid,
            dst_cid: GUEST_CID,
            src_port: header.dst_port,
            dst_port: header.src_port,
            kind: header.kind,
            op: op::RST,
            ..Header::default()
        });
    }
}

impl<S: Stream> Slot<S> {
    fn serves(&self, header: &Header) -> bool {
        matches!(&self.state, State::Connected(link) if link.conn.is_between(header.src_port, header.dst_port))
    }

    /// Takes a packet; `true` if the guest is due an RST.
    fn take(&mut self, header: &Header, payload: &[u8]) -> bool {
        let State::Connected(link) = &mut self.state else {
            return true;
        };
        let step = link.conn.take(header);
        if step == Step::Payload {
            link.pass_on(payload);
        }
        self.settle();
        matches!(step, Step::Goodbye | Step::Broken)
    }

    fn wants_to_send(&self) -> bool {
        matches!(&self.state, State::Connected(link) if link.wants_to_send())
    }

    fn next(&mut self, room: usize, out: &mut [u8]) -> Option<(Header, usize)> {
        let State::Connected(link) = &mut self.state else {
            return None;
        };
        link.next(room, out)
    }

    fn ready(&mut self) {
        if let State::Connected(link) = &mut self.state {
            link.ready();
            self.settle();
        }
    }

    /// Passes endings on to the stream; lets go of a connection that is over.
    fn settle(&mut self) {
        if let State::Connected(link) = &mut self.state
            && link.settle()
        {
            self.state = State::Used;
        }
    }
}

#[cfg(test)]
mod tests;
