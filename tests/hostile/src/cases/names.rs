// SPDX-License-Identifier: Apache-2.0
//! Names that are no component of a path, for every opcode that takes one (FUSE; the share's own rules).

use crate::device::Device;
use crate::fs::{
    self, Answer, Body, CREATE, GETXATTR, LINK, LOOKUP, MKDIR, MKNOD, REMOVEXATTR, RENAME, RENAME2, RMDIR, SETXATTR,
    SYMLINK, UNLINK,
};
use crate::machine::Machine;
use crate::verdict::{Case, PASS, REJECT, Verdict, case, ensure};

const FILES: &str = "5.11.6.1";

#[rustfmt::skip]
pub(super) const CASES: &[Case] = &[
    case(851, "T42", FILES, "look up what is no name", |m| names(m, LOOKUP)),
    case(852, "T42", FILES, "make a node of no name", |m| names(m, MKNOD)),
    case(853, "T42", FILES, "make a directory of no name", |m| names(m, MKDIR)),
    case(854, "T42", FILES, "remove what is no name", |m| names(m, UNLINK)),
    case(855, "T42", FILES, "remove a directory of no name", |m| names(m, RMDIR)),
    case(856, "T42", FILES, "make a symbolic link of no name", |m| names(m, SYMLINK)),
    case(857, "T42", FILES, "rename what is no name", |m| names(m, RENAME)),
    case(858, "T42", FILES, "rename to what is no name", |m| names(m, RENAME2)),
    case(859, "T42", FILES, "link to what is no name", |m| names(m, LINK)),
    case(860, "T42", FILES, "create a file of no name", |m| names(m, CREATE)),
    case(861, "T42", FILES, "look up names without an end", |m| unended(m, LOOKUP)),
    case(862, "T42", FILES, "create names without an end", |m| unended(m, CREATE)),
    case(863, "T42", FILES, "rename by one name only", one_name),
    case(864, "T42", FILES, "names that are no UTF-8", bytes),
    case(865, "T42", FILES, "attributes of other names", attributes),
    case(866, "T42", FILES, "names of 255 and 256 bytes", longest),
];

/// A request to do something with this name in a directory; what else it takes is good.
fn request(device: &mut Device, opcode: u32, directory: u64, name: &[u8]) -> Answer {
    let body = Body::new(device, opcode, directory);
    let body = match opcode {
        MKNOD => body.u32(0o100_644).u32(0).u32(0).u32(0).name(name),
        MKDIR => body.u32(0o755).u32(0).name(name),
        SYMLINK => body.name(name).name(b"target"),
        RENAME => body.u64(directory).name(name).name(b"renamed"),
        RENAME2 => body.u64(directory).u64(0).name(b"file").name(name),
        LINK => body.u64(directory).name(name),
        CREATE => body.u32(0o102).u32(0o644).u32(0).u32(0).name(name),
        _ => body.name(name),
    };
    body.send(device)
}

fn names(machine: &mut Machine, opcode: u32) -> Verdict {
    let device = &mut machine.fs;
    let [volume, _] = fs::volumes(device)?;
    let bad: [&[u8]; 12] = [
        b"",
        b".",
        b"..",
        b"/",
        b"a/b",
        b"./file",
        b"../outside",
        b"/etc",
        b"/etc/passwd",
        b"directory/..",
        b"file/",
        b"directory/../../outside",
    ];
    for name in bad {
        request(device, opcode, volume, name).refused()?;
        request(device, opcode, fs::ROOT, name).refused()?;
    }
    REJECT
}

fn unended(machine: &mut Machine, opcode: u32) -> Verdict {
    let device = &mut machine.fs;
    let [volume, _] = fs::volumes(device)?;
    for count in [0, 1, 255, 256, 4096, 0x1_0000] {
        let body = Body::new(device, opcode, volume);
        let body = if opcode == CREATE { body.u32(0o102).u32(0o644).u32(0).u32(0) } else { body };
        body.fill(b'x', count).send(device).refused()?;
    }
    REJECT
}

fn one_name(machine: &mut Machine) -> Verdict {
    let device = &mut machine.fs;
    let [volume, _] = fs::volumes(device)?;
    Body::new(device, RENAME, volume).u64(volume).name(b"file").send(device).refused()?;
    Body::new(device, RENAME, volume).u64(volume).bytes(b"file").send(device).refused()?;
    Body::new(device, SYMLINK, volume).name(b"new").send(device).refused()?;
    REJECT
}

/// To the host's kernel a name is bytes.
fn bytes(machine: &mut Machine) -> Verdict {
    let device = &mut machine.fs;
    let [volume, _] = fs::volumes(device)?;
    for name in [&b"\xff\xfe"[..], b"\xc0\x80", b"a\nb", b"\x1b[31m", b"\xed\xa0\x80"] {
        request(device, CREATE, volume, name).done()?;
        fs::lookup(device, volume, name)?;
        request(device, UNLINK, volume, name).done()?;
    }
    PASS
}

/// The share has none (docs/decisions.md), under whatever name.
fn attributes(machine: &mut Machine) -> Verdict {
    let device = &mut machine.fs;
    let [volume, _] = fs::volumes(device)?;
    let file = fs::lookup(device, volume, b"file")?;
    for name in [&b""[..], b"user.x", b"security.capability", b"trusted.overlay.opaque", b"system.posix_acl_access"] {
        Body::new(device, SETXATTR, file).u32(1).u32(0).name(name).bytes(b"v").send(device).refused()?;
        Body::new(device, SETXATTR, file).u32(u32::MAX).u32(0).name(name).send(device).refused()?;
        Body::new(device, GETXATTR, file).u32(64).u32(0).name(name).send(device).refused()?;
        Body::new(device, GETXATTR, file).u32(u32::MAX).u32(0).name(name).send(device).refused()?;
        Body::new(device, REMOVEXATTR, file).name(name).send(device).refused()?;
    }
    REJECT
}

fn longest(machine: &mut Machine) -> Verdict {
    let device = &mut machine.fs;
    let [volume, _] = fs::volumes(device)?;
    let with = |device: &mut Device, opcode: u32, count: u32| {
        let body = Body::new(device, opcode, volume);
        let body = if opcode == MKDIR { body.u32(0o755).u32(0) } else { body };
        body.fill(b'x', count).fill(0, 1).send(device)
    };
    with(device, MKDIR, 255).done()?;
    with(device, RMDIR, 255).done()?;
    for count in [256, 257, 4095, 4096, 0xffff] {
        for opcode in [MKDIR, LOOKUP, UNLINK] {
            let answer = with(device, opcode, count);
            ensure(answer.error() != 0 || answer == Answer::Empty, "a name of more than 255 bytes")?;
        }
    }
    REJECT
}
