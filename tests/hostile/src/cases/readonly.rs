// SPDX-License-Identifier: Apache-2.0
//! Every change to what the host shows read-only: the host refuses it, whatever the guest believes (FUSE; T50).

use crate::device::Device;
use crate::fs::{
    self, Answer, Body, CREATE, FALLOCATE, FUSE_WRITE, LINK, MKDIR, MKNOD, OPEN, RENAME, RENAME2, RMDIR, SETATTR,
    SYMLINK, UNLINK,
};
use crate::machine::Machine;
use crate::verdict::{Case, REJECT, Verdict, case, ensure};

const FILES: &str = "5.11.6.1";
const READ_ONLY: i32 = 30;

#[rustfmt::skip]
pub(super) const CASES: &[Case] = &[
    case(951, "T50", FILES, "create a file", |m| change(m, CREATE)),
    case(952, "T50", FILES, "make a directory", |m| change(m, MKDIR)),
    case(953, "T50", FILES, "make a node", |m| change(m, MKNOD)),
    case(954, "T50", FILES, "make a symbolic link", |m| change(m, SYMLINK)),
    case(955, "T50", FILES, "link", |m| change(m, LINK)),
    case(956, "T50", FILES, "remove", |m| change(m, UNLINK)),
    case(957, "T50", FILES, "remove a directory", |m| change(m, RMDIR)),
    case(958, "T50", FILES, "rename", |m| change(m, RENAME)),
    case(959, "T50", FILES, "exchange two names", |m| change(m, RENAME2)),
    case(960, "T50", FILES, "change mode, owner, size and times", attributes),
    case(961, "T50", FILES, "open for writing", open_to_write),
    case(962, "T50", FILES, "write through a handle for reading", write),
    case(963, "T50", FILES, "change the host's own programs", programs),
];

fn start(machine: &mut Machine) -> Result<(&mut Device, u64), &'static str> {
    let device = &mut machine.fs;
    let [_, volume] = fs::volumes(device)?;
    Ok((device, volume))
}

fn change(machine: &mut Machine, opcode: u32) -> Verdict {
    let (device, volume) = start(machine)?;
    let file = fs::lookup(device, volume, b"file")?;
    let body = Body::new(device, opcode, volume);
    let body = match opcode {
        CREATE => body.u32(0o102).u32(0o644).u32(0).u32(0).name(b"new"),
        MKDIR => body.u32(0o755).u32(0).name(b"new"),
        MKNOD => body.u32(0o100_644).u32(0).u32(0).u32(0).name(b"new"),
        SYMLINK => body.name(b"new").name(b"file"),
        LINK => body.u64(file).name(b"new"),
        RENAME => body.u64(volume).name(b"file").name(b"new"),
        RENAME2 => body.u64(volume).u64(2).name(b"file").name(b"directory"),
        RMDIR => body.name(b"directory"),
        _ => body.name(b"file"),
    };
    ensure(body.send(device) == Answer::Error(READ_ONLY), "not EROFS")?;
    ensure(fs::lookup(device, volume, b"file").is_ok(), "the file is gone")?;
    ensure(fs::lookup(device, volume, b"new").is_err(), "something is new")?;
    REJECT
}

fn attributes(machine: &mut Machine) -> Verdict {
    let (device, volume) = start(machine)?;
    let file = fs::lookup(device, volume, b"file")?;
    for node in [file, volume] {
        for valid in [1, 2, 4, 8, 16, 32, 0x1b0] {
            let answer = Body::new(device, SETATTR, node).u32(valid).fill(0, 84).send(device);
            answer.refused()?;
        }
    }
    REJECT
}

fn open_to_write(machine: &mut Machine) -> Verdict {
    let (device, volume) = start(machine)?;
    let file = fs::lookup(device, volume, b"file")?;
    for flags in [1, 2, 0o1001, 0o1002, 0o2001] {
        let answer = Body::new(device, OPEN, file).u32(flags).u32(0).send(device);
        ensure(answer == Answer::Error(READ_ONLY), "not EROFS")?;
    }
    // Truncation while opening for reading.
    Body::new(device, OPEN, file).u32(0o1000).u32(0).send(device).came()?;
    fs::lookup(device, volume, b"file")?;
    ensure(fs::word(device, 48) == 6, "the file has another size")?;
    REJECT
}

fn write(machine: &mut Machine) -> Verdict {
    let (device, volume) = start(machine)?;
    let file = fs::lookup(device, volume, b"file")?;
    Body::new(device, OPEN, file).u32(0).u32(0).send(device).done()?;
    let handle = fs::word(device, 0);
    let body = Body::new(device, FUSE_WRITE, file).u64(handle).u64(0).u32(4).fill(0, 20).fill(b'x', 4);
    body.send(device).refused()?;
    let body = Body::new(device, FALLOCATE, file).u64(handle).u64(0).u64(4096).u32(0).u32(0);
    body.send(device).refused()?;
    REJECT
}

/// The view's root is the host's: `/usr` is there, and stays as it is.
fn programs(machine: &mut Machine) -> Verdict {
    let device = &mut machine.fs;
    fs::start(device)?;
    let root = fs::lookup(device, fs::ROOT, b"root")?;
    let usr = fs::lookup(device, root, b"usr")?;
    let bin = fs::lookup(device, usr, b"bin")?;
    for directory in [root, usr, bin] {
        let body = Body::new(device, CREATE, directory).u32(0o102).u32(0o755).u32(0).u32(0).name(b"hostile");
        body.send(device).refused()?;
        Body::new(device, MKDIR, directory).u32(0o755).u32(0).name(b"hostile").send(device).refused()?;
        Body::new(device, SYMLINK, directory).name(b"hostile").name(b"/").send(device).refused()?;
        Body::new(device, SETATTR, directory).u32(1).fill(0, 84).send(device).refused()?;
    }
    Body::new(device, UNLINK, bin).name(b"env").send(device).refused()?;
    Body::new(device, RENAME, bin).u64(bin).name(b"env").name(b"hostile").send(device).refused()?;
    let env = fs::lookup(device, bin, b"env")?;
    Body::new(device, OPEN, env).u32(2).u32(0).send(device).refused()?;
    REJECT
}
