// SPDX-License-Identifier: Apache-2.0
//! The host's end of the control connection: messages out, messages in, nothing waits.
//!
//! What the messages mean is the run's business; how they travel is the vsock device's.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use guest_init::wire::{self, Decoder, FromGuest, ToGuest};
use rustix::event::PollFlags;

/// Reads at one step, so that a guest that never stops talking cannot keep us from anything else.
const READS: usize = 4;

/// Why a session is over.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The connection closed.
    #[error("the guest closed the control connection")]
    Closed,
    /// The connection failed.
    #[error("the control connection failed")]
    Connection(#[from] io::Error),
    /// The guest sent something that is no message.
    #[error("the guest broke the protocol")]
    Protocol(#[from] wire::Error),
}

/// A control connection.
#[derive(Debug)]
pub struct Session {
    stream: UnixStream,
    decoder: Decoder<FromGuest>,
    outbox: VecDeque<u8>,
}

impl Session {
    /// Speaks over this stream.
    ///
    /// # Errors
    /// If it cannot be made non-blocking.
    pub fn new(stream: UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self { stream, decoder: Decoder::default(), outbox: VecDeque::new() })
    }

    /// Queues a message; [`Session::step`] sends it.
    ///
    /// # Errors
    /// If it is too long for a frame.
    pub fn send(&mut self, message: &ToGuest) -> Result<(), Error> {
        self.outbox.extend(wire::encode(message)?);
        Ok(())
    }

    /// What to poll the descriptor for.
    #[must_use]
    pub fn interest(&self) -> PollFlags {
        if self.outbox.is_empty() { PollFlags::IN } else { PollFlags::IN | PollFlags::OUT }
    }

    /// Sends and receives what can be without waiting.
    ///
    /// # Errors
    /// Why the session is over; messages received before that are delivered first, at the call before.
    pub fn step(&mut self) -> Result<Vec<FromGuest>, Error> {
        self.flush()?;
        let mut messages = Vec::new();
        let mut buffer = [0; 4096];
        for _ in 0..READS {
            match self.stream.read(&mut buffer) {
                Ok(0) if messages.is_empty() => return Err(Error::Closed),
                Ok(0) => break,
                Ok(count) => self.decoder.push(&buffer[..count], |message| messages.push(message))?,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(messages)
    }

    /// Sends what is queued, and waits for that, but only so long for each part. For when nobody listens to the guest any
    /// more.
    ///
    /// # Errors
    /// Those of the connection.
    pub fn finish(&mut self, limit: Duration) -> io::Result<()> {
        self.stream.set_nonblocking(false)?;
        self.stream.set_write_timeout(Some(limit))?;
        let bytes = std::mem::take(&mut self.outbox);
        self.stream.write_all(&Vec::from(bytes))
    }

    fn flush(&mut self) -> Result<(), Error> {
        while !self.outbox.is_empty() {
            match self.stream.write(self.outbox.as_slices().0) {
                Ok(count) => drop(self.outbox.drain(..count)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // The reading side tells what happened, with what the guest said last.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => self.outbox.clear(),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

impl AsFd for Session {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_words_come_before_the_close() {
        let (mut guest, host) = UnixStream::pair().unwrap();
        let mut session = Session::new(host).unwrap();
        guest.write_all(&wire::encode(&FromGuest::Mounted).unwrap()).unwrap();
        drop(guest);
        assert_eq!(session.step().unwrap(), [FromGuest::Mounted]);
        assert!(matches!(session.step(), Err(Error::Closed)));
    }

    #[test]
    fn a_long_message_leaves_in_parts() {
        let (mut guest, host) = UnixStream::pair().unwrap();
        let mut session = Session::new(host).unwrap();
        let volumes =
            (0..40_000).map(|_| wire::Volume { target: [b'/'; 50].to_vec().into(), directory: true, read_only: true });
        let message = ToGuest::Mount(wire::Mount {
            clock: wire::Clock { seconds: 0, nanoseconds: 0 },
            entropy: [0; 32],
            private_bytes: 1,
            disk: false,
            shm_bytes: 1,
            volumes: volumes.collect(),
            tmpfs: vec![],
        });
        session.send(&message).unwrap();
        let mut decoder = Decoder::default();
        let mut received = None;
        let mut buffer = vec![0; 1 << 16];
        while received.is_none() {
            assert_eq!(session.step().unwrap(), []);
            let count = guest.read(&mut buffer).unwrap();
            decoder.push(&buffer[..count], |message| received = Some(message)).unwrap();
        }
        assert_eq!(received, Some(message));
        assert_eq!(session.interest(), PollFlags::IN);
    }

    #[test]
    fn nonsense_is_a_protocol_error() {
        let (mut guest, host) = UnixStream::pair().unwrap();
        let mut session = Session::new(host).unwrap();
        guest.write_all(b"HTTP/1.1 200 OK\r\n").unwrap();
        assert!(matches!(session.step(), Err(Error::Protocol(_))));
    }
}
