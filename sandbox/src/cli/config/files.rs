// SPDX-License-Identifier: Apache-2.0
//! Where configuration lies (XDG Base Directory Specification), and what is in it. Every place costs a run one attempt to open it.

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use super::Error;

/// Name of a project's file.
pub(super) const PROJECT: &str = "sandbox.toml";
const USER: &str = "sandbox/config.toml";
/// A file longer than this is none of ours.
const LONGEST: u64 = 64 << 10;

/// A file that is there.
#[derive(Debug, Clone)]
pub(super) struct Found {
    /// Absolute path.
    pub(super) path: PathBuf,
    /// What is in it.
    pub(super) text: String,
    /// Whether it is the project's, which may come from anywhere.
    pub(super) project: bool,
    /// Whose it is, if it is somebody else's: neither the caller's nor root's.
    pub(super) stranger: Option<u32>,
}

impl Found {
    /// The directory it lies in.
    pub(super) fn directory(&self) -> PathBuf {
        self.path.parent().unwrap_or(Path::new("/")).to_owned()
    }
}

/// Where to look.
pub(super) struct Places {
    home: Option<PathBuf>,
    config: Option<PathBuf>,
    /// Who called sudo(8), if that is how we are root.
    sudo: Option<u32>,
}

impl Places {
    /// As the environment says. A relative path there means nothing, by the specification.
    pub(super) fn of(variable: &dyn Fn(&str) -> Option<OsString>) -> Places {
        let absolute = |name| variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let home = absolute("HOME");
        let config = absolute("XDG_CONFIG_HOME").or_else(|| Some(home.as_ref()?.join(".config")));
        let sudo = variable("SUDO_UID").and_then(|uid| uid.to_str()?.parse().ok());
        Places { home, config, sudo }
    }

    /// The user's file and the project's, as far as there are such.
    pub(super) fn find(&self, directory: &Path) -> Result<Vec<Found>, Error> {
        let user = match &self.config {
            Some(config) => read(config.join(USER), false)?,
            None => None,
        };
        Ok(user.into_iter().chain(self.project(directory)?).collect())
    }

    /// The nearest project file: of this directory or one above it, up to the home directory.
    pub(super) fn project(&self, directory: &Path) -> Result<Option<Found>, Error> {
        for place in directory.ancestors() {
            if let Some(mut found) = read(place.join(PROJECT), true)? {
                let own = rustix::process::geteuid().as_raw();
                found.stranger = found.stranger.filter(|owner| is_strange(*owner, own, self.sudo));
                return Ok(Some(found));
            }
            if self.home.as_deref() == Some(place) {
                break;
            }
        }
        Ok(None)
    }
}

/// Whether a file's owner is neither who calls us nor root, as git(1) asks of a repository (`safe.directory`).
fn is_strange(owner: u32, own: u32, sudo: Option<u32>) -> bool {
    ![own, 0].contains(&owner) && (own != 0 || sudo != Some(owner))
}

fn read(path: PathBuf, project: bool) -> Result<Option<Found>, Error> {
    match text(&path) {
        Ok((text, owner)) => Ok(Some(Found { path, text, project, stranger: project.then_some(owner) })),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        // Nobody can tell whether there is one in a directory that is closed to us.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied && path.symlink_metadata().is_err() => Ok(None),
        Err(source) => Err(Error::Read { path, source }),
    }
}

/// What is in a file, and whose it is.
fn text(path: &Path) -> io::Result<(String, u32)> {
    // Whoever laid it there may have laid a pipe.
    let flags = (OFlags::NONBLOCK | OFlags::NOCTTY).bits();
    let file = OpenOptions::new().read(true).custom_flags(flags.cast_signed()).open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::other("not a file"));
    }
    let mut text = String::new();
    file.take(LONGEST + 1).read_to_string(&mut text)?;
    if text.len() as u64 > LONGEST {
        return Err(io::Error::other("longer than 64 KiB"));
    }
    Ok((text, metadata.uid()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_are_neither_we_nor_root() {
        for (owner, own, sudo, strange) in [
            (1000, 1000, None, false),
            (0, 1000, None, false),
            (1001, 1000, None, true),
            (1001, 1000, Some(1001), true),
            (0, 0, None, false),
            (1000, 0, None, true),
            (1000, 0, Some(1000), false),
            (1001, 0, Some(1000), true),
        ] {
            assert_eq!(is_strange(owner, own, sudo), strange, "{owner} {own} {sudo:?}");
        }
    }
}
