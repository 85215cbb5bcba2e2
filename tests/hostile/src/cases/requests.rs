// SPDX-License-Identifier: Apache-2.0
//! Requests to the file system that are none, or that name what is not there (virtio 1.2 §5.11.6; the FUSE protocol).

use crate::bare::poke;
use crate::device::{After, Device};
use crate::fs::{
    self, ANSWER, Answer, BATCH_FORGET, Body, DESTROY, FORGET, FUSE_WRITE, GETATTR, HEADER, HIGH, INIT, INTERRUPT,
    LOOKUP, READ, ROOT, SETATTR, STATFS,
};
use crate::machine::Machine;
use crate::ring::WRITE;
use crate::verdict::{Case, PASS, REJECT, Verdict, case, ensure};

const QUEUES: &str = "5.11.6.1";
const HIGH_PRIORITY: &str = "5.11.6.2";

#[rustfmt::skip]
pub(super) const CASES: &[Case] = &[
    case(801, "T51", "5.11.5", "requests before a session", before_session),
    case(802, "T51", "5.11.5", "a session begun twice", twice),
    case(803, "T51", "5.11.5", "sessions of other versions", versions),
    case(804, "T51", "5.11.5", "a session begun by half a request", half_begun),
    case(805, "T51", "5.11.5", "every request after the session's end", after_end),
    case(806, "T51", QUEUES, "unknown opcodes", opcodes),
    case(807, "T51", QUEUES, "every opcode without a body", |m| bare_opcodes(m, 0)),
    case(808, "T51", QUEUES, "every opcode with a body of zeros", |m| bodies(m, 0)),
    case(809, "T51", QUEUES, "every opcode with a body of ones", |m| bodies(m, 0xff)),
    case(810, "T51", QUEUES, "every opcode without room for an answer", no_room),
    case(811, "T51", QUEUES, "requests shorter than a header", short),
    case(812, "T51", QUEUES, "length of a request that is not its own", lengths),
    case(813, "T51", QUEUES, "room for half an answer", half_room),
    case(814, "T51", QUEUES, "room for an answer and no request", |m| only(m, WRITE)),
    case(815, "T51", QUEUES, "room for an answer before the request", answer_first),
    case(816, "T51", HIGH_PRIORITY, "normal requests with high priority", high_normal),
    case(817, "T51", HIGH_PRIORITY, "high priority requests in the other ring", normal_high),
    case(818, "T51", HIGH_PRIORITY, "forget what was never known", forget_unknown),
    case(819, "T51", HIGH_PRIORITY, "forget more often than looked up", forget_more),
    case(820, "T51", HIGH_PRIORITY, "forget 2^32 - 1 nodes that are not there", forget_batch),
    case(821, "T51", HIGH_PRIORITY, "interrupt what was never asked", interrupt),
    case(830, "T51", QUEUES, "random requests, five hundred", random),
    case(832, "T12", QUEUES, "head outside of the table of a ring of files", wrong_head),
    case(833, "T13", QUEUES, "impossible index in the high priority ring", high_index),
];

/// Everything that has a number, without the end of a session.
fn all() -> impl Iterator<Item = u32> {
    (0..=52).filter(|opcode| *opcode != DESTROY).chain([4096])
}

fn is_silent(opcode: u32) -> bool {
    matches!(opcode, FORGET | BATCH_FORGET)
}

fn before_session(machine: &mut Machine) -> Verdict {
    let device = &mut machine.fs;
    ensure(device.start(), "does not start")?;
    for opcode in [LOOKUP, GETATTR, STATFS, READ, FUSE_WRITE] {
        Body::new(device, opcode, ROOT).fill(0, 64).send(device).came()?;
    }
    REJECT
}

fn twice(machine: &mut Machine) -> Verdict {
    let device = &mut machine.fs;
    fs::start(device)?;
    ensure(fs::init(device, 7, 38) == 0, "the second is refused")?;
    fs::works(device)?;
    PASS
}

fn versions(machine: &mut Machine) -> Verdict {
    let device = &mut machine.fs;
    ensure(device.start(), "does not start")?;
    ensure(fs::init(device, 0, 0) != 0 && fs::init(device, 6, 99) != 0, "an old version is agreed on")?;
    ensure(fs::init(device, 7, 1) != 0, "an old minor version is agreed on")?;
    // Of a newer one the server says which it has.
    ensure(fs::init(device, 8, 0) == 0 && fs::word(device, 0) as u32 == 7, "a newer version is agreed on")?;
    ensure(fs::init(device, u32::MAX, u32::MAX) == 0 && fs::word(device, 0) as u32 == 7, "a newer version")?;
    REJECT
}

fn half_begun(machine: &mut Machine) -> Verdict {
    let device = &mut machine.fs;
    ensure(device.start(), "does not start")?;
    for bytes in 0..16 {
        Body::new(device, INIT, 0).fill(7, bytes).send(device).refused()?;
    }
    // All extensions, and none of their fields.
    Body::new(device, INIT, 0).u32(7).u32(38).u32(0).u32(u32::MAX).send(device).refused()?;
    REJECT
}

fn after_end(machine: &mut Machine) -> Verdict {
    let device = &mut machine.fs;
    fs::start(device)?;
    Body::new(device, DESTROY, 0).send(device).came()?;
    for opcode in all().filter(|opcode| *opcode != INIT) {
        Body::new(device, opcode, ROOT).fill(0, 64).send(device).came()?;
    }
    ensure(fs::init(device, 7, 38) == 0, "no new session")?;
    fs::works(device)?;
    PASS
}

fn opcodes(machine: &mut Machine) -> Verdict {
    let device = &mut machine.fs;
    fs::start(device)?;
    for opcode in [0, 7, 19, 54, 100, 4095, 0x8000_0000, u32::MAX] {
        Body::new(device, opcode, ROOT).fill(0, 64).send(device).refused()?;
    }
    fs::works(device)?;
    REJECT
}

fn bare_opcodes(machine: &mut Machine, node: u64) -> Verdict {
    let device = &mut machine.fs;
    fs::start(device)?;
    for opcode in all() {
        for node in [node, ROOT] {
            Body::new(device, opcode, node).send(device).came()?;
        }
    }
    fs::works(device)?;
    REJECT
}

fn bodies(machine: &mut Machine, byte: u8) -> Verdict {
    let device = &mut machine.fs;
    fs::start(device)?;
    for opcode in all().filter(|opcode| *opcode != INIT) {
        for bytes in [4, 16, 40, 88, 128] {
            Body::new(device, opcode, ROOT).fill(byte, bytes).send(device).came()?;
        }
    }
    fs::works(device)?;
    REJECT
}

fn no_room(machine: &mut Machine) -> Verdict {
    let device = &mut machine.fs;
    fs::start(device)?;
    for opcode in all() {
        let body = Body::new(device, opcode, ROOT).fill(0, 88);
        poke(device.buffers, body.length());
        ensure(fs::send(device, body.length(), 0, 1) == Answer::Empty, "not handed back empty")?;
    }
    fs::works(device)?;
    REJECT
}

fn short(machine: &mut Machine) -> Verdict {
    let device = &mut machine.fs;
    fs::start(device)?;
    for bytes in 0..HEADER {
        Body::new(device, GETATTR, ROOT);
        poke(device.buffers, bytes);
        ensure(fs::send(device, bytes, 0x1000, 1) == Answer::Empty, "not handed back empty")?;
    }
    fs::works(device)?;
    REJECT
}

fn lengths(machine: &mut Machine) -> Verdict {
    let device = &mut machine.fs;
    fs::start(device)?;
    for opcode in [LOOKUP, GETATTR, FUSE_WRITE, SETATTR, READ] {
        for length in [0, 1, HEADER - 1, HEADER, HEADER + 1, 0x1_0000, 0x8000_0000, u32::MAX] {
            Body::new(device, opcode, ROOT).fill(0, 16).send_as(device, length, 1).came()?;
        }
    }
    fs::works(device)?;
    REJECT
}

fn half_room(machine: &mut Machine) -> Verdict {
    let device = &mut machine.fs;
    fs::start(device)?;
    for room in (0..ANSWER).chain([ANSWER, ANSWER + 1, ANSWER + 40]) {
        let body = Body::new(device, GETATTR, ROOT).u32(0).u32(0).u64(0);
        poke(device.buffers, body.length());
        let answer = fs::send(device, body.length(), room, 1);
        ensure(!matches!(answer, Answer::Silence | Answer::Broken), "no answer")?;
        ensure(room >= ANSWER || answer == Answer::Empty, "more written than there is room for")?;
    }
    fs::works(device)?;
    REJECT
}

/// One descriptor, and nothing of the other kind.
fn only(machine: &mut Machine, flags: u16) -> Verdict {
    let device = &mut machine.fs;
    fs::start(device)?;
    device.rings[1].describe(0, device.buffers, 0x1000, flags, 0);
    ensure(device.serve(0) == After::Used { head: 0, length: 0 }, "not handed back empty")?;
    fs::works(device)?;
    REJECT
}

fn answer_first(machine: &mut Machine) -> Verdict {
    let device = &mut machine.fs;
    fs::start(device)?;
    Body::new(device, GETATTR, ROOT).u32(0).u32(0).u64(0);
    poke(device.buffers, 56_u32);
    device.rings[1].describe(0, fs::answer_at(device), 0x1000, WRITE | crate::ring::NEXT, 1);
    device.rings[1].describe(1, device.buffers, 56, 0, 0);
    device.serve(0).answered()?;
    fs::works(device)?;
    PASS
}

fn high_normal(machine: &mut Machine) -> Verdict {
    let device = &mut machine.fs;
    fs::start(device)?;
    for opcode in all() {
        let body = Body::new(device, opcode, ROOT).fill(0, 64);
        let length = body.length();
        body.send_as(device, length, HIGH).came()?;
    }
    fs::works(device)?;
    PASS
}

fn normal_high(machine: &mut Machine) -> Verdict {
    let device = &mut machine.fs;
    fs::start(device)?;
    for opcode in [FORGET, BATCH_FORGET, INTERRUPT] {
        Body::new(device, opcode, 12_345).u64(0).send(device).came()?;
    }
    fs::works(device)?;
    PASS
}

fn forget(device: &mut Device, node: u64, count: u64) -> Result<(), &'static str> {
    let body = Body::new(device, FORGET, node).u64(count);
    let length = body.length();
    let answer = body.send_as(device, length, HIGH);
    ensure(answer == Answer::Empty, "an answer to what needs none")
}

fn forget_unknown(machine: &mut Machine) -> Verdict {
    let device = &mut machine.fs;
    fs::start(device)?;
    for node in [0, 2, 12_345, 1 << 32, u64::MAX - 1, u64::MAX] {
        for count in [0, 1, u64::MAX] {
            forget(device, node, count)?;
        }
    }
    fs::works(device)?;
    REJECT
}

fn forget_more(machine: &mut Machine) -> Verdict {
    let device = &mut machine.fs;
    let [node, _] = fs::volumes(device)?;
    forget(device, node, u64::MAX)?;
    forget(device, node, u64::MAX)?;
    forget(device, ROOT, u64::MAX)?;
    fs::works(device)?;
    // The node is gone or not; its name leads to it anew.
    fs::volumes(device)?;
    PASS
}

fn forget_batch(machine: &mut Machine) -> Verdict {
    let device = &mut machine.fs;
    fs::start(device)?;
    for count in [1, 2, 0x1000, 0x8000_0000, u32::MAX] {
        let body = Body::new(device, BATCH_FORGET, 0).u32(count).u32(0).u64(12_345).u64(u64::MAX);
        let length = body.length();
        body.send_as(device, length, HIGH).came()?;
    }
    fs::works(device)?;
    REJECT
}

fn interrupt(machine: &mut Machine) -> Verdict {
    let device = &mut machine.fs;
    fs::start(device)?;
    for unique in [0, 0x5eed, u64::MAX] {
        let body = Body::new(device, INTERRUPT, 0).u64(unique);
        let length = body.length();
        body.send_as(device, length, HIGH).came()?;
    }
    fs::works(device)?;
    REJECT
}

/// The same each time. What it makes, it makes in nodes that are read-only or not there.
fn random(machine: &mut Machine) -> Verdict {
    let device = &mut machine.fs;
    fs::start(device)?;
    let mut state = 0x1234_5678_9abc_def1_u64;
    for _ in 0..500 {
        let mut body = Body::new(device, 0, 0);
        for _ in 0..8 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            body = body.u64(if state & 0x100 == 0 { state >> 60 } else { state });
        }
        let opcode = (state >> 40) as u32 % 53;
        poke(device.buffers + 4, if opcode == DESTROY { LOOKUP } else { opcode });
        poke(device.buffers + 16, state >> 59 & 3);
        let answer = body.send(device);
        ensure(answer.came().is_ok() || is_silent(opcode), "no answer")?;
    }
    ensure(fs::init(device, 7, 38) == 0, "no new session")?;
    fs::works(device)?;
    PASS
}

/// A process of its own cannot say that it gave up. It must not serve the ring any more, and work after a reset.
fn wrong_head(machine: &mut Machine) -> Verdict {
    let device = &mut machine.fs;
    for head in [16, 0x8000, u16::MAX] {
        fs::start(device)?;
        device.rings[1].offer(head);
        device.window.notify(1);
        let after = device.quiet(1);
        ensure(!matches!(after, After::Used { length: 1.., .. }), "it served what was not offered")?;
    }
    REJECT
}

fn high_index(machine: &mut Machine) -> Verdict {
    let device = &mut machine.fs;
    for index in [17, 0x8000, u16::MAX] {
        fs::start(device)?;
        device.rings[HIGH].set_index(index);
        device.window.notify(HIGH as u32);
        ensure(!matches!(device.quiet(HIGH), After::Used { .. }), "it served what was not offered")?;
    }
    REJECT
}
