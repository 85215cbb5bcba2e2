// SPDX-License-Identifier: Apache-2.0
//! The few words a worker and its parent exchange while it starts.
//!
//! Not for anything the guest says: after [`Message::Ready`] the socket is silent, and only its closing means something.

use super::identity::Mapping;
use crate::packets::{self, Packets};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

pub(super) use packets::Error;

/// What is said.
#[derive(Debug)]
pub(super) enum Message {
    /// Worker: I have a user namespace; map my ids.
    MapMe,
    /// Parent: done, this way.
    Mapped(Mapping),
    /// Worker: I shall serve at the other end of this.
    Connection(OwnedFd),
    /// Worker: I serve.
    Ready,
    /// Worker: I failed to do this.
    Failed(String),
}

/// One end.
#[derive(Debug)]
pub(super) struct Control(Packets);

/// A new pair of ends.
pub(super) fn pair() -> Result<(Control, OwnedFd), Error> {
    let (ours, theirs) = packets::pair()?;
    Ok((Control(ours), theirs))
}

impl Control {
    /// The end that this process was started with.
    pub(super) fn inherited(socket: OwnedFd) -> Control {
        Control(Packets::inherited(socket))
    }

    pub(super) fn send(&self, message: &Message) -> Result<(), Error> {
        match message {
            Message::MapMe => self.0.send(b"u", &[]),
            Message::Mapped(Mapping::Same) => self.0.send(b"m=", &[]),
            Message::Mapped(Mapping::Single) => self.0.send(b"m1", &[]),
            Message::Connection(socket) => self.0.send(b"c", &[socket.as_fd()]),
            Message::Ready => self.0.send(b"r", &[]),
            Message::Failed(text) => self.0.send(&[b"f", text.as_bytes()].concat(), &[]),
        }
    }

    /// The next message, or nothing if the other end has closed.
    pub(super) fn receive(&self, deadline: Instant) -> Result<Option<Message>, Error> {
        self.receive_unless(None, deadline)
    }

    /// The same, unless `call` can be read first.
    pub(super) fn receive_unless(
        &self,
        call: Option<BorrowedFd<'_>>,
        deadline: Instant,
    ) -> Result<Option<Message>, Error> {
        let Some(mut packet) = self.0.receive_unless(call, deadline)? else { return Ok(None) };
        match (packet.bytes.as_slice(), packet.descriptors.pop()) {
            (b"u", None) => Ok(Some(Message::MapMe)),
            (b"m=", None) => Ok(Some(Message::Mapped(Mapping::Same))),
            (b"m1", None) => Ok(Some(Message::Mapped(Mapping::Single))),
            (b"c", Some(socket)) => Ok(Some(Message::Connection(socket))),
            (b"r", None) => Ok(Some(Message::Ready)),
            ([b'f', text @ ..], None) => Ok(Some(Message::Failed(String::from_utf8_lossy(text).into_owned()))),
            _ => Err(Error::Unexpected),
        }
    }

    /// Waits, without limit, until the other end has closed.
    pub(super) fn closed(&self) -> Result<(), Error> {
        self.0.closed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn soon() -> Instant {
        Instant::now() + Duration::from_millis(20)
    }

    #[test]
    fn words_arrive_as_they_were_said() {
        let (ours, theirs) = pair().unwrap();
        let theirs = Control::inherited(theirs);
        theirs.send(&Message::Failed("é".repeat(4096))).unwrap();
        theirs.send(&Message::MapMe).unwrap();
        let (_, socket) = pair().unwrap();
        theirs.send(&Message::Connection(socket)).unwrap();
        assert!(matches!(ours.receive(soon()), Ok(Some(Message::Failed(text))) if text.starts_with("éé")));
        assert!(matches!(ours.receive(soon()), Ok(Some(Message::MapMe))));
        assert!(matches!(ours.receive(soon()), Ok(Some(Message::Connection(_)))));
    }

    #[test]
    fn nonsense_is_an_error() {
        let (ours, theirs) = pair().unwrap();
        rustix::net::send(&theirs, b"hello", rustix::net::SendFlags::empty()).unwrap();
        assert!(matches!(ours.receive(soon()), Err(Error::Unexpected)));
    }
}
