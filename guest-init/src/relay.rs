// SPDX-License-Identifier: Apache-2.0
//! One direction of one standard stream: bytes from a descriptor to a descriptor, at the pace of the slower.
//!
//! Neither end ever blocks, so no stream can hold up another. Not for when a run is over ([`crate::drain`]).

use crate::sys::Watch;
use alloc::{vec, vec::Vec};
use core::ops::Range;
use rustix::{
    fd::OwnedFd,
    io::{Errno, read, write},
    net::{SendFlags, Shutdown, send, shutdown},
};

/// As much as a pipe holds, and as one packet of vsock carries.
const CAPACITY: usize = 64 << 10;

/// A stream in flight.
#[derive(Debug)]
pub struct Relay {
    /// Where bytes come from, until their end. Reading must not block.
    source: Option<OwnedFd>,
    /// Where they go, until no one takes them. Writing must not block.
    sink: Option<OwnedFd>,
    buffer: Vec<u8>,
    /// What of the buffer has been read but not written.
    pending: Range<usize>,
    /// Whether to watch for a peer that says it will send no more.
    suspicious: bool,
    /// Whether the end of the source is typed, as on a keyboard, and not only told.
    typed: bool,
    /// The last byte that was read.
    last: u8,
    /// How many bytes have been read.
    taken: u64,
}

impl Relay {
    /// A stream from the host to a pipe.
    pub fn inward(source: OwnedFd, sink: OwnedFd) -> Self {
        Self::new(source, sink, false)
    }

    /// A stream from the host to a terminal. Nobody can close what others have open, so its end is what a user would type.
    pub fn typed(source: OwnedFd, sink: OwnedFd) -> Self {
        Self { typed: true, ..Self::new(source, sink, false) }
    }

    /// A stream from a pipe to the host. The host never sends on this connection, so if it says that it will send no
    /// more, it may also have stopped to receive, which poll(2) does not tell of a vsock connection.
    pub fn outward(source: OwnedFd, sink: OwnedFd) -> Self {
        Self::new(source, sink, true)
    }

    fn new(source: OwnedFd, sink: OwnedFd, suspicious: bool) -> Self {
        let (source, sink) = (Some(source), Some(sink));
        Self { source, sink, buffer: vec![0; CAPACITY], pending: 0..0, suspicious, typed: false, last: 0, taken: 0 }
    }

    /// Whether bytes may still come.
    pub fn incomplete(&self) -> bool {
        self.sink.is_some() && (self.source.is_some() || !self.pending.is_empty())
    }

    /// How many bytes came in. All of them have gone out when the stream is complete, unless no one took them.
    pub fn taken(&self) -> u64 {
        self.taken
    }

    /// What to poll for: the source, only while there is room (a pipe without writers would be news for ever), and the
    /// sink.
    pub fn watches(&self) -> [Watch; 2] {
        let source = match &self.source {
            Some(source) if self.pending.is_empty() => Watch::new(source, Watch::IN),
            _ => Watch::NOTHING,
        };
        let sink = match &self.sink {
            Some(sink) if self.incomplete() => {
                let out = if self.pending.is_empty() { 0 } else { Watch::OUT };
                Watch::new(sink, out | if self.suspicious { Watch::RDHUP } else { 0 })
            }
            _ => Watch::NOTHING,
        };
        [source, sink]
    }

    /// Does what the poll of [`Relay::watches`] has made possible.
    pub fn serve(&mut self, [source, sink]: [Watch; 2]) {
        if sink.seen & (Watch::ERR | Watch::HUP) != 0 {
            self.abandon();
        }
        if sink.seen & Watch::RDHUP != 0 {
            self.question_peer();
        }
        if source.seen != 0 && self.pending.is_empty() {
            self.fill();
        }
        self.flush();
    }

    /// Reads once, so that a fast source does not starve the others.
    fn fill(&mut self) {
        let Some(source) = &self.source else { return };
        match read(source, &mut self.buffer[..]) {
            Ok(count) if count > 0 => {
                self.pending = 0..count;
                self.last = self.buffer[count - 1];
                self.taken += count as u64;
            }
            Err(Errno::INTR | Errno::AGAIN) => {}
            // A connection that breaks ends the stream; that the host is gone, the control connection tells.
            Ok(_) | Err(_) => {
                self.source = None;
                if self.typed {
                    self.type_end();
                }
            }
        }
    }

    /// At the beginning of a line one EOF character ends a terminal's input (termios(3)), within a line the second does.
    fn type_end(&mut self) {
        const EOF: u8 = 4;
        let fresh = self.taken == 0 || self.last == b'\n';
        self.pending = 0..if fresh { 1 } else { 2 };
        self.buffer[..2].fill(EOF);
    }

    fn flush(&mut self) {
        while !self.pending.is_empty() {
            let Some(sink) = &self.sink else { return };
            match write(sink, &self.buffer[self.pending.clone()]) {
                Ok(count) => self.pending.start += count,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                Err(_) => return self.abandon(),
            }
        }
        if self.source.is_none() {
            self.finish();
        }
    }

    /// All bytes are on their way: the sink hears that no more will come. A pipe is closed. A connection is only half
    /// closed and kept until the machine ends: to close it would say that the host's answer matters no more, and some
    /// devices then throw away what the host has not yet taken.
    fn finish(&mut self) {
        if let Some(sink) = &self.sink
            && let Err(Errno::NOTSOCK) = shutdown(sink, Shutdown::Write)
        {
            self.sink = None;
        }
    }

    /// No one takes what this stream carries: its writer must hear of it, so both ends are closed.
    fn abandon(&mut self) {
        self.source = None;
        self.sink = None;
        self.pending = 0..0;
    }

    /// Asks a peer that sends no more whether it still receives: sending nothing fails if it does not.
    fn question_peer(&mut self) {
        self.suspicious = false;
        let Some(sink) = &self.sink else { return };
        match send(sink, &[], SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
            Ok(_) | Err(Errno::AGAIN | Errno::INTR) => {}
            Err(_) => self.abandon(),
        }
    }
}

#[cfg(test)]
mod tests;
