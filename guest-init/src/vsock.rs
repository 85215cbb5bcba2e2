// SPDX-License-Identifier: Apache-2.0
//! Connections to the host: dial a port (vsock(7)).
//!
//! Not for what travels on them. Dialling is begun and completed apart, so that the three streams of a command cost one
//! round trip and not three.

use crate::sys::{self, Watch};
use rustix::{
    fd::OwnedFd,
    io::{Errno, Result},
    net::{AddressFamily, SocketFlags, SocketType, socket_with, sockopt},
};

/// The host's address, `VMADDR_CID_HOST`.
const HOST: u32 = 2;

/// How long the host may take to accept. The kernel's own two seconds are too few for a busy host that emulates us; one
/// that never answers has a deadline of its own for the whole boot.
const PATIENCE_S: u64 = 60;

/// A connection that may not be established yet; never blocks.
#[derive(Debug)]
pub struct Dialling(OwnedFd);

impl Dialling {
    /// Begins to connect to `port`.
    ///
    /// # Errors
    /// What the kernel says; a refusal may also come later.
    pub fn begin(port: u32) -> Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::VSOCK, SocketType::STREAM, flags, None)?;
        sys::set_vsock_patience(&socket, PATIENCE_S)?;
        match sys::connect_vsock(&socket, HOST, port) {
            Ok(()) | Err(Errno::INPROGRESS) => Ok(Self(socket)),
            Err(errno) => Err(errno),
        }
    }

    /// Waits until the connection stands.
    ///
    /// # Errors
    /// The host's refusal, or that it did not answer in time.
    pub fn complete(self) -> Result<OwnedFd> {
        let mut watch = [Watch::new(&self.0, Watch::OUT)];
        while watch[0].seen == 0 {
            sys::poll(&mut watch, None)?;
        }
        sockopt::socket_error(&self.0)??;
        Ok(self.0)
    }
}
