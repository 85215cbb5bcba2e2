// SPDX-License-Identifier: Apache-2.0
//! Putting an image into the store: whole or not at all, whatever kills us and whenever.
//!
//! A new entry is written beside the others under a name nobody looks for, synchronised and renamed; then the pointer
//! is replaced in the same way.

use super::{Error, MANIFEST, Store, failed};
use crate::{Image, Kind, Manifest, digest};
use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};
use tempfile::NamedTempFile;

/// What names of unfinished things begin with.
pub(super) const UNFINISHED: &str = ".new-";

/// The right to build and install images of one kind. The kernel takes it back from whoever dies.
#[derive(Debug)]
pub struct Lock {
    pub(super) file: File,
}

/// What the name of an unfinished entry of this kind begins with.
pub(super) fn unfinished(kind: Kind) -> String {
    format!("{UNFINISHED}{}-", kind.name())
}

/// Seconds since 1970; 0 if the clock stands before that.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

impl Store {
    /// Takes the right to build images of a kind; calls `waiting` first if somebody else has it.
    pub fn lock(&self, kind: Kind, waiting: impl FnOnce()) -> Result<Lock, Error> {
        let (file, path) = self.lock_file(kind)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                waiting();
                file.lock().map_err(failed("lock", &path))?;
            }
            Err(TryLockError::Error(error)) => return Err(failed("lock", &path)(error)),
        }
        Ok(Lock { file })
    }

    /// Takes it, or says that somebody else has it.
    pub fn try_lock(&self, kind: Kind) -> Result<Lock, Error> {
        let (file, path) = self.lock_file(kind)?;
        match file.try_lock() {
            Ok(()) => Ok(Lock { file }),
            Err(TryLockError::WouldBlock) => Err(Error::Busy),
            Err(TryLockError::Error(error)) => Err(failed("lock", &path)(error)),
        }
    }

    fn lock_file(&self, kind: Kind) -> Result<(File, PathBuf), Error> {
        let path = self.root.join(format!("lock-{}", kind.name()));
        fs::create_dir_all(&self.root).map_err(failed("create", &self.root))?;
        let file = File::options().create(true).append(true).open(&path).map_err(failed("open", &path))?;
        Ok((file, path))
    }

    /// Stores an image under its kind and `digest`, and makes it the current one if there is such a thing.
    pub(crate) fn install(
        &self,
        lock: &Lock,
        digest: &str,
        manifest: Manifest,
        bytes: &mut dyn Read,
    ) -> Result<Image, Error> {
        let kind = manifest.kind();
        let name = format!("{}-{digest}", kind.name());
        let images = self.images();
        fs::create_dir_all(&images).map_err(failed("create", &images))?;
        if !self.holds(&name, &manifest) {
            let new = tempfile::Builder::new().prefix(&unfinished(kind)).tempdir_in(&images);
            let new = new.map_err(failed("create a directory in", &images))?;
            fill(new.path(), &manifest, bytes).map_err(failed("write", new.path()))?;
            let entry = images.join(&name);
            // what is there does not hold what it should: out of the way with it
            match fs::rename(&entry, new.path().join("replaced")) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed("replace", &entry)(error)),
                _ => {}
            }
            let whole = new.path().join("whole");
            fs::rename(&whole, &entry).map_err(failed("rename to", &entry))?;
        }
        self.select(lock, &name, kind)?;
        self.entry(&name)
    }

    /// Makes an entry the current one of its kind.
    pub(crate) fn select(&self, _: &Lock, name: &str, kind: Kind) -> Result<(), Error> {
        let Some(pointer) = kind.pointer() else { return Ok(()) };
        let images = self.images();
        let path = images.join(pointer);
        let mut file = tempfile::Builder::new()
            .prefix(UNFINISHED)
            .tempfile_in(&images)
            .map_err(failed("create a file in", &images))?;
        write_pointer(&mut file, name).map_err(failed("write", file.path()))?;
        file.persist(&path).map_err(|error| failed("replace", &path)(error.error))?;
        sync(&images).map_err(failed("synchronise", &images))
    }

    /// Whether an entry already holds these very bytes, undamaged.
    fn holds(&self, name: &str, manifest: &Manifest) -> bool {
        self.entry(name).is_ok_and(|image| {
            let there = image.manifest();
            there.origin == manifest.origin && there.sha256 == manifest.sha256 && image.open().is_ok()
        })
    }
}

/// Writes `whole/` with the image and its manifest, down to the disk.
fn fill(directory: &Path, manifest: &Manifest, bytes: &mut dyn Read) -> io::Result<()> {
    // whatever the umask is: nobody else writes here, and what a template's guest has drawn at random nobody else reads
    let (folder, file) = if manifest.kind() == Kind::Template { (0o700, 0o600) } else { (0o755, 0o644) };
    let create = |path: &Path| File::options().write(true).create_new(true).mode(file).open(path);
    let whole = directory.join("whole");
    fs::DirBuilder::new().mode(folder).create(&whole)?;
    let mut image = create(&whole.join(manifest.kind().file_name()))?;
    io::copy(bytes, &mut image)?;
    image.sync_all()?;
    let mut text = create(&whole.join(MANIFEST))?;
    serde_json::to_writer_pretty(&mut text, manifest)?;
    text.write_all(b"\n")?;
    text.sync_all()?;
    sync(&whole)?;
    sync(directory)
}

fn write_pointer(file: &mut NamedTempFile, name: &str) -> io::Result<()> {
    writeln!(file, "{name}")?;
    file.as_file().sync_all()
}

fn sync(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// Describes a file that is about to be stored.
pub(crate) fn measure(file: &Path) -> io::Result<(String, u64)> {
    let file = File::open(file)?;
    Ok((digest::of_reader(&file)?, file.metadata()?.len()))
}
