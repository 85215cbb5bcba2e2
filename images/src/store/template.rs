// SPDX-License-Identifier: Apache-2.0
//! Templates in the store: found by everything that took part in the boot they were made by, so that none is ever used
//! for a machine that would have booted otherwise. Making one is the engines' work.

use super::install::unfinished;
use super::{Error, Lock, MANIFEST, Store, failed, names_in, now};
use crate::{Image, Kind, Manifest, Origin, digest};
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT, utimensat};
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// Templates kept at most. Each is some 30 MB, for one size of machine; few people use more sizes than this.
const MOST: usize = 6;

/// How long none is made after one could not be kept: the disk may be full, and each try costs a boot.
const PAUSE: Duration = Duration::from_secs(3600);

/// What a template is found by: all that takes part in a boot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TemplateKey {
    sha256: String,
}

impl TemplateKey {
    /// Of this kernel and initramfs; `machine` tells all the rest.
    pub fn of(kernel: &Image, initramfs: &Image, machine: &str) -> Self {
        let text = [&kernel.manifest().sha256, &initramfs.manifest().sha256, machine].join("\n");
        Self { sha256: digest::of_bytes(text.as_bytes()) }
    }

    fn entry(&self) -> String {
        format!("{}-{}", Kind::Template.name(), digest::short(&self.sha256))
    }
}

impl Lock {
    /// Whether a template could not be kept, and so recently that it is not worth another try.
    pub fn failed_lately(&self) -> bool {
        let noted = self.file.metadata().ok().filter(|file| file.len() > 0);
        let since = noted.and_then(|file| file.modified().ok()?.elapsed().ok());
        since.is_some_and(|since| since < PAUSE)
    }

    /// Notes for others whether one could be kept: by the length of the lock's file and its time, which take no room.
    pub(super) fn note(&self, failed: bool) {
        // what cannot be noted is tried again
        let _unknown = self.file.set_len(u64::from(failed)).and_then(|()| self.file.set_modified(SystemTime::now()));
    }
}

impl Store {
    /// The template of that key, if there is one.
    pub fn template(&self, key: &TemplateKey) -> Option<Image> {
        let name = key.entry();
        // one that cannot be understood is as good as none: it will be replaced
        let image = self.entry(&name).ok()?;
        match &image.manifest().origin {
            Origin::Template { boot_sha256 } if *boot_sha256 == key.sha256 => {
                // only a matter of which goes first: nobody is told of a failure
                let _older = touch(&self.images().join(name));
                Some(image)
            }
            _ => None,
        }
    }

    /// Stores a template of so many bytes, which are read twice.
    pub fn keep_template<R: Read>(
        &self,
        lock: &Lock,
        key: &TemplateKey,
        size: u64,
        bytes: impl Fn() -> R,
    ) -> Result<Image, Error> {
        let kept = self.keep(lock, key, size, bytes);
        lock.note(kept.is_err());
        kept
    }

    fn keep<R: Read>(&self, lock: &Lock, key: &TemplateKey, size: u64, bytes: impl Fn() -> R) -> Result<Image, Error> {
        let images = self.images();
        // first, for there may be no room for another beside them
        self.sweep(lock)?;
        let sha256 = digest::of_reader(bytes()).map_err(failed("read", &images))?;
        let origin = Origin::Template { boot_sha256: key.sha256.clone() };
        let manifest = Manifest { sha256, size, created: now(), origin };
        let image = self.install(lock, digest::short(&key.sha256), manifest, &mut bytes())?;
        self.make_room(lock)?;
        Ok(image)
    }

    /// Removes what killed makers have left.
    fn sweep(&self, _: &Lock) -> Result<(), Error> {
        self.beginning_with(&unfinished(Kind::Template))?.iter().try_for_each(|path| remove(path))
    }

    /// Removes the templates that were not used for longest. Whoever uses one of them keeps its open file.
    fn make_room(&self, _: &Lock) -> Result<(), Error> {
        let mut kept = self.beginning_with(&format!("{}-", Kind::Template.name()))?;
        kept.sort_by_key(|path| used(path).ok());
        let excess = kept.len().saturating_sub(MOST);
        kept.iter().take(excess).try_for_each(|path| remove(path))
    }

    fn beginning_with(&self, begin: &str) -> Result<Vec<PathBuf>, Error> {
        let images = self.images();
        let names = names_in(&images)?.into_iter().filter(|name| name.starts_with(begin));
        Ok(names.map(|name| images.join(name)).collect())
    }
}

fn remove(path: &Path) -> Result<(), Error> {
    fs::remove_dir_all(path).map_err(failed("remove", path))
}

/// Notes that a template is used now.
fn touch(directory: &Path) -> io::Result<()> {
    let times = Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: 0, tv_nsec: UTIME_NOW },
    };
    Ok(utimensat(CWD, directory.join(MANIFEST), &times, AtFlags::empty())?)
}

/// When it was used last.
fn used(directory: &Path) -> io::Result<SystemTime> {
    fs::metadata(directory.join(MANIFEST))?.modified()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Flavour;
    use std::fs::File;
    use std::time::Duration;
    use tempfile::TempDir;

    fn image(kind: Kind, salt: u8) -> Image {
        let origin = match kind {
            Kind::Initramfs => Origin::Initramfs { protocol: 1, init_sha256: String::new() },
            _ => Origin::Kernel {
                flavour: Flavour::Base,
                version: String::new(),
                source: String::new(),
                config_sha256: String::new(),
                compiler: String::new(),
                edited: true,
            },
        };
        let manifest = Manifest { sha256: digest::of_bytes(&[salt]), size: 1, created: 0, origin };
        Image::new(Path::new("/nowhere").into(), manifest)
    }

    fn key(salt: u8, machine: &str) -> TemplateKey {
        TemplateKey::of(&image(Kind::Kernel(Flavour::Base), salt), &image(Kind::Initramfs, 0), machine)
    }

    fn keep(store: &Store, key: &TemplateKey, bytes: &'static [u8]) -> Image {
        let lock = store.try_lock(Kind::Template).unwrap();
        store.keep_template(&lock, key, bytes.len() as u64, || bytes).unwrap()
    }

    #[test]
    fn a_template_is_found_by_all_that_took_part() {
        let directory = TempDir::new().unwrap();
        let store = Store::at(directory.path());
        let made = keep(&store, &key(1, "machine"), b"memory");

        let found = store.template(&key(1, "machine")).unwrap();

        assert_eq!(found, made);
        found.open().unwrap();
        assert_eq!(store.template(&key(2, "machine")), None);
        assert_eq!(store.template(&key(1, "another")), None);
    }

    #[test]
    fn a_damaged_template_is_refused_and_replaced() {
        let directory = TempDir::new().unwrap();
        let store = Store::at(directory.path());
        let made = keep(&store, &key(1, ""), b"memory");
        fs::write(made.path(), b"nemory").unwrap();

        let error = store.template(&key(1, "")).unwrap().open().unwrap_err().to_string();

        assert!(error.contains("damaged") && error.contains("images gc"), "{error}");
        keep(&store, &key(1, ""), b"memory").open().unwrap();
    }

    #[test]
    fn nobody_else_reads_or_writes_one() {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = TempDir::new().unwrap();
        let made = keep(&Store::at(directory.path()), &key(1, ""), b"memory");

        for path in [made.path(), made.path().parent().unwrap(), &made.path().with_file_name(MANIFEST)] {
            assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o077, 0, "{}", path.display());
        }
    }

    #[test]
    fn one_that_cannot_be_kept_is_not_tried_again_at_once() {
        /// A disk that is full.
        struct Full;
        impl Read for Full {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::ErrorKind::StorageFull.into())
            }
        }
        let directory = TempDir::new().unwrap();
        let store = Store::at(directory.path());
        let left = store.images().join(".new-template-x");
        fs::create_dir_all(&left).unwrap();
        let lock = store.try_lock(Kind::Template).unwrap();
        assert!(!lock.failed_lately());

        store.keep_template(&lock, &key(1, ""), 1, || Full).unwrap_err();

        assert!(lock.failed_lately());
        drop(lock);
        let names = names_in(&store.images()).unwrap();
        assert_eq!(names, [""; 0], "what was left made room first, and this left nothing");
        let lock = store.try_lock(Kind::Template).unwrap();
        assert!(lock.failed_lately());
        lock.file.set_modified(SystemTime::now() - PAUSE).unwrap();
        assert!(!lock.failed_lately());
        drop(lock);
        keep(&store, &key(1, ""), b"memory");
        assert!(!store.try_lock(Kind::Template).unwrap().failed_lately());
    }

    #[test]
    fn those_not_used_for_longest_make_room_and_so_does_what_was_left() {
        let directory = TempDir::new().unwrap();
        let store = Store::at(directory.path());
        for number in 0..MOST as u8 {
            let made = keep(&store, &key(number, ""), b"memory");
            let long_ago = SystemTime::UNIX_EPOCH + Duration::from_secs(number.into());
            let manifest = File::options().append(true).open(made.path().with_file_name(MANIFEST)).unwrap();
            manifest.set_modified(long_ago).unwrap();
        }
        store.template(&key(0, "")).unwrap();
        let left = store.images().join(".new-template-x");
        fs::create_dir(&left).unwrap();

        keep(&store, &key(100, ""), b"memory");

        assert!(!left.exists());
        assert!(store.template(&key(0, "")).is_some() && store.template(&key(1, "")).is_none());
        assert_eq!(store.entries().unwrap().len(), MOST);
        assert!(store.template(&key(100, "")).is_some());
        assert_eq!(store.gc(false).unwrap().removed.len(), MOST);
        assert!(store.template(&key(100, "")).is_none());
    }
}
