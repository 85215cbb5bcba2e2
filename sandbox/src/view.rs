// SPDX-License-Identifier: Apache-2.0
//! What of the host a guest sees: the root view, as a description.
//!
//! This module looks at the host's file system and writes down, path by path, what is shown and why. It mounts
//! nothing, opens nothing for the guest and knows nothing of virtio-fs; [`crate::fs`] builds what is described here.
//! The rule is "allow, not deny": a path that no entry names is not in the view. Two tables deny on top of that,
//! because a shown directory may hold a secret: [`credentials`] for home directories and [`system`] for `/etc`.
//!
//! Two audiences, because the caller may be root and may therefore read everything. What this host's administrator
//! has put into `/etc`, `/opt` and `/usr/local` is shown to [`Audience::Everyone`]: the file server opens nothing in
//! them that a stranger could not open. The distribution's programs, the current directory, the tools in the home
//! directory and volumes are shown with the [`Audience::Caller`]'s own rights.
//!
//! Only what is below the current directory is shown of a project: `git log` in a subdirectory does not find the
//! `.git` of its parent. A symbolic link that leads to a hidden path dangles, since the guest resolves it.
//! A host directory that is a symbolic link is a symbolic link in the view as well (file-hierarchy(7), merged /usr).

mod credentials;
mod current;
mod explain;
mod home_tools;
mod homes;
mod nested;
mod shown;
mod system;
mod volume;

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::spec::Volume;

/// What was asked for.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// The current directory, absolute.
    pub cwd: PathBuf,
    /// Further paths that are shown where they are, absolute.
    pub shown: Vec<PathBuf>,
    /// Further paths (`-v`), in order.
    pub volumes: Vec<Volume>,
    /// The command's `PATH`.
    pub path: Option<OsString>,
    /// The caller's home directory.
    pub home: Option<PathBuf>,
    /// Whether to show the installations that `PATH` finds in the home directory.
    pub home_tools: bool,
    /// The caller's environment; only variables that say where an installation is are looked at.
    pub environment: BTreeMap<OsString, OsString>,
    /// What a guest that runs sandboxes of its own is shown besides.
    pub nested: Option<Nested>,
}

/// What it takes to run this program in the guest. Absolute paths of the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nested {
    /// This program's executable.
    pub program: PathBuf,
    /// The directory of kernels and initramfs.
    pub images: PathBuf,
}

/// With whose rights a host path is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audience {
    /// Only what every user of the host may read.
    Everyone,
    /// What the caller may read.
    Caller,
}

/// What there is at a path of the view.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// The host's file or directory with everything below it, read-only.
    Shown {
        /// Path on the host.
        source: PathBuf,
        /// With whose rights.
        audience: Audience,
    },
    /// A symbolic link.
    Link {
        /// What it says, not resolved.
        target: PathBuf,
    },
    /// A directory of the view's own.
    Directory {
        /// Permission bits.
        mode: u32,
    },
    /// Something unreadable in place of what is there.
    Covered,
}

/// One path of the view.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Absolute path in the guest.
    pub path: PathBuf,
    /// What is there.
    pub kind: Kind,
    /// Why, for people.
    pub why: String,
}

/// What a guest sees of the host.
#[derive(Debug, Clone, Default)]
pub struct View {
    entries: Vec<Entry>,
    volumes: Vec<Volume>,
    hidden: Vec<(PathBuf, &'static str)>,
    notices: Vec<String>,
    unfound: Vec<String>,
}

/// Why there is no view.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The current directory has no absolute name.
    #[error("current directory {0:?} is not an absolute path")]
    RelativeDirectory(PathBuf),
    /// A path could not be looked at.
    #[error("look at {path:?}")]
    Look {
        /// Which.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The current directory is a place where credentials are kept.
    #[error("current directory {directory:?} holds credentials ({kept}) and is not shown; run from another directory")]
    Credentials {
        /// The current directory.
        directory: PathBuf,
        /// The entry of the table it is in.
        kept: PathBuf,
    },
    /// A volume's source does not exist or cannot be reached.
    #[error("volume source {path:?} cannot be reached")]
    VolumeSource {
        /// The source as given.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A volume's source is a socket, device or pipe.
    #[error("volume source {0:?} is neither a directory nor a regular file")]
    VolumeKind(PathBuf),
    /// A volume's target is not a plain absolute path.
    #[error("volume target {0:?} is not an absolute path without `.` and `..`; write the volume as SRC:/DST")]
    VolumeTarget(PathBuf),
    /// A volume's target is the guest's own.
    #[error("volume target {target:?} would hide the guest's own {own}")]
    VolumeReserved {
        /// The target as given.
        target: PathBuf,
        /// What it is in the way of.
        own: &'static str,
    },
    /// Two volumes in one place.
    #[error("two volumes have the target {0:?}")]
    VolumeTwice(PathBuf),
}

/// What says of a directory whether it would be shown empty, since it holds more than a project: a home, or one of the system's.
pub(crate) fn shown_empty(home: Option<&Path>) -> impl Fn(&Path) -> bool + use<> {
    let homes = homes::Homes::of(home);
    move |directory| {
        let real = directory.canonicalize();
        current::is_whole(real.as_deref().unwrap_or(directory), &homes)
    }
}

impl View {
    /// Looks at the host and describes what a guest may see of it.
    pub fn of(request: &Request) -> Result<View, Error> {
        let mut view = View::default();
        system::describe(&mut view)?;
        let homes = homes::Homes::of(request.home.as_deref());
        homes.describe(&mut view);
        if request.home_tools {
            home_tools::describe(&mut view, request, &homes);
        }
        current::describe(&mut view, &request.cwd, &homes)?;
        shown::describe(&mut view, &request.shown, &homes);
        if let Some(nested) = &request.nested {
            nested::describe(&mut view, nested)?;
        }
        homes.cover(&mut view);
        view.volumes = volume::check(&request.volumes)?;
        Ok(view)
    }

    /// The entries, ancestors first where order matters.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The volumes, with canonical sources, in the order given.
    pub fn volumes(&self) -> &[Volume] {
        &self.volumes
    }

    /// What the caller should be told although the run goes on.
    pub fn notices(&self) -> &[String] {
        &self.notices
    }

    /// What `PATH` names and the view has not: of interest to whom a program is missing.
    pub fn unfound(&self) -> &[String] {
        &self.unfound
    }

    /// The view for people, as `--explain` prints it.
    pub fn explain(&self) -> String {
        explain::text(self)
    }

    /// Adds an entry. The first for a path stays, except that an empty directory makes room for the host's.
    fn add(&mut self, path: impl Into<PathBuf>, kind: Kind, why: impl Into<String>) {
        let entry = Entry { path: path.into(), kind, why: why.into() };
        match self.entries.iter_mut().find(|other| other.path == entry.path) {
            None => self.entries.push(entry),
            Some(other) if matches!((&other.kind, &entry.kind), (Kind::Directory { .. }, Kind::Shown { .. })) => {
                *other = entry;
            }
            Some(_) => {}
        }
    }

    /// Shows a host path where it is, with the symbolic links that lead to it. Nothing if it does not exist.
    fn show(&mut self, path: &Path, audience: Audience, why: &str) {
        if let Some(source) = self.lead_to(path, why)
            && !self.has(&source, audience)
        {
            self.add(source.clone(), Kind::Shown { source, audience }, why);
        }
    }

    /// Adds every symbolic link on the way to `path`; returns what `path` is in the end, if it exists.
    fn lead_to(&mut self, path: &Path, why: &str) -> Option<PathBuf> {
        let real = path.canonicalize().ok()?;
        if real == path {
            return Some(real);
        }
        let link = path.ancestors().filter(|above| above.is_symlink()).last()?;
        let target = link.read_link().ok()?;
        let rest = path.strip_prefix(link).ok()?;
        let next = link.parent()?.join(&target).join(rest);
        if self.covering(link).is_none() {
            self.add(link, Kind::Link { target }, why);
        }
        // A link's target may have a link or `..` in it in turn; canonical names end the walk.
        if next == path { None } else { self.lead_to(&normal(&next)?, why) }
    }

    /// Whether `path` is in the view already, with at least these rights.
    fn has(&self, path: &Path, audience: Audience) -> bool {
        match self.covering(path) {
            Some(Entry { kind: Kind::Shown { audience: has, .. }, .. }) => {
                *has == audience || audience == Audience::Everyone
            }
            _ => false,
        }
    }

    /// The nearest entry that shows the host at `path` or above it.
    fn covering(&self, path: &Path) -> Option<&Entry> {
        self.entries
            .iter()
            .filter(|entry| matches!(entry.kind, Kind::Shown { .. }) && path.starts_with(&entry.path))
            .max_by_key(|entry| entry.path.as_os_str().len())
    }
}

/// Whether everyone may read a file, or read and enter a directory.
fn open_to_everyone(metadata: &std::fs::Metadata) -> bool {
    let needed = if metadata.is_dir() { 0o005 } else { 0o004 };
    metadata.mode() & needed == needed
}

/// A path without `.` and with `..` taken back textually where that is right: below a directory that is no link.
fn normal(path: &Path) -> Option<PathBuf> {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            std::path::Component::ParentDir => {
                out = out.canonicalize().ok()?;
                out.pop();
            }
            std::path::Component::CurDir => {}
            part => out.push(part),
        }
    }
    Some(out)
}

/// A variable of the request's environment that holds an absolute path.
fn directory_variable(environment: &BTreeMap<OsString, OsString>, name: &str) -> Option<PathBuf> {
    let path = PathBuf::from(environment.get(OsStr::new(name))?);
    path.is_absolute().then_some(path)
}

#[cfg(test)]
mod tests;
