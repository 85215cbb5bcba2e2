// SPDX-License-Identifier: Apache-2.0
//! Requests to the file system device (virtio 1.2 §5.11; include/uapi/linux/fuse.h), and what its good driver asks for.
//!
//! A request is written into one buffer and answered into another. Bodies are written by a [`Body`], piece by piece, so
//! that a case can write any.

use crate::bare::{peek, poke};
use crate::device::{After, Device};
use crate::ring::{NEXT, WRITE, zero};
use crate::verdict::ensure;

pub(crate) const LOOKUP: u32 = 1;
pub(crate) const FORGET: u32 = 2;
pub(crate) const GETATTR: u32 = 3;
pub(crate) const SETATTR: u32 = 4;
pub(crate) const READLINK: u32 = 5;
pub(crate) const SYMLINK: u32 = 6;
pub(crate) const MKNOD: u32 = 8;
pub(crate) const MKDIR: u32 = 9;
pub(crate) const UNLINK: u32 = 10;
pub(crate) const RMDIR: u32 = 11;
pub(crate) const RENAME: u32 = 12;
pub(crate) const LINK: u32 = 13;
pub(crate) const OPEN: u32 = 14;
pub(crate) const READ: u32 = 15;
pub(crate) const FUSE_WRITE: u32 = 16;
pub(crate) const STATFS: u32 = 17;
pub(crate) const RELEASE: u32 = 18;
pub(crate) const FSYNC: u32 = 20;
pub(crate) const SETXATTR: u32 = 21;
pub(crate) const GETXATTR: u32 = 22;
pub(crate) const LISTXATTR: u32 = 23;
pub(crate) const REMOVEXATTR: u32 = 24;
pub(crate) const FLUSH: u32 = 25;
pub(crate) const INIT: u32 = 26;
pub(crate) const OPENDIR: u32 = 27;
pub(crate) const READDIR: u32 = 28;
pub(crate) const RELEASEDIR: u32 = 29;
pub(crate) const FSYNCDIR: u32 = 30;
pub(crate) const CREATE: u32 = 35;
pub(crate) const INTERRUPT: u32 = 36;
pub(crate) const DESTROY: u32 = 38;
pub(crate) const IOCTL: u32 = 39;
pub(crate) const POLL: u32 = 40;
pub(crate) const BATCH_FORGET: u32 = 42;
pub(crate) const FALLOCATE: u32 = 43;
pub(crate) const READDIRPLUS: u32 = 44;
pub(crate) const RENAME2: u32 = 45;
pub(crate) const LSEEK: u32 = 46;
pub(crate) const COPY_FILE_RANGE: u32 = 47;
pub(crate) const SETUPMAPPING: u32 = 48;
pub(crate) const REMOVEMAPPING: u32 = 49;
pub(crate) const SYNCFS: u32 = 50;

/// The share's root.
pub(crate) const ROOT: u64 = 1;

/// Bytes of the headers.
pub(crate) const HEADER: u32 = 40;
pub(crate) const ANSWER: u32 = 16;

/// Rings.
pub(crate) const HIGH: usize = 0;

const ANSWER_AT: u64 = 0x2_0000;
/// As much room as an answer gets.
const ANSWER_SIZE: u32 = 0x2_0000;

/// What the server said.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Done; so many bytes follow the header.
    Done(u32),
    /// An error, by its number.
    Error(i32),
    /// The chain came back empty.
    Empty,
    /// The ring is dead.
    Broken,
    /// None.
    Silence,
}

impl Answer {
    /// Its error, or 0.
    pub(crate) fn error(self) -> i32 {
        if let Self::Error(error) = self { error } else { 0 }
    }

    /// It was refused by any error.
    pub(crate) fn refused(self) -> Result<(), &'static str> {
        match self {
            Self::Error(_) | Self::Empty => Ok(()),
            Self::Done(_) => Err("carried out"),
            Self::Broken => Err("the ring is dead"),
            Self::Silence => Err("no answer"),
        }
    }

    /// It was answered, however.
    pub(crate) fn came(self) -> Result<(), &'static str> {
        if matches!(self, Self::Done(_)) { Ok(()) } else { self.refused() }
    }

    pub(crate) fn done(self) -> Result<(), &'static str> {
        if matches!(self, Self::Done(_)) { Ok(()) } else { Err("refused") }
    }
}

/// A request in the making.
pub(crate) struct Body {
    start: u64,
    end: u64,
}

impl Body {
    /// A request with a good header but for its length.
    pub(crate) fn new(device: &Device, opcode: u32, node: u64) -> Self {
        let start = device.buffers;
        zero(start, HEADER.into());
        poke(start + 4, opcode);
        poke(start + 8, 0x5eed_u64);
        poke(start + 16, node);
        poke(start + 32, 1_u32);
        Self { start, end: start + u64::from(HEADER) }
    }

    pub(crate) fn u32(mut self, value: u32) -> Self {
        poke(self.end, value);
        self.end += 4;
        self
    }

    pub(crate) fn u64(mut self, value: u64) -> Self {
        poke(self.end, value);
        self.end += 8;
        self
    }

    /// So many bytes of this value.
    pub(crate) fn fill(mut self, value: u8, count: u32) -> Self {
        for _ in 0..count {
            poke(self.end, value);
            self.end += 1;
        }
        self
    }

    /// Bytes as they are.
    pub(crate) fn bytes(mut self, bytes: &[u8]) -> Self {
        for byte in bytes {
            poke(self.end, *byte);
            self.end += 1;
        }
        self
    }

    /// A name with its end.
    pub(crate) fn name(self, name: &[u8]) -> Self {
        self.bytes(name).fill(0, 1)
    }

    pub(crate) fn length(&self) -> u32 {
        (self.end - self.start) as u32
    }

    /// Sends it with this length in its header, to this ring.
    pub(crate) fn send_as(self, device: &mut Device, length: u32, ring: usize) -> Answer {
        poke(self.start, length);
        let bytes = self.length();
        send(device, bytes, ANSWER_SIZE, ring)
    }

    pub(crate) fn send(self, device: &mut Device) -> Answer {
        let length = self.length();
        self.send_as(device, length, 1)
    }
}

/// Sends the first so many bytes of what is in the buffer, with so much room for an answer.
pub(crate) fn send(device: &mut Device, bytes: u32, room: u32, ring: usize) -> Answer {
    let (request, answer) = (device.buffers, answer_at(device));
    zero(answer, ANSWER.into());
    let queue = &mut device.rings[ring];
    queue.describe(0, request, bytes, if room > 0 { NEXT } else { 0 }, 1);
    queue.describe(1, answer, room, WRITE, 0);
    queue.offer(0);
    device.window.notify(ring as u32);
    heard(device, ring)
}

/// Waits for what is said in a ring.
fn heard(device: &mut Device, ring: usize) -> Answer {
    let answer = answer_at(device);
    match device.after(ring) {
        After::Broken => Answer::Broken,
        After::Silence => Answer::Silence,
        After::Used { length, .. } if length < ANSWER => Answer::Empty,
        After::Used { length, .. } => match peek::<u32>(answer + 4) as i32 {
            0 => Answer::Done(length - ANSWER),
            error => Answer::Error(-error),
        },
    }
}

/// Where the answer's header is.
pub(crate) fn answer_at(device: &Device) -> u64 {
    device.buffers + ANSWER_AT
}

/// A word of the last answer, by its place behind the header.
pub(crate) fn word(device: &Device, at: u64) -> u64 {
    peek(answer_at(device) + u64::from(ANSWER) + at)
}

/// Starts the device, and a session with the server.
pub(crate) fn start(device: &mut Device) -> Result<(), &'static str> {
    ensure(device.start(), "does not start")?;
    ensure(init(device, 7, 38) == 0, "no session")
}

/// Starts a session; the error.
pub(crate) fn init(device: &mut Device, major: u32, minor: u32) -> i32 {
    Body::new(device, INIT, 0).u32(major).u32(minor).u32(0x1_0000).u32(0).fill(0, 48).send(device).error()
}

/// The node of a name below another, if there is one.
pub(crate) fn lookup(device: &mut Device, parent: u64, name: &[u8]) -> Result<u64, &'static str> {
    Body::new(device, LOOKUP, parent).name(name).send(device).done()?;
    let node = word(device, 0);
    ensure(node != 0, "no such name").map(|()| node)
}

/// The volumes: one that can be written, one that cannot.
pub(crate) fn volumes(device: &mut Device) -> Result<[u64; 2], &'static str> {
    start(device)?;
    let all = lookup(device, ROOT, b"volumes")?;
    Ok([lookup(device, all, b"0")?, lookup(device, all, b"1")?])
}

/// Starts a session and asks for the root's attributes, which must be a directory's.
pub(crate) fn good(device: &mut Device) -> bool {
    let asked =
        init(device, 7, 38) == 0 && Body::new(device, GETATTR, ROOT).u32(0).u32(0).u64(0).send(device).done().is_ok();
    // The mode, behind what the answer has before it and the attributes' first 60 bytes.
    asked && peek::<u32>(answer_at(device) + u64::from(ANSWER) + 16 + 60) & 0o170_000 == 0o040_000
}

/// The root can be asked for after whatever was asked before.
pub(crate) fn works(device: &mut Device) -> Result<(), &'static str> {
    let asked = Body::new(device, GETATTR, ROOT).u32(0).u32(0).u64(0).send(device);
    ensure(asked.done().is_ok(), "does not work afterwards")
}
