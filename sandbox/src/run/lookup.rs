// SPDX-License-Identifier: Apache-2.0
//! Where the guest need not look for a program first (execvp(3)).
//!
//! The guest searches `PATH` by itself and asks the host for each directory on the way. Most places hold no such
//! program, and that can be seen from here: what the view shows is what the host has at the same path, or less. So a
//! place where the host has nothing is one where the guest has nothing, unless something of the guest's own is there or
//! a symbolic link leads to that.
//!
//! Not for finding the program: a place counts as holding it as soon as anything is in doubt.

use std::ffi::OsStr;
use std::fs::symlink_metadata;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path};

use crate::spec::Spec;

/// What the guest fills itself, and the link that the view may have where the host has none.
const GUEST: [&str; 4] = ["/dev", "/proc", "/sys", "/var/run"];

/// How many places of the command's `PATH`, from the first, are certain not to hold it.
pub(super) fn absent_places(spec: &Spec) -> u32 {
    let path = spec.environment.iter().find(|(name, _)| name == "PATH").map(|(_, value)| value);
    let (Some(program), Some(path)) = (spec.command.first(), path) else { return 0 };
    // A volume may be anywhere, and so may be what links in the view make of it.
    if program.is_empty() || program.as_bytes().contains(&b'/') || !spec.sight.volumes.is_empty() {
        return 0;
    }
    let places = path.as_bytes().split(|byte| *byte == b':').map(|place| Path::new(OsStr::from_bytes(place)));
    places.take_while(|place| is_absent(place, program)).count() as u32
}

/// Whether `program` is certain not to be in `place`.
fn is_absent(place: &Path, program: &OsStr) -> bool {
    let mut parts = place.components();
    if parts.next() != Some(Component::RootDir) || !parts.all(|part| matches!(part, Component::Normal(_))) {
        return false;
    }
    // From the top: the first that is missing decides, if what it is missing from is what the guest may see too.
    let mut ancestors: Vec<&Path> = place.ancestors().collect();
    ancestors.reverse();
    for above in ancestors {
        match above.canonicalize() {
            Ok(real) if is_guests(above) || is_guests(&real) => return false,
            Ok(_) => {}
            // A link that leads nowhere here may lead somewhere in the guest.
            Err(_) => return is_missing(above),
        }
    }
    is_missing(&place.join(program))
}

fn is_guests(path: &Path) -> bool {
    GUEST.iter().any(|own| path.starts_with(own))
}

fn is_missing(path: &Path) -> bool {
    let kinds = [io::ErrorKind::NotFound, io::ErrorKind::NotADirectory];
    !is_guests(path) && symlink_metadata(path).is_err_and(|error| kinds.contains(&error.kind()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn only_what_cannot_be_there_is_absent() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        fs::create_dir(at("full")).unwrap();
        fs::create_dir(at("empty")).unwrap();
        fs::write(at("full/tool"), "").unwrap();
        symlink("/nowhere", at("empty/dangling")).unwrap();
        symlink(at("empty"), at("link")).unwrap();
        symlink("/nowhere", at("broken")).unwrap();
        symlink("/proc/self", at("own")).unwrap();

        for (place, program, absent) in [
            ("full", "tool", false),
            ("full", "other", true),
            ("empty", "tool", true),
            ("empty", "dangling", false),
            ("link", "tool", true),
            ("missing", "tool", true),
            ("missing/deeper", "tool", true),
            ("full/tool", "tool", true),
            ("broken", "tool", false),
            ("broken/deeper", "tool", false),
            ("own", "tool", false),
            ("full/../empty", "tool", false),
        ] {
            assert_eq!(is_absent(&at(place), program.as_ref()), absent, "{place}/{program}");
        }
        for place in ["", ".", "relative", "/proc", "/proc/self", "/dev/none", "/sys", "/var/run/none"] {
            assert!(!is_absent(Path::new(place), "tool".as_ref()), "{place}");
        }
    }
}
