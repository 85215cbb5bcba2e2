// SPDX-License-Identifier: Apache-2.0
//! Requests about nodes and handles that are not there, or not what they are taken for (the FUSE protocol).

use crate::device::Device;
use crate::fs::{
    self, Answer, Body, COPY_FILE_RANGE, FALLOCATE, FLUSH, FSYNC, FSYNCDIR, FUSE_WRITE, GETATTR, GETXATTR, IOCTL,
    LISTXATTR, LOOKUP, LSEEK, OPEN, OPENDIR, POLL, READ, READDIR, READDIRPLUS, READLINK, RELEASE, RELEASEDIR,
    REMOVEMAPPING, ROOT, SETATTR, SETUPMAPPING, STATFS, SYNCFS,
};
use crate::machine::Machine;
use crate::verdict::{Case, PASS, REJECT, Verdict, case, ensure};

const QUEUES: &str = "5.11.6.1";

#[rustfmt::skip]
pub(super) const CASES: &[Case] = &[
    case(822, "T51", QUEUES, "nodes that do not exist", nodes),
    case(823, "T51", QUEUES, "handles that do not exist", handles),
    case(824, "T51", QUEUES, "files as directories and directories as files", confused),
    case(825, "T51", QUEUES, "read 4 GiB", read_much),
    case(826, "T51", QUEUES, "read beyond the largest offset", read_far),
    case(827, "T51", QUEUES, "write more than the request has", write_more),
    case(828, "T51", QUEUES, "list a directory from nowhere, and into nothing", list),
    case(829, "T51", "5.11.6.4", "map files, which is not offered", mappings),
    case(831, "T52", QUEUES, "two hundred open files that are never closed", many_open),
];

/// Everything that takes a node, with one that does not exist.
fn nodes(machine: &mut Machine) -> Verdict {
    let device = &mut machine.fs;
    fs::start(device)?;
    for node in [0, 2, 12_345, 1 << 32, u64::MAX] {
        for opcode in [LOOKUP, GETATTR, SETATTR, READLINK, OPEN, OPENDIR, STATFS, LISTXATTR, GETXATTR, 9, 10, 11, 34] {
            Body::new(device, opcode, node).fill(0, 88).send(device).refused()?;
        }
    }
    fs::works(device)?;
    REJECT
}

fn handles(machine: &mut Machine) -> Verdict {
    let device = &mut machine.fs;
    let [node, _] = fs::volumes(device)?;
    for handle in [1 << 40, 0x7fff_ffff_ffff_ffff, u64::MAX] {
        for opcode in
            [READ, FUSE_WRITE, FLUSH, FSYNC, FSYNCDIR, READDIR, READDIRPLUS, LSEEK, FALLOCATE, COPY_FILE_RANGE]
        {
            // Offset 0 and size 64, where the opcode has them; nothing is needed to do nothing.
            Body::new(device, opcode, node).u64(handle).u64(0).u32(64).fill(0, 128).send(device).refused()?;
        }
        for opcode in [RELEASE, RELEASEDIR] {
            Body::new(device, opcode, node).u64(handle).fill(0, 80).send(device).came()?;
        }
    }
    fs::works(device)?;
    REJECT
}

fn open(device: &mut Device, opcode: u32, node: u64) -> Result<u64, &'static str> {
    Body::new(device, opcode, node).u32(0).u32(0).send(device).done()?;
    Ok(fs::word(device, 0))
}

fn confused(machine: &mut Machine) -> Verdict {
    let device = &mut machine.fs;
    let [volume, _] = fs::volumes(device)?;
    let file = fs::lookup(device, volume, b"file")?;
    ensure(open(device, OPENDIR, file).is_err(), "a file was opened as a directory")?;
    Body::new(device, LOOKUP, file).name(b"x").send(device).refused()?;
    Body::new(device, READLINK, file).send(device).refused()?;
    // A handle of one kind for the other.
    let directory = open(device, OPENDIR, volume)?;
    Body::new(device, READ, volume).u64(directory).u64(0).u32(64).fill(0, 20).send(device).refused()?;
    let handle = open(device, OPEN, file)?;
    Body::new(device, READDIR, file).u64(handle).u64(0).u32(64).fill(0, 20).send(device).refused()?;
    fs::works(device)?;
    REJECT
}

/// The file that is always there, opened.
fn opened(device: &mut Device) -> Result<(u64, u64), &'static str> {
    let [volume, _] = fs::volumes(device)?;
    let file = fs::lookup(device, volume, b"file")?;
    Ok((file, open(device, OPEN, file)?))
}

fn read_much(machine: &mut Machine) -> Verdict {
    let device = &mut machine.fs;
    let (file, handle) = opened(device)?;
    for size in [0x10_0001, 0x8000_0000, u32::MAX] {
        Body::new(device, READ, file).u64(handle).u64(0).u32(size).fill(0, 20).send(device).came()?;
    }
    fs::works(device)?;
    REJECT
}

fn read_far(machine: &mut Machine) -> Verdict {
    let device = &mut machine.fs;
    let (file, handle) = opened(device)?;
    for offset in [1 << 40, i64::MAX as u64, i64::MAX as u64 + 1, u64::MAX] {
        let answer = Body::new(device, READ, file).u64(handle).u64(offset).u32(64).fill(0, 20).send(device);
        ensure(matches!(answer, Answer::Done(0) | Answer::Error(_) | Answer::Empty), "bytes from nowhere")?;
    }
    fs::works(device)?;
    REJECT
}

fn write_more(machine: &mut Machine) -> Verdict {
    let device = &mut machine.fs;
    let (file, handle) = opened(device)?;
    for size in [100, 0x1_0000, 0x10_0001, u32::MAX] {
        let body = Body::new(device, FUSE_WRITE, file).u64(handle).u64(0).u32(size).fill(0, 20).fill(b'x', 8);
        body.send(device).refused()?;
    }
    fs::works(device)?;
    REJECT
}

fn list(machine: &mut Machine) -> Verdict {
    let device = &mut machine.fs;
    fs::start(device)?;
    let handle = open(device, OPENDIR, ROOT)?;
    for offset in [0, 1, 12_345, i64::MAX as u64, u64::MAX] {
        for size in [0, 1, 24, 0x1000, u32::MAX] {
            for opcode in [READDIR, READDIRPLUS] {
                Body::new(device, opcode, ROOT).u64(handle).u64(offset).u32(size).fill(0, 20).send(device).came()?;
            }
        }
    }
    fs::works(device)?;
    PASS
}

fn mappings(machine: &mut Machine) -> Verdict {
    let device = &mut machine.fs;
    let (file, handle) = opened(device)?;
    Body::new(device, SETUPMAPPING, file).u64(handle).u64(0).u64(0x20_0000).u64(1).u64(0).send(device).refused()?;
    Body::new(device, REMOVEMAPPING, file).u32(1).u32(0).u64(0).u64(0x20_0000).send(device).refused()?;
    Body::new(device, REMOVEMAPPING, file).u32(u32::MAX).u32(0).send(device).refused()?;
    for opcode in [IOCTL, POLL, SYNCFS] {
        Body::new(device, opcode, file).u64(handle).fill(0, 40).send(device).came()?;
    }
    fs::works(device)?;
    REJECT
}

fn many_open(machine: &mut Machine) -> Verdict {
    let device = &mut machine.fs;
    let (file, _) = opened(device)?;
    for _ in 0..200 {
        Body::new(device, OPEN, file).u32(0).u32(0).send(device).came()?;
        Body::new(device, OPENDIR, ROOT).u32(0).u32(0).send(device).came()?;
    }
    fs::works(device)?;
    PASS
}
