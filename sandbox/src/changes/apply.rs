// SPDX-License-Identifier: Apache-2.0
//! What a guest has told, applied below a directory of the host (openat2(2), `RESOLVE_BENEATH` and `RESOLVE_NO_SYMLINKS`).
//!
//! Every step begins at a descriptor of that directory and goes down by names: what lies elsewhere has no name here. Files are
//! written beside their place and renamed into it, so nothing is ever written through what is there. They belong to the caller,
//! without set-user-id bits. Devices, FIFOs, sockets, and links that lead out are left out, and told of.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use guest_init::record::{Kind, State};
use rustix::fs::{
    AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, Timespec, Timestamps, fchmod, futimens, mkdirat, open, openat,
    openat2, renameat, statat, symlinkat, unlinkat,
};
use rustix::io::Errno;

use super::{Change, Error, Spool, names, writing};

const BENEATH: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS)
    .union(ResolveFlags::NO_XDEV);
const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// How deep a tree may be that is removed: as a path can name.
const DEPTH_MAX: usize = 2048;

/// Names tried for a file that is being written.
const TRIES: u32 = 1000;

/// Where things are written.
#[derive(Debug)]
pub(crate) struct Target {
    directory: OwnedFd,
    /// Its path, for messages.
    path: PathBuf,
    /// Whether a file may take the place of a directory, and of all that is in it.
    replaces: bool,
}

/// Something that was left out, and why.
pub(crate) type Left = String;

impl Target {
    /// A directory of the caller's, by a path of the caller's.
    ///
    /// # Errors
    /// [`Error::Write`].
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened = open(path, flags, Mode::empty()).map_err(io::Error::from);
        Ok(Self { directory: opened.map_err(writing(path))?, path: path.to_owned(), replaces: true })
    }

    /// The same, where a directory that is there stays.
    pub(crate) fn sparing(self) -> Self {
        Self { replaces: false, ..self }
    }

    /// Writes what is `wanted` of what the spool has in `place`, seen from there. `place` itself is then this directory, or
    /// with a `name` what has that in it.
    ///
    /// # Errors
    /// The first that cannot be written; what was written before stays.
    pub(crate) fn apply(
        &self,
        spool: &Spool,
        place: &Path,
        name: Option<&OsStr>,
        wanted: impl Fn(&Path) -> bool,
    ) -> Result<Vec<Left>, Error> {
        let (mut left, mut directories) = (Vec::new(), Vec::new());
        for change in spool.changes() {
            let Some(below) = change.below(place).filter(|below| wanted(below)) else { continue };
            let path = match name {
                Some(name) if below.as_os_str().is_empty() => PathBuf::from(name),
                Some(name) => Path::new(name).join(below),
                None if below.as_os_str().is_empty() => continue,
                None => below.to_owned(),
            };
            // Seen from what was asked for, not from its place here.
            let depth = if name.is_some() { below } else { &path };
            let written = self.write(spool, change, &path, depth).map_err(writing(&self.path.join(&path)))?;
            left.extend(written.map(|why| format!("{:?}: {why}", change.path)));
            if change.kind == Kind::Directory && change.state != State::Removed {
                directories.push((path, change));
            }
        }
        // Last, since what is written in them changes their times, and they may not be writable.
        for (path, change) in directories.iter().rev() {
            let finish = || {
                let directory = self.beneath(path, DIRECTORY)?;
                fchmod(&directory, Mode::from_raw_mode(change.mode))?;
                futimens(&directory, &times(change))
            };
            finish().map_err(io::Error::from).map_err(writing(&self.path.join(path)))?;
        }
        Ok(left)
    }

    /// Writes one; says why if it was left out.
    fn write(&self, spool: &Spool, change: &Change, path: &Path, seen: &Path) -> io::Result<Option<&'static str>> {
        let Some(name) = path.file_name() else { return Ok(None) };
        let (parent, above) = match path.parent().filter(|above| !above.as_os_str().is_empty()) {
            Some(above) => (self.parent(above, change.state)?, true),
            None => (Some(openat(&self.directory, ".", DIRECTORY, Mode::empty())?), false),
        };
        debug_assert!(above || path.components().count() == 1, "{path:?}");
        let Some(parent) = parent else { return Ok(None) };
        if change.state == State::Removed {
            return remove(&parent, name, 0).map(|()| None);
        }
        match change.kind {
            Kind::Directory => directory(&parent, name).map(|()| None),
            Kind::File => self.file(spool, change, &parent, name).map(|()| None),
            Kind::Link => {
                let target = spool.target(change)?;
                if !names::stays(seen, &target) {
                    return Ok(Some("a link that leads out of what is copied"));
                }
                let target = OsString::from(<OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(&target));
                put(&parent, name, self.replaces, |temporary| Ok(symlinkat(&*target, &parent, temporary)?))
                    .map(|()| None)
            }
            _ => Ok(Some("no file, directory or link")),
        }
    }

    /// The directory of a path; what is missing of it is made, unless only something was to be removed there.
    fn parent(&self, path: &Path, state: State) -> io::Result<Option<OwnedFd>> {
        match self.beneath(path, DIRECTORY) {
            Err(Errno::NOENT) if state == State::Removed => Ok(None),
            Err(Errno::NOENT) => {
                let mut here = openat(&self.directory, ".", DIRECTORY, Mode::empty())?;
                for part in path.components() {
                    match mkdirat(&here, part.as_os_str(), Mode::from_raw_mode(0o777)) {
                        Ok(()) | Err(Errno::EXIST) => {}
                        Err(error) => return Err(error.into()),
                    }
                    here = openat(&here, part.as_os_str(), DIRECTORY, Mode::empty())?;
                }
                Ok(Some(here))
            }
            opened => Ok(Some(opened?)),
        }
    }

    fn beneath(&self, path: &Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        openat2(&self.directory, path, flags, Mode::empty(), BENEATH)
    }

    fn file(&self, spool: &Spool, change: &Change, parent: &OwnedFd, name: &OsStr) -> io::Result<()> {
        put(parent, name, self.replaces, |temporary| {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let mut file = File::from(openat(parent, temporary, flags, Mode::from_raw_mode(0o600))?);
            let written = io::copy(&mut spool.content(change), &mut file).and_then(|_| {
                fchmod(&file, Mode::from_raw_mode(change.mode))?;
                Ok(futimens(&file, &times(change))?)
            });
            if written.is_err() {
                // It is of no use. That it cannot even be removed would say less than the first error.
                let _ = unlinkat(parent, temporary, AtFlags::empty());
            }
            written
        })
    }
}

/// Makes something under a name that nobody has, then gives it its own, over whatever has that; over a directory only if it `replaces`.
fn put(
    parent: &OwnedFd,
    name: &OsStr,
    replaces: bool,
    mut make: impl FnMut(&OsStr) -> io::Result<()>,
) -> io::Result<()> {
    for number in 0..TRIES {
        let temporary = OsString::from(format!(".sandbox-{}-{number}", std::process::id()));
        match make(&temporary) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
            made => made?,
        }
        let renamed = match renameat(parent, &*temporary, parent, name) {
            Err(Errno::ISDIR | Errno::NOTEMPTY | Errno::EXIST) if replaces => {
                remove(parent, name, 0).and_then(|()| Ok(renameat(parent, &*temporary, parent, name)?))
            }
            renamed => renamed.map_err(io::Error::from),
        };
        if renamed.is_err() {
            let _ = unlinkat(parent, &*temporary, AtFlags::empty());
        }
        return renamed;
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

/// Makes a directory, in the place of anything that is none. Until it is finished its owner may do all with it.
fn directory(parent: &OwnedFd, name: &OsStr) -> io::Result<()> {
    match mkdirat(parent, name, Mode::from_raw_mode(0o700)) {
        Err(Errno::EXIST) => {}
        made => return Ok(made?),
    }
    if FileType::from_raw_mode(statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?.st_mode) != FileType::Directory {
        unlinkat(parent, name, AtFlags::empty())?;
        mkdirat(parent, name, Mode::from_raw_mode(0o700))?;
    }
    Ok(())
}

/// Removes whatever has this name, and what is in it. That nothing has it is as well.
fn remove(parent: &OwnedFd, name: &OsStr, depth: usize) -> io::Result<()> {
    match unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) if depth < DEPTH_MAX => {}
        Err(error) => return Err(error.into()),
    }
    let directory = openat(parent, name, DIRECTORY, Mode::empty())?;
    for entry in Dir::read_from(&directory)? {
        let entry = entry?;
        let inner: &OsStr = <OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(entry.file_name().to_bytes());
        if inner != "." && inner != ".." {
            remove(&directory, inner, depth + 1)?;
        }
    }
    Ok(unlinkat(parent, name, AtFlags::REMOVEDIR)?)
}

fn times(change: &Change) -> Timestamps {
    let time = Timespec { tv_sec: change.seconds, tv_nsec: change.nanoseconds.into() };
    Timestamps { last_access: time, last_modification: time }
}

#[cfg(test)]
mod tests;
