// SPDX-License-Identifier: Apache-2.0
//! Where configuration lies (XDG Base Directory Specification), and what is in it. Every place costs a run one attempt to open it.

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
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
}

impl Places {
    /// As the environment says. A relative path there means nothing, by the specification.
    pub(super) fn of(variable: &dyn Fn(&str) -> Option<OsString>) -> Places {
        let absolute = |name| variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let home = absolute("HOME");
        let config = absolute("XDG_CONFIG_HOME").or_else(|| Some(home.as_ref()?.join(".config")));
        Places { home, config }
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
            if let Some(found) = read(place.join(PROJECT), true)? {
                return Ok(Some(found));
            }
            if self.home.as_deref() == Some(place) {
                break;
            }
        }
        Ok(None)
    }
}

fn read(path: PathBuf, project: bool) -> Result<Option<Found>, Error> {
    match text(&path) {
        Ok(text) => Ok(Some(Found { path, text, project })),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        // Nobody can tell whether there is one in a directory that is closed to us.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied && path.symlink_metadata().is_err() => Ok(None),
        Err(source) => Err(Error::Read { path, source }),
    }
}

fn text(path: &Path) -> io::Result<String> {
    // Whoever laid it there may have laid a pipe.
    let flags = (OFlags::NONBLOCK | OFlags::NOCTTY).bits();
    let file = OpenOptions::new().read(true).custom_flags(flags.cast_signed()).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("not a file"));
    }
    let mut text = String::new();
    file.take(LONGEST + 1).read_to_string(&mut text)?;
    if text.len() as u64 > LONGEST {
        return Err(io::Error::other("longer than 64 KiB"));
    }
    Ok(text)
}
