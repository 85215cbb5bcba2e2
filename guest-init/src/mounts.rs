// SPDX-License-Identifier: Apache-2.0
//! The root of the guest: the view of the host below, a private layer above, and the kernel's own file systems
//! (mount(2), Documentation/filesystems/overlayfs.rst, Documentation/filesystems/ramfs-rootfs-initramfs.rst).
//!
//! Not for what the view holds: the host decides that, and enforces read-only on its own. Not for `/proc`, which belongs
//! to the PID namespace of the command ([`crate::namespace`]).
//!
//! `/tmp`, `/var/tmp` and `/run` are plain directories of the private layer, not mounts: a tmpfs over `/tmp` would hide a
//! current directory that the view shows there, and the private layer already is a tmpfs that dies with the machine.
//!
//! The initramfs cannot be pivoted away, so the overlay is moved over it, as switch_root(8) does. A process that breaks
//! out of the chroot(2) this needs arrives at the top of the stack of mounts, which is the overlay again.

mod memory;
mod volumes;

use crate::{
    cgroup::decimal,
    changes::Layers,
    failure::{Failure, at},
    wire::{self, Mount, Step},
};
use alloc::{ffi::CString, vec::Vec};
use core::ffi::CStr;
use rustix::{
    fd::{AsRawFd, IntoRawFd},
    fs::{Access, CWD, FileType, Mode, OFlags, access, chmod, makedev, mkdir, mknodat, open, stat, symlink},
    io::{Errno, Result},
    mount::{MountFlags, mount, mount_move},
    process::{chdir, chroot, umask},
};

const VIEW: &CStr = c"/view";
const PRIVATE: &CStr = c"/private";
const ROOT: &CStr = c"/root-new";

/// `redirect_dir` lets directories of the view be renamed. `xino` keeps inode numbers over a copy-up where it can.
/// Neither `index` nor `metacopy`: they need file handles of the lower layer, which virtio-fs has not, and gain nothing
/// for a layer that is never mounted twice.
const OVERLAY: &CStr = c"lowerdir=/view/root,upperdir=/private/upper,workdir=/private/work,redirect_dir=on,index=off,metacopy=off,xino=auto";

/// The same without a care for what would be left after a crash: nothing is.
const OVERLAY_ON_DISK: &CStr = c"lowerdir=/view/root,upperdir=/private/upper,workdir=/private/work,redirect_dir=on,index=off,metacopy=off,xino=auto,volatile";

/// Directories where anyone must be able to write, whatever the view shows there.
const PUBLIC: [&CStr; 2] = [c"/tmp", c"/var/tmp"];
const PUBLIC_MODE: u32 = 0o1777;

/// Links in `/dev`: what they say, then their names.
const LINKS: [(&CStr, &CStr); 5] = [
    (c"/proc/self/fd", c"/dev/fd"),
    (c"/proc/self/fd/0", c"/dev/stdin"),
    (c"/proc/self/fd/1", c"/dev/stdout"),
    (c"/proc/self/fd/2", c"/dev/stderr"),
    (c"pts/ptmx", c"/dev/ptmx"),
];

/// A file system of the kernel's.
struct System {
    kind: &'static CStr,
    target: &'static CStr,
    flags: MountFlags,
    options: &'static CStr,
    /// Whether the view has a directory to mount it on. To ask again, by mkdir(2), is a request to the host.
    shown: bool,
    /// Whether the host bounds its size.
    bounded: bool,
    /// Whether a kernel without it will do.
    optional: bool,
}

const BARE: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV).union(MountFlags::NOEXEC);

const SYSTEMS: [System; 5] = [
    System { kind: c"sysfs", target: c"/sys", flags: BARE, options: c"", shown: true, bounded: false, optional: false },
    System {
        kind: c"tmpfs",
        target: c"/dev",
        flags: MountFlags::NOSUID,
        options: c"mode=755,size=64m",
        shown: true,
        bounded: false,
        optional: false,
    },
    System {
        kind: c"devpts",
        target: c"/dev/pts",
        flags: MountFlags::NOSUID.union(MountFlags::NOEXEC),
        options: c"newinstance,ptmxmode=666,mode=620,gid=5",
        shown: false,
        bounded: false,
        optional: false,
    },
    System {
        kind: c"tmpfs",
        target: c"/dev/shm",
        flags: MountFlags::NOSUID.union(MountFlags::NODEV),
        options: c"mode=1777",
        shown: false,
        bounded: true,
        optional: false,
    },
    System {
        kind: c"mqueue",
        target: c"/dev/mqueue",
        flags: BARE,
        options: c"",
        shown: false,
        bounded: false,
        optional: true,
    },
];

/// A character device.
struct Node {
    path: &'static CStr,
    major: u32,
    minor: u32,
    /// Where sysfs shows it, if not every kernel has it.
    proof: Option<&'static CStr>,
}

const NODES: [Node; 8] = [
    Node { path: c"/dev/null", major: 1, minor: 3, proof: None },
    Node { path: c"/dev/zero", major: 1, minor: 5, proof: None },
    Node { path: c"/dev/full", major: 1, minor: 7, proof: None },
    Node { path: c"/dev/random", major: 1, minor: 8, proof: None },
    Node { path: c"/dev/urandom", major: 1, minor: 9, proof: None },
    Node { path: c"/dev/tty", major: 5, minor: 0, proof: None },
    Node { path: c"/dev/kvm", major: 10, minor: 232, proof: Some(c"/sys/dev/char/10:232") },
    Node { path: c"/dev/fuse", major: 10, minor: 229, proof: Some(c"/sys/dev/char/10:229") },
];

/// Assembles the root and enters it.
///
/// # Errors
/// The step that failed; the machine is then of no further use.
pub fn assemble(request: &Mount) -> core::result::Result<Layers, Failure> {
    // The modes below are meant as they stand.
    umask(Mode::empty());
    mount_view(&request.volumes).map_err(at(Step::MountView))?;
    let volumes = volumes::Source::open(VIEW).map_err(at(Step::MountView))?;
    mount_root(request).map_err(at(Step::MountRoot))?;
    let layers = Layers::open(c"/private/upper", c"/view/root").map_err(at(Step::MountRoot))?;
    enter_root().map_err(at(Step::EnterRoot))?;
    // From here on every path is resolved inside the new root, symbolic links of the view included.
    furnish(request.shm_bytes).map_err(at(Step::MountSystem))?;
    // Last, so that a volume may lie anywhere, also in what was mounted above.
    mount_memory(request, 0)?;
    for (number, volume) in (0..).zip(&request.volumes) {
        volumes.mount(number, volume).map_err(at(Step::MountVolume(number)))?;
        mount_memory(request, number + 1)?;
    }
    Ok(layers)
}

/// Mounts what is to be mounted after so many volumes.
fn mount_memory(request: &Mount, volumes: u32) -> core::result::Result<(), Failure> {
    for (number, tmpfs) in (0..).zip(&request.tmpfs).filter(|(_, tmpfs)| tmpfs.after == volumes) {
        memory::mount_tmpfs(tmpfs).map_err(at(Step::MountTmpfs(number)))?;
    }
    Ok(())
}

/// Read-only if nothing in it can be written to: the kernel then asks for no attributes again just because it has read.
fn mount_view(volumes: &[wire::Volume]) -> Result<()> {
    directory(VIEW, 0o755)?;
    let writable = volumes.iter().any(|volume| !volume.read_only);
    let flags = if writable { MountFlags::empty() } else { MountFlags::RDONLY };
    mount(wire::VIEW_TAG, VIEW, c"virtiofs", flags, None)
}

fn mount_root(request: &Mount) -> Result<()> {
    directory(PRIVATE, 0o755)?;
    directory(ROOT, 0o755)?;
    let overlay = if request.disk {
        mount_disk()?;
        OVERLAY_ON_DISK
    } else {
        // Inodes are not limited apart: they count as memory of the command's group.
        let options = bounded(c"mode=755,nr_inodes=0", request.private_bytes);
        mount(c"private", PRIVATE, c"tmpfs", MountFlags::empty(), &*options)?;
        OVERLAY
    };
    mkdir(c"/private/upper", Mode::from_raw_mode(0o755))?;
    mkdir(c"/private/work", Mode::from_raw_mode(0o755))?;
    mount(c"root", ROOT, c"overlay", MountFlags::empty(), overlay)
}

/// The kernel's own list of devices is the only one that has the disk's number, and stays below the root.
fn mount_disk() -> Result<()> {
    directory(c"/dev", 0o755)?;
    mount(c"dev", c"/dev", c"devtmpfs", MountFlags::empty(), c"")?;
    mount(c"/dev/vda", PRIVATE, c"ext4", MountFlags::NOATIME, c"")
}

fn enter_root() -> Result<()> {
    chdir(ROOT)?;
    mount_move(c".", c"/")?;
    chroot(c".")?;
    chdir(c"/")
}

fn furnish(shm_bytes: u64) -> Result<()> {
    for path in PUBLIC {
        open_to_all(path)?;
    }
    for system in SYSTEMS {
        match mount_system(&system, shm_bytes) {
            Err(Errno::NODEV) if system.optional => {}
            other => other?,
        }
    }
    for node in NODES {
        if node.proof.is_none_or(|path| access(path, Access::EXISTS).is_ok()) {
            let device = makedev(node.major, node.minor);
            mknodat(CWD, node.path, FileType::CharacterDevice, Mode::from_raw_mode(0o666), device)?;
        }
    }
    for (content, path) in LINKS {
        symlink(content, path)?;
    }
    occupy_standard_streams()
}

fn mount_system(system: &System, shm_bytes: u64) -> Result<()> {
    if !system.shown {
        mkdir(system.target, Mode::from_raw_mode(0o755))?;
    }
    let sized = system.bounded.then(|| bounded(system.options, shm_bytes));
    mount(system.kind, system.target, system.kind, system.flags, sized.as_deref().unwrap_or(system.options))
}

/// A directory of the initramfs, where one that is there already will do.
fn directory(path: &CStr, mode: u32) -> Result<()> {
    match mkdir(path, Mode::from_raw_mode(mode)) {
        Err(Errno::EXIST) => Ok(()),
        other => other,
    }
}

/// Lets anyone write to a directory of the view. One that is right already, as the view's own are, is left alone, since
/// a change begins with a copy.
fn open_to_all(path: &CStr) -> Result<()> {
    if stat(path)?.st_mode & 0o7777 == PUBLIC_MODE { Ok(()) } else { chmod(path, Mode::from_raw_mode(PUBLIC_MODE)) }
}

/// `options`, with a size.
fn bounded(options: &CStr, bytes: u64) -> CString {
    let mut text = Vec::from(options.to_bytes());
    text.extend_from_slice(b",size=");
    text.extend_from_slice(decimal(bytes, &mut [0; 20]));
    // Neither part can hold a NUL byte.
    CString::new(text).unwrap_or_default()
}

/// Makes sure that descriptors 0 to 2 are taken, as they are not if the initramfs has no console. No later pipe can then
/// get one of these numbers, so that a command's streams can be put there without treading on each other.
fn occupy_standard_streams() -> Result<()> {
    loop {
        let null = open(c"/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
        if null.as_raw_fd() > 2 {
            return Ok(());
        }
        _ = null.into_raw_fd();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_appended_to_the_options() {
        assert_eq!(&*bounded(c"mode=1777", 1 << 30), c"mode=1777,size=1073741824");
    }

    #[test]
    fn the_overlay_lies_on_the_shares_root() {
        let lower = format!("lowerdir={}/{},", VIEW.to_str().unwrap(), wire::VIEW_ROOT);
        assert!(OVERLAY.to_str().unwrap().starts_with(&lower));
        assert_eq!(OVERLAY_ON_DISK.to_str().unwrap(), format!("{},volatile", OVERLAY.to_str().unwrap()));
    }

    #[test]
    fn parents_come_before_what_they_hold() {
        let mut known: Vec<&str> = vec![];
        for system in SYSTEMS {
            let path = system.target.to_str().unwrap();
            let parent = path.rsplit_once('/').unwrap().0;
            assert!(if system.shown { parent.is_empty() } else { known.contains(&parent) }, "{path}");
            known.push(path);
        }
    }

    #[test]
    fn proofs_name_their_own_device() {
        for node in NODES {
            let proof = node.proof.map(|path| path.to_str().unwrap());
            let expected = format!("/sys/dev/char/{}:{}", node.major, node.minor);
            assert!(proof.is_none_or(|proof| proof == expected));
        }
    }
}
