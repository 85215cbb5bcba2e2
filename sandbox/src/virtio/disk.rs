// SPDX-License-Identifier: Apache-2.0
//! The block device: reads and writes a file (virtio 1.2 §5.2).
//!
//! What is written need not outlive the machine, so a flush has nothing to do. Not for what is on the disk, nor for where
//! its file comes from.

use super::device::{Device, Fault, Id, Io, Token, Traits};
use super::ring::chain::{self, Chain};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use vm_memory::GuestMemoryMmap;

/// Most bytes of one request, so that the guest cannot choose how long we are busy.
pub const REQUEST_MAX: usize = 4 << 20;

/// Bytes moved at a time.
const PIECE: usize = 64 << 10;

/// Capacity and requests are counted in these, whatever the file system's blocks are (§5.2.2).
const SECTOR: u64 = 512;

/// Bytes of a request before its data: type, a reserved word, first sector (§5.2.6).
const HEADER: usize = 16;

const IN: u32 = 0;
const OUT: u32 = 1;
const FLUSH: u32 = 4;
const GET_ID: u32 = 8;

/// Bytes of an answer to [`GET_ID`].
const ID: usize = 20;

/// How a request ended, its last byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Status {
    Done = 0,
    Failed = 1,
    Unknown = 2,
}

/// `VIRTIO_BLK_F_SEG_MAX` and `VIRTIO_BLK_F_FLUSH` (§5.2.3).
const FEATURES: u64 = 1 << 2 | 1 << 9;

/// Most buffers of a request's data: a ring's, without header and status.
const SEGMENTS: u32 = 126;

/// Bytes of the configuration space that mean something.
const CONFIG: usize = 60;

/// The device.
#[derive(Debug)]
pub struct Disk {
    file: File,
    /// What the driver may use of it.
    bytes: u64,
    piece: Vec<u8>,
}

impl Disk {
    /// Serves this file; what is beyond its last whole sector is not used.
    ///
    /// # Errors
    /// If its size cannot be found out.
    pub fn new(file: File) -> io::Result<Self> {
        let bytes = file.metadata()?.len() / SECTOR * SECTOR;
        Ok(Self { file, bytes, piece: vec![0; PIECE] })
    }

    fn serve(&mut self, memory: &GuestMemoryMmap, chain: &mut Chain) -> Result<(), chain::Error> {
        let mut header = [0; HEADER];
        chain.read(memory, &mut header)?;
        let [t0, t1, t2, t3, _, _, _, _, sector @ ..] = header;
        let sector = u64::from_le_bytes(sector);
        // The last byte is for the status.
        let Some(room) = chain.writable().checked_sub(1) else {
            return Err(chain::Error::Short { has: 0, needs: 1 });
        };
        if room.max(chain.readable()) > REQUEST_MAX {
            return Err(chain::Error::TooLong);
        }
        let status = match u32::from_le_bytes([t0, t1, t2, t3]) {
            IN => self.read(memory, chain, sector, room)?,
            OUT => self.write(memory, chain, sector)?,
            FLUSH => Status::Done,
            GET_ID if room >= ID => Status::Done,
            _ => Status::Unknown,
        };
        // What has not been answered is answered with nothing, so that the status comes last.
        while let Some(left) = chain.writable().checked_sub(1).filter(|left| *left > 0) {
            chain.write(memory, &[0; 512][..left.min(512)])?;
        }
        chain.write(memory, &[status as u8])
    }

    fn read(
        &mut self,
        memory: &GuestMemoryMmap,
        chain: &mut Chain,
        sector: u64,
        length: usize,
    ) -> Result<Status, chain::Error> {
        let Some(mut at) = self.place(sector, length) else { return Ok(Status::Failed) };
        let mut left = length;
        while left > 0 {
            let piece = self.piece.get_mut(..left.min(PIECE)).unwrap_or_default();
            if self.file.read_exact_at(piece, at).is_err() {
                return Ok(Status::Failed);
            }
            chain.write(memory, piece)?;
            at = at.saturating_add(piece.len() as u64);
            left = left.saturating_sub(piece.len());
        }
        Ok(Status::Done)
    }

    fn write(&mut self, memory: &GuestMemoryMmap, chain: &mut Chain, sector: u64) -> Result<Status, chain::Error> {
        let Some(mut at) = self.place(sector, chain.readable()) else { return Ok(Status::Failed) };
        while chain.readable() > 0 {
            let piece = self.piece.get_mut(..chain.readable().min(PIECE)).unwrap_or_default();
            chain.read(memory, piece)?;
            // The host's disk may be full.
            if self.file.write_all_at(piece, at).is_err() {
                return Ok(Status::Failed);
            }
            at = at.saturating_add(piece.len() as u64);
        }
        Ok(Status::Done)
    }

    /// Where in the file so many bytes from a sector on are, if they are whole sectors of the disk.
    fn place(&self, sector: u64, length: usize) -> Option<u64> {
        let (begin, length) = (sector.checked_mul(SECTOR)?, u64::try_from(length).ok()?);
        let end = begin.checked_add(length)?;
        (length.is_multiple_of(SECTOR) && end <= self.bytes).then_some(begin)
    }
}

impl Device for Disk {
    fn traits(&self) -> Traits {
        Traits { id: Id::Disk, features: FEATURES, rings: &[128], config: CONFIG }
    }

    fn config(&self, offset: usize, out: &mut [u8]) {
        let mut space = [0; CONFIG];
        let (capacity, rest) = space.split_at_mut(8);
        capacity.copy_from_slice(&(self.bytes / SECTOR).to_le_bytes());
        if let Some(segments) = rest.get_mut(4..8) {
            segments.copy_from_slice(&SEGMENTS.to_le_bytes());
        }
        for (own, byte) in space.iter().skip(offset).zip(out) {
            *byte = *own;
        }
    }

    fn started(&mut self, _features: u64, _io: &mut Io<'_>) -> Result<(), Fault> {
        Ok(())
    }

    fn kicked(&mut self, index: u16, io: &mut Io<'_>) -> Result<(), Fault> {
        let memory = io.memory();
        let Some(ring) = io.ring(index) else {
            return Ok(());
        };
        ring.drain(memory, |chain| self.serve(memory, chain)).map_err(|source| Fault::Ring { index, source })
    }

    fn ready(&mut self, _source: Token, _io: &mut Io<'_>) -> Result<(), Fault> {
        Ok(())
    }

    fn reset(&mut self) {}
}
