// SPDX-License-Identifier: Apache-2.0
//! A guest's driver in miniature: rings in a memory, chains by hand, and whatever else a guest can write.

use super::front::{End, Front, Kind, Remains};
use crate::memory::{self, Memory};
use crate::virtio::device::Device;
use crate::virtio::mmio::Window;
use std::fs::File;
use vm_memory::{Bytes, FileOffset, GuestAddress, GuestAddressSpace, GuestMemoryMmap};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

/// Bytes of guest memory.
pub(super) const MEMORY: u64 = 4 << 20;
/// Where the pieces of a memory in pieces end and begin.
pub(super) const SEAM: u64 = 2 << 20;
pub(super) const LOW_END: u64 = 3 << 20;
pub(super) const HIGH: u64 = 4 << 30;
/// Entries of each ring.
pub(super) const RING: u16 = 64;
/// Where a test's own bytes may lie.
pub(super) const DATA: u64 = 1 << 20;

/// Descriptor flags (virtio 1.2 §2.7.5).
pub(super) const NEXT: u16 = 1;
pub(super) const WRITE: u16 = 2;
pub(super) const INDIRECT: u16 = 4;

/// A descriptor without its link.
#[derive(Debug, Clone, Copy)]
pub(super) struct Buffer {
    pub(super) address: u64,
    pub(super) length: u32,
    pub(super) flags: u16,
}

/// A ring from the driver's side.
pub(super) struct Side {
    /// Guest address of the descriptor table; the rest follows.
    pub(super) base: u64,
    /// Where the next start begins.
    pub(super) position: u16,
    pub(super) kick: EventFd,
    pub(super) call: EventFd,
    /// From the descriptor table to the used ring.
    pub(super) used_offset: u64,
    offered: u16,
    seen: u16,
    next_descriptor: u16,
}

impl Side {
    pub(super) fn available(&self) -> u64 {
        self.base + 0x1000
    }

    pub(super) fn used(&self) -> u64 {
        self.base + self.used_offset
    }
}

/// A driver with its device.
pub(super) struct Driver {
    front: Front,
    memory: Memory,
    pub(super) sides: Vec<Side>,
    _file: File,
}

impl Driver {
    pub(super) fn new(kind: Kind, device: Box<dyn Device>) -> Self {
        let (file, memory) = memory::create(MEMORY).expect("memory");
        Self::over(kind, device, file, memory)
    }

    /// With memory in three pieces: two that touch at [`SEAM`], and one beyond a gap from [`LOW_END`] to [`HIGH`].
    pub(super) fn in_pieces(kind: Kind, device: Box<dyn Device>) -> Self {
        let (file, _whole) = memory::create(MEMORY).expect("memory");
        let piece = |at: u64, length: u64, offset: u64| {
            let file = FileOffset::new(file.try_clone().expect("file"), offset);
            (GuestAddress(at), usize::try_from(length).expect("small"), Some(file))
        };
        let pieces = [piece(0, SEAM, 0), piece(SEAM, LOW_END - SEAM, SEAM), piece(HIGH, MEMORY - LOW_END, LOW_END)];
        let map = GuestMemoryMmap::from_ranges_with_files(pieces).expect("map");
        Self::over(kind, device, file, Memory::new(map))
    }

    fn over(kind: Kind, device: Box<dyn Device>, file: File, memory: Memory) -> Self {
        let event = || EventFd::new(EFD_NONBLOCK).expect("eventfd");
        let side = |index: u64| Side {
            base: 0x10000 * (index + 1),
            position: 0,
            kick: event(),
            call: event(),
            used_offset: 0x2000,
            offered: 0,
            seen: 0,
            next_descriptor: 0,
        };
        let sides = (0..device.traits().rings.len() as u64).map(side).collect();
        let front = Front::new(kind, device, memory.clone(), &file);
        Self { front, memory, sides, _file: file }
    }

    pub(super) fn features(&self) -> u64 {
        self.front.features()
    }

    pub(super) fn config(&mut self, offset: u32, length: usize) -> Vec<u8> {
        self.front.config(offset, length)
    }

    pub(super) fn start_all(&mut self) {
        let rings: Vec<usize> = (0..self.sides.len()).collect();
        self.start_rings(&rings);
    }

    pub(super) fn start(&mut self, index: usize) {
        self.start_rings(&[index]);
    }

    pub(super) fn start_rings(&mut self, rings: &[usize]) {
        self.front.start(rings, &self.sides, &self.memory).expect("start");
    }

    /// Starts a ring whose parts are all moved up.
    pub(super) fn try_start_at(&mut self, index: usize, shift: u64) -> Result<(), String> {
        self.sides[index].base = self.sides[index].base.wrapping_add(shift);
        self.front.start(&[index], &self.sides, &self.memory)
    }

    pub(super) fn stop(&mut self, index: usize) -> u16 {
        self.sides[index].position = self.front.stop(index);
        self.sides[index].position
    }

    pub(super) fn reset(&mut self) {
        self.front.reset();
    }

    /// The other process, or the machine, dies.
    pub(super) fn die(self) -> Remains {
        self.front.die()
    }

    /// The registers, for what only they can do.
    pub(super) fn window(&self) -> &Window {
        self.front.window()
    }

    /// Waits until the device has retired or its server has ended.
    pub(super) fn end(&mut self) -> End {
        self.front.end()
    }

    /// Lets a stopped ring go on elsewhere.
    pub(super) fn set_position(&mut self, index: usize, position: u16) {
        let side = &mut self.sides[index];
        (side.position, side.offered, side.seen) = (position, position, position);
        let (available, used) = (side.available(), side.used());
        self.write_memory(available + 2, &position.to_le_bytes());
        self.write_memory(used + 2, &position.to_le_bytes());
    }

    /// Makes a ring new.
    pub(super) fn clear_ring(&mut self, index: usize) {
        self.write_memory(self.sides[index].base, &[0; 0x3000]);
        self.set_position(index, 0);
    }

    pub(super) fn write_memory(&self, address: u64, bytes: &[u8]) {
        self.memory.memory().write_slice(bytes, GuestAddress(address)).expect("write");
    }

    pub(super) fn read_memory(&self, address: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.memory.memory().read_slice(&mut bytes, GuestAddress(address)).expect("read");
        bytes
    }

    fn read_u16(&self, address: u64) -> u16 {
        let bytes = self.read_memory(address, 2);
        u16::from_le_bytes([bytes[0], bytes[1]])
    }

    pub(super) fn write_descriptor(&self, at: u64, buffer: Buffer, next: u16) {
        self.write_memory(at, &buffer.address.to_le_bytes());
        self.write_memory(at + 8, &buffer.length.to_le_bytes());
        self.write_memory(at + 12, &buffer.flags.to_le_bytes());
        self.write_memory(at + 14, &next.to_le_bytes());
    }

    pub(super) fn set_descriptor(&self, index: usize, descriptor: u16, buffer: Buffer, next: u16) {
        self.write_descriptor(self.sides[index].base + 16 * u64::from(descriptor), buffer, next);
    }

    /// Offers a chain. Descriptors are taken in turn, so a test must not have more than a ring of them in flight.
    /// Returns its head.
    pub(super) fn offer(&mut self, index: usize, buffers: &[Buffer]) -> u16 {
        let head = self.sides[index].next_descriptor;
        for (step, buffer) in (0..).zip(buffers) {
            let descriptor = (head + step) % RING;
            let more = if usize::from(step) + 1 < buffers.len() { NEXT } else { 0 };
            let buffer = Buffer { flags: buffer.flags | more, ..*buffer };
            self.set_descriptor(index, descriptor, buffer, (descriptor + 1) % RING);
        }
        self.sides[index].next_descriptor = (head + buffers.len() as u16) % RING;
        self.offer_head(index, head);
        head
    }

    /// Offers the chain that begins at a descriptor.
    pub(super) fn offer_head(&mut self, index: usize, head: u16) {
        let side = &mut self.sides[index];
        let slot = side.available() + 4 + 2 * u64::from(side.offered % RING);
        side.offered = side.offered.wrapping_add(1);
        let (at, offered) = (side.available() + 2, side.offered);
        self.write_memory(slot, &head.to_le_bytes());
        std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
        self.write_memory(at, &offered.to_le_bytes());
    }

    /// Moves the available index without offering anything.
    pub(super) fn skip_available(&mut self, index: usize, by: u16) {
        let side = &mut self.sides[index];
        side.offered = side.offered.wrapping_add(by);
        let (at, offered) = (side.available() + 2, side.offered);
        self.write_memory(at, &offered.to_le_bytes());
    }

    pub(super) fn kick(&self, index: usize) {
        self.front.kick(index, &self.sides[index]);
    }

    /// Chains offered and not used yet.
    pub(super) fn pending(&self, index: usize) -> u16 {
        self.sides[index].offered.wrapping_sub(self.read_u16(self.sides[index].used() + 2))
    }

    /// Waits for the next used chain; returns how many bytes were written to it.
    pub(super) fn wait_used(&mut self, index: usize) -> u32 {
        self.wait_used_head(index).1
    }

    /// Waits for the next used chain; returns its head and how many bytes were written to it.
    pub(super) fn wait_used_head(&mut self, index: usize) -> (u32, u32) {
        let used = self.sides[index].used();
        let seen = self.sides[index].seen;
        // Ask for a notification at the next one, then look: nothing can slip through between.
        let event_at = self.sides[index].available() + 4 + 2 * u64::from(RING);
        self.write_memory(event_at, &seen.to_le_bytes());
        std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
        while self.read_u16(used + 2) == seen {
            self.front.wait(&self.sides[index]);
        }
        self.sides[index].seen = seen.wrapping_add(1);
        let element = self.read_memory(used + 4 + 8 * u64::from(seen % RING), 8);
        let number = |at: usize| u32::from_le_bytes([element[at], element[at + 1], element[at + 2], element[at + 3]]);
        (number(0), number(4))
    }
}
