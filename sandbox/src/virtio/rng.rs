// SPDX-License-Identifier: Apache-2.0
//! The entropy source: fills the driver's buffers from the host's generator (virtio 1.2 §5.4).
//!
//! Not for seeding the guest at its start: that is the session's part, which does not trust a queue for it.

use super::device::{Device, Fault, Id, Io, Token, Traits};
use super::ring::chain;
use rustix::io::Errno;
use rustix::rand::{GetRandomFlags, getrandom};

/// Most bytes of one request that are filled, so that the guest cannot choose how long we are busy.
pub const REQUEST_MAX: usize = 64 << 10;

/// Bytes made at a time.
const PIECE: usize = 256;

/// The device.
#[derive(Debug, Default)]
pub struct Rng {}

impl Rng {
    /// Makes one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

impl Device for Rng {
    fn traits(&self) -> Traits {
        Traits { id: Id::Rng, features: 0, rings: &[256], config: 0 }
    }

    fn config(&self, _offset: usize, _out: &mut [u8]) {}

    fn started(&mut self, _features: u64, _io: &mut Io<'_>) -> Result<(), Fault> {
        Ok(())
    }

    fn kicked(&mut self, index: u16, io: &mut Io<'_>) -> Result<(), Fault> {
        let memory = io.memory();
        let Some(ring) = io.ring(index) else {
            return Ok(());
        };
        let mut failed = Ok(());
        ring.drain(memory, |chain| {
            if chain.writable() == 0 {
                return Err(chain::Error::Short { has: 0, needs: 1 });
            }
            let mut left = chain.writable().min(REQUEST_MAX);
            while left > 0 {
                let mut piece = [0; PIECE];
                let count = left.min(PIECE);
                if let Err(error) = fill(&mut piece) {
                    failed = Err(Fault::Host(error.into()));
                    break;
                }
                chain.write(memory, &piece[..count])?;
                left -= count;
            }
            Ok(())
        })
        .map_err(|source| Fault::Ring { index, source })?;
        failed
    }

    fn ready(&mut self, _source: Token, _io: &mut Io<'_>) -> Result<(), Fault> {
        Ok(())
    }

    fn reset(&mut self) {}
}

/// Fills a piece. Up to 256 bytes come whole and without waiting, once the host's generator is seeded (getrandom(2)).
fn fill(piece: &mut [u8; PIECE]) -> Result<(), Errno> {
    let mut filled = 0;
    while filled < PIECE {
        filled += match getrandom(&mut piece[filled..], GetRandomFlags::empty()) {
            Err(Errno::INTR) => 0,
            result => result?,
        };
    }
    Ok(())
}
