// SPDX-License-Identifier: Apache-2.0
//! A socket pair that keeps message boundaries and carries descriptors (`SOCK_SEQPACKET`, unix(7)): how a process of
//! ours and its parent talk.
//!
//! Every wait has a deadline, but the one for the other end's end. Not for anything a guest says.

use rustix::cmsg_space;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::{BorrowedFd, OwnedFd};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::time::{Duration, Instant};

/// Longest message in bytes. A longer one is cut.
const LONGEST: usize = 4096;

/// Most descriptors of one message.
const DESCRIPTORS: usize = 20;

/// Why a message could not be exchanged.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A system call failed.
    #[error("exchange a message")]
    Socket(#[from] Errno),
    /// Nothing came in time.
    #[error("no word in time")]
    Timeout,
    /// Something else came first that was waited for as well.
    #[error("a call came first")]
    Called,
    /// Something came that means nothing here.
    #[error("a message out of turn")]
    Unexpected,
}

/// One end.
#[derive(Debug)]
pub(crate) struct Packets(OwnedFd);

/// What arrived.
#[derive(Debug)]
pub(crate) struct Packet {
    pub(crate) bytes: Vec<u8>,
    pub(crate) descriptors: Vec<OwnedFd>,
}

/// A new pair of ends: ours, and the one that a child inherits.
pub(crate) fn pair() -> Result<(Packets, OwnedFd), Error> {
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    Ok((Packets(ours), theirs))
}

impl Packets {
    /// The end that this process was started with.
    pub(crate) fn inherited(socket: OwnedFd) -> Self {
        Self(socket)
    }

    /// Sends one message, cut to the longest there may be, with at most 20 descriptors.
    pub(crate) fn send(&self, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> Result<(), Error> {
        let bytes = &bytes[..bytes.len().min(LONGEST)];
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(DESCRIPTORS))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        let fits = descriptors.is_empty()
            || descriptors.len() <= DESCRIPTORS && ancillary.push(SendAncillaryMessage::ScmRights(descriptors));
        if !fits {
            return Err(Error::Unexpected);
        }
        sendmsg(&self.0, &[IoSlice::new(bytes)], &mut ancillary, SendFlags::NOSIGNAL)?;
        Ok(())
    }

    /// The next message, or nothing if the other end has closed.
    pub(crate) fn receive(&self, deadline: Instant) -> Result<Option<Packet>, Error> {
        self.receive_unless(None, deadline)
    }

    /// The same, unless `call` can be read first, which is an error.
    pub(crate) fn receive_unless(
        &self,
        call: Option<BorrowedFd<'_>>,
        deadline: Instant,
    ) -> Result<Option<Packet>, Error> {
        self.wait(PollFlags::IN, call, Some(deadline))?;
        let mut bytes = vec![0; LONGEST];
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(DESCRIPTORS))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let got = recvmsg(&self.0, &mut [IoSliceMut::new(&mut bytes)], &mut ancillary, RecvFlags::CMSG_CLOEXEC);
        let length = match got {
            Ok(got) => got.bytes,
            Err(Errno::CONNRESET) => 0,
            Err(error) => return Err(error.into()),
        };
        if length == 0 {
            return Ok(None);
        }
        bytes.truncate(length);
        let mut descriptors = Vec::new();
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(received) = message {
                descriptors.extend(received);
            }
        }
        Ok(Some(Packet { bytes, descriptors }))
    }

    /// Waits, without limit, until the other end has closed.
    pub(crate) fn closed(&self) -> Result<(), Error> {
        self.wait(PollFlags::RDHUP, None, None)
    }

    fn wait(&self, what: PollFlags, call: Option<BorrowedFd<'_>>, deadline: Option<Instant>) -> Result<(), Error> {
        let mut fds = vec![PollFd::new(&self.0, what)];
        fds.extend(call.map(|call| PollFd::from_borrowed_fd(call, PollFlags::IN)));
        loop {
            let left = deadline.map(|deadline| timespec(deadline.saturating_duration_since(Instant::now())));
            match poll(&mut fds, left.as_ref()) {
                Ok(0) => return Err(Error::Timeout),
                Ok(_) if fds[0].revents().is_empty() => return Err(Error::Called),
                Ok(_) => return Ok(()),
                Err(Errno::INTR) => {}
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
    use rustix::fd::AsFd;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    fn soon() -> Instant {
        Instant::now() + Duration::from_millis(20)
    }

    #[test]
    fn descriptors_arrive_in_their_order() {
        let (ours, theirs) = pair().unwrap();
        let theirs = Packets::inherited(theirs);
        let streams: Vec<_> = (0..DESCRIPTORS).map(|_| UnixStream::pair().unwrap()).collect();
        let sent: Vec<_> = streams.iter().map(|(one, _)| one.as_fd()).collect();
        theirs.send(b"plan", &sent).unwrap();
        let packet = ours.receive(soon()).unwrap().unwrap();
        assert_eq!(packet.bytes, b"plan");
        assert_eq!(packet.descriptors.len(), DESCRIPTORS);
        for (number, (received, (_, mut other))) in packet.descriptors.into_iter().zip(streams).enumerate() {
            UnixStream::from(received).write_all(&[number as u8]).unwrap();
            let mut byte = [0];
            other.read_exact(&mut byte).unwrap();
            assert_eq!(byte, [number as u8]);
        }
    }

    #[test]
    fn too_many_descriptors_are_refused() {
        let (ours, theirs) = pair().unwrap();
        assert!(matches!(ours.send(b"x", &[theirs.as_fd(); DESCRIPTORS + 1]), Err(Error::Unexpected)));
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
    fn a_call_comes_before_silence_and_behind_a_word() {
        let (ours, theirs) = pair().unwrap();
        let (call, mut caller) = UnixStream::pair().unwrap();
        assert!(matches!(ours.receive_unless(Some(call.as_fd()), soon()), Err(Error::Timeout)));
        caller.write_all(b"!").unwrap();
        assert!(matches!(ours.receive_unless(Some(call.as_fd()), soon()), Err(Error::Called)));
        Packets::inherited(theirs).send(b"word", &[]).unwrap();
        assert!(matches!(ours.receive_unless(Some(call.as_fd()), soon()), Ok(Some(_))));
    }

    #[test]
    fn a_long_message_is_cut() {
        let (ours, theirs) = pair().unwrap();
        ours.send(&[7; 2 * LONGEST], &[]).unwrap();
        let packet = Packets::inherited(theirs).receive(soon()).unwrap().unwrap();
        assert_eq!(packet.bytes, [7; LONGEST]);
    }
}
