// SPDX-License-Identifier: Apache-2.0
//! Where the kernel's source comes from: the distribution's archive, which we unpack, or a tree the user names.

use super::make::Make;
use super::{Error, edits, failed};
use crate::Event;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

/// Where distributions put archives of source.
const PACKAGES: &str = "/usr/src";
/// 460 MB of register names of graphics cards, half of the tree.
const UNWANTED: &str = "--exclude=*/drivers/gpu/drm/amd/include";

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Source {
    Tree(PathBuf),
    Archive(PathBuf),
}

impl Source {
    /// What the user named, else the newest archive the distribution installed.
    pub(super) fn find(given: Option<&Path>) -> Result<Self, Error> {
        let Some(path) = given else {
            let directory = Path::new(PACKAGES);
            return newest(directory)?.map(Self::Archive).ok_or_else(|| Error::NoSource(directory.to_owned()));
        };
        let path = fs::canonicalize(path).map_err(failed("find", path))?;
        Ok(if path.is_dir() { Self::Tree(path) } else { Self::Archive(path) })
    }

    /// What tells it from other sources, without reading all of it: a package's archive has the size and time it was
    /// packed with, on every machine.
    pub(super) fn identity(&self) -> Result<String, Error> {
        match self {
            Self::Tree(path) => Ok(format!("{} {}", path.display(), version(path)?)),
            Self::Archive(path) => {
                let metadata = fs::metadata(path).map_err(failed("read", path))?;
                let modified = metadata.modified().map_err(failed("read", path))?;
                let modified = modified.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
                let name = path.file_name().unwrap_or_default().display();
                Ok(format!("{name} {} {modified}", metadata.len()))
            }
        }
    }

    /// Whether we unpack it, and so may edit it.
    pub(super) fn is_ours(&self) -> bool {
        matches!(self, Self::Archive(_))
    }

    /// The directory to build from. Unpacks into `directory` unless an earlier build did.
    pub(super) fn prepare(
        &self,
        directory: &Path,
        make: &Make<'_>,
        progress: &mut dyn FnMut(Event),
    ) -> Result<PathBuf, Error> {
        let archive = match self {
            Self::Tree(path) => return Ok(path.clone()),
            Self::Archive(path) => path,
        };
        let tree = directory.join("source");
        if tree.is_dir() {
            return Ok(tree);
        }
        progress(Event::Unpacking(archive.clone()));
        // renamed only when all of it is there and edited
        let half = directory.join("source.new");
        match fs::remove_dir_all(&half) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed("remove", &half)(error)),
            _ => fs::create_dir_all(&half).map_err(failed("create", &half))?,
        }
        make.unpack(archive, &half, UNWANTED)?;
        edits::apply(&half)?;
        fs::rename(&half, &tree).map_err(failed("rename to", &tree))?;
        Ok(tree)
    }
}

/// The archive with the highest version in a directory.
fn newest(directory: &Path) -> Result<Option<PathBuf>, Error> {
    let mut found = Vec::new();
    let listed = match fs::read_dir(directory) {
        Ok(listed) => listed,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed("list", directory)(error)),
    };
    for entry in listed {
        let path = entry.map_err(failed("list", directory))?.path();
        found.extend(package_version(&path).map(|version| (version, path)));
    }
    Ok(found.into_iter().max().map(|(_, path)| path))
}

/// `linux-source-6.12.tar.xz` is 6, 12.
fn package_version(path: &Path) -> Option<Vec<u32>> {
    let version = path.file_name()?.to_str()?.strip_prefix("linux-source-")?.strip_suffix(".tar.xz")?;
    version.split('.').map(|part| part.parse().ok()).collect()
}

/// The version a tree calls itself.
pub(super) fn version(tree: &Path) -> Result<String, Error> {
    let path = tree.join("Makefile");
    let text = fs::read_to_string(&path).map_err(failed("read", &path))?;
    parse_version(&text).ok_or_else(|| Error::NotSource(tree.to_owned()))
}

fn parse_version(makefile: &str) -> Option<String> {
    let value = |name: &str| {
        let mut values = makefile.lines().filter_map(|line| line.split_once('='));
        values.find(|(left, _)| left.trim_end() == name).map(|(_, right)| right.trim())
    };
    let [major, minor, patch] = ["VERSION", "PATCHLEVEL", "SUBLEVEL"].map(value);
    Some(format!("{}.{}.{}{}", major?, minor?, patch?, value("EXTRAVERSION").unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::TempDir;

    #[test]
    fn newest_package_is_found_by_number_not_by_spelling() {
        let directory = TempDir::new().unwrap();
        for name in ["linux-source-6.9.tar.xz", "linux-source-6.12.tar.xz", "linux-source-6.12", "python3.11"] {
            fs::write(directory.path().join(name), "").unwrap();
        }

        let found = newest(directory.path()).unwrap().unwrap();

        assert_eq!(found.file_name().unwrap(), "linux-source-6.12.tar.xz");
        assert_eq!(newest(&directory.path().join("nothing")).unwrap(), None);
    }

    #[test]
    fn version_is_read_from_the_makefile() {
        let makefile = "# SPDX\nVERSION = 6\nPATCHLEVEL = 12\nSUBLEVEL = 117\nEXTRAVERSION = -rc1\nNAME = x\n";

        assert_eq!(parse_version(makefile).as_deref(), Some("6.12.117-rc1"));
        assert_eq!(parse_version("all:\n\techo\n"), None);
    }

    #[test]
    fn identity_follows_the_archive() {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("linux-source-6.12.tar.xz");
        fs::write(&path, "one").unwrap();
        let source = Source::find(Some(&path)).unwrap();
        let before = source.identity().unwrap();
        fs::write(&path, "other").unwrap();

        assert!(before.starts_with("linux-source-6.12.tar.xz 3 "), "{before}");
        assert_ne!(source.identity().unwrap(), before);
    }
}
