// SPDX-License-Identifier: Apache-2.0
//! Builds the view inside the worker's own mount namespace and makes it the root (mount_namespaces(7), open_tree(2),
//! move_mount(2), pivot_root(2)).
//!
//! A small tmpfs holds the directories; each host path is a recursive bind mount on it. Recursive, because a user
//! namespace may not separate mounts it did not make. Every mount is restricted while it is still detached, so that
//! nothing is ever reachable unrestricted. Sources are opened without following a symbolic link anywhere: their names
//! were canonical when the view was described, and whoever has put a link there since does not redirect us. Targets
//! are opened in the same way and cannot leave the tree.
//!
//! [`Restrict::no_follow`] marks what is shown to everyone only: it costs nothing, since this process follows no
//! links, and [`super::share`] can read it back from any descriptor (statvfs(3)).

use super::plan::{self, Make, Plan, Step, Volume};
use crate::confine::{self, Root};
use crate::sys::namespace::{Restrict, restrict};
use guest_init::wire::{VIEW_ROOT, VIEW_VOLUMES};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, Stat, fstat, mkdirat, openat2, statat, symlinkat,
};
use rustix::io::Errno;
use rustix::mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree};
use rustix::process::umask;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Where the covers lie, beside the root, invisible in it.
const COVERS: &str = "covers";

/// The tree, once it is the root.
#[derive(Debug)]
pub(super) struct Tree {
    /// `/proc/self/fd`, of which nothing else of `/proc` can be reached.
    pub(super) descriptors: OwnedFd,
    /// Owners of our own directories by inode number.
    pub(super) owners: BTreeMap<u64, (u32, u32)>,
    /// The file systems in it, in order of appearance (`f_fsid`).
    pub(super) devices: Vec<u64>,
}

/// Why the view could not be built.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A call that concerns no path of the view.
    #[error("{doing}")]
    Step {
        /// What was attempted.
        doing: &'static str,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
    /// The root could not be made or changed.
    #[error(transparent)]
    Root(#[from] confine::Error),
    /// A call that concerns one.
    #[error("{doing} {path:?}")]
    Path {
        /// What was attempted.
        doing: &'static str,
        /// With which path.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
}

fn step<E: Into<std::io::Error>>(doing: &'static str) -> impl FnOnce(E) -> Error {
    move |source| Error::Step { doing, source: source.into() }
}

fn at<E: Into<std::io::Error>>(doing: &'static str, path: &Path) -> impl FnOnce(E) -> Error {
    move |source| Error::Path { doing, path: path.into(), source: source.into() }
}

/// Builds the view on what is to be the root, and makes it this process's root.
pub(super) fn assemble(plan: &Plan, root: &Root) -> Result<Tree, Error> {
    // Modes are to be what the plan says.
    umask(Mode::empty());
    let descriptors = descriptors()?;
    let mut builder =
        Builder { base: root.as_fd(), owners: BTreeMap::new(), devices: Vec::new(), numbers: BTreeSet::new() };
    builder.covers()?;
    for step in &plan.steps {
        builder.make(step)?;
    }
    for (index, volume) in plan.volumes.iter().enumerate() {
        builder.volume(index, volume)?;
    }
    let Builder { owners, devices, .. } = builder;
    root.enter()?;
    Ok(Tree { descriptors, owners, devices })
}

/// A bind mount of `/proc/self/fd` that is mounted nowhere: the server opens files by it, and `..` does not leave it.
fn descriptors() -> Result<OwnedFd, Error> {
    open_tree(CWD, "/proc/self/fd", OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC)
        .map_err(step("clone /proc/self/fd"))
}

struct Builder<'a> {
    base: BorrowedFd<'a>,
    owners: BTreeMap<u64, (u32, u32)>,
    devices: Vec<u64>,
    /// What `st_dev` calls them.
    numbers: BTreeSet<u64>,
}

impl Builder<'_> {
    /// What covers files and directories: one of each that nobody may read.
    fn covers(&self) -> Result<(), Error> {
        self.directory(Path::new(COVERS), 0o700)?;
        self.directory(Path::new("covers/directory"), 0o000)?;
        let file = Path::new("covers/file");
        drop(self.create(file, 0o000).map_err(at("make file", file))?);
        self.directory(Path::new(VIEW_ROOT), 0o755)?;
        self.directory(Path::new(VIEW_VOLUMES), 0o755)
    }

    fn make(&mut self, step: &Step) -> Result<(), Error> {
        let path = below_root(step.path());
        match &step.make {
            Make::Directory { mode, uid, gid } => {
                self.directory(&path, *mode)?;
                let made = self.stat(&path)?;
                self.owners.insert(made.st_ino, (*uid, *gid));
            }
            Make::Link(target) => {
                symlinkat(plan::path(target), self.base, &path).map_err(at("make link", &path))?;
            }
            Make::Mount { source, everyone } => {
                let restrict = Restrict { read_only: true, no_follow: *everyone };
                match self.mount(plan::path(source), &path, restrict) {
                    // Files of the system come and go (`/etc/.pwd.lock`, an upgrade): then this one has gone.
                    Err(Error::Path { source, .. }) if *everyone && source.kind() == std::io::ErrorKind::NotFound => {}
                    done => done?,
                }
            }
            Make::Cover => self.cover(&path)?,
        }
        Ok(())
    }

    fn volume(&mut self, index: usize, volume: &Volume) -> Result<(), Error> {
        let path = Path::new(VIEW_VOLUMES).join(index.to_string());
        self.mount(volume.source(), &path, Restrict { read_only: volume.read_only, no_follow: false })
    }

    /// Binds a host path, making the mount point if there is none.
    fn mount(&mut self, source: &Path, path: &Path, how: Restrict) -> Result<(), Error> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let origin =
            openat2(CWD, source, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS).map_err(at("open", source))?;
        let clone = OpenTreeFlags::OPEN_TREE_CLONE
            | OpenTreeFlags::OPEN_TREE_CLOEXEC
            | OpenTreeFlags::AT_RECURSIVE
            | OpenTreeFlags::AT_EMPTY_PATH;
        let tree = open_tree(origin.as_fd(), "", clone).map_err(at("clone the mounts of", source))?;
        restrict(tree.as_fd(), how).map_err(at("restrict the mounts of", source))?;
        let found = fstat(&tree).map_err(at("look at", source))?;
        let target = match FileType::from_raw_mode(found.st_mode) {
            FileType::Directory => self.directory_to_cover(path)?,
            _ => self.file_to_cover(path)?,
        };
        self.attach(tree.as_fd(), target.as_fd(), path)?;
        self.note_device(tree.as_fd(), found.st_dev);
        Ok(())
    }

    /// A directory to mount on, which a mount above may have brought along.
    fn directory_to_cover(&self, path: &Path) -> Result<OwnedFd, Error> {
        match self.open(path) {
            Err(Errno::NOENT) => {
                self.directory(path, 0o755)?;
                self.open(path)
            }
            opened => opened,
        }
        .map_err(at("open mount point", path))
    }

    /// The same for anything else. Most are not there yet.
    fn file_to_cover(&self, path: &Path) -> Result<OwnedFd, Error> {
        match self.create(path, 0o444) {
            Err(Errno::EXIST | Errno::ROFS) => self.open(path),
            made => made,
        }
        .map_err(at("open mount point", path))
    }

    /// Puts something unreadable over what is there, if it is there.
    fn cover(&self, path: &Path) -> Result<(), Error> {
        let target = match self.open(path) {
            Err(Errno::NOENT) => return Ok(()),
            opened => opened.map_err(at("open", path))?,
        };
        let cover = match FileType::from_raw_mode(fstat(&target).map_err(at("look at", path))?.st_mode) {
            // Nothing can be mounted on a link, and none is followed.
            FileType::Symlink => return Ok(()),
            FileType::Directory => "covers/directory",
            _ => "covers/file",
        };
        let clone = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let tree = open_tree(self.base, cover, clone).map_err(at("clone a cover for", path))?;
        restrict(tree.as_fd(), Restrict { read_only: true, no_follow: true })
            .map_err(at("restrict the cover of", path))?;
        self.attach(tree.as_fd(), target.as_fd(), path)
    }

    fn attach(&self, tree: BorrowedFd<'_>, target: BorrowedFd<'_>, path: &Path) -> Result<(), Error> {
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
        move_mount(tree, "", target, "", flags).map_err(at("mount", path))
    }

    fn open(&self, path: &Path) -> Result<OwnedFd, Errno> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        openat2(self.base, path, flags, Mode::empty(), ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS)
    }

    fn directory(&self, path: &Path, mode: u32) -> Result<(), Error> {
        mkdirat(self.base, path, Mode::from_raw_mode(mode)).map_err(at("make directory", path))
    }

    fn create(&self, path: &Path, mode: u32) -> Result<OwnedFd, Errno> {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        openat2(self.base, path, flags, Mode::from_raw_mode(mode), ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS)
    }

    fn stat(&self, path: &Path) -> Result<Stat, Error> {
        statat(self.base, path, AtFlags::SYMLINK_NOFOLLOW).map_err(at("look at", path))
    }

    /// Notes a mount's file system. Many mounts are of one, so its number is asked for only once for each `st_dev`.
    fn note_device(&mut self, mount: BorrowedFd<'_>, number: u64) {
        if self.numbers.insert(number)
            && let Ok(found) = rustix::fs::fstatvfs(mount)
            && !self.devices.contains(&found.f_fsid)
        {
            self.devices.push(found.f_fsid);
        }
    }
}

/// Where a path of the guest's root is in the tree.
fn below_root(path: &Path) -> PathBuf {
    Path::new(VIEW_ROOT).join(path.strip_prefix("/").unwrap_or(path))
}
