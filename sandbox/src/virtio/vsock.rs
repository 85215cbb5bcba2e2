// SPDX-License-Identifier: Apache-2.0
//! The socket device: connections that the guest dials to declared host ports, each served by a stream of the host
//! (virtio 1.2 §5.10).
//!
//! This file moves packets between rings and the multiplexer: [`packet`] knows the header, [`conn`] one connection's
//! rules, [`mux`] the streams, [`supply`] where more of them come from. Not for what travels: bytes are bytes. Nothing is
//! dialled from the host.

pub(crate) mod conn;
pub(crate) mod mux;
pub(crate) mod packet;
pub(crate) mod supply;

pub(crate) use supply::Supply;

use super::device::{Device, Fault, Id, Io, Token, Traits};
use super::ring::{self, Chain, chain};
use mux::Mux;
use packet::{HEADER_LEN, Header, op};
use std::collections::VecDeque;
use std::os::unix::net::UnixStream;
use vm_memory::GuestMemoryMmap;

/// The guest's address. One guest per device, so every guest has the same.
pub const GUEST_CID: u64 = 3;
/// The host's address.
pub const HOST_CID: u64 = 2;

const RX: u16 = 0;
const TX: u16 = 1;

/// Bytes read from a stream at a time: as much as Linux puts in one packet.
const READ_MAX: usize = 64 << 10;
/// Receive buffers taken at a time; with Linux's 4 KiB buffers they hold one [`READ_MAX`].
const GATHER_MAX: usize = 18;

/// The device.
pub struct Vsock {
    mux: Mux<UnixStream>,
    supply: Option<Supply>,
    /// Payload on its way, either direction. No packet that respects our credit is longer.
    scratch: Vec<u8>,
    /// Transmitted packets wait because answers to earlier ones found no receive buffer.
    stalled: bool,
}

impl std::fmt::Debug for Vsock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Vsock").field("stalled", &self.stalled).finish_non_exhaustive()
    }
}

impl Vsock {
    /// Makes a device with these host ports, each with our end of its stream. A port serves one connection, the
    /// first. Further ports may come from a supply.
    #[must_use]
    pub(crate) fn new(ports: Vec<(u32, UnixStream)>, supply: Option<Supply>) -> Self {
        Self { mux: Mux::new(ports), supply, scratch: vec![0; conn::BUFFER_MAX as usize], stalled: false }
    }

    /// Moves everything that can be moved.
    fn pump(&mut self, io: &mut Io<'_>) -> Result<(), Fault> {
        loop {
            self.receive(io).map_err(|source| Fault::Ring { index: RX, source })?;
            if !self.stalled || self.mux.congested() {
                break;
            }
            self.transmit(io).map_err(|source| Fault::Ring { index: TX, source })?;
        }
        self.mux.rewatch(|stream, token, interest| match interest {
            Some(interest) => io.watch(stream, token, interest),
            None => io.unwatch(stream),
        })
    }

    /// Guest to host: takes packets until there are none, or their answers pile up.
    fn transmit(&mut self, io: &mut Io<'_>) -> Result<(), ring::Error> {
        self.stalled = false;
        let memory = io.memory();
        let Some(ring) = io.ring(TX) else {
            return Ok(());
        };
        loop {
            ring.disarm(memory)?;
            while let Some(mut chain) = ring.pop(memory)? {
                if self.mux.congested() {
                    ring.unpop(&chain);
                    self.stalled = true;
                    return Ok(());
                }
                match take(&mut self.mux, self.supply.as_ref(), &mut self.scratch, &mut chain, memory) {
                    Ok(()) => ring.push(memory, &chain)?,
                    Err(error) => ring.reject(memory, &chain, &error)?,
                }
            }
            if !ring.arm(memory)? {
                return Ok(());
            }
        }
    }

    /// Host to guest: fills receive buffers while there is something to say and a buffer to say it in.
    fn receive(&mut self, io: &mut Io<'_>) -> Result<(), ring::Error> {
        let memory = io.memory();
        let Some(ring) = io.ring(RX) else {
            return Ok(());
        };
        ring.disarm(memory)?;
        while self.mux.wants_to_send() {
            let mut chains = gather(ring, memory)?;
            if chains.is_empty() {
                // Nothing is read from any stream until the driver kicks with new buffers.
                if ring.arm(memory)? {
                    continue;
                }
                return Ok(());
            }
            while !chains.is_empty() {
                let room: usize = chains.iter().map(|chain| chain.writable().saturating_sub(HEADER_LEN)).sum();
                let Some((header, count)) = self.mux.next(room.min(READ_MAX), &mut self.scratch) else {
                    break;
                };
                deliver(ring, memory, header, self.scratch.get(..count).unwrap_or_default(), &mut chains)?;
            }
            if let Some(unused) = chains.front() {
                ring.unpop(unused);
            }
        }
        Ok(())
    }
}

/// Takes receive buffers until they hold [`READ_MAX`], rejecting those that hold no packet.
fn gather(ring: &mut ring::Ring, memory: &GuestMemoryMmap) -> Result<VecDeque<Chain>, ring::Error> {
    let (mut chains, mut room) = (VecDeque::new(), 0_usize);
    while room < READ_MAX && chains.len() < GATHER_MAX {
        let Some(chain) = ring.pop(memory)? else {
            break;
        };
        let has = chain.writable();
        if has > HEADER_LEN {
            room = room.saturating_add(has - HEADER_LEN);
            chains.push_back(chain);
        } else {
            ring.reject(memory, &chain, &chain::Error::Short { has, needs: HEADER_LEN + 1 })?;
        }
    }
    Ok(chains)
}

/// Writes one packet, or as many as its data needs, into the buffers at the front.
fn deliver(
    ring: &mut ring::Ring,
    memory: &GuestMemoryMmap,
    mut header: Header,
    mut data: &[u8],
    chains: &mut VecDeque<Chain>,
) -> Result<(), ring::Error> {
    while let Some(mut chain) = chains.pop_front() {
        let (now, later) = data.split_at(data.len().min(chain.writable().saturating_sub(HEADER_LEN)));
        header.len = u32::try_from(now.len()).unwrap_or(u32::MAX);
        chain.write(memory, &header.bytes()).map_err(ring::Error::Chain)?;
        chain.write(memory, now).map_err(ring::Error::Chain)?;
        ring.push(memory, &chain)?;
        data = later;
        if data.is_empty() {
            break;
        }
    }
    Ok(())
}

/// Reads one transmitted packet and hands it to the multiplexer.
fn take(
    mux: &mut Mux<UnixStream>,
    supply: Option<&Supply>,
    scratch: &mut [u8],
    chain: &mut Chain,
    memory: &GuestMemoryMmap,
) -> Result<(), chain::Error> {
    let mut bytes = [0; HEADER_LEN];
    chain.read(memory, &mut bytes)?;
    let header = Header::parse(&bytes);
    if let Some(supply) = supply.filter(|_| header.op == op::REQUEST) {
        supply.take(|port, stream| mux.declare(port, stream));
    }
    let has = chain.readable();
    // What is longer than the scratch buffer breaks our credit; what differs from the header is no packet.
    match scratch.get_mut(..has).filter(|_| usize::try_from(header.len) == Ok(has)) {
        Some(payload) => {
            chain.read(memory, payload)?;
            mux.take(&header, payload);
        }
        None => mux.refuse(&header),
    }
    Ok(())
}

impl Device for Vsock {
    fn traits(&self) -> Traits {
        Traits { id: Id::Vsock, features: 0, rings: &[256, 256, 256], config: 8 }
    }

    fn config(&self, offset: usize, out: &mut [u8]) {
        for (at, byte) in (offset..).zip(out) {
            *byte = GUEST_CID.to_le_bytes().get(at).copied().unwrap_or(0);
        }
    }

    fn started(&mut self, _features: u64, _io: &mut Io<'_>) -> Result<(), Fault> {
        Ok(())
    }

    fn kicked(&mut self, index: u16, io: &mut Io<'_>) -> Result<(), Fault> {
        if index == TX {
            self.transmit(io).map_err(|source| Fault::Ring { index, source })?;
        }
        self.pump(io)
    }

    fn ready(&mut self, Token(index): Token, io: &mut Io<'_>) -> Result<(), Fault> {
        self.mux.ready(index);
        self.pump(io)
    }

    fn reset(&mut self) {
        self.stalled = false;
        self.mux.reset();
    }
}
