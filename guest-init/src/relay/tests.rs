// SPDX-License-Identifier: Apache-2.0
use super::*;
use crate::sys::poll;
use rustix::{
    net::{AddressFamily, SocketFlags, SocketType, socketpair},
    pipe::{PipeFlags, pipe_with},
};

fn pipe() -> (OwnedFd, OwnedFd) {
    pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).unwrap()
}

fn connection() -> (OwnedFd, OwnedFd) {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None).unwrap()
}

/// Serves what is possible now; whether anything was.
fn turn(relay: &mut Relay) -> bool {
    let mut watches = relay.watches();
    poll(&mut watches, Some(0)).unwrap();
    relay.serve(watches);
    watches.iter().any(|watch| watch.seen != 0)
}

fn settle(relay: &mut Relay) {
    for _ in 0..10_000 {
        if !turn(relay) {
            return;
        }
    }
    panic!("the relay never comes to rest: {relay:?}");
}

fn outward() -> (OwnedFd, Relay, OwnedFd) {
    let (source, writer) = pipe();
    let (sink, reader) = connection();
    (writer, Relay::outward(source, sink), reader)
}

fn inward() -> (OwnedFd, Relay, OwnedFd) {
    let (writer, source) = connection();
    let (reader, sink) = pipe();
    (writer, Relay::inward(source, sink), reader)
}

fn take(reader: &OwnedFd) -> Result<Vec<u8>, Errno> {
    let mut bytes = vec![0; 1 << 20];
    let count = read(reader, &mut bytes[..])?;
    bytes.truncate(count);
    Ok(bytes)
}

#[test]
fn output_arrives_then_ends() {
    let (writer, mut relay, reader) = outward();
    write(&writer, b"hello").unwrap();
    settle(&mut relay);
    assert_eq!(take(&reader).unwrap(), b"hello");
    assert!(relay.incomplete());
    drop(writer);
    settle(&mut relay);
    assert!(!relay.incomplete());
    assert_eq!(take(&reader).unwrap(), b"", "end of stream");
}

#[test]
fn nothing_is_lost_to_a_slow_reader() {
    let (writer, mut relay, reader) = outward();
    let block: Vec<u8> = (0..40_000u32).map(|n| n as u8).collect();
    let mut sent = 0;
    while let Ok(count) = write(&writer, &block[sent % block.len()..]) {
        sent += count;
        settle(&mut relay);
    }
    drop(writer);
    settle(&mut relay);
    assert!(relay.incomplete(), "the reader has not read");
    let mut received = Vec::new();
    while let Ok(bytes) = take(&reader)
        && !bytes.is_empty()
    {
        received.extend_from_slice(&bytes);
        settle(&mut relay);
    }
    assert_eq!(received.len(), sent);
    assert!(received.iter().zip(block.iter().cycle()).all(|(received, sent)| received == sent));
    assert!(!relay.incomplete());
}

#[test]
fn a_reader_that_goes_away_breaks_the_pipe() {
    let (writer, mut relay, reader) = outward();
    drop(reader);
    settle(&mut relay);
    assert!(!relay.incomplete());
    assert_eq!(write(&writer, b"x"), Err(Errno::PIPE));
}

#[test]
fn a_reader_that_stops_receiving_breaks_the_pipe() {
    let (writer, mut relay, reader) = outward();
    shutdown(&reader, Shutdown::Both).unwrap();
    settle(&mut relay);
    assert_eq!(write(&writer, b"x"), Err(Errno::PIPE));
}

#[test]
fn a_reader_that_only_stops_sending_still_gets_everything() {
    let (writer, mut relay, reader) = outward();
    shutdown(&reader, Shutdown::Write).unwrap();
    settle(&mut relay);
    write(&writer, b"hello").unwrap();
    settle(&mut relay);
    assert_eq!(take(&reader).unwrap(), b"hello");
}

#[test]
fn input_arrives_then_ends() {
    let (writer, mut relay, reader) = inward();
    write(&writer, b"hello").unwrap();
    shutdown(&writer, Shutdown::Write).unwrap();
    settle(&mut relay);
    assert_eq!(take(&reader).unwrap(), b"hello");
    assert_eq!(take(&reader).unwrap(), b"", "end of stream");
}

#[test]
fn input_that_no_one_reads_is_refused() {
    let (writer, mut relay, reader) = inward();
    drop(reader);
    settle(&mut relay);
    assert_eq!(write(&writer, b"x"), Err(Errno::PIPE));
}

#[test]
fn a_full_pipe_rests_although_its_source_has_ended() {
    let (writer, mut relay, reader) = inward();
    while write(&writer, &[1; 4096]).is_ok() {
        turn(&mut relay);
    }
    drop(writer);
    settle(&mut relay);
    assert!(relay.incomplete());
    while !take(&reader).unwrap().is_empty() {
        settle(&mut relay);
    }
}

#[test]
fn the_end_of_what_is_typed_is_typed() {
    for (input, expected) in [(&b""[..], &b"\x04"[..]), (b"line\n", b"line\n\x04"), (b"part", b"part\x04\x04")] {
        let (writer, source) = connection();
        let (reader, sink) = pipe();
        let mut relay = Relay::typed(source, sink);
        write(&writer, input).unwrap();
        settle(&mut relay);
        drop(writer);
        settle(&mut relay);
        let mut typed = vec![];
        while let Ok(bytes @ [_, ..]) = take(&reader).as_deref() {
            typed.extend_from_slice(bytes);
        }
        assert_eq!(typed, expected);
        assert!(!relay.incomplete());
    }
}
