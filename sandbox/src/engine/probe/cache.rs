// SPDX-License-Identifier: Apache-2.0
//! What the last trial found, kept until the next boot: `kvm.json` in the user's cache directory.
//!
//! Only what a trial itself has found is kept; whether `/dev/kvm` can be opened is looked at each time. The file counts
//! only if it is this user's and nobody else can write it. It decides which engine is tried, never how a run has ended;
//! a machine that fails although KVM was found usable is a failed run, and [`forget`] has the next one try again.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};

use super::Finding;
use crate::boot;

/// An entry is shorter.
const SIZE_MAX: u64 = 4096;

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    /// The boot it was found in.
    boot: String,
    /// Which version of this program found it.
    version: String,
    finding: Finding,
}

/// The file, if this user has a cache.
pub(super) fn place() -> Option<PathBuf> {
    Some(images::Store::of_user().ok()?.root().join("kvm.json"))
}

/// What was found in this boot.
pub(super) fn recall(place: &Path) -> Option<Finding> {
    let file = OpenOptions::new().read(true).custom_flags(OFlags::NOFOLLOW.bits() as i32).open(place).ok()?;
    if !is_trusted(&file) {
        return None;
    }
    let text = read(file)?;
    let entry: Entry = serde_json::from_str(&text).ok()?;
    (entry.boot == boot::id().ok()? && entry.version == version()).then_some(entry.finding)
}

/// Keeps a finding. That it cannot be kept costs the next run a few milliseconds.
pub(super) fn keep(place: &Path, finding: &Finding) {
    if let Ok(boot) = boot::id() {
        let entry = Entry { boot: boot.to_owned(), version: version(), finding: finding.clone() };
        let _kept = write(place, &entry);
    }
}

/// Removes what was found.
pub(super) fn forget(place: &Path) {
    // Fails if there is nothing, which is as good.
    let _gone = fs::remove_file(place);
}

fn write(place: &Path, entry: &Entry) -> std::io::Result<()> {
    // By rename, so that it is whole whoever reads it; each writer has a name of its own.
    let mut half = place.to_owned().into_os_string();
    half.push(format!(".{}", std::process::id()));
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&half)?;
    file.write_all(&serde_json::to_vec(entry)?)?;
    fs::rename(&half, place)
}

/// Whether only this user can have written the file.
fn is_trusted(file: &File) -> bool {
    const OTHERS_MAY_WRITE: u32 = 0o022;
    let own = rustix::process::geteuid().as_raw();
    file.metadata().is_ok_and(|found| found.is_file() && found.uid() == own && found.mode() & OTHERS_MAY_WRITE == 0)
}

/// A small file, in one call and one more that finds its end.
fn read(file: File) -> Option<String> {
    let mut text = String::with_capacity(1024);
    file.take(SIZE_MAX).read_to_string(&mut text).ok()?;
    Some(text)
}

fn version() -> String {
    env!("CARGO_PKG_VERSION").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::Permissions;
    use std::os::unix::fs::{PermissionsExt, chown, symlink};

    fn kept() -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().expect("a directory");
        let place = directory.path().join("kvm.json");
        keep(&place, &Finding::Usable);
        (directory, place)
    }

    #[test]
    fn a_finding_is_recalled_until_it_is_forgotten() {
        let (_directory, place) = kept();
        assert_eq!(recall(&place), Some(Finding::Usable));
        keep(&place, &Finding::Unfit("x".to_owned()));
        assert_eq!(recall(&place), Some(Finding::Unfit("x".to_owned())));
        forget(&place);
        assert_eq!(recall(&place), None);
        assert!(place.parent().and_then(|parent| parent.read_dir().ok()).is_some_and(|mut left| left.next().is_none()));
    }

    #[test]
    fn another_boots_finding_is_none() {
        let (_directory, place) = kept();
        let text = fs::read_to_string(&place).expect("written");
        let boot = boot::id().expect("a boot has a name");
        fs::write(&place, text.replace(boot, "00000000-0000-0000-0000-000000000000")).expect("writable");
        assert_eq!(recall(&place), None);
        fs::write(&place, text.replace(&version(), "0")).expect("writable");
        assert_eq!(recall(&place), None);
    }

    #[test]
    fn what_others_may_write_is_not_believed() {
        let (directory, place) = kept();
        fs::set_permissions(&place, Permissions::from_mode(0o620)).expect("ours");
        assert_eq!(recall(&place), None);
        fs::set_permissions(&place, Permissions::from_mode(0o600)).expect("ours");
        let link = directory.path().join("link");
        symlink(&place, &link).expect("a link");
        assert_eq!(recall(&link), None);
        if rustix::process::geteuid().is_root() {
            chown(&place, Some(12345), None).expect("root may");
            assert_eq!(recall(&place), None);
        }
    }
}
