// SPDX-License-Identifier: Apache-2.0
//! The view as a list of steps for the worker: what to make, in order, with nothing left to find out.
//!
//! Written by the parent, read by the worker from its standard input; both are the same executable, so the format
//! (postcard) needs no version. Paths are bytes, as the kernel has them.

use super::Identity;
use crate::view::{Audience, Kind, View};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// What the worker is to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Plan {
    /// The process that must be our parent still.
    pub(super) parent: u32,
    /// The caller.
    pub(super) uid: u32,
    /// The caller's group.
    pub(super) gid: u32,
    /// The root, ancestors before what is below them.
    pub(super) steps: Vec<Step>,
    /// The volumes.
    pub(super) volumes: Vec<Volume>,
}

/// One path of the root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Step {
    path: ByteBuf,
    /// What to make there.
    pub(super) make: Make,
}

/// What to make.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Make {
    /// A directory.
    Directory {
        /// Permission bits.
        mode: u32,
        /// Owner, as the guest sees it.
        uid: u32,
        /// Group, as the guest sees it.
        gid: u32,
    },
    /// A symbolic link.
    Link(ByteBuf),
    /// A read-only bind mount of a host path.
    Mount {
        /// Host path without symbolic links.
        source: ByteBuf,
        /// Whether only what everyone may read is served, and whether it may be missing.
        everyone: bool,
    },
    /// Something unreadable over what is there.
    Cover,
}

/// A volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Volume {
    source: ByteBuf,
    pub(super) read_only: bool,
}

impl Step {
    pub(super) fn path(&self) -> &Path {
        path(&self.path)
    }
}

impl Volume {
    pub(super) fn source(&self) -> &Path {
        path(&self.source)
    }
}

/// A path from the plan.
pub(super) fn path(bytes: &ByteBuf) -> &Path {
    Path::new(OsStr::from_bytes(bytes))
}

fn bytes(path: &Path) -> ByteBuf {
    ByteBuf::from(path.as_os_str().as_bytes())
}

impl Plan {
    pub(super) fn of(view: &View, identity: Identity) -> Plan {
        let mut makes: BTreeMap<PathBuf, Make> = BTreeMap::new();
        for entry in view.entries() {
            let make = match &entry.kind {
                Kind::Shown { source, audience } => {
                    Make::Mount { source: bytes(source), everyone: *audience == Audience::Everyone }
                }
                Kind::Link { target } => Make::Link(bytes(target)),
                Kind::Directory { mode } => directory(&entry.path, *mode),
                Kind::Covered => Make::Cover,
            };
            makes.insert(entry.path.clone(), make);
        }
        for path in makes.keys().cloned().collect::<Vec<_>>() {
            for above in path.ancestors().skip(1).filter(|above| above.parent().is_some()) {
                makes.entry(above.into()).or_insert_with(|| directory(above, 0o755));
            }
        }
        Plan {
            parent: std::process::id(),
            uid: identity.uid,
            gid: identity.gid,
            steps: in_order(makes),
            volumes: view
                .volumes()
                .iter()
                .map(|volume| Volume { source: bytes(&volume.source), read_only: volume.read_only })
                .collect(),
        }
    }

    pub(super) fn encode(&self) -> Result<Vec<u8>, postcard::Error> {
        postcard::to_allocvec(self)
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Plan, postcard::Error> {
        postcard::from_bytes(bytes)
    }
}

/// A directory of ours belongs to whom the host's belongs to, if there is one.
fn directory(path: &Path, mode: u32) -> Make {
    let (uid, gid) = match path.symlink_metadata() {
        Ok(host) if host.is_dir() => (host.uid(), host.gid()),
        _ => (0, 0),
    };
    Make::Directory { mode, uid, gid }
}

/// Drops what a mount above provides already. The order of paths is that of their components: ancestors first.
fn in_order(makes: BTreeMap<PathBuf, Make>) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::with_capacity(makes.len());
    let mut mounts: Vec<PathBuf> = Vec::new();
    for (path, make) in makes {
        mounts.retain(|mount| path.starts_with(mount));
        let provided = !mounts.is_empty();
        match make {
            Make::Directory { .. } | Make::Link(_) if provided => continue,
            Make::Cover if !provided => continue,
            Make::Mount { .. } => mounts.push(path.clone()),
            _ => {}
        }
        steps.push(Step { path: bytes(&path), make });
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(source: &str) -> Make {
        Make::Mount { source: bytes(Path::new(source)), everyone: true }
    }

    #[test]
    fn what_a_mount_provides_is_not_made() {
        let plain = || Make::Directory { mode: 0o755, uid: 0, gid: 0 };
        let makes = BTreeMap::from([
            (PathBuf::from("/opt"), mount("/opt")),
            (PathBuf::from("/opt/a"), plain()),
            (PathBuf::from("/opt/a/b"), mount("/opt/a/b")),
            (PathBuf::from("/opt-c"), plain()),
            (PathBuf::from("/x"), Make::Cover),
        ]);
        let steps = in_order(makes);
        let paths: Vec<_> = steps.iter().map(|step| step.path().to_str().unwrap()).collect();
        assert_eq!(paths, ["/opt", "/opt/a/b", "/opt-c"]);
    }

    #[test]
    fn a_plan_survives_the_way_to_the_worker() {
        let odd = Path::new(OsStr::from_bytes(b"/a\xff\n"));
        let plan = Plan {
            parent: 1,
            uid: 2,
            gid: 3,
            steps: vec![Step { path: bytes(odd), make: mount("/b") }],
            volumes: vec![Volume { source: bytes(odd), read_only: true }],
        };
        assert_eq!(Plan::decode(&plan.encode().unwrap()).unwrap(), plan);
    }
}
