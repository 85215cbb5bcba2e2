// SPDX-License-Identifier: Apache-2.0
//! The few words a worker and its parent exchange while it starts, over a socket pair that keeps message boundaries
//! (`SOCK_SEQPACKET`, unix(7)).
//!
//! Every wait has a deadline. Not for anything the guest says: after [`Message::Ready`] the socket is silent, and
//! only its closing means something.

use super::identity::Mapping;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use rustix::{cmsg_space, io};
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::time::{Duration, Instant};

/// Longest message. An error's text is cut to it.
const LONGEST: usize = 4096;

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

/// Why a message could not be exchanged.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A system call failed.
    #[error("exchange a message")]
    Socket(#[from] io::Errno),
    /// Nothing came in time.
    #[error("no word in time")]
    Timeout,
    /// Something came that means nothing here.
    #[error("a message out of turn")]
    Unexpected,
}

/// One end.
#[derive(Debug)]
pub(super) struct Control(OwnedFd);

/// A new pair of ends.
pub(super) fn pair() -> Result<(Control, OwnedFd), Error> {
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    Ok((Control(ours), theirs))
}

impl Control {
    /// The end that this process was started with.
    pub(super) fn inherited(socket: OwnedFd) -> Control {
        Control(socket)
    }

    pub(super) fn send(&self, message: &Message) -> Result<(), Error> {
        let (text, descriptor) = match message {
            Message::MapMe => (b"u".to_vec(), None),
            Message::Mapped(Mapping::Same) => (b"m=".to_vec(), None),
            Message::Mapped(Mapping::Single) => (b"m1".to_vec(), None),
            Message::Connection(socket) => (b"c".to_vec(), Some(socket.as_fd())),
            Message::Ready => (b"r".to_vec(), None),
            Message::Failed(text) => ([b"f", text.as_bytes()].concat(), None),
        };
        let text = &text[..text.len().min(LONGEST)];
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        let descriptors: Vec<BorrowedFd<'_>> = descriptor.into_iter().collect();
        if !descriptors.is_empty() {
            ancillary.push(SendAncillaryMessage::ScmRights(&descriptors));
        }
        sendmsg(&self.0, &[IoSlice::new(text)], &mut ancillary, SendFlags::NOSIGNAL)?;
        Ok(())
    }

    /// The next message, or nothing if the other end has closed.
    pub(super) fn receive(&self, deadline: Instant) -> Result<Option<Message>, Error> {
        self.wait(PollFlags::IN, Some(deadline))?;
        let mut text = [0; LONGEST];
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let got = recvmsg(&self.0, &mut [IoSliceMut::new(&mut text)], &mut ancillary, RecvFlags::CMSG_CLOEXEC);
        let length = match got {
            Ok(got) => got.bytes,
            Err(io::Errno::CONNRESET) => 0,
            Err(error) => return Err(error.into()),
        };
        let descriptor = ancillary.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
            _ => None,
        });
        match (&text[..length], descriptor) {
            ([], _) => Ok(None),
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
        self.wait(PollFlags::RDHUP, None)
    }

    fn wait(&self, what: PollFlags, deadline: Option<Instant>) -> Result<(), Error> {
        loop {
            let left = deadline.map(|deadline| timespec(deadline.saturating_duration_since(Instant::now())));
            match poll(&mut [PollFd::new(&self.0, what)], left.as_ref()) {
                Ok(0) => return Err(Error::Timeout),
                Ok(_) => return Ok(()),
                Err(io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

fn timespec(time: Duration) -> Timespec {
    Timespec { tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX), tv_nsec: time.subsec_nanos().into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn soon() -> Instant {
        Instant::now() + Duration::from_millis(20)
    }

    #[test]
    fn words_arrive_as_they_were_said() {
        let (ours, theirs) = pair().unwrap();
        let theirs = Control::inherited(theirs);
        theirs.send(&Message::Failed("é".repeat(LONGEST))).unwrap();
        theirs.send(&Message::MapMe).unwrap();
        let (_, socket) = pair().unwrap();
        theirs.send(&Message::Connection(socket)).unwrap();
        assert!(matches!(ours.receive(soon()), Ok(Some(Message::Failed(text))) if text.starts_with("éé")));
        assert!(matches!(ours.receive(soon()), Ok(Some(Message::MapMe))));
        assert!(matches!(ours.receive(soon()), Ok(Some(Message::Connection(_)))));
    }

    #[test]
    fn silence_and_closing_are_told_apart() {
        let (ours, theirs) = pair().unwrap();
        assert!(matches!(ours.receive(soon()), Err(Error::Timeout)));
        drop(theirs);
        assert!(matches!(ours.receive(soon()), Ok(None)));
        assert!(ours.closed().is_ok());
    }

    #[test]
    fn nonsense_is_an_error() {
        let (ours, theirs) = pair().unwrap();
        rustix::net::send(&theirs, b"hello", SendFlags::empty()).unwrap();
        assert!(matches!(ours.receive(soon()), Err(Error::Unexpected)));
    }
}
