// SPDX-License-Identifier: Apache-2.0
//! What a guest has told, applied below a directory of the host (openat2(2), `RESOLVE_BENEATH` and `RESOLVE_NO_SYMLINKS`).
//!
//! Every step begins at a descriptor of that directory and goes down by names: what lies elsewhere, or on another file system, has
//! no name here. Files are written beside their place ([`super::fresh`]), so nothing is ever written through what is there. They
//! belong to the caller, without set-user-id bits. Devices, FIFOs, sockets, and links that lead out are left out, and told of.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use guest_init::record::Kind;
use rustix::fs::{
    AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, Timespec, Timestamps, fchmod, fstat, futimens, mkdirat, open,
    openat2, statat, symlinkat, unlinkat,
};
use rustix::io::Errno;
use rustix::process::geteuid;

use super::{Change, Error, Left, Spool, Step, fresh, names, writing};

const BENEATH: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS)
    .union(ResolveFlags::NO_XDEV);
const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
const NAME: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// How deep a tree may be that is removed: as a path can name.
const DEPTH_MAX: usize = 2048;

/// What a directory keeps that had it: who may remove what in it, and whose group its files have.
const KEPT_BITS: u32 = 0o3000;

/// Asked again and again whether to go on.
pub(crate) type GoOn<'a> = &'a dyn Fn() -> io::Result<()>;

/// Where things are written.
#[derive(Debug)]
pub(crate) struct Target {
    directory: OwnedFd,
    /// Its path, for messages.
    path: PathBuf,
    /// Whether anything may take the place of anything else, of a directory with all that is in it, say.
    replaces: bool,
}

impl Target {
    /// A directory of the caller's, by a path of the caller's. What is there stays what it is: a file may come in the place of a
    /// file, a link in that of a file or a link.
    ///
    /// # Errors
    /// [`Error::Write`].
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened = open(path, flags, Mode::empty()).map_err(io::Error::from);
        Ok(Self { directory: opened.map_err(writing(path))?, path: path.to_owned(), replaces: false })
    }

    /// The same, made what the guest has made of it: anything may come in the place of anything.
    pub(crate) fn replacing(self) -> Self {
        Self { replaces: true, ..self }
    }

    /// Does these steps with what the spool has.
    ///
    /// # Errors
    /// Of what is in the way nothing has been written yet; else the first that cannot be written, and what was written before stays.
    pub(crate) fn apply(&self, spool: &Spool, steps: &[Step<'_>], go_on: GoOn<'_>) -> Result<Vec<Left>, Error> {
        let (mut left, mut due) = (Vec::new(), Vec::new());
        for step in steps {
            go_on().map_err(writing(&self.path))?;
            match self.look(spool, step)? {
                Some(why) => left.push(format!("{:?}: {why}", step.change.path)),
                None => due.push(step),
            }
        }
        let mut work = Work { target: self, spool, go_on, unlocked: BTreeMap::new() };
        let done = work.all(&due);
        work.lock();
        done.map(|()| left)
    }

    /// Looks at what is there; says why a step is left out.
    fn look(&self, spool: &Spool, step: &Step<'_>) -> Result<Option<&'static str>, Error> {
        let path = self.path.join(&step.path);
        if step.comes == Some(Kind::Special) {
            return Ok(Some("no file, directory or link"));
        }
        if step.comes == Some(Kind::Link)
            && !names::stays(step.seen, &spool.target(step.change).map_err(writing(&path))?)
        {
            return Ok(Some("a link that leads out of what is copied"));
        }
        let there = match self.beneath(&step.path, NAME) {
            Ok(there) => {
                FileType::from_raw_mode(fstat(&there).map_err(io::Error::from).map_err(writing(&path))?.st_mode)
            }
            Err(Errno::NOENT) => return Ok(None),
            Err(Errno::XDEV) if self.replaces => return Ok(Some("another file system is mounted there on the host")),
            // What is in the way may be replaced itself.
            Err(Errno::NOTDIR | Errno::LOOP) if self.replaces => return Ok(None),
            Err(error) => return Err(writing(&path)(error.into())),
        };
        if !self.replaces {
            let fits = match step.comes {
                Some(Kind::Directory) => there == FileType::Directory,
                Some(Kind::Link) => matches!(there, FileType::RegularFile | FileType::Symlink),
                _ => there == FileType::RegularFile,
            };
            let in_the_way = || Error::InTheWay { there: word(there), path: path.clone(), comes: step.word() };
            return if fits { Ok(None) } else { Err(in_the_way()) };
        }
        let goes = there == FileType::Directory && step.comes != Some(Kind::Directory);
        if goes && holds_mount(&self.directory, step.path.as_os_str(), 0).map_err(writing(&path))? {
            return Ok(Some("another file system is mounted in it on the host"));
        }
        Ok(None)
    }

    fn beneath(&self, path: &Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        openat2(&self.directory, path, flags, Mode::empty(), BENEATH)
    }
}

impl Step<'_> {
    fn word(&self) -> &'static str {
        match self.comes {
            Some(Kind::Directory) => "a directory",
            Some(Kind::Link) => "a symbolic link",
            Some(_) => "a file",
            None => "nothing",
        }
    }
}

fn word(there: FileType) -> &'static str {
    match there {
        FileType::Directory => "directory",
        FileType::Symlink => "symbolic link",
        FileType::RegularFile => "file",
        FileType::Fifo => "FIFO",
        FileType::Socket => "socket",
        _ => "device",
    }
}

/// Steps under way.
struct Work<'a> {
    target: &'a Target,
    spool: &'a Spool,
    go_on: GoOn<'a>,
    /// Directories that may be written to for the moment, and their modes.
    unlocked: BTreeMap<PathBuf, u32>,
}

impl Work<'_> {
    fn all(&mut self, steps: &[&Step<'_>]) -> Result<(), Error> {
        let target = self.target;
        let failed = |path: &Path| {
            let path = target.path.join(path);
            move |source| Error::Apply { path, source }
        };
        for step in steps {
            let failed = failed(&step.path);
            (self.go_on)().and_then(|()| self.step(step)).map_err(failed)?;
        }
        // Last, since what is written in them changes their times, and they may not be writable.
        for step in steps.iter().rev().filter(|step| step.comes == Some(Kind::Directory)) {
            let finish = || {
                let directory = target.beneath(&step.path, DIRECTORY)?;
                let kept = fstat(&directory)?.st_mode & KEPT_BITS;
                fchmod(&directory, Mode::from_raw_mode(step.change.mode | kept))?;
                futimens(&directory, &times(step.change))
            };
            finish().map_err(io::Error::from).map_err(failed(&step.path))?;
            self.unlocked.remove(&*step.path);
        }
        Ok(())
    }

    fn step(&mut self, step: &Step<'_>) -> io::Result<()> {
        let Some(name) = step.path.file_name() else { return Ok(()) };
        let above = step.path.parent().unwrap_or(Path::new(""));
        let Some(parent) = self.parent(above, step.comes.is_none())? else { return Ok(()) };
        self.unlock(&parent, above)?;
        let make_way = || if self.target.replaces { remove(&parent, name, 0) } else { Err(Errno::ISDIR.into()) };
        match step.comes {
            None => remove(&parent, name, 0),
            Some(Kind::Directory) => directory(&parent, name, self.target.replaces),
            Some(Kind::Link) => {
                let target = self.spool.target(step.change)?;
                let target = OsStr::from_bytes(&target);
                fresh::put(&parent, name, &make_way, &|temporary| Ok(symlinkat(target, &parent, temporary)?))
            }
            Some(_) => fresh::file(&parent, name, &make_way, &|file| {
                fresh::copy(self.spool.content(step.change), file, self.go_on)?;
                fchmod(file, Mode::from_raw_mode(step.change.mode))?;
                Ok(futimens(file, &times(step.change))?)
            }),
        }
    }

    /// The directory of a path; what is missing of it is made, unless only something was to be removed there.
    fn parent(&self, path: &Path, removed: bool) -> io::Result<Option<OwnedFd>> {
        let mut here = self.target.beneath(Path::new("."), DIRECTORY)?;
        for part in path.components() {
            here = match openat2(&here, part.as_os_str(), DIRECTORY, Mode::empty(), BENEATH) {
                Err(Errno::NOENT) if removed => return Ok(None),
                Err(Errno::NOENT) => {
                    mkdirat(&here, part.as_os_str(), Mode::from_raw_mode(0o777))?;
                    openat2(&here, part.as_os_str(), DIRECTORY, Mode::empty(), BENEATH)?
                }
                opened => opened?,
            };
        }
        Ok(Some(here))
    }

    /// Lets us write to a directory of ours, for the moment, as the command has: only where all that it did is done again.
    fn unlock(&mut self, directory: &OwnedFd, path: &Path) -> io::Result<()> {
        if self.target.replaces
            && let Some(mode) = unlock(directory)?
        {
            self.unlocked.insert(path.to_owned(), mode);
        }
        Ok(())
    }

    /// Gives directories their modes back. One that is not there any more needs none.
    fn lock(&self) {
        for (path, mode) in self.unlocked.iter().rev() {
            let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
            let _ = self
                .target
                .beneath(path, DIRECTORY)
                .and_then(|directory| fchmod(directory, Mode::from_raw_mode(*mode)));
        }
    }
}

/// Lets us write to a directory, if it is ours and we may not; its mode until then.
fn unlock(directory: &OwnedFd) -> io::Result<Option<u32>> {
    let stat = fstat(directory)?;
    let mode = stat.st_mode & 0o7777;
    if mode & 0o300 == 0o300 || stat.st_uid != geteuid().as_raw() {
        return Ok(None);
    }
    fchmod(directory, Mode::from_raw_mode(mode | 0o300))?;
    Ok(Some(mode))
}

/// Makes a directory, if it `replaces` in the place of anything that is none. Until it is finished its owner may do all with it.
fn directory(parent: &OwnedFd, name: &OsStr, replaces: bool) -> io::Result<()> {
    match mkdirat(parent, name, Mode::from_raw_mode(0o700)) {
        Err(Errno::EXIST) => {}
        made => return Ok(made?),
    }
    if FileType::from_raw_mode(statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?.st_mode) != FileType::Directory {
        if !replaces {
            return Err(Errno::NOTDIR.into());
        }
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
    let directory = openat2(parent, name, DIRECTORY, Mode::empty(), BENEATH)?;
    unlock(&directory)?;
    for entry in Dir::read_from(&directory)? {
        let entry = entry?;
        let inner = OsStr::from_bytes(entry.file_name().to_bytes());
        if inner != "." && inner != ".." {
            remove(&directory, inner, depth + 1)?;
        }
    }
    Ok(unlinkat(parent, name, AtFlags::REMOVEDIR)?)
}

/// Whether anything is mounted at this name or below it.
fn holds_mount(parent: &OwnedFd, name: &OsStr, depth: usize) -> io::Result<bool> {
    let directory = match openat2(parent, name, DIRECTORY, Mode::empty(), BENEATH) {
        Ok(directory) if depth < DEPTH_MAX => directory,
        Ok(_) => return Err(Errno::NAMETOOLONG.into()),
        Err(Errno::XDEV) => return Ok(true),
        // Files, links, and what has gone meanwhile.
        Err(Errno::NOTDIR | Errno::LOOP | Errno::NOENT) => return Ok(false),
        Err(error) => return Err(error.into()),
    };
    for entry in Dir::read_from(&directory)? {
        let entry = entry?;
        let inner = OsStr::from_bytes(entry.file_name().to_bytes());
        if inner != "." && inner != ".." && holds_mount(&directory, inner, depth + 1)? {
            return Ok(true);
        }
    }
    Ok(false)
}

fn times(change: &Change) -> Timestamps {
    let time = Timespec { tv_sec: change.seconds, tv_nsec: change.nanoseconds.into() };
    Timestamps { last_access: time, last_modification: time }
}

#[cfg(test)]
mod tests;
