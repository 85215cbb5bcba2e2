// SPDX-License-Identifier: Apache-2.0
//! A peer that sends anything: any message, in any order, with any descriptors.

use super::*;
use crate::virtio::rng::Rng;
use rustix::event::{PollFd, PollFlags, Timespec};
use std::io::Read;
use std::os::fd::AsRawFd;
use vmm_sys_util::sock_ctrl_msg::ScmSocket;

/// Waits for the server's end, not for ever.
fn ending(server: &Server) -> &Ending {
    let mut polled = [PollFd::from_borrowed_fd(server.ended(), PollFlags::IN)];
    let deadline = Timespec { tv_sec: 10, tv_nsec: 0 };
    assert_eq!(rustix::event::poll(&mut polled, Some(&deadline)), Ok(1), "the server goes on");
    server.ending().expect("reason")
}

/// A message: request, flags (version 1), length, body.
fn message(request: u32, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(request.to_ne_bytes());
    bytes.extend(1_u32.to_ne_bytes());
    bytes.extend((body.len() as u32).to_ne_bytes());
    bytes.extend(body);
    bytes
}

fn server() -> (Server, UnixStream) {
    let (ours, theirs) = UnixStream::pair().expect("pair");
    (serve(ours, Box::new(Rng::new())).expect("serve"), theirs)
}

#[test]
fn peer_that_closes_is_no_error() {
    let (server, theirs) = server();
    drop(theirs);
    assert!(matches!(ending(&server), Ending::Closed));
}

#[test]
fn peer_sees_that_the_server_has_ended() {
    let (server, mut theirs) = server();
    io::Write::write_all(&mut theirs, &message(200, &[])).expect("write");
    assert!(matches!(ending(&server), Ending::Protocol(_)));
    assert_eq!(theirs.read(&mut [0; 16]).expect("read"), 0);
}

#[test]
fn message_out_of_place_closes_the_connection() {
    let ring = |index: u32, number: u32| [index.to_ne_bytes(), number.to_ne_bytes()].concat();
    for (what, request, body) in [
        ("size of a ring that there is not", 8, ring(1, 64)),
        ("size of no ring", 8, ring(u32::MAX, 64)),
        ("size that fits no ring", 8, ring(0, 65536)),
        ("position that fits no ring", 10, ring(0, 65536)),
        ("position of a ring that there is not", 11, ring(7, 0)),
        ("addresses without memory", 9, vec![0; 40]),
        ("kick without a descriptor", 12, 0_u64.to_ne_bytes().to_vec()),
        ("kick by polling", 12, 0x100_u64.to_ne_bytes().to_vec()),
        ("feature that was not offered", 2, u64::MAX.to_ne_bytes().to_vec()),
        ("protocol feature that was not offered", 16, u64::MAX.to_ne_bytes().to_vec()),
        ("memory without regions", 5, vec![0; 8]),
        ("configuration that there is not", 24, vec![0; 12]),
        ("log", 6, vec![0; 16]),
    ] {
        let (server, mut theirs) = server();
        io::Write::write_all(&mut theirs, &message(request, &body)).expect("write");
        let ending = ending(&server);
        assert!(matches!(ending, Ending::Protocol(_)), "{what}: {ending:?}");
    }
}

#[test]
fn bell_that_could_block_is_refused() {
    let (reader, writer) = io::pipe().expect("pipe");
    let file = std::fs::File::open("/dev/zero").expect("file");
    for fd in [reader.as_raw_fd(), writer.as_raw_fd(), file.as_raw_fd()] {
        let (server, theirs) = server();
        theirs.send_with_fds(&[message(13, &0_u64.to_ne_bytes()).as_slice()], &[fd]).expect("send");
        assert!(matches!(ending(&server), Ending::Protocol(_)));
    }
}

#[test]
fn any_messages_end_in_an_answer_or_an_end() {
    let event = eventfd::create().expect("eventfd");
    let (memory, _) = crate::memory::create(1 << 20).expect("memory");
    let null = std::fs::File::open("/dev/null").expect("file");
    let files = [event.as_raw_fd(), memory.as_raw_fd(), null.as_raw_fd()];
    let mut state = 0x5eed_u64;
    let mut below = |limit: u64| {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        (state >> 33) % limit
    };
    for _ in 0..300 {
        let (server, theirs) = server();
        for _ in 0..20 {
            let length = [0, 4, 8, 8, 8, 12, 16, 20, 32, 40, 72, 4000][below(12) as usize];
            let body: Vec<u8> = (0..length).map(|_| if below(3) == 0 { below(256) as u8 } else { 0 }).collect();
            let request = below(48) as u32;
            let count = below(4).saturating_sub(1) as usize;
            let fds: Vec<_> = (0..count).map(|_| files[below(3) as usize]).collect();
            if theirs.send_with_fds(&[message(request, &body).as_slice()], &fds).is_err() {
                break;
            }
        }
        drop(theirs);
        let ending = ending(&server);
        assert!(matches!(ending, Ending::Protocol(_) | Ending::Closed), "{ending:?}");
    }
}
