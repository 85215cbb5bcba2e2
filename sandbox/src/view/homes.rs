// SPDX-License-Identifier: Apache-2.0
//! Home directories: the caller's, and those of the other people on the host.
//!
//! Not for what is shown in them ([`super::home_tools`], [`super::current`]); this says where they are, gives the
//! caller's an empty directory of its own, and covers the credentials that lie in what the others showed.
//! The list of accounts is passwd(5)'s.

use super::{Kind, View, credentials};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Accounts of people begin here and end at `nobody` (systemd's and Debian's ranges agree); root is one as well.
const PEOPLE: std::ops::Range<u32> = 1000..65534;

/// The home directories of a host, canonical.
pub(super) struct Homes {
    given: Option<PathBuf>,
    own: Option<PathBuf>,
    all: Vec<PathBuf>,
}

impl Homes {
    pub(super) fn of(home: Option<&Path>) -> Homes {
        // An account without a home directory has `/`, which is nobody's.
        let given = home.filter(|home| home.is_absolute() && home.parent().is_some()).map(PathBuf::from);
        let own = given.as_ref().map(|home| home.canonicalize().unwrap_or_else(|_| home.clone()));
        let accounts = std::fs::read("/etc/passwd").unwrap_or_default();
        let mut all: Vec<PathBuf> = own.iter().cloned().collect();
        all.extend(people(&accounts).into_iter().filter_map(|home| home.canonicalize().ok()));
        all.retain(|home| home.parent().is_some());
        all.dedup();
        Homes { given, own, all }
    }

    /// The caller's.
    pub(super) fn own(&self) -> Option<&Path> {
        self.own.as_deref()
    }

    /// Whether `path` is a home directory or has one below it.
    pub(super) fn within(&self, path: &Path) -> bool {
        self.all.iter().any(|home| home.starts_with(path))
    }

    /// The entry of the credentials table, of any home directory, that `path` is or is inside of.
    pub(super) fn credentials_holding(&self, path: &Path) -> Option<PathBuf> {
        self.all.iter().find_map(|home| credentials::holding(home, path))
    }

    /// Gives the caller's home directory a place in the view, with the links that lead to it.
    pub(super) fn describe(&self, view: &mut View) {
        if let (Some(given), Some(own)) = (&self.given, &self.own) {
            const WHY: &str = "home directory, empty but for what is listed below it";
            view.lead_to(given, WHY);
            view.add(own.clone(), Kind::Directory { mode: 0o755 }, WHY);
        }
    }

    /// Covers every credential that lies inside something shown.
    pub(super) fn cover(&self, view: &mut View) {
        let shown: Vec<PathBuf> = view
            .entries
            .iter()
            .filter(|entry| matches!(entry.kind, Kind::Shown { .. }))
            .map(|entry| entry.path.clone())
            .collect();
        for home in &self.all {
            let near = shown.iter().filter(|path| path.starts_with(home) || home.starts_with(path));
            for kept in near.flat_map(|path| credentials::inside(home, path)) {
                // A link needs no cover: the guest resolves it, in the view.
                if kept.symlink_metadata().is_ok_and(|metadata| !metadata.is_symlink()) {
                    view.add(kept, Kind::Covered, "credentials");
                }
            }
        }
    }
}

/// The home directories of people in a passwd(5) file.
fn people(accounts: &[u8]) -> Vec<PathBuf> {
    accounts
        .split(|byte| *byte == b'\n')
        .filter_map(|line| {
            let fields: Vec<&[u8]> = line.split(|byte| *byte == b':').collect();
            let uid: u32 = std::str::from_utf8(fields.get(2)?).ok()?.parse().ok()?;
            let home = Path::new(std::ffi::OsStr::from_bytes(fields.get(5)?));
            ((uid == 0 || PEOPLE.contains(&uid)) && home.is_absolute()).then(|| home.to_owned())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_are_told_from_daemons() {
        let accounts = b"root:x:0:0::/root:/bin/sh\nwww:x:33:33::/var/www:/x\nann:x:1000:1000:A,,:/home/ann:/x\nbad\n";
        assert_eq!(people(accounts), [Path::new("/root"), Path::new("/home/ann")]);
    }
}
