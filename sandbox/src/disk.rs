// SPDX-License-Identifier: Apache-2.0
//! The disk under a private layer that may outgrow the guest's memory (`--disk-size`): a sparse file without a name, with an
//! empty ext4 in it.
//!
//! Without a name it dies with the last process that holds it, whatever ends that. Not for the device that gives it to the
//! guest ([`crate::virtio::disk`]).

mod ext4;

use std::env;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

/// Where it is made unless `TMPDIR` says otherwise: `/tmp` is often memory.
const PLACE: &str = "/var/tmp";

/// Why there is no disk.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The file.
    #[error("cannot make the disk of the private layer in {} (TMPDIR chooses another place)", .0.display())]
    Make(PathBuf, #[source] io::Error),
    /// What is in it.
    #[error("cannot write an empty file system to the disk of the private layer in {}", .0.display())]
    Format(PathBuf, #[source] io::Error),
}

/// A disk whose file system holds so many bytes.
///
/// # Errors
/// What could not be made or written.
pub(crate) fn make(bytes: u64) -> Result<File, Error> {
    make_in(&place(), bytes)
}

fn make_in(place: &Path, bytes: u64) -> Result<File, Error> {
    let shape = ext4::Shape::holding(bytes);
    let file = tempfile::tempfile_in(place).map_err(|source| Error::Make(place.to_owned(), source))?;
    file.set_len(shape.bytes()).map_err(|source| Error::Make(place.to_owned(), source))?;
    shape.write(&file).map_err(|source| Error::Format(place.to_owned(), source))?;
    Ok(file)
}

/// Where it is made.
#[must_use]
pub(crate) fn place() -> PathBuf {
    env::var_os("TMPDIR").filter(|place| !place.is_empty()).map_or_else(|| PathBuf::from(PLACE), PathBuf::from)
}

/// Whether the host has no room left for what the guest writes.
#[must_use]
pub(crate) fn is_starved(disk: &File) -> bool {
    rustix::fs::fstatvfs(disk).is_ok_and(|state| state.f_bavail.saturating_mul(state.f_frsize) < 1 << 20)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn a_disk_has_no_name_and_takes_little() {
        let place = tempfile::tempdir().expect("directory");
        let disk = make_in(place.path(), 5 << 30).expect("disk");
        let state = disk.metadata().expect("state");
        assert!(state.len() > 5 << 30 && state.blocks() * 512 < 4 << 20, "{state:?}");
        assert_eq!((state.nlink(), place.path().read_dir().expect("directory").count()), (0, 0));
    }

    #[test]
    fn a_place_that_is_not_there_is_named() {
        let error = crate::explain(&make_in(Path::new("/no/such/place"), 1 << 20).expect_err("refused"));
        assert!(error.contains("/no/such/place") && error.contains("TMPDIR"), "{error}");
    }
}
