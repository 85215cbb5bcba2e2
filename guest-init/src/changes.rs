// SPDX-License-Identifier: Apache-2.0
//! What commands have changed: the private layer, told file by file beside what lies below it
//! (Documentation/filesystems/overlayfs.rst, "whiteouts and opaque directories", "redirect_dir").
//!
//! Not for what becomes of it. It is told by a copy of init, over a connection of its own, at the host's pace.

use crate::{
    record::{HEADER_LEN, Kind, PATH_MAX, Record, State},
    sys::{heap, set_limit},
    vsock::Dialling,
    wire::{Tell, port},
};
use alloc::{vec, vec::Vec};
use core::{ffi::CStr, mem::MaybeUninit};
use rustix::{
    fd::{AsFd, BorrowedFd, OwnedFd},
    fs::{AtFlags, FileType, Mode, OFlags, RawDir, fcntl_setfl, fgetxattr_query, open, openat, readlinkat_raw, statat},
    io::{Errno, Result, read, write},
};

/// How much is sent at a time.
const CHUNK: usize = 64 << 10;

/// Room for a path with one name too many, and for a record with its path.
const ROOM: usize = PATH_MAX + 1 + 256 + HEADER_LEN;

/// Room for the names of a directory, as the kernel tells them.
const NAMES: usize = 8 << 10;

/// Most bytes of the names of a directory that are kept beside those of the directories above it, of which a path has room for
/// 2048. More of them are mapped alone.
const FEW: usize = 256;

/// `RLIMIT_NOFILE`, and enough descriptors for the deepest path: two for each directory on it.
const NOFILE: u32 = 7;
const DESCRIPTORS: u64 = 2 * (PATH_MAX as u64 + 1);

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
const FILE: OFlags = OFlags::RDONLY.union(OFlags::NONBLOCK).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// The layers of the root, where no path leads any more.
#[derive(Debug)]
pub struct Layers {
    upper: OwnedFd,
    lower: OwnedFd,
}

impl Layers {
    /// Takes hold of them while paths still lead there.
    ///
    /// # Errors
    /// The kernel's.
    pub fn open(upper: &CStr, lower: &CStr) -> Result<Self> {
        let open = |path| open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
        Ok(Self { upper: open(upper)?, lower: open(lower)? })
    }

    /// Does as the host asks. What cannot be told of the host is told, too.
    pub fn tell(&self, request: &Tell) {
        let dialling = Dialling::begin(port::of(port::CONTROL, request.number)).and_then(Dialling::complete);
        let Ok(socket) = dialling else { return };
        // Neither grows: what is given back out of turn is lost.
        let (out, path) = (Vec::with_capacity(2 * CHUNK + ROOM), Vec::with_capacity(ROOM));
        let (places, content) = (&request.path[..], request.content);
        let mut walk = Walk { out, socket, gone: false, path, places, content, device: 0 };
        // Without it some of the deepest directories are not told of.
        _ = set_limit(NOFILE, DESCRIPTORS, DESCRIPTORS);
        let walked = fcntl_setfl(&walk.socket, OFlags::empty()).and_then(|()| walk.begin(self));
        // A host that is gone needs no last word.
        _ = walk.or_failed(walked).and_then(|()| walk.put(NOTHING, State::Added)).and_then(|()| walk.flush());
    }
}

const NOTHING: Record = Record {
    kind: Kind::End,
    state: State::Added,
    mode: 0,
    path_len: 0,
    uid: 0,
    gid: 0,
    seconds: 0,
    nanoseconds: 0,
    links: 0,
    inode: 0,
    size: 0,
};

/// What is at a name.
struct Found {
    record: Record,
    /// On which file system.
    device: u64,
    /// Whether it says that there is nothing, if it is in the private layer.
    whiteout: bool,
}

/// What is at a name; links are not followed.
fn look(directory: BorrowedFd<'_>, name: &CStr) -> Result<Found> {
    let stat = statat(directory, name, AtFlags::SYMLINK_NOFOLLOW.union(AtFlags::EMPTY_PATH))?;
    let file = FileType::from_raw_mode(stat.st_mode);
    let record = Record {
        kind: match file {
            FileType::Directory => Kind::Directory,
            FileType::RegularFile => Kind::File,
            FileType::Symlink => Kind::Link,
            _ => Kind::Special,
        },
        mode: (stat.st_mode & 0o7777) as u16,
        uid: stat.st_uid,
        gid: stat.st_gid,
        seconds: stat.st_mtime,
        nanoseconds: stat.st_mtime_nsec as u32,
        links: stat.st_nlink as u32,
        inode: stat.st_ino,
        size: stat.st_size as u64,
        ..NOTHING
    };
    let whiteout = file == FileType::CharacterDevice && stat.st_rdev == 0;
    Ok(Found { record, device: stat.st_dev, whiteout })
}

/// Whether nobody has changed it: a file is copied up already when it is only opened for writing, and a directory when
/// anything in it is.
fn same(now: &Record, old: &Record) -> bool {
    let rights = (now.kind as u8, now.mode, now.uid, now.gid) == (old.kind as u8, old.mode, old.uid, old.gid);
    let content = (now.size, now.seconds, now.nanoseconds) == (old.size, old.seconds, old.nanoseconds);
    rights && (content || now.kind == Kind::Directory)
}

fn inside(directory: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd> {
    openat(directory, name, DIRECTORY, Mode::empty())
}

/// What is done for a name. A reference: each type of its own would be another copy of the loop.
type Act<'a> = &'a mut dyn FnMut(&mut Walk<'_>, &CStr) -> Result<()>;

/// A walk under way.
struct Walk<'a> {
    out: Vec<u8>,
    socket: OwnedFd,
    /// Whether the host is.
    gone: bool,
    /// From the root, or from what was asked for, without a slash before the first name.
    path: Vec<u8>,
    /// What was asked for ([`Tell::path`]).
    places: &'a [u8],
    content: bool,
    /// The file system that is not left: the root's, or that of what was asked for.
    device: u64,
}

impl Walk<'_> {
    /// What has changed, or all that is at a path, links on the way to it followed.
    fn begin(&mut self, layers: &Layers) -> Result<()> {
        let changes = !self.places.starts_with(b"/");
        // The host ends a path with a NUL byte.
        let path = if changes { c"/" } else { CStr::from_bytes_until_nul(self.places).unwrap_or_default() };
        let start = open(path, FILE - OFlags::NOFOLLOW, Mode::empty())?;
        let Found { record, device, .. } = look(start.as_fd(), c"")?;
        self.device = device;
        if changes {
            let upper = inside(layers.upper.as_fd(), c".")?;
            return self.directory(upper.as_fd(), Some(layers.lower.as_fd()), false);
        }
        self.places = &[];
        self.put(record, State::Added)?;
        match record.kind {
            Kind::Directory => self.directory(start.as_fd(), None, true),
            Kind::File => self.content(&start, record.size),
            _ => Ok(()),
        }
    }

    /// What is in a directory: of the private layer alone, or, where that does not tell, the `whole`.
    fn directory(&mut self, here: BorrowedFd<'_>, below: Option<BorrowedFd<'_>>, whole: bool) -> Result<()> {
        self.each(here, &mut |walk, name| walk.entry(here, below, name, whole))?;
        if let Some(below) = below.filter(|_| whole) {
            let below = inside(below, c".")?;
            self.each(below.as_fd(), &mut |walk, name| match look(here, name) {
                Err(_) => walk.put(look(below.as_fd(), name)?.record, State::Removed),
                Ok(_) => Ok(()),
            })?;
        }
        Ok(())
    }

    /// Does something for each name in a directory. Where it fails that is told, and the rest goes on.
    fn each(&mut self, here: BorrowedFd<'_>, act: Act<'_>) -> Result<()> {
        let length = self.path.len();
        for name in names(here)?.split_inclusive(|byte| *byte == 0) {
            let Ok(name) = CStr::from_bytes_until_nul(name) else { continue };
            if length > 0 {
                self.path.push(b'/');
            }
            self.path.extend_from_slice(name.to_bytes());
            // This also bounds how deep the calls go, and with them the stack.
            if self.is_wanted() {
                let acted = if self.path.len() > PATH_MAX { Err(Errno::NAMETOOLONG) } else { act(self, name) };
                self.or_failed(acted)?;
            }
            self.path.truncate(length);
        }
        Ok(())
    }

    /// Whether this path is at a place that was asked for, or on the way to one.
    fn is_wanted(&self) -> bool {
        let at =
            |path: &[u8], place: &[u8]| path.starts_with(place) && matches!(path.get(place.len()), None | Some(b'/'));
        let mut places = self.places.split(|byte| *byte == 0).filter(|place| !place.is_empty());
        self.places.is_empty() || places.any(|place| at(&self.path, place) || at(place, &self.path))
    }

    fn entry(&mut self, here: BorrowedFd<'_>, below: Option<BorrowedFd<'_>>, name: &CStr, whole: bool) -> Result<()> {
        let Ok(Found { record, device, whiteout }) = look(here, name) else {
            // Somebody is still at work, and has removed it.
            return Ok(());
        };
        let old = below.and_then(|below| look(below, name).ok()).map(|found| found.record);
        if whiteout && !whole {
            return old.map_or(Ok(()), |old| self.put(old, State::Removed));
        }
        if !old.is_some_and(|old| same(&record, &old)) {
            let state = if old.is_none() { State::Added } else { State::Changed };
            match record.kind {
                Kind::Link => self.link(here, name, record, state)?,
                Kind::File if self.content => {
                    // First: once it has been told, as many bytes must follow.
                    let file = openat(here, name, FILE, Mode::empty())?;
                    self.put(record, state)?;
                    self.content(&file, record.size)?;
                }
                _ => self.put(record, state)?,
            }
        }
        if record.kind != Kind::Directory || whole && device != self.device {
            return Ok(());
        }
        let mut inner = inside(here, name)?;
        let below = below.and_then(|below| inside(below, name).ok());
        let hides =
            below.is_some() && has(&inner, c"trusted.overlay.opaque") || has(&inner, c"trusted.overlay.redirect");
        if hides && !whole {
            // It hides what is below it, or what it shows lies elsewhere there: only the root itself tells.
            let mut path = Vec::with_capacity(ROOM);
            path.push(b'/');
            path.extend_from_slice(&self.path);
            path.push(0);
            inner = open(CStr::from_bytes_until_nul(&path).unwrap_or_default(), DIRECTORY, Mode::empty())?;
        }
        self.directory(inner.as_fd(), below.as_ref().map(AsFd::as_fd), whole || hides)
    }

    /// A link and where it leads. Not part of its caller, in the frame of which there would be this much for each level.
    #[inline(never)]
    fn link(&mut self, here: BorrowedFd<'_>, name: &CStr, record: Record, state: State) -> Result<()> {
        let mut target = [MaybeUninit::uninit(); PATH_MAX + 1];
        let (target, _) = readlinkat_raw(here, name, &mut target)?;
        if target.len() as u64 != record.size {
            return Err(Errno::STALE);
        }
        self.put(record, state)?;
        self.send(target)
    }

    /// What a file holds; if it has become shorter meanwhile, zeroes to the size that has been told. So it is where it cannot be
    /// read, which is said when all of it has been sent.
    fn content(&mut self, file: &OwnedFd, mut left: u64) -> Result<()> {
        if !self.content {
            return Ok(());
        }
        let mut buffer = vec![0; CHUNK];
        let mut fine = Ok(());
        while left > 0 {
            let most = left.min(CHUNK as u64) as usize;
            let mut count = 0;
            if fine.is_ok() {
                fine = read(file, &mut buffer[..most]).map(|read| count = read);
            }
            if count == 0 {
                buffer.fill(0);
                count = most;
            }
            self.send(&buffer[..count])?;
            left -= count as u64;
        }
        fine
    }

    /// Tells the host of a failure here, but for one to tell it anything.
    fn or_failed(&mut self, done: Result<()>) -> Result<()> {
        match done {
            Err(errno) if !self.gone => {
                let size = u64::from(errno.raw_os_error().unsigned_abs());
                self.put(Record { kind: Kind::Failed, size, ..NOTHING }, State::Added)
            }
            done => done,
        }
    }

    fn put(&mut self, mut record: Record, state: State) -> Result<()> {
        record.state = state;
        let path_len = self.path.len().min(PATH_MAX);
        record.path_len = path_len as u16;
        for word in record.words() {
            self.out.extend_from_slice(&word.to_le_bytes());
        }
        self.out.extend_from_slice(&self.path[..path_len]);
        self.send(&[])
    }

    fn send(&mut self, bytes: &[u8]) -> Result<()> {
        self.out.extend_from_slice(bytes);
        if self.out.len() < CHUNK { Ok(()) } else { self.flush() }
    }

    /// No signal is sent to this process, so no call is interrupted.
    fn flush(&mut self) -> Result<()> {
        let mut rest = &self.out[..];
        while !rest.is_empty() {
            let written = write(&self.socket, rest);
            self.gone = written.is_err();
            rest = &rest[written?..];
        }
        self.out.clear();
        Ok(())
    }
}

fn has(directory: &OwnedFd, attribute: &CStr) -> bool {
    fgetxattr_query(directory, attribute).is_ok()
}

/// The names in a directory but itself and its parent, each ended by a NUL byte: one block, which the allocator can take
/// back. Not part of its caller, see [`Walk::link`].
#[inline(never)]
fn names(directory: BorrowedFd<'_>) -> Result<Vec<u8>> {
    let mut room = [MaybeUninit::uninit(); NAMES];
    let mut found = Vec::with_capacity(FEW);
    let mut entries = RawDir::new(directory, &mut room);
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let name = entry.file_name();
        if name != c"." && name != c".." {
            let name = name.to_bytes_with_nul();
            if found.len() + name.len() > found.capacity() {
                found.reserve(heap::LARGE);
            }
            found.extend_from_slice(name);
        }
    }
    Ok(found)
}
