// SPDX-License-Identifier: Apache-2.0
//! Generated requests to the whole server: the library's decoder, our share, and a directory of the host behind it.
//!
//! A request is a FUSE header (linux/fuse.h) with an opcode of the protocol, node and handle numbers that are mostly
//! ones the server has given out, a body of small and absurd numbers and of names, in a descriptor chain of random
//! cuts. Whatever comes back, the server must not panic, hang or reach beyond its directory.
//! `SANDBOX_FUZZ_ITERATIONS` makes it run longer; the seed is fixed, so a failure can be repeated.

use super::*;
use crate::fs::backend::tests::{NEXT, WRITE, chain, descriptor, memory};
use crate::fs::backend::{Backend, Memory};
use vm_memory_fs::{Bytes, GuestAddress, GuestMemoryLoadGuard};

/// Guest memory of the test: descriptors and ring, request and answer, one behind the other.
const SIZE: usize = 1 << 20;
const REQUEST: u64 = 0x10000;
const ANSWER: u64 = 0x40000;
const HEADER: usize = 40;

/// Opcodes whose numbers could fill the host's disk, or wait for a lock that the test itself holds: Fallocate, Setlkw.
const LEFT_OUT: [u32; 2] = [43, 33];

const NAMES: [&[u8]; 14] = [
    b"a\0",
    b"b\0",
    b"c\0",
    b"d\0",
    b".\0",
    b"..\0",
    b"/etc/passwd\0",
    b"../outside\0",
    b"\0",
    b"a\0b\0",
    b"x/y\0",
    b"unterminated",
    b"../outside\0a\0",
    b"security.capability\0",
];

/// Requests that one session lives through.
const LIFE: u64 = 100;

/// Requests as they should be: opcode, 64-bit words of fixed fields, names.
const SHAPES: [(u32, u64, u64); 30] = [
    (1, 0, 1),
    (2, 1, 0),
    (3, 2, 0),
    (4, 11, 0),
    (5, 0, 0),
    (6, 0, 2),
    (8, 2, 1),
    (9, 1, 1),
    (10, 0, 1),
    (11, 0, 1),
    (12, 1, 2),
    (13, 1, 1),
    (14, 1, 0),
    (15, 5, 0),
    (16, 5, 2),
    (17, 0, 0),
    (18, 3, 0),
    (20, 2, 0),
    (25, 3, 0),
    (27, 1, 0),
    (28, 5, 0),
    (29, 3, 0),
    (34, 1, 0),
    (35, 2, 1),
    (42, 5, 0),
    (44, 5, 0),
    (45, 2, 2),
    (46, 3, 0),
    (47, 7, 0),
    (50, 1, 0),
];

struct Dice {
    state: u64,
    /// Numbers of nodes and handles that the server gave out last.
    known: [u64; 8],
}

impl Dice {
    fn next(&mut self) -> u64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        self.state
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// Mostly small, sometimes at an edge, sometimes anything.
    fn number(&mut self) -> u64 {
        match self.below(8) {
            0 => u64::MAX - self.below(3),
            1 => u64::from(u32::MAX) - self.below(3),
            2 => self.next(),
            3 | 4 => self.acquaintance(),
            _ => self.below(24),
        }
    }

    fn acquaintance(&mut self) -> u64 {
        self.known[self.below(self.known.len() as u64) as usize]
    }

    fn pick<'a>(&mut self, list: &[&'a [u8]]) -> &'a [u8] {
        list[self.below(list.len() as u64) as usize]
    }

    /// An opcode with a body that is not its own.
    fn nonsense(&mut self) -> (u32, u64, u64) {
        loop {
            let opcode = self.below(55) as u32;
            if !LEFT_OUT.contains(&opcode) {
                return (opcode, self.below(7), self.below(3));
            }
        }
    }

    fn shape(&mut self) -> (u32, u64, u64) {
        SHAPES[self.below(SHAPES.len() as u64) as usize]
    }

    fn request(&mut self) -> Vec<u8> {
        let mut bytes = vec![0; HEADER];
        let (opcode, words, names) = if self.below(4) == 0 { self.nonsense() } else { self.shape() };
        for _ in 0..words {
            bytes.extend_from_slice(&self.number().to_le_bytes());
        }
        for _ in 0..names {
            bytes.extend_from_slice(self.pick(&NAMES));
        }
        let length = if self.below(16) == 0 { self.next() as u32 } else { bytes.len() as u32 };
        bytes[..4].copy_from_slice(&length.to_le_bytes());
        bytes[4..8].copy_from_slice(&opcode.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.next().to_le_bytes());
        let node = match self.below(8) {
            0 => self.number(),
            1..4 => self.acquaintance(),
            _ => 1,
        };
        bytes[16..24].copy_from_slice(&node.to_le_bytes());
        bytes
    }
}

type Loaded = GuestMemoryLoadGuard<Memory>;

/// Puts a request of random cuts and room for an answer into the ring; its chain's head is 0.
fn post(memory: &Memory, dice: &mut Dice, request: &[u8]) {
    memory.write_slice(request, GuestAddress(REQUEST)).unwrap();
    let cut = if dice.below(4) == 0 { dice.below(request.len() as u64 + 1) } else { HEADER as u64 };
    let room = if dice.below(4) == 0 { dice.below(200) as u32 } else { 8192 };
    descriptor(memory, 0, (REQUEST, cut as u32), NEXT);
    descriptor(
        memory,
        1,
        (REQUEST + cut, (request.len() as u64 - cut) as u32),
        NEXT | (dice.below(64) as u16 / 63 * WRITE),
    );
    descriptor(memory, 2, (ANSWER, 16), NEXT | WRITE);
    descriptor(memory, 3, (ANSWER + 16, room), WRITE);
}

fn handle(backend: &Backend<Share>, memory: &Loaded) -> bool {
    backend.answer(memory, chain(memory)) > 0 && answered(memory)
}

/// Whether the answer's header says that the request was carried out.
fn answered(memory: &Memory) -> bool {
    memory.read_obj::<i32>(GuestAddress(ANSWER + 4)).unwrap() == 0
}

#[test]
fn hostile_requests() {
    let wanted = std::env::var("SANDBOX_FUZZ_ITERATIONS").ok().and_then(|value| value.parse().ok());
    let outer = tempfile::tempdir().unwrap();
    fs::write(outer.path().join("outside"), "untouched").unwrap();
    let inner = outer.path().join("inner");
    let share_at = |place: &std::path::Path| {
        // What the last share's requests made would only slow the next one down.
        let _first_time = fs::remove_dir_all(place);
        fs::create_dir(place).unwrap();
        fs::write(place.join("a"), "content").unwrap();
        let share = share(place);
        share.init(FsOptions::empty()).unwrap();
        Backend::new(share)
    };
    let mut server = share_at(&inner);
    let memory = memory(SIZE);
    let (mut dice, mut done) = (Dice { state: 0x5eed_f00d, known: [1; 8] }, 0u64);
    let count = wanted.unwrap_or(30_000u64);
    for number in 0..count {
        // A session that has been destroyed, or whose root has been forgotten, refuses everything.
        if number % LIFE == LIFE - 1 {
            server = share_at(&inner);
        }
        let request = dice.request();
        post(&memory, &mut dice, &request);
        if handle(&server, &memory) {
            done += 1;
            // Where an answer holds a node or a handle, it comes first (fuse_entry_out, fuse_open_out).
            let at = dice.below(dice.known.len() as u64) as usize;
            dice.known[at] = memory.read_obj(GuestAddress(ANSWER + 16)).unwrap();
        }
    }
    drop(server);
    // A generator whose requests are all refused would test nothing.
    assert!(done > count / 10, "only {done} of {count} requests were carried out");
    assert_eq!(fs::read_to_string(outer.path().join("outside")).unwrap(), "untouched");
    assert_eq!(fs::read_dir(outer.path()).unwrap().count(), 2, "something appeared beside the share");
}
