// SPDX-License-Identifier: Apache-2.0
//! A driver that writes anything, in any order. What a sensible one gets is in the conformance cases.

use super::*;
use crate::memory;
use crate::virtio::device::{Device, Id, Io, Token};
use std::sync::atomic::{AtomicUsize, Ordering};

mod layout;
mod order;
mod registers;

const DEVICE_FEATURES: u64 = 0x010;
const DEVICE_BANK: u64 = 0x014;
const DRIVER_FEATURES: u64 = 0x020;
const DRIVER_BANK: u64 = 0x024;
const SELECT: u64 = 0x030;
const SIZE_MAX: u64 = 0x034;
const SIZE: u64 = 0x038;
const READY: u64 = 0x044;
const INTERRUPT_STATUS: u64 = 0x060;
const ACKNOWLEDGE: u64 = 0x064;
const STATUS: u64 = 0x070;
/// Where [`lay_out`] puts the parts of ring 0.
const PARTS: [(u64, u64); 3] = [(0x080, 0x1_0000), (0x090, 0x1_1000), (0x0a0, 0x1_2000)];

/// Counts how often it is started.
struct Counter(Arc<AtomicUsize>);

impl Device for Counter {
    fn traits(&self) -> Traits {
        Traits { id: Id::Vsock, features: 1 << 3, rings: &[64, 128], config: 8 }
    }

    fn config(&self, offset: usize, out: &mut [u8]) {
        for (at, byte) in (offset..).zip(out) {
            *byte = 0xa0 + u8::try_from(at).expect("small");
        }
    }

    fn started(&mut self, _features: u64, _io: &mut Io<'_>) -> Result<(), Fault> {
        self.0.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    fn kicked(&mut self, ring: u16, io: &mut Io<'_>) -> Result<(), Fault> {
        let memory = io.memory();
        // As any device would: a ring that makes no sense is a fault.
        io.ring(ring)
            .map_or(Ok(()), |ring| ring.drain(memory, |_| Ok(())))
            .map_err(|source| Fault::Ring { index: ring, source })
    }

    fn ready(&mut self, _source: Token, _io: &mut Io<'_>) -> Result<(), Fault> {
        Ok(())
    }

    fn reset(&mut self) {}
}

/// A window on a counter, and its count.
fn window() -> (Window, Arc<AtomicUsize>) {
    let (_, memory) = memory::create(1 << 20).expect("memory");
    let count = Arc::new(AtomicUsize::new(0));
    let device = Box::new(Counter(Arc::clone(&count)));
    (Window::new(Backing::Local(device, || Ok(())), memory).expect("window"), count)
}

fn read(window: &Window, offset: u64) -> u32 {
    let mut bytes = [0xee; 4];
    window.read(offset, &mut bytes);
    u32::from_le_bytes(bytes)
}

fn write(window: &Window, offset: u64, value: u32) {
    window.write(offset, &value.to_le_bytes());
}

/// Up to the point where rings are laid out, with every feature.
fn negotiate(window: &Window) {
    for status in [0, 1, 3] {
        write(window, STATUS, status);
    }
    accept(window, window.traits.features);
    write(window, STATUS, 11);
    assert_eq!(read(window, STATUS), 11);
}

fn accept(window: &Window, features: u64) {
    for (bank, bits) in [(0, features as u32), (1, (features >> 32) as u32)] {
        write(window, DRIVER_BANK, bank);
        write(window, DRIVER_FEATURES, bits);
    }
}

/// Lays ring 0 out and calls it ready.
fn lay_out(window: &Window, size: u32) {
    write(window, SELECT, 0);
    write(window, SIZE, size);
    for (register, address) in PARTS {
        write(window, register, address as u32);
        write(window, register + 4, (address >> 32) as u32);
    }
    write(window, READY, 1);
}

/// A window that is live.
fn live() -> (Window, Arc<AtomicUsize>) {
    let (window, count) = window();
    negotiate(&window);
    lay_out(&window, 64);
    write(&window, STATUS, 15);
    assert_eq!(read(&window, STATUS), 15);
    (window, count)
}

/// How often the device was started; it is reset, so that the answer is final.
fn starts(window: &Window, count: &AtomicUsize) -> usize {
    write(window, STATUS, 0);
    count.swap(0, Ordering::SeqCst)
}

/// Whether the driver was interrupted since the last time.
fn interrupted(window: &Window) -> bool {
    let mut count = [0; 8];
    rustix::io::read(window.interrupt(), &mut count).is_ok()
}
