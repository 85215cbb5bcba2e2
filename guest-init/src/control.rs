// SPDX-License-Identifier: Apache-2.0
//! The control connection: messages in and out of a stream socket, without ever blocking on the host's pace.
//!
//! Not for what the messages mean.

use crate::{
    failure::Failure,
    sys::{self, Watch},
    wire::{self, Decoder, FromGuest, ToGuest},
};
use alloc::{collections::VecDeque, vec, vec::Vec};
use rustix::{
    fd::OwnedFd,
    io::Errno,
    net::{RecvFlags, SendFlags, recv, send},
};

/// How much is read at a time.
const CHUNK: usize = 64 << 10;

/// Why there will be no further message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Error {
    /// The host is gone, or the connection to it is.
    Closed,
    /// What the host sends is not this protocol.
    Protocol,
}

/// The control connection.
#[derive(Debug)]
pub struct Control {
    socket: OwnedFd,
    decoder: Decoder<ToGuest>,
    inbox: VecDeque<ToGuest>,
    outbox: Vec<u8>,
    chunk: Vec<u8>,
    number: u32,
}

impl Control {
    /// Takes a connected stream socket, that of the command of this number.
    pub fn new(socket: OwnedFd, number: u32) -> Self {
        let (inbox, outbox, chunk) = (VecDeque::new(), Vec::new(), Vec::new());
        Self { socket, decoder: Decoder::default(), inbox, outbox, chunk, number }
    }

    /// The port for this purpose, given by the first command's.
    pub fn port(&self, first: u32) -> u32 {
        wire::port::of(first, self.number)
    }

    /// Waits for the next message.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn receive(&mut self) -> Result<ToGuest, Error> {
        loop {
            if let Some(message) = self.inbox.pop_front() {
                return Ok(message);
            }
            let mut watch = [self.watch()];
            let Ok(()) = sys::poll(&mut watch, None) else { return Err(Error::Closed) };
            self.serve(watch[0].seen)?;
        }
    }

    /// Takes a message that has already arrived.
    pub fn arrived(&mut self) -> Option<ToGuest> {
        self.inbox.pop_front()
    }

    /// Leaves a message for whoever takes the next.
    pub fn put_back(&mut self, message: ToGuest) {
        self.inbox.push_front(message);
    }

    /// Sends a message, or what the connection takes of it now; [`Control::serve`] sends the rest.
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub fn send(&mut self, message: FromGuest) -> Result<(), Error> {
        let Ok(frame) = wire::encode(&message) else { return Err(Error::Protocol) };
        self.outbox.extend_from_slice(&frame);
        self.flush()
    }

    /// Tells the host of a failure that ends what it asked for.
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub fn fail(&mut self, Failure { step, errno }: Failure) -> Result<(), Error> {
        self.send(FromGuest::Failed { step, errno: errno.raw_os_error() })
    }

    /// What to poll for.
    pub fn watch(&self) -> Watch {
        let out = if self.outbox.is_empty() { 0 } else { Watch::OUT };
        Watch::new(&self.socket, Watch::IN | out)
    }

    /// Does what the poll `seen` makes possible.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn serve(&mut self, seen: u16) -> Result<(), Error> {
        if seen & Watch::OUT != 0 {
            self.flush()?;
        }
        if seen & !Watch::OUT != 0 {
            self.fill()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Error> {
        while !self.outbox.is_empty() {
            match send(&self.socket, &self.outbox, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                Ok(sent) => drop(self.outbox.drain(..sent)),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                Err(_) => return Err(Error::Closed),
            }
        }
        Ok(())
    }

    fn fill(&mut self) -> Result<(), Error> {
        if self.chunk.is_empty() {
            self.chunk = vec![0; CHUNK];
        }
        match recv(&self.socket, &mut self.chunk[..], RecvFlags::DONTWAIT) {
            Ok((_, 0)) => Err(Error::Closed),
            Ok((_, received)) => {
                let inbox = &mut self.inbox;
                match self.decoder.push(&self.chunk[..received], |message| inbox.push_back(message)) {
                    Ok(()) => Ok(()),
                    Err(_) => Err(Error::Protocol),
                }
            }
            Err(Errno::INTR | Errno::AGAIN) => Ok(()),
            Err(_) => Err(Error::Closed),
        }
    }
}
