// SPDX-License-Identifier: Apache-2.0
//! Ports that come while the machine runs: the host sends their streams over a socket pair of its own (unix(7),
//! `SCM_RIGHTS`).
//!
//! Nobody has to be woken for them: the guest hears of a port only after the host has sent its stream, so it is early
//! enough to look when the guest dials. Not for what the guest says, which never comes this way.

use crate::packets::{self, Packets};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Instant;

/// The device's end.
#[derive(Debug)]
pub(crate) struct Supply(Packets);

impl Supply {
    /// Takes the end that was made for the device.
    pub(crate) fn new(socket: OwnedFd) -> Self {
        Self(Packets::inherited(socket))
    }

    /// Hands over what has come, without waiting.
    pub(super) fn take(&self, mut declare: impl FnMut(u32, UnixStream)) {
        // An error is that nothing is there; at its end the host supplies no more.
        while let Ok(Some(packet)) = self.0.receive(Instant::now()) {
            let ports = packet.bytes.as_chunks().0.iter().map(|port| u32::from_le_bytes(*port));
            ports.zip(packet.descriptors).for_each(|(port, stream)| declare(port, stream.into()));
        }
    }
}

/// The host's end: sends the streams of these ports, at most 16.
///
/// # Errors
/// Those of sending.
pub(crate) fn send(supply: &Packets, ports: &[(u32, UnixStream)]) -> Result<(), packets::Error> {
    let numbers: Vec<u8> = ports.iter().flat_map(|(port, _)| port.to_le_bytes()).collect();
    let streams: Vec<BorrowedFd<'_>> = ports.iter().map(|(_, stream)| stream.as_fd()).collect();
    supply.send(&numbers, &streams)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    #[test]
    fn ports_come_with_their_streams() {
        let (host, device) = packets::pair().unwrap();
        let device = Supply::new(device);
        device.take(|port, _| panic!("nobody sent {port}"));
        let (ours, theirs): (Vec<_>, Vec<_>) = (0..4).map(|_| UnixStream::pair().unwrap()).unzip();
        send(&host, &(7..).zip(theirs).collect::<Vec<_>>()).unwrap();
        let mut taken = Vec::new();
        device.take(|port, stream| taken.push((port, stream)));
        assert_eq!(taken.iter().map(|(port, _)| *port).collect::<Vec<_>>(), [7, 8, 9, 10]);
        for ((port, mut stream), mut ours) in taken.into_iter().zip(ours) {
            stream.write_all(&[port as u8]).unwrap();
            let mut byte = [0];
            ours.read_exact(&mut byte).unwrap();
            assert_eq!(byte, [port as u8]);
        }
    }
}
