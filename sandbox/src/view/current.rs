// SPDX-License-Identifier: Apache-2.0
//! The current directory: what of it is shown, and when not.
//!
//! It is shown at its own path with everything below, unless that would show far more than a project: a home
//! directory, a directory that has home directories below it, or a tree of the system. Those become an empty
//! directory and a notice that says which `-v` shows them after all, so that a command which needs no files still
//! runs. A directory where credentials are kept is refused, because there is no innocent reason to be in it.

use super::homes::Homes;
use super::{Audience, Error, Kind, View, credentials};
use std::path::Path;

/// Directories that are never shown as a whole, though one below them may be.
const WHOLE: &[&str] =
    &["/", "/boot", "/home", "/root", "/run", "/run/user", "/var", "/var/lib", "/var/log", "/var/spool"];

/// Directories the view shows in its own way, with everything below.
const OWN: &[&str] = &["/etc", "/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"];

/// Directories the guest fills itself, with everything below.
const GUEST: &[&str] = &["/dev", "/proc", "/sys"];

const WHY: &str = "current directory";

pub(super) fn describe(view: &mut View, cwd: &Path, homes: &Homes) -> Result<(), Error> {
    if !cwd.is_absolute() {
        return Err(Error::RelativeDirectory(cwd.into()));
    }
    let real = cwd.canonicalize().map_err(|source| Error::Look { path: cwd.into(), source })?;
    if let Some(kept) = homes.credentials_holding(&real) {
        return Err(Error::Credentials { directory: real, kept });
    }
    // Whatever is shown of it, its caller may know it by the name of a link.
    view.lead_to(cwd, WHY);
    if below(&real, GUEST) {
        view.notices.push(format!("current directory {real:?} is the guest's own, not the host's"));
    } else if below(&real, OWN) {
        // Shown already, with the rights of the system.
    } else if is_whole(&real, homes) {
        if real != Path::new("/") {
            view.add(real.clone(), Kind::Directory { mode: 0o755 }, WHY);
            view.notices.push(format!(
                "current directory {real:?} is shown empty, since it holds more than a project; \
                 -v {path}:{path}:ro shows it",
                path = real.display()
            ));
        }
    } else {
        view.show(cwd, Audience::Caller, WHY);
        for ticket in credentials::tickets(&real) {
            view.add(ticket, Kind::Covered, "credentials");
        }
    }
    Ok(())
}

fn below(real: &Path, table: &[&str]) -> bool {
    table.iter().any(|path| real.starts_with(path))
}

/// Whether a directory holds more than a project.
pub(super) fn is_whole(real: &Path, homes: &Homes) -> bool {
    WHOLE.iter().any(|path| Path::new(path) == real) || homes.within(real)
}

/// Whether a path is in a directory that the view or the guest has in its own way.
pub(super) fn is_settled(real: &Path) -> bool {
    below(real, GUEST) || below(real, OWN)
}
