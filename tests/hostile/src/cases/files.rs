// SPDX-License-Identifier: Apache-2.0
//! Files that lead out of the share, and files that the host must not have (FUSE; the share's own rules).
//!
//! The host made both volumes alike: `file`, `fifo`, `socket`, `directory`, and the links `out` to `/`, `up` to `../..` and
//! `process` to `/proc/self/root`.

use crate::device::Device;
use crate::fs::{
    self, Answer, Body, CREATE, FUSE_WRITE, GETATTR, LINK, LOOKUP, MKDIR, MKNOD, OPEN, READLINK, RENAME, RMDIR,
    SETATTR, SYMLINK, UNLINK,
};
use crate::machine::Machine;
use crate::verdict::{Case, PASS, REJECT, Verdict, case, ensure};

const FILES: &str = "5.11.6.1";
const PERM: i32 = 1;
const CROSS_DEVICE: i32 = 18;

#[rustfmt::skip]
pub(super) const CASES: &[Case] = &[
    case(901, "T44", FILES, "links that lead out are links, and lead nowhere here", links),
    case(902, "T43", FILES, "make links that lead out, and go through them", own_links),
    case(903, "T46", FILES, "open a FIFO, for reading and for writing", |m| special(m, b"fifo")),
    case(904, "T46", FILES, "open a socket", |m| special(m, b"socket")),
    case(905, "T47", FILES, "make a character device", |m| device(m, 0o020_666, 0x103)),
    case(906, "T47", FILES, "make a block device", |m| device(m, 0o060_666, 0x800)),
    case(907, "T47", FILES, "make nodes of no type, and of every type at once", odd_types),
    case(908, "T48", FILES, "create a file that is set-user-id", set_id_created),
    case(909, "T48", FILES, "make a file set-user-id", set_id_changed),
    case(910, "T54", FILES, "rename from one volume to the other", |m| across(m, RENAME)),
    case(911, "T54", FILES, "link from one volume to the other", |m| across(m, LINK)),
    case(912, "T54", FILES, "rename a directory into itself", into_itself),
    case(913, "T51", FILES, "sizes that no file has", sizes),
    case(914, "T51", FILES, "owners and times that nobody has", odd_attributes),
    case(915, "T50", FILES, "write through a handle for reading", write_by_reader),
    case(916, "T51", FILES, "open by every flag", flags),
    case(917, "T51", FILES, "use a file after its name is gone", after_unlink),
    case(918, "T43", FILES, "remove and rename what the share is made of", skeleton),
    case(919, "T52", FILES, "a path of two hundred directories", deep),
    case(920, "T52", FILES, "three hundred files", many),
];

fn start(machine: &mut Machine) -> Result<(&mut Device, u64), &'static str> {
    let device = &mut machine.fs;
    let [volume, _] = fs::volumes(device)?;
    Ok((device, volume))
}

fn create(device: &mut Device, directory: u64, name: &[u8], mode: u32) -> Answer {
    Body::new(device, CREATE, directory).u32(0o102).u32(mode).u32(0).u32(0).name(name).send(device)
}

fn remove(device: &mut Device, directory: u64, name: &[u8]) -> Result<(), &'static str> {
    Body::new(device, UNLINK, directory).name(name).send(device).done()
}

/// The mode of the node that the last answer was about.
fn mode(device: &Device) -> u32 {
    fs::word(device, 100) as u32
}

fn links(machine: &mut Machine) -> Verdict {
    let (device, volume) = start(machine)?;
    for name in [&b"out"[..], b"up", b"process"] {
        let link = fs::lookup(device, volume, name)?;
        ensure(mode(device) & 0o170_000 == 0o120_000, "no link")?;
        Body::new(device, READLINK, link).send(device).done()?;
        Body::new(device, LOOKUP, link).name(b"etc").send(device).refused()?;
        Body::new(device, CREATE, link).u32(0o102).u32(0o644).u32(0).u32(0).name(b"x").send(device).refused()?;
        for flags in [0, 1, 2, 0o100, 0o1000, 0o200_000, 0o10_000_000] {
            Body::new(device, OPEN, link).u32(flags).u32(0).send(device).refused()?;
        }
    }
    REJECT
}

fn own_links(machine: &mut Machine) -> Verdict {
    let (device, volume) = start(machine)?;
    for target in [&b"/"[..], b"../..", b"/proc/self/root", b"../outside", b"/etc/passwd", b"/proc/self/fd/0"] {
        Body::new(device, SYMLINK, volume).name(b"own").name(target).send(device).done()?;
        let link = fs::lookup(device, volume, b"own")?;
        Body::new(device, LOOKUP, link).name(b"etc").send(device).refused()?;
        Body::new(device, MKDIR, link).u32(0o755).u32(0).name(b"x").send(device).refused()?;
        Body::new(device, OPEN, link).u32(2).u32(0).send(device).refused()?;
        // Truncated by the link's node: the link, if anything, but not what it leads to.
        Body::new(device, SETATTR, link).u32(8).u32(0).fill(0, 80).send(device).refused()?;
        remove(device, volume, b"own")?;
    }
    REJECT
}

fn special(machine: &mut Machine, name: &[u8]) -> Verdict {
    let (device, volume) = start(machine)?;
    let node = fs::lookup(device, volume, name)?;
    for flags in [0, 1, 2, 0o1000, 0o4000, 0o4001] {
        Body::new(device, OPEN, node).u32(flags).u32(0).send(device).refused()?;
    }
    Body::new(device, SETATTR, node).u32(8).u32(0).fill(0, 80).send(device).refused()?;
    REJECT
}

fn device(machine: &mut Machine, mode: u32, number: u32) -> Verdict {
    let (device, volume) = start(machine)?;
    let answer = Body::new(device, MKNOD, volume).u32(mode).u32(number).u32(0).u32(0).name(b"device").send(device);
    ensure(answer == Answer::Error(PERM), "not EPERM")?;
    ensure(fs::lookup(device, volume, b"device").is_err(), "it is there")?;
    REJECT
}

fn odd_types(machine: &mut Machine) -> Verdict {
    let (device, volume) = start(machine)?;
    for mode in [0o170_000, 0o110_000, 0o120_000, 0o040_000, u32::MAX, 0o160_777] {
        let answer = Body::new(device, MKNOD, volume).u32(mode).u32(0x103).u32(0).u32(0).name(b"odd").send(device);
        answer.refused()?;
        ensure(fs::lookup(device, volume, b"odd").is_err(), "it is there")?;
    }
    REJECT
}

fn set_id_created(machine: &mut Machine) -> Verdict {
    let (device, volume) = start(machine)?;
    create(device, volume, b"set-id", 0o106_755).done()?;
    ensure(mode(device) & 0o6000 == 0, "it is set-user-id")?;
    remove(device, volume, b"set-id")?;
    REJECT
}

fn set_id_changed(machine: &mut Machine) -> Verdict {
    let (device, volume) = start(machine)?;
    let file = fs::lookup(device, volume, b"file")?;
    let change = Body::new(device, SETATTR, file).u32(1).fill(0, 64).u32(0o106_755).fill(0, 16);
    change.send(device).came()?;
    fs::lookup(device, volume, b"file")?;
    ensure(mode(device) & 0o6000 == 0, "it is set-user-id")?;
    REJECT
}

fn across(machine: &mut Machine, opcode: u32) -> Verdict {
    let device = &mut machine.fs;
    let [from, to] = fs::volumes(device)?;
    let file = fs::lookup(device, from, b"file")?;
    let body = match opcode {
        RENAME => Body::new(device, opcode, from).u64(to).name(b"file").name(b"moved"),
        _ => Body::new(device, opcode, to).u64(file).name(b"linked"),
    };
    // The other one is read-only too, and which is noticed first is the host kernel's choice.
    let error = body.send(device).error();
    ensure(matches!(error, CROSS_DEVICE | 30), "not EXDEV")?;
    REJECT
}

fn into_itself(machine: &mut Machine) -> Verdict {
    let (device, volume) = start(machine)?;
    let directory = fs::lookup(device, volume, b"directory")?;
    Body::new(device, RENAME, volume).u64(directory).name(b"directory").name(b"x").send(device).refused()?;
    REJECT
}

fn sizes(machine: &mut Machine) -> Verdict {
    let (device, volume) = start(machine)?;
    let file = fs::lookup(device, volume, b"file")?;
    for size in [1 << 63, u64::MAX, i64::MAX as u64 + 1] {
        Body::new(device, SETATTR, file).u32(8).u32(0).u64(0).u64(size).fill(0, 64).send(device).refused()?;
    }
    REJECT
}

fn odd_attributes(machine: &mut Machine) -> Verdict {
    let (device, volume) = start(machine)?;
    let file = fs::lookup(device, volume, b"file")?;
    for valid in [2, 4, 6, 16, 32, 48, 128, 256, 1 << 31, !0x49] {
        Body::new(device, SETATTR, file).u32(valid).fill(0xff, 84).send(device).came()?;
    }
    // Owned by root again, for what comes later.
    Body::new(device, SETATTR, file).u32(6).fill(0, 84).send(device).came()?;
    Body::new(device, GETATTR, file).u32(0).u32(0).u64(0).send(device).done()?;
    PASS
}

fn write_by_reader(machine: &mut Machine) -> Verdict {
    let (device, volume) = start(machine)?;
    let file = fs::lookup(device, volume, b"file")?;
    Body::new(device, OPEN, file).u32(0).u32(0).send(device).done()?;
    let handle = fs::word(device, 0);
    let body = Body::new(device, FUSE_WRITE, file).u64(handle).u64(0).u32(4).fill(0, 20).fill(b'x', 4);
    body.send(device).refused()?;
    REJECT
}

fn flags(machine: &mut Machine) -> Verdict {
    let (device, volume) = start(machine)?;
    let file = fs::lookup(device, volume, b"file")?;
    for flag in (2..32).map(|bit| 1 << bit).chain([3, u32::MAX]) {
        Body::new(device, OPEN, file).u32(flag).u32(0).send(device).came()?;
        Body::new(device, OPEN, volume).u32(flag).u32(0).send(device).came()?;
    }
    PASS
}

fn after_unlink(machine: &mut Machine) -> Verdict {
    let (device, volume) = start(machine)?;
    create(device, volume, b"gone", 0o644).done()?;
    let (node, handle) = (fs::word(device, 0), fs::word(device, 128));
    remove(device, volume, b"gone")?;
    let body = Body::new(device, FUSE_WRITE, node).u64(handle).u64(0).u32(4).fill(0, 20).fill(b'x', 4);
    body.send(device).came()?;
    Body::new(device, GETATTR, node).u32(0).u32(0).u64(0).send(device).came()?;
    Body::new(device, LINK, volume).u64(node).name(b"back").send(device).came()?;
    Body::new(device, UNLINK, volume).name(b"back").send(device).came()?;
    PASS
}

/// The directories that hold the view, the volumes and the covers.
fn skeleton(machine: &mut Machine) -> Verdict {
    let (device, _) = start(machine)?;
    let volumes = fs::lookup(device, fs::ROOT, b"volumes")?;
    for (directory, name) in [(fs::ROOT, &b"volumes"[..]), (fs::ROOT, b"root"), (volumes, b"0"), (volumes, b"1")] {
        Body::new(device, RMDIR, directory).name(name).send(device).refused()?;
        Body::new(device, UNLINK, directory).name(name).send(device).refused()?;
        Body::new(device, RENAME, directory).u64(directory).name(name).name(b"x").send(device).refused()?;
    }
    Body::new(device, MKDIR, fs::ROOT).u32(0o755).u32(0).name(b"new").send(device).refused()?;
    create(device, volumes, b"new", 0o644).refused()?;
    REJECT
}

fn deep(machine: &mut Machine) -> Verdict {
    let (device, volume) = start(machine)?;
    let mut at = volume;
    for _ in 0..200 {
        Body::new(device, MKDIR, at).u32(0o755).u32(0).name(b"d").send(device).done()?;
        at = fs::word(device, 0);
    }
    create(device, at, b"bottom", 0o644).done()?;
    Body::new(device, GETATTR, at).u32(0).u32(0).u64(0).send(device).done()?;
    PASS
}

fn many(machine: &mut Machine) -> Verdict {
    let (device, volume) = start(machine)?;
    for number in 0..300_u32 {
        let digits = [100, 10, 1].map(|unit| b'0' + (number / unit % 10) as u8);
        create(device, volume, &digits, 0o644).came()?;
    }
    Body::new(device, GETATTR, volume).u32(0).u32(0).u64(0).send(device).done()?;
    PASS
}
