// SPDX-License-Identifier: Apache-2.0
//! The file server, as the process it is, behind a register window: a driver that writes registers and speaks FUSE.
//!
//! Needs user namespaces. Where they are forbidden the tests say so and pass, or fail under `SANDBOX_STRICT=1`.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use sandbox::fs::{Start, Worker};
use sandbox::memory::{self, Memory};
use sandbox::view::{Request, View};
use sandbox::virtio::Id;
use sandbox::virtio::mmio::{Backing, NOTIFY, Window};
use sandbox::virtio::remote::Backend;
use std::fs;
use vm_memory::{Bytes, GuestAddress, GuestAddressSpace};

const STATUS: u64 = 0x070;
const FUSE_GETATTR: u32 = 3;
const FUSE_INIT: u32 = 26;
/// Where requests and their answers lie.
const REQUEST: u64 = 0x8_0000;
const ANSWER: u64 = 0x9_0000;

/// Whether there are user namespaces; says so if not.
fn namespaces() -> bool {
    let forbidden = ["/proc/sys/user/max_user_namespaces", "/proc/sys/kernel/unprivileged_userns_clone"]
        .iter()
        .any(|path| fs::read_to_string(path).is_ok_and(|text| text.trim() == "0"));
    if forbidden {
        assert!(std::env::var_os("SANDBOX_STRICT").is_none_or(|strict| strict != "1"), "user namespaces are forbidden");
        eprintln!("skipped: user namespaces are forbidden on this host");
    }
    !forbidden
}

/// A driver of the file server. Dropping it closes the connection.
struct Driver {
    window: Window,
    memory: Memory,
    sent: u16,
}

impl Driver {
    fn read(&self, offset: u64) -> u32 {
        let mut bytes = [0; 4];
        self.window.read(offset, &mut bytes);
        u32::from_le_bytes(bytes)
    }

    fn write(&self, offset: u64, value: u32) {
        self.window.write(offset, &value.to_le_bytes());
    }

    fn put(&self, address: u64, bytes: &[u8]) {
        self.memory.memory().write_slice(bytes, GuestAddress(address)).unwrap();
    }

    fn get(&self, address: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.memory.memory().read_slice(&mut bytes, GuestAddress(address)).unwrap();
        bytes
    }

    /// Resets the device and lays both rings out anew.
    fn bring_up(&mut self) {
        self.sent = 0;
        for status in [0, 1, 3] {
            self.write(STATUS, status);
        }
        for bank in [0, 1] {
            self.write(0x014, bank);
            self.write(0x024, bank);
            self.write(0x020, self.read(0x010));
        }
        self.write(STATUS, 11);
        for (ring, base) in [(0, 0x1_0000), (1, 0x2_0000)] {
            self.put(base, &[0; 0x3000]);
            self.write(0x030, ring);
            self.write(0x038, self.read(0x034));
            for (register, offset) in [(0x080, 0), (0x090, 0x1000), (0x0a0, 0x2000)] {
                self.write(register, base as u32 + offset);
                self.write(register + 4, 0);
            }
            self.write(0x044, 1);
        }
        self.write(STATUS, 15);
        assert_eq!(self.read(STATUS), 15);
    }

    /// Sends a request about the root to the ring for requests; returns the answer's error and body.
    fn ask(&mut self, opcode: u32, body: &[u8]) -> (i32, Vec<u8>) {
        let (base, size) = (0x2_0000, 128);
        let mut request = (40 + body.len() as u32).to_le_bytes().to_vec();
        request.extend(opcode.to_le_bytes());
        request.extend([u64::from(self.sent) + 1, 1].map(u64::to_le_bytes).concat());
        request.extend([0; 16]);
        request.extend(body);
        self.put(REQUEST, &request);
        for (at, address, length, flags, next) in
            [(base, REQUEST, request.len() as u32, 1_u16, 1_u16), (base + 16, ANSWER, 4096, 2, 0)]
        {
            let [flags, next] = [flags, next].map(u16::to_le_bytes);
            self.put(at, &[&address.to_le_bytes()[..], &length.to_le_bytes(), &flags, &next].concat());
        }
        // Interrupt at the next; this chain, head 0, is offered.
        self.put(base + 0x1000 + 4 + 2 * size, &self.sent.to_le_bytes());
        self.put(base + 0x1000 + 4 + 2 * (u64::from(self.sent) % size), &[0, 0]);
        self.sent += 1;
        self.put(base + 0x1000 + 2, &self.sent.to_le_bytes());
        self.write(NOTIFY, 1);
        while self.get(base + 0x2002, 2) != self.sent.to_le_bytes() {
            let limit = Timespec { tv_sec: 10, tv_nsec: 0 };
            let mut polled = [PollFd::new(self.window.interrupt(), PollFlags::IN)];
            assert_eq!(poll(&mut polled, Some(&limit)), Ok(1), "no interrupt came");
            rustix::io::read(self.window.interrupt(), &mut [0; 8]).unwrap();
            assert_eq!(self.read(0x060), 1);
            self.write(0x064, 1);
        }
        let length = u32::from_le_bytes(self.get(ANSWER, 4).try_into().unwrap());
        let answer = self.get(ANSWER, length as usize);
        (i32::from_le_bytes(answer[4..8].try_into().unwrap()), answer[16..].to_vec())
    }

    /// FUSE_INIT, protocol 7.31, no options.
    fn init(&mut self) -> i32 {
        let body = [7_u32, 31, 0x2_0000, 0].map(u32::to_le_bytes).concat();
        let (error, body) = self.ask(FUSE_INIT, &body);
        assert!(error != 0 || body.len() == 64, "{body:?}");
        error
    }

    /// Whether the root's attributes are those of a directory.
    fn root_is_a_directory(&mut self) -> bool {
        let (error, body) = self.ask(FUSE_GETATTR, &[0; 16]);
        // struct fuse_attr_out: 16 bytes, then fuse_attr with the mode at 60.
        error == 0 && body[16 + 60 + 1] & 0xf0 == 0x40
    }
}

fn driver() -> (Worker, Driver) {
    let cwd = tempfile::tempdir().unwrap();
    let view = View::of(&Request { cwd: cwd.path().canonicalize().unwrap(), ..Request::default() }).unwrap();
    let start = Start::of(env!("CARGO_BIN_EXE_sandbox").into());
    let (worker, socket) = Worker::start(&view, &start).unwrap();
    let (_file, memory) = memory::create(1 << 20).unwrap();
    let backend = Backend::of(Id::Fs, Some("view"), socket).unwrap();
    let window = Window::new(Backing::Remote(backend), memory.clone()).unwrap();
    (worker, Driver { window, memory, sent: 0 })
}

#[test]
fn requests_are_answered_and_a_reset_gives_the_rings_back() {
    if !namespaces() {
        return;
    }
    let (_worker, mut driver) = driver();
    let mut tag = [0; 40];
    driver.window.read(0x100, &mut tag);
    assert_eq!((&tag[..5], &tag[36..]), (&b"view\0"[..], &[1, 0, 0, 0][..]));
    driver.bring_up();
    assert_eq!(driver.init(), 0);
    for _ in 0..300 {
        assert!(driver.root_is_a_directory());
    }
    driver.write(STATUS, 0);
    assert_eq!(driver.read(STATUS), 0);
    driver.bring_up();
    driver.init();
    assert!(driver.root_is_a_directory());
    driver.write(0x030, 1);
    driver.write(0x044, 0);
    assert_eq!((driver.read(0x044), driver.read(STATUS)), (0, 15));
    assert!(driver.window.fault().is_none());
}

#[test]
fn file_server_ends_with_its_window() {
    if !namespaces() {
        return;
    }
    let (mut worker, mut driver) = driver();
    driver.bring_up();
    assert_eq!(driver.init(), 0);
    drop(driver);
    let limit = Timespec { tv_sec: 10, tv_nsec: 0 };
    assert_eq!(poll(&mut [PollFd::new(&worker, PollFlags::IN)], Some(&limit)), Ok(1));
    assert!(worker.try_wait().unwrap().unwrap().success());
}

#[test]
fn file_server_that_is_gone_makes_its_window_need_a_reset() {
    if !namespaces() {
        return;
    }
    let (worker, mut driver) = driver();
    driver.bring_up();
    drop(worker);
    driver.write(STATUS, 0);
    assert_eq!(driver.read(STATUS), 64);
    assert!(driver.window.fault().is_some());
}
