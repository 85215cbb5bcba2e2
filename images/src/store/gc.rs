// SPDX-License-Identifier: Apache-2.0
//! Removing what no run needs: entries that are not current, and what dead builds left behind. And templates, which are
//! nobody's last: the next run makes the one it needs again.
//!
//! It holds the builders' locks, so whatever looks unfinished is. A guest that runs from a removed image keeps its open
//! file.

use super::{Error, Store, failed, install::UNFINISHED, names_in};
use crate::{Flavour, Kind};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// What was removed, or would be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Gc {
    /// Each thing and the bytes in it.
    pub removed: Vec<(PathBuf, u64)>,
}

impl Gc {
    /// Bytes in all of them.
    pub fn bytes(&self) -> u64 {
        self.removed.iter().map(|(_, bytes)| bytes).sum()
    }
}

impl Store {
    /// Removes all that is not needed; only looks for it on a dry run. Refuses while a build is running.
    pub fn gc(&self, dry_run: bool) -> Result<Gc, Error> {
        // in the order of Kind::ALL; builders hold one only
        let kinds = [Kind::Kernel(Flavour::Base), Kind::Initramfs, Kind::Template];
        let locks = kinds.into_iter().map(|kind| self.try_lock(kind)).collect::<Result<Vec<_>, _>>()?;
        let mut gc = Gc::default();
        for path in self.unneeded()? {
            let bytes = size_of(&path).map_err(failed("measure", &path))?;
            if !dry_run {
                remove(&path).map_err(failed("remove", &path))?;
            }
            gc.removed.push((path, bytes));
        }
        if !dry_run && let Some(template) = locks.last() {
            // There may be room again.
            template.note(false);
        }
        Ok(gc)
    }

    fn unneeded(&self) -> Result<Vec<PathBuf>, Error> {
        let (images, builds) = (self.images(), self.builds());
        let old = self.entries()?.into_iter().filter(|entry| !entry.current).map(|entry| entry.name);
        let unfinished = names_in(&images)?.into_iter().filter(|name| name.starts_with(UNFINISHED));
        let left = names_in(&builds)?.into_iter().map(|name| builds.join(name));
        Ok(old.chain(unfinished).map(|name| images.join(name)).chain(left).collect())
    }
}

fn remove(path: &Path) -> io::Result<()> {
    if fs::symlink_metadata(path)?.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }
}

/// Bytes in a file, or in all files below a directory. Does not follow links.
fn size_of(path: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    let mut todo = vec![path.to_owned()];
    while let Some(path) = todo.pop() {
        let metadata = fs::symlink_metadata(&path)?;
        if metadata.is_dir() {
            for entry in fs::read_dir(&path)? {
                todo.push(entry?.path());
            }
        } else {
            bytes += metadata.len();
        }
    }
    Ok(bytes)
}
