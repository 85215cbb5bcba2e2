// SPDX-License-Identifier: Apache-2.0
//! Checks volumes (`-v SRC:DST[:ro]`). Parsing them is the command line's business, mounting them the guest's.

use super::Error;
use crate::spec::Volume;
use std::path::{Component, Path, PathBuf};

/// What a target must not be or be inside of, and why.
const RESERVED: &[(&str, &str)] =
    &[("/proc", "process information"), ("/sys", "kernel information"), ("/dev", "devices")];

/// The volumes with canonical sources, or the first reason why not.
pub(super) fn check(volumes: &[Volume]) -> Result<Vec<Volume>, Error> {
    let mut checked: Vec<Volume> = Vec::with_capacity(volumes.len());
    for volume in volumes {
        let target = target(&volume.target)?;
        if checked.iter().any(|other| other.target == target) {
            return Err(Error::VolumeTwice(target));
        }
        let unreachable = |source| Error::VolumeSource { path: volume.source.clone(), source };
        let source = volume.source.canonicalize().map_err(unreachable)?;
        let kind = source.metadata().map_err(unreachable)?;
        if !kind.is_dir() && !kind.is_file() {
            return Err(Error::VolumeKind(volume.source.clone()));
        }
        checked.push(Volume { source, target, read_only: volume.read_only });
    }
    Ok(checked)
}

/// The target, if it is absolute, without `.`, `..`, and in nobody's way.
fn target(path: &Path) -> Result<PathBuf, Error> {
    let plain = path.is_absolute() && path.components().skip(1).all(|part| matches!(part, Component::Normal(_)));
    if !plain || path.as_os_str().as_encoded_bytes().contains(&0) {
        return Err(Error::VolumeTarget(path.into()));
    }
    if path.parent().is_none() {
        return Err(Error::VolumeReserved { target: path.into(), own: "root" });
    }
    match RESERVED.iter().find(|(reserved, _)| path.starts_with(reserved)) {
        Some((_, own)) => Err(Error::VolumeReserved { target: path.into(), own }),
        // Collected, a path has no doubled or trailing slash and no `.`.
        None => Ok(path.components().collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn volume(source: &Path, target: &str) -> Volume {
        Volume { source: source.into(), target: target.into(), read_only: false }
    }

    #[test]
    fn targets_must_be_plain_and_free() {
        let directory = tempfile::tempdir().unwrap();
        for bad in ["data", "/data/../etc", "/", "/proc/1", "/dev", "/sys/fs", "/a\0b", ""] {
            assert!(check(&[volume(directory.path(), bad)]).is_err(), "{bad}");
        }
        assert!(check(&[volume(directory.path(), "/process")]).is_ok());
        let twice = [volume(directory.path(), "/data"), volume(directory.path(), "/data")];
        assert!(matches!(check(&twice), Err(Error::VolumeTwice(_))));
    }

    #[test]
    fn sources_are_resolved_and_of_a_known_kind() {
        let directory = tempfile::tempdir().unwrap();
        let link = directory.path().join("link");
        std::os::unix::fs::symlink(directory.path(), &link).unwrap();
        let checked = check(&[volume(&link, "/data")]).unwrap();
        assert_eq!(checked[0].source, directory.path().canonicalize().unwrap());
        assert!(checked[0].source.is_dir());

        assert!(matches!(check(&[volume(Path::new("/dev/null"), "/n")]), Err(Error::VolumeKind(_))));
        assert!(matches!(check(&[volume(Path::new("/nowhere"), "/n")]), Err(Error::VolumeSource { .. })));
    }
}
