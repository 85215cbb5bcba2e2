// SPDX-License-Identifier: Apache-2.0
//! A process that is late, lost, or talks nonsense. One that does its part is in the conformance cases.

use super::*;
use crate::memory::{self, Memory};
use crate::virtio::device::{Device, Fault};
use crate::virtio::mmio::{Backing, Window};
use crate::virtio::rng::Rng;
use crate::virtio::vhost_user;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io::{Read, Write};
use std::time::Duration;
use vm_memory::{Bytes, GuestAddress, GuestAddressSpace};

const STATUS: u64 = 0x070;
const READY: u64 = 0x044;
/// Where ring 0 lies.
const PARTS: [(u64, u32); 3] = [(0x080, 0x1_0000), (0x090, 0x1_1000), (0x0a0, 0x1_2000)];
/// Bytes of all the messages that set one ring up.
const GREETING: usize = 12 + (12 + 8 + 32) + (12 + 8) + 2 * (12 + 8) + (12 + 40) + 2 * (12 + 8);

/// A window on an entropy device elsewhere, which is given `patience`.
fn window(patience: Duration) -> (Window, Memory, UnixStream) {
    let (_, memory) = memory::create(1 << 20).expect("memory");
    let (ours, theirs) = UnixStream::pair().expect("pair");
    theirs.set_read_timeout(Some(Duration::from_secs(10))).expect("timeout");
    let connection = Some(Connection::new(ours.try_clone().expect("clone"), patience));
    let backend = Backend { connection, ..Backend::new(Rng::new().traits(), Vec::new(), ours) };
    (Window::new(Backing::Remote(backend), memory.clone()).expect("window"), memory, theirs)
}

fn read(window: &Window, offset: u64) -> u32 {
    let mut bytes = [0; 4];
    window.read(offset, &mut bytes);
    u32::from_le_bytes(bytes)
}

fn write(window: &Window, offset: u64, value: u32) {
    window.write(offset, &value.to_le_bytes());
}

fn bring_up(window: &Window) {
    for status in [0, 1, 3] {
        write(window, STATUS, status);
    }
    for (bank, bits) in [(0, ring::FEATURES as u32), (1, (ring::FEATURES >> 32) as u32)] {
        write(window, 0x024, bank);
        write(window, 0x020, bits);
    }
    write(window, STATUS, 11);
    write(window, 0x038, 64);
    for (register, address) in PARTS {
        write(window, register, address);
    }
    write(window, READY, 1);
    write(window, STATUS, 15);
}

#[test]
fn nothing_waits_for_a_process_that_does_not_serve_yet() {
    let (window, memory, theirs) = window(Duration::from_secs(10));
    bring_up(&window);
    assert_eq!(read(&window, STATUS), 15);
    // One buffer of 64 bytes, offered and kicked before anybody listens.
    let memory = memory.memory();
    memory.write_slice(&0x2_0000_u64.to_le_bytes(), GuestAddress(0x1_0000)).expect("write");
    memory.write_slice(&[64, 0, 0, 0, 2, 0, 0, 0], GuestAddress(0x1_0008)).expect("write");
    memory.write_slice(&1_u16.to_le_bytes(), GuestAddress(0x1_1002)).expect("write");
    write(&window, crate::virtio::mmio::NOTIFY, 0);
    let _server = vhost_user::serve(theirs, Box::new(Rng::new())).expect("serve");
    let deadline = Timespec { tv_sec: 10, tv_nsec: 0 };
    assert_eq!(poll(&mut [PollFd::new(window.interrupt(), PollFlags::IN)], Some(&deadline)), Ok(1));
    assert_eq!(read(&window, 0x060), 1);
    let mut used = [0; 12];
    memory.read_slice(&mut used, GuestAddress(0x1_2000)).expect("read");
    assert_eq!(used, [0, 0, 1, 0, 0, 0, 0, 0, 64, 0, 0, 0]);
}

#[test]
fn setting_up_is_these_messages() {
    let (window, _, mut theirs) = window(Duration::from_secs(10));
    bring_up(&window);
    let mut text = [0; GREETING];
    theirs.read_exact(&mut text).expect("read");
    let (mut rest, mut requests) = (text.as_slice(), Vec::new());
    while let Some((head, body)) = rest.split_first_chunk::<12>() {
        assert_eq!((head[4..8].to_vec(), head[9..12].to_vec()), (vec![1, 0, 0, 0], vec![0; 3]));
        requests.push(head[0]);
        rest = &body[usize::from(head[8])..];
    }
    // SET_OWNER, _MEM_TABLE, _FEATURES, _VRING_NUM, _BASE, _ADDR, _CALL, _KICK.
    assert_eq!(requests, [3, 5, 2, 8, 10, 9, 13, 12]);
    theirs.set_nonblocking(true).expect("flags");
    assert!(theirs.read(&mut [0]).is_err(), "there is more");
}

#[test]
fn process_that_does_not_answer_costs_its_time_and_no_more() {
    for stop in [STATUS, READY] {
        let (window, _, _theirs) = window(Duration::from_millis(20));
        bring_up(&window);
        write(&window, stop, 0);
        assert_lost(&window, |error| matches!(error, Error::Late));
    }
}

#[test]
fn process_that_does_not_read_costs_its_time_and_no_more() {
    let (ours, _theirs) = UnixStream::pair().expect("pair");
    let connection = Connection::new(ours, Duration::from_millis(20));
    let outcome = (0..1_000_000).try_for_each(|_| connection.set_owner());
    assert!(matches!(outcome, Err(Error::Late)), "{outcome:?}");
}

#[test]
fn process_that_is_gone_is_lost() {
    let (before, _, theirs) = window(Duration::from_secs(10));
    drop(theirs);
    bring_up(&before);
    assert_lost(&before, |error| matches!(error, Error::Closed));
    let (after, _, theirs) = window(Duration::from_secs(10));
    bring_up(&after);
    assert_eq!(read(&after, STATUS), 15);
    drop(theirs);
    write(&after, STATUS, 0);
    assert_lost(&after, |error| matches!(error, Error::Closed | Error::Socket(Errno::CONNRESET)));
}

#[test]
fn wrong_answer_is_the_last_word() {
    let word = |words: [u32; 5]| words.map(u32::to_ne_bytes).concat();
    for answer in [
        word([10, 5, 8, 0, 7]),
        word([11, 1, 8, 0, 7]),
        word([11, 6, 8, 0, 7]),
        word([11, 5, 9, 0, 7]),
        word([11, 5, 8, 1, 7]),
        vec![0xff; 20],
    ] {
        let (window, _, mut theirs) = window(Duration::from_secs(10));
        bring_up(&window);
        theirs.write_all(&answer).expect("write");
        write(&window, STATUS, 0);
        assert_lost(&window, |error| matches!(error, Error::Answer));
    }
    let (window, _, mut theirs) = window(Duration::from_secs(10));
    bring_up(&window);
    theirs.write_all(&word([11, 5, 8, 0, 7])).expect("write");
    write(&window, STATUS, 0);
    assert_eq!(read(&window, STATUS), 0, "the right one");
}

#[test]
fn half_an_answer_is_none() {
    let right = [11_u32, 5, 8, 0, 7].map(u32::to_ne_bytes).concat();
    for (length, complete) in [(0, false), (1, false), (12, false), (19, false), (20, true)] {
        let (socket, mut theirs) = UnixStream::pair().expect("pair");
        let connection = Connection::new(socket, Duration::from_millis(20));
        theirs.write_all(&right[..length]).expect("write");
        let outcome = connection.stop(0);
        assert!(if complete { outcome.is_ok() } else { matches!(outcome, Err(Error::Late)) }, "{outcome:?}");
    }
}

#[test]
fn memory_without_a_file_cannot_be_shared() {
    let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 1 << 20)]).expect("memory");
    let (ours, _theirs) = UnixStream::pair().expect("pair");
    let backend = Backend::new(Rng::new().traits(), Vec::new(), ours);
    let window = Window::new(Backing::Remote(backend), Memory::new(memory)).expect("window");
    bring_up(&window);
    assert_lost(&window, |error| matches!(error, Error::Memory));
}

#[test]
fn file_system_is_known_by_its_tag() {
    let of = |id, tag| Backend::of(id, tag, UnixStream::pair().expect("pair").0);
    let longest = "t".repeat(36);
    for (tag, field) in [("view", "view"), (longest.as_str(), longest.as_str())] {
        let backend = of(Id::Fs, Some(tag)).expect("backend");
        let (name, rings) = backend.config().split_at(36);
        assert_eq!((&name[..field.len()], rings), (field.as_bytes(), [1, 0, 0, 0].as_slice()));
        assert!(name[field.len()..].iter().all(|byte| *byte == 0));
        assert_eq!(backend.traits().config, 40);
    }
    let too_long = "t".repeat(37);
    for tag in [None, Some(""), Some(too_long.as_str())] {
        assert!(matches!(of(Id::Fs, tag), Err(Error::Tag(_))), "{tag:?}");
    }
    assert!(matches!(of(Id::Rng, None), Err(Error::Unknown("rng"))));
}

/// The window needs a reset for ever, has said so, and knows why.
fn assert_lost(window: &Window, right: impl Fn(&Error) -> bool) {
    assert_eq!(read(window, STATUS) & 64, 64);
    let Some(Fault::Host(cause)) = window.fault() else { panic!("{:?}", window.fault()) };
    let error = cause.get_ref().and_then(|cause| cause.downcast_ref()).expect("one of ours");
    assert!(right(error), "{error:?}");
    assert!(rustix::io::read(window.interrupt(), &mut [0; 8]).is_ok());
    write(window, STATUS, 0);
    bring_up(window);
    assert_eq!(read(window, STATUS), 64, "for ever");
}
