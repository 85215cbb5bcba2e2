// SPDX-License-Identifier: Apache-2.0
//! `sandbox trust`: which project files may widen what a command sees and may use.
//!
//! For each there is a small file below `XDG_STATE_HOME`, named by the digest of its path, with the digest of what it held
//! when it was trusted. So it must be trusted again when it has changed, and also when it has changed back to something older.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::Error;
use super::files::{Found, Places};
use crate::cli::{FAILURE, tell};

type Variable<'a> = &'a dyn Fn(&str) -> Option<OsString>;

/// Trusts the project file of a directory as it is now, or no longer.
#[must_use]
pub(in crate::cli) fn run(directory: Option<&Path>, revoke: bool) -> ExitCode {
    let variable = |name: &str| env::var_os(name).filter(|value| !value.is_empty());
    match change(directory, revoke, &variable) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tell(format_args!("sandbox: {}", crate::explain(&error)));
            ExitCode::from(FAILURE)
        }
    }
}

fn change(directory: Option<&Path>, revoke: bool, variable: Variable<'_>) -> Result<(), Error> {
    let here = env::current_dir().map_err(Error::Directory)?;
    let directory = directory.map_or_else(|| here.clone(), |directory| here.join(directory));
    let directory =
        directory.canonicalize().map_err(|source| Error::Store { attempt: "find", path: directory, source })?;
    let found = Places::of(variable).project(&directory)?.ok_or(Error::NoProject(directory))?;
    if revoke { forget(&found, variable) } else { remember(&found, variable) }
}

/// Whether this file is trusted as it is.
pub(super) fn holds(found: &Found, variable: Variable<'_>) -> Result<bool, Error> {
    let record = record(found, variable)?;
    match fs::read_to_string(&record) {
        Ok(text) => Ok(text.lines().next().is_some_and(|line| line == images::sha256(found.text.as_bytes()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(source) => Err(Error::Store { attempt: "read", path: record, source }),
    }
}

pub(super) fn remember(found: &Found, variable: Variable<'_>) -> Result<(), Error> {
    // What makes no sense cannot be agreed to.
    super::keys::read(found)?;
    let record = record(found, variable)?;
    let place = record.parent().unwrap_or(Path::new("/"));
    let failed = |source: io::Error| Error::Store { attempt: "write", path: record.clone(), source };
    fs::DirBuilder::new().recursive(true).mode(0o700).create(place).map_err(failed)?;
    let mut file = tempfile::NamedTempFile::new_in(place).map_err(failed)?;
    // The path is for people.
    writeln!(file, "{}\n{:?}", images::sha256(found.text.as_bytes()), found.path).map_err(failed)?;
    file.persist(&record).map_err(|error| failed(error.error)).map(drop)
}

pub(super) fn forget(found: &Found, variable: Variable<'_>) -> Result<(), Error> {
    let record = record(found, variable)?;
    match fs::remove_file(&record) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::Store { attempt: "remove", path: record, source: error })
        }
        _ => Ok(()),
    }
}

/// Where state of the user's programs lies.
pub(in crate::cli) fn state(variable: Variable<'_>) -> Result<PathBuf, Error> {
    const STATE: &str = "XDG_STATE_HOME";
    let absolute = |name| variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
    absolute(STATE).or_else(|| Some(absolute("HOME")?.join(".local/state"))).ok_or(Error::NoHome(STATE))
}

fn record(found: &Found, variable: Variable<'_>) -> Result<PathBuf, Error> {
    Ok(state(variable)?.join("sandbox/trusted").join(images::sha256(found.path.as_os_str().as_bytes())))
}
