// SPDX-License-Identifier: Apache-2.0
use super::*;

fn request() -> Header {
    Header {
        src_cid: GUEST_CID,
        dst_cid: HOST_CID,
        src_port: 9000,
        dst_port: 1024,
        kind: TYPE_STREAM,
        op: op::REQUEST,
        buf_alloc: BUFFER_MAX,
        ..Header::default()
    }
}

fn packet(op: u16, len: u32, flags: u32) -> Header {
    Header { op, len, flags, ..request() }
}

/// A connection whose RESPONSE is out.
fn connected() -> Conn {
    let mut conn = Conn::accept(&request());
    assert_eq!(conn.control().map(|header| header.op), Some(op::RESPONSE));
    conn
}

#[test]
fn credit_never_wraps() {
    let bytes = |window, sent, taken| credit(window, Wrapping(sent), Wrapping(taken));
    assert_eq!(bytes(100, 30, 0), 70);
    assert_eq!(bytes(100, 100, 0), 0);
    assert_eq!(bytes(50, 100, 0), 0, "the window shrank below what is in flight");
    assert_eq!(bytes(100, 10, 20), 0, "more taken than was sent");
    assert_eq!(bytes(100, 10, u32::MAX - 9), 80, "both counts wrap");
    assert_eq!(bytes(u32::MAX, 0, 0), u32::MAX);
    assert_eq!(bytes(0, 0, 0), 0);
}

#[test]
fn nothing_is_sent_before_the_response() {
    let mut conn = Conn::accept(&request());
    assert_eq!(conn.credit(), 0);
    conn.shut_send();
    assert_eq!(conn.control().map(|header| header.op), Some(op::RESPONSE));
    assert_eq!(conn.control().map(|header| (header.op, header.flags)), Some((op::SHUTDOWN, shutdown::SEND)));
    assert_eq!(conn.control(), None);
}

#[test]
fn guest_that_ignores_its_credit_is_cut_off() {
    let mut conn = connected();
    assert_eq!(conn.take(&packet(op::RW, BUFFER_MAX, 0)), Step::Payload);
    assert_eq!(conn.take(&packet(op::RW, 1, 0)), Step::Broken);
    assert!(conn.has_ended());
}

#[test]
fn credit_that_the_guest_does_not_know_of_is_not_its_to_use() {
    let mut conn = connected();
    assert_eq!(conn.take(&packet(op::RW, BUFFER_MAX, 0)), Step::Payload);
    conn.forwarded(100);
    assert_eq!(conn.clone().take(&packet(op::RW, 1, 0)), Step::Broken);
    conn.take(&packet(op::CREDIT_REQUEST, 0, 0));
    let header = conn.control().expect("credit update");
    assert_eq!((header.op, header.fwd_cnt), (op::CREDIT_UPDATE, 100));
    assert_eq!(conn.take(&packet(op::RW, 100, 0)), Step::Payload);
}

#[test]
fn credit_is_told_by_halves() {
    let mut conn = connected();
    conn.take(&packet(op::RW, BUFFER_MAX, 0));
    conn.forwarded(BUFFER_MAX as usize / 2 - 1);
    assert!(!conn.has_control());
    conn.forwarded(1);
    let header = conn.control().expect("credit update");
    assert_eq!((header.op, header.fwd_cnt, header.buf_alloc), (op::CREDIT_UPDATE, BUFFER_MAX / 2, BUFFER_MAX));
    assert!(!conn.has_control());
}

#[test]
fn small_windows_are_told_by_their_own_halves() {
    // Linux sends no more than its own buffers hold, so with small ones it would wait for ever for half of ours.
    let mut conn = connected();
    conn.take(&Header { buf_alloc: 4096, ..packet(op::RW, 4096, 0) });
    conn.forwarded(2048);
    assert!(conn.has_control());
}

#[test]
fn counts_wrap() {
    let mut conn = connected();
    for _ in 0..(u32::MAX / BUFFER_MAX + 3) {
        let header = Header { fwd_cnt: conn.sent.0, ..packet(op::RW, BUFFER_MAX, 0) };
        assert_eq!(conn.take(&header), Step::Payload);
        conn.forwarded(BUFFER_MAX as usize);
        assert_eq!(conn.control().map(|header| header.op), Some(op::CREDIT_UPDATE));
        let taken = conn.payload(BUFFER_MAX as usize);
        assert_eq!(conn.credit(), 0);
        conn.take(&Header { fwd_cnt: conn.sent.0, ..packet(op::CREDIT_UPDATE, 0, 0) });
        assert_eq!(conn.credit(), BUFFER_MAX as usize);
        assert_eq!(taken.op, op::RW);
    }
}

#[test]
fn each_direction_ends_alone() {
    let mut conn = connected();
    assert_eq!(conn.take(&packet(op::SHUTDOWN, 0, shutdown::SEND)), Step::GuestSent);
    assert!(conn.has_guest_sent_all() && !conn.is_guest_deaf() && !conn.has_ended());
    assert!(conn.credit() > 0, "the other direction goes on");
    assert_eq!(conn.take(&packet(op::SHUTDOWN, 0, shutdown::RECEIVE)), Step::Goodbye);
    assert!(conn.has_ended());
}

#[test]
fn guest_that_sends_after_its_end_is_cut_off() {
    let mut conn = connected();
    conn.take(&packet(op::SHUTDOWN, 0, shutdown::SEND));
    assert_eq!(conn.take(&packet(op::RW, 1, 0)), Step::Broken);
}

#[test]
fn meaningless_operations_are_cut_off() {
    for op in [0, op::REQUEST, op::RESPONSE, 8, u16::MAX] {
        let mut conn = connected();
        assert_eq!(conn.take(&packet(op, 0, 0)), Step::Broken, "{op}");
        assert_eq!(conn.control(), None);
    }
}

#[test]
fn forgotten_backlog_is_credit_again() {
    // A guest that polls for room, rather than waits in a write, learns of the end only with credit to write.
    let mut conn = connected();
    conn.take(&packet(op::RW, BUFFER_MAX, 0));
    conn.keep(&vec![0; BUFFER_MAX as usize]);
    conn.shut_receive();
    let header = conn.control().expect("shutdown");
    assert_eq!((header.op, header.flags, header.fwd_cnt), (op::SHUTDOWN, shutdown::RECEIVE, BUFFER_MAX));
    assert_eq!(conn.backlog_len(), 0);
}
