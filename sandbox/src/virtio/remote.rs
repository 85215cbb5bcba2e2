// SPDX-License-Identifier: Apache-2.0
//! A device that lives in another process: its rings, with both their bells, and guest memory are handed over, and no
//! byte of data passes us (vhost-user protocol, as of QEMU 7.2, the front end's side).
//!
//! What the device is, we know beforehand, so nothing has to be asked: setting it up is a few messages into a socket's
//! buffer, and neither the boot nor a processor waits for the other process to have begun to serve. One that does not
//! like what it reads closes the connection, and its owner sees it end. Only stopping a ring takes an answer, because
//! its memory is the driver's again afterwards; that answer has a deadline. There is no thread here and no protocol
//! feature: rings of a front end without them run as soon as they have their kick. Not for the bytes of a message, see
//! [`message`].

mod message;

use super::device::{Id, Traits};
use super::ring::{self, Ring};
use message::Connection;
use rustix::io::Errno;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use vm_memory::GuestMemoryMmap;

/// How long the other process may take to let go of a ring. It may be waiting for a disk.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(5);

/// Longest name of a file system, and the length of its field (virtio 1.2 §5.11.4).
const TAG: usize = 36;

/// What can go wrong with such a device.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody has described a device of this type that lives elsewhere.
    #[error("a {0} device cannot live in another process")]
    Unknown(&'static str),
    /// The driver could not tell this device from others.
    #[error("a file system's tag has 1 to {TAG} bytes, not {0}")]
    Tag(usize),
    /// Guest memory that no other process can have.
    #[error("guest memory is not in files, or in too many")]
    Memory,
    /// The connection broke down.
    #[error("cannot talk to the device's process")]
    Socket(#[source] Errno),
    /// The other process is gone.
    #[error("the device's process has closed the connection")]
    Closed,
    /// The other process does not read, or does not answer.
    #[error("the device's process gave no answer in time")]
    Late,
    /// The other process answered something else.
    #[error("the device's process gave an answer that makes no sense")]
    Answer,
}

/// The device, as far as we know it.
#[derive(Debug)]
pub struct Backend {
    traits: Traits,
    config: Vec<u8>,
    /// `None` once it has failed: whatever state the other side is in, it is not one we know.
    connection: Option<Connection>,
    introduced: bool,
    running: Vec<u16>,
}

impl Backend {
    /// The device of this type at the other end of `socket`; `tag` is what its driver knows it by, if it has a name.
    ///
    /// # Errors
    /// If there is no such device.
    pub fn of(id: Id, tag: Option<&str>, socket: UnixStream) -> Result<Self, Error> {
        match (id, tag) {
            (Id::Fs, tag) => {
                let tag = tag.unwrap_or_default().as_bytes();
                if tag.is_empty() || tag.len() > TAG {
                    return Err(Error::Tag(tag.len()));
                }
                let mut config = tag.to_vec();
                config.resize(TAG, 0);
                // One ring for requests, besides the one for what must not wait.
                config.extend(1_u32.to_le_bytes());
                let traits = Traits { id, features: 0, rings: &[128, 128], config: config.len() };
                Ok(Self::new(traits, config, socket))
            }
            _ => Err(Error::Unknown(id.name())),
        }
    }

    /// A device with this configuration space.
    pub(super) fn new(mut traits: Traits, config: Vec<u8>, socket: UnixStream) -> Self {
        traits.features |= ring::FEATURES;
        let connection = Some(Connection::new(socket, PATIENCE));
        Self { traits, config, connection, introduced: false, running: Vec::new() }
    }

    /// What the device is, the features of rings included.
    pub(super) fn traits(&self) -> Traits {
        self.traits
    }

    /// Its configuration space.
    pub(super) fn config(&self) -> &[u8] {
        &self.config
    }

    /// Hands rings over, all that there will be; `interrupt` is the bell of each.
    ///
    /// # Errors
    /// If the other process is lost; then it is for good.
    pub(super) fn start(
        &mut self,
        rings: &[(u16, Ring)],
        features: u64,
        interrupt: BorrowedFd<'_>,
        memory: &GuestMemoryMmap,
    ) -> Result<(), Error> {
        let introduced = std::mem::replace(&mut self.introduced, true);
        self.talk(|connection| {
            if !introduced {
                connection.set_owner()?;
                connection.set_memory(memory)?;
            }
            connection.set_features(features)?;
            rings
                .iter()
                .try_for_each(|(index, ring)| connection.start(*index, ring.place(), ring.kick().as_fd(), interrupt))
        })?;
        self.running = rings.iter().map(|(index, _)| *index).collect();
        Ok(())
    }

    /// Takes a ring back, if it was handed over.
    ///
    /// # Errors
    /// If the other process is lost; then it is for good.
    pub(super) fn stop(&mut self, index: u16) -> Result<(), Error> {
        let before = self.running.len();
        self.running.retain(|running| *running != index);
        if self.running.len() == before {
            return Ok(());
        }
        self.talk(|connection| connection.stop(index))
    }

    /// Takes every ring back.
    ///
    /// # Errors
    /// If the other process is lost; then it is for good.
    pub(super) fn reset(&mut self) -> Result<(), Error> {
        let running = std::mem::take(&mut self.running);
        if running.is_empty() {
            return Ok(());
        }
        self.talk(|connection| running.iter().try_for_each(|index| connection.stop(*index)))
    }

    /// Talks to the other process; the first failure is the last word.
    fn talk(&mut self, say: impl FnOnce(&Connection) -> Result<(), Error>) -> Result<(), Error> {
        let connection = self.connection.take().ok_or(Error::Closed)?;
        say(&connection)?;
        self.connection = Some(connection);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
