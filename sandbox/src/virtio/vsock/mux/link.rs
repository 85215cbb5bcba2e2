// SPDX-License-Identifier: Apache-2.0
//! One connection tied to its stream: bytes one way and the other, and each side's endings to the other side.
//!
//! Not for finding the connection of a packet, nor for turns: see [`super`].

use crate::virtio::device::Interest;
use crate::virtio::vsock::conn::Conn;
use crate::virtio::vsock::packet::Header;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::net::{RecvFlags, SendFlags, Shutdown};
use std::io::{self, ErrorKind};
use std::os::unix::net::UnixStream;

/// What a connection needs of its stream. No call waits.
pub(crate) trait Stream {
    /// Takes what there is; 0 is the end.
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize>;
    /// Gives what fits.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize>;
    /// The reader at the other end shall see the end.
    fn end_write(&mut self);
    /// Writers at the other end shall see that nobody reads.
    fn end_read(&mut self);
    /// Whether the other end is gone altogether.
    fn is_hung_up(&self) -> bool;
}

impl Stream for UnixStream {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        Ok(rustix::net::recv(self, out, RecvFlags::DONTWAIT)?.0)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(rustix::net::send(self, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)?)
    }

    fn end_write(&mut self) {
        // If it is not connected any more, there is nobody left to tell.
        let _ = rustix::net::shutdown(self, Shutdown::Write);
    }

    fn end_read(&mut self) {
        let _ = rustix::net::shutdown(self, Shutdown::Read);
    }

    fn is_hung_up(&self) -> bool {
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        let mut polled = [PollFd::new(self, PollFlags::empty())];
        let count = rustix::event::poll(&mut polled, Some(&at_once));
        count.is_ok() && polled[0].revents().intersects(PollFlags::HUP | PollFlags::ERR)
    }
}

/// A connection and its stream.
pub(super) struct Link<S> {
    pub(super) conn: Conn,
    pub(super) stream: S,
    /// The stream has not said that reading would block.
    readable: bool,
    /// The stream's reader has been told that the guest sends no more.
    write_ended: bool,
    /// The stream's writer has been told that the guest listens no more.
    read_ended: bool,
}

impl<S: Stream> Link<S> {
    pub(super) fn new(conn: Conn, stream: S) -> Self {
        Self { conn, stream, readable: true, write_ended: false, read_ended: false }
    }

    /// What to watch the stream for.
    pub(super) fn interest(&self) -> Interest {
        if self.conn.backlog().is_empty() { Interest::Read } else { Interest::ReadWrite }
    }

    /// Whether there is something to send, as far as one can know.
    pub(super) fn wants_to_send(&self) -> bool {
        self.conn.has_control() || self.may_read()
    }

    /// Passes the guest's bytes on; what the stream will not take is kept.
    pub(super) fn pass_on(&mut self, payload: &[u8]) {
        let mut rest = payload;
        while self.conn.backlog().is_empty() && !rest.is_empty() && !self.conn.is_receive_shut() {
            match put(&mut self.stream, rest) {
                Put::Taken(count) => {
                    self.conn.forwarded(count);
                    rest = rest.get(count..).unwrap_or_default();
                }
                Put::Later => break,
                Put::Never => self.conn.shut_receive(),
            }
        }
        if self.conn.is_receive_shut() {
            // Nobody will read them. The guest has been told, or will be.
            self.conn.forwarded(rest.len());
        } else {
            self.conn.keep(rest);
        }
    }

    /// The stream may have become readable or writable, or have lost its other end.
    pub(super) fn ready(&mut self) {
        self.readable = true;
        while !self.conn.backlog().is_empty() {
            match put(&mut self.stream, self.conn.backlog()) {
                Put::Taken(count) => self.conn.drained(count),
                Put::Later => break,
                Put::Never => self.conn.shut_receive(),
            }
        }
        self.notice_hang_up();
    }

    /// The next packet to the guest, with at most `room` bytes of payload in `out`; how many is also returned.
    pub(super) fn next(&mut self, room: usize, out: &mut [u8]) -> Option<(Header, usize)> {
        if let Some(header) = self.conn.control() {
            return Some((header, 0));
        }
        let room = room.min(out.len()).min(self.conn.credit());
        let out = out.get_mut(..room).filter(|out| !out.is_empty())?;
        while self.may_read() {
            match self.stream.read(out) {
                Ok(0) => {
                    self.conn.shut_send();
                    self.notice_hang_up();
                }
                Ok(count) => return Some((self.conn.payload(count), count)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.readable = false,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => {
                    self.conn.shut_send();
                    self.conn.shut_receive();
                }
            }
        }
        self.conn.control().map(|header| (header, 0))
    }

    /// Passes endings on to the stream when everything before them has gone. `true` if nothing is left to do.
    pub(super) fn settle(&mut self) -> bool {
        let drained = self.conn.backlog().is_empty();
        if self.conn.is_guest_deaf() && !std::mem::replace(&mut self.read_ended, true) {
            self.stream.end_read();
            // A UNIX socket that is closed over unread bytes makes the other end fail instead of see its end.
            let mut unread = [0; 4096];
            while self.stream.read(&mut unread).is_ok_and(|count| count > 0) {}
        }
        if drained && self.conn.has_guest_sent_all() && !std::mem::replace(&mut self.write_ended, true) {
            self.stream.end_write();
        }
        drained && self.conn.has_ended()
    }

    fn may_read(&self) -> bool {
        self.readable && self.conn.credit() > 0
    }

    /// If the other end has written its last, it may also have gone; then the guest need not write in vain.
    fn notice_hang_up(&mut self) {
        let in_vain = !self.conn.has_guest_sent_all() && !self.conn.is_receive_shut();
        if in_vain && self.conn.is_send_shut() && self.stream.is_hung_up() {
            self.conn.shut_receive();
        }
    }
}

/// What became of bytes for a stream.
enum Put {
    /// It took so many, at least one.
    Taken(usize),
    /// It takes none for now.
    Later,
    /// It will take none any more.
    Never,
}

fn put<S: Stream>(stream: &mut S, bytes: &[u8]) -> Put {
    loop {
        match stream.write(bytes) {
            Ok(count) if count > 0 => return Put::Taken(count),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Put::Later,
            Ok(_) | Err(_) => return Put::Never,
        }
    }
}
