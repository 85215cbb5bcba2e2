// SPDX-License-Identifier: Apache-2.0
//! The note beside an image that says which file has passed its check, so that the next run need not read all of it.
//!
//! A file is known again by its size and the time of its last change (`ctime`, inode(7)), which every write, rename and
//! restored copy moves on and no program can set back. Not for images that somebody means to forge: whoever may write
//! here may write the manifest too.

use super::Image;
use crate::store::read_small;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A second write within a file system's tick of the clock would not show. The coarsest ticks are two seconds.
const TICK: Duration = Duration::from_secs(2);

/// Which file, and which digest it had.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Stamp {
    sha256: String,
    size: u64,
    seconds: i64,
    nanoseconds: i64,
}

impl Stamp {
    /// What a stamp for this file would say.
    pub(super) fn of(image: &Image, file: &File) -> io::Result<Self> {
        let metadata = file.metadata()?;
        Ok(Self {
            sha256: image.manifest().sha256.clone(),
            size: metadata.size(),
            seconds: metadata.ctime(),
            nanoseconds: metadata.ctime_nsec(),
        })
    }

    /// Of the file, in bytes.
    pub(super) const fn size(&self) -> u64 {
        self.size
    }

    /// Whether this is what was noted when the image was checked last.
    pub(super) fn is_noted(&self, image: &Image) -> bool {
        let noted = read_small(&place(image)).ok().and_then(|text| serde_json::from_slice::<Self>(&text).ok());
        noted.is_some_and(|noted| noted == *self)
    }

    /// Notes that the file passed, unless it has changed just now. Only a matter of speed: nobody is told of a failure.
    pub(super) fn note(&self, image: &Image, now: SystemTime) {
        let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let changed = Duration::from_secs(u64::try_from(self.seconds).unwrap_or(u64::MAX));
        if changed.saturating_add(TICK) < since {
            let _slower = self.write(&place(image));
        }
    }

    fn write(&self, place: &Path) -> io::Result<()> {
        let directory = place.parent().ok_or(io::ErrorKind::NotFound)?;
        let mut file = tempfile::NamedTempFile::new_in(directory)?;
        file.write_all(&serde_json::to_vec(self)?)?;
        file.persist(place)?;
        Ok(())
    }
}

fn place(image: &Image) -> PathBuf {
    image.path().with_extension("checked")
}
