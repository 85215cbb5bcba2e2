// SPDX-License-Identifier: Apache-2.0
//! Rings that no driver would write, by the thousand, straight into the engine of each device.

use super::*;
use crate::memory;
use crate::sys::eventfd;
use crate::virtio::ring::{self, Setup};
use crate::virtio::rng::Rng;
use crate::virtio::vsock::Vsock;
use crate::virtio::vsock::packet::{HEADER_LEN, Header, op};
use crate::virtio::vsock::{GUEST_CID, HOST_CID};
use rustix::io::Errno;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use vm_memory::{Bytes, GuestAddress};

const RING: u16 = 16;
const MEMORY: u64 = 1 << 20;
/// Buffers and packets lie here.
const DATA: u64 = 0x4_0000;

struct Silent;

impl Notify for Silent {
    fn notify(&self) -> Result<(), Errno> {
        Ok(())
    }
}

/// xorshift64: what a hostile driver writes next.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % limit
    }

    fn address(&mut self) -> u64 {
        match self.below(32) {
            0 => MEMORY - self.below(64),
            1 => u64::MAX - self.below(64),
            2 => self.below(DATA),
            _ => DATA + self.below(64) * 64,
        }
    }

    fn length(&mut self) -> u32 {
        match self.below(16) {
            0 => u32::MAX,
            1 => 0,
            2 => 1 << self.below(32),
            3 => self.below(44) as u32,
            _ => HEADER_LEN as u32 + self.below(128) as u32,
        }
    }

    fn flags(&mut self) -> u16 {
        match self.below(32) {
            0 => self.below(1 << 16) as u16,
            1..4 => 4,
            4..8 => 1,
            8..20 => 2,
            _ => 0,
        }
    }
}

/// An engine whose thread is the test's, with its rings in a memory.
struct Victim {
    engine: Engine,
    memory: Memory,
    faults: Arc<AtomicU64>,
    available: Vec<u16>,
    hosts: Vec<UnixStream>,
    _commands: mpsc::Sender<Command>,
}

impl Victim {
    fn new(make: fn() -> (Box<dyn Device>, Vec<UnixStream>)) -> Self {
        let (device, hosts) = make();
        let (_, memory) = memory::create(MEMORY).expect("memory");
        let (commands, inbox) = mpsc::channel();
        let faults = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&faults);
        let on_fault: OnFault = Box::new(move |_| {
            count.fetch_add(1, Ordering::Relaxed);
        });
        let rings = device.traits().rings.len();
        let engine = Engine::new(device, memory.clone(), Epoll::new().expect("epoll"), inbox, on_fault);
        let available = vec![0; rings];
        let mut victim = Self { engine, memory, faults, available, hosts, _commands: commands };
        victim.start();
        victim
    }

    fn base(index: usize) -> u64 {
        0x1_0000 * (index as u64 + 1)
    }

    /// Makes the rings new and starts them.
    fn start(&mut self) {
        for index in 0..self.available.len() {
            let base = Self::base(index);
            self.write(base, &[0; 0x3000]);
            self.available[index] = 0;
            let setup = Setup {
                size: RING,
                descriptors: base,
                available: base + 0x1000,
                used: base + 0x2000,
                position: 0,
                features: ring::FEATURES,
                kick: Arc::new(eventfd::create().expect("eventfd")),
                notify: Box::new(Silent),
            };
            let ring = Ring::new(setup, RING, &self.memory.memory()).expect("ring");
            self.engine.start(index as u16, ring, ring::FEATURES);
        }
    }

    fn write(&self, address: u64, bytes: &[u8]) {
        self.memory.memory().write_slice(bytes, GuestAddress(address)).expect("write");
    }

    /// Writes a descriptor, with any packet where it points.
    fn scribble(&mut self, dice: &mut Dice, table: u64) {
        let (address, length) = (dice.address(), dice.length());
        let at = table + 16 * dice.below(u64::from(RING));
        self.write(at, &address.to_le_bytes());
        self.write(at + 8, &length.to_le_bytes());
        self.write(at + 12, &dice.flags().to_le_bytes());
        self.write(at + 14, &(dice.below(u64::from(RING) + 1) as u16).to_le_bytes());
        let header = Header {
            src_cid: GUEST_CID,
            dst_cid: HOST_CID,
            src_port: 9000,
            dst_port: 1024 + dice.below(3) as u32,
            len: length.saturating_sub(HEADER_LEN as u32),
            kind: 1,
            op: if dice.below(2) == 0 { op::RW } else { dice.below(9) as u16 },
            flags: dice.below(4) as u32,
            buf_alloc: dice.below(1 << 18) as u32,
            fwd_cnt: dice.below(1 << 10) as u32,
        };
        // An indirect table may be scribbled over; the guest could do that as well.
        self.write(DATA + dice.below(64) * 64, &header.bytes());
    }

    fn step(&mut self, dice: &mut Dice) {
        let index = dice.below(self.available.len() as u64) as usize;
        for _ in 0..dice.below(4) {
            let table = if dice.below(8) == 0 { DATA } else { Self::base(index) };
            self.scribble(dice, table);
        }
        let offered = match dice.below(512) {
            0 => dice.below(1 << 16) as u16,
            _ => dice.below(4) as u16,
        };
        let base = Self::base(index) + 0x1000;
        for step in 0..offered.min(RING) {
            let slot = self.available[index].wrapping_add(step) % RING;
            let head = if dice.below(256) == 0 { RING } else { dice.below(u64::from(RING)) as u16 };
            self.write(base + 4 + 2 * u64::from(slot), &head.to_le_bytes());
        }
        self.available[index] = self.available[index].wrapping_add(offered);
        self.write(base + 2, &self.available[index].to_le_bytes());
        self.engine.kicked(index as u16);
        // Each call serves a bounded number of chains, and asks to be called again for the rest.
        for round in 0.. {
            assert!(round < 64, "it never gets done");
            let again = std::mem::take(&mut self.engine.again);
            if again.is_empty() {
                break;
            }
            for index in again {
                self.engine.kicked(index);
            }
        }
    }
}

fn rng() -> (Box<dyn Device>, Vec<UnixStream>) {
    (Box::new(Rng::new()), Vec::new())
}

fn vsock() -> (Box<dyn Device>, Vec<UnixStream>) {
    let (a, b) = UnixStream::pair().expect("pair");
    let (c, d) = UnixStream::pair().expect("pair");
    (Box::new(Vsock::new(vec![(1024, a), (1025, c)], None)), vec![b, d])
}

/// Runs a device for a while; returns how often it retired.
fn torment(make: fn() -> (Box<dyn Device>, Vec<UnixStream>), iterations: u64) -> u64 {
    let (mut dice, mut faults) = (Dice(0x5eed_5eed), 0);
    let mut victim = Victim::new(make);
    for iteration in 0..iterations {
        victim.step(&mut dice);
        if dice.below(64) == 0 {
            for host in &victim.hosts {
                rustix::net::send(host, &[1; 300], rustix::net::SendFlags::DONTWAIT).ok();
            }
            victim.engine.ready(Token(0));
            victim.engine.ready(Token(1));
        }
        if victim.engine.retired || iteration % 20_000 == 19_999 {
            faults += victim.faults.swap(0, Ordering::Relaxed);
            if dice.below(16) == 0 {
                victim = Victim::new(make);
            } else {
                victim.engine.reset(dice.below(2) == 0);
                victim.start();
            }
        }
    }
    faults
}

#[test]
fn hostile_rings() {
    let wanted = std::env::var("SANDBOX_FUZZ_ITERATIONS").ok().and_then(|value| value.parse().ok());
    let iterations: u64 = wanted.unwrap_or(20_000);
    let retired = torment(vsock, iterations);
    assert!(retired > iterations / 10_000, "{retired}");
    let retired = torment(rng, iterations.div_ceil(10));
    assert!(retired > iterations / 100_000, "{retired}");
}
