// SPDX-License-Identifier: Apache-2.0
//! What a guest tells of its files: received whole and checked, then listed, packed, or applied to the host.
//!
//! Every byte of it is a hostile guest's word. It goes into a file without a name first ([`spool`]): only when the guest has
//! told all, and every record has a name that leads down and nowhere else, does anything else look at it. [`tar`] packs it,
//! [`apply`] writes it below a directory; neither makes devices, nor keeps set-user-id bits, nor follows a link.
//! Not for how the guest finds out (`guest_init::changes`).

mod apply;
mod fresh;
mod list;
mod names;
mod plan;
mod spool;
mod tar;

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

pub(crate) use apply::{GoOn, Target};
pub(crate) use plan::Step;
pub(crate) use spool::{CONTENT_MAX, Spool};

/// Something that was left out, and why.
pub(crate) type Left = String;

/// Why what a guest tells is not taken.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The connection failed, or nothing came for too long.
    #[error("the guest stopped telling of its files")]
    Stream(#[source] io::Error),
    /// The walk in the guest failed where it began.
    #[error("the guest could not read {}", names::shown(path))]
    Guest {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Something that is no record.
    #[error("the guest told something that means nothing")]
    Record,
    /// A name that leads somewhere else, or nowhere.
    #[error("the guest told of {}, which is no name for a file of its own", names::shown(.0.as_ref()))]
    Name(OsString),
    /// A file told of twice, or one below something that is no directory.
    #[error("the guest told of {} in a way that contradicts itself", names::shown(.0))]
    Contradiction(PathBuf),
    /// More than anybody wants.
    #[error("the guest told of more than {0}")]
    TooMuch(&'static str),
    /// What was received could not be kept in a temporary file.
    #[error("cannot keep what the guest told in a temporary file")]
    Spool(#[source] io::Error),
    /// The result could not be written.
    #[error("cannot write {path:?}")]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// One of many steps could not be done.
    #[error("cannot write {path:?}; what sorts before it has been written")]
    Apply {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Something of another kind is there already; nothing has been written.
    #[error("cannot overwrite {there} {path:?} with {comes}")]
    InTheWay {
        /// What is there.
        there: &'static str,
        /// Where.
        path: PathBuf,
        /// What would come.
        comes: &'static str,
    },
}

/// One file, as the guest tells of it, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Change {
    /// Below where the walk began; empty for that itself. Only names: no root, no `.` and no `..`.
    pub(crate) path: PathBuf,
    pub(crate) state: guest_init::record::State,
    pub(crate) kind: guest_init::record::Kind,
    /// Permissions, without the three bits above.
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) seconds: i64,
    pub(crate) nanoseconds: u32,
    /// The same for all names of one file, if it has more than one.
    pub(crate) inode: Option<u64>,
    pub(crate) size: u64,
    /// Where in the spool its content begins.
    at: u64,
}

impl Change {
    /// The same seen from a directory that it is in, or is.
    pub(crate) fn below(&self, place: &Path) -> Option<&Path> {
        self.path.strip_prefix(place).ok()
    }
}

impl Error {
    /// Whether something else is in the way on the host: a directory in a file's place or the reverse, a link, another file system.
    pub(crate) fn is_in_the_way(&self) -> bool {
        let source = match self {
            Self::InTheWay { .. } => return true,
            Self::Write { source, .. } | Self::Apply { source, .. } => source,
            _ => return false,
        };
        let known = [Errno::ISDIR, Errno::NOTDIR, Errno::LOOP, Errno::XDEV, Errno::NOTEMPTY, Errno::EXIST];
        source.raw_os_error().is_some_and(|number| known.contains(&Errno::from_raw_os_error(number)))
    }
}

fn writing(path: &Path) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::Write { path: path.to_owned(), source }
}
