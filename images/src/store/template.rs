// SPDX-License-Identifier: Apache-2.0
//! Templates in the store: found by everything that took part in the boot they were made by, so that none is ever used
//! for a machine that would have booted otherwise. Making one is the engines' work.

use super::install::unfinished;
use super::{Error, Lock, Store, failed, names_in, now};
use crate::{Image, Kind, Manifest, Origin, digest};
use std::fs;
use std::io::Read;

/// Templates kept at most. Each is some 30 MB, for one size of machine; few people use more sizes than this.
const MOST: usize = 6;

/// What a template is found by: all that takes part in a key.
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

impl Store {
    /// The template of that key, if there is one.
    pub fn template(&self, key: &TemplateKey) -> Option<Image> {
        // one that cannot be understood is as good as none: it will be replaced
        let image = self.entry(&key.entry()).ok()?;
        match &image.manifest().origin {
            Origin::Template { boot_sha256, .. } if *boot_sha256 == key.sha256 => Some(image),
            _ => None,
        }
    }

    /// Stores a template: the parts of memory as offset and length, and the bytes of them all, which are read twice.
    pub fn keep_template<R: Read>(
        &self,
        lock: &Lock,
        key: &TemplateKey,
        parts: Vec<(u64, u64)>,
        bytes: impl Fn() -> R,
    ) -> Result<Image, Error> {
        self.make_room(lock)?;
        let images = self.images();
        let unread = failed("read", &images);
        let manifest = Manifest {
            sha256: digest::of_reader(bytes()).map_err(unread)?,
            size: parts.iter().map(|(_, length)| length).sum(),
            created: now(),
            origin: Origin::Template { boot_sha256: key.sha256.clone(), parts },
        };
        self.install(lock, digest::short(&key.sha256), manifest, &mut bytes())
    }

    /// Removes what a killed maker left behind, and the oldest templates until there is room for one more. Whoever uses one
    /// of them keeps its open file.
    fn make_room(&self, _: &Lock) -> Result<(), Error> {
        let images = self.images();
        let unfinished = unfinished(Kind::Template);
        let left = names_in(&images)?.into_iter().filter(|name| name.starts_with(&unfinished)).collect::<Vec<_>>();
        let mut kept = self.entries()?;
        kept.retain(|entry| entry.name.starts_with(Kind::Template.name()));
        // one that cannot be understood comes first
        kept.sort_by_key(|entry| entry.image.as_ref().map_or(0, |image| image.manifest().created));
        let excess = (kept.len() + 1).saturating_sub(MOST);
        let oldest = kept.into_iter().take(excess).map(|entry| entry.name);
        for path in left.into_iter().chain(oldest).map(|name| images.join(name)) {
            fs::remove_dir_all(&path).map_err(failed("remove", &path))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Flavour;
    use std::path::Path;
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
        store.keep_template(&lock, key, vec![(0x1000, bytes.len() as u64)], || bytes).unwrap()
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
    fn the_oldest_make_room_and_so_does_what_was_left() {
        let directory = TempDir::new().unwrap();
        let store = Store::at(directory.path());
        for number in 0..MOST as u8 {
            keep(&store, &key(number, ""), b"memory");
        }
        let left = store.images().join(".new-template-x");
        fs::create_dir(&left).unwrap();

        keep(&store, &key(100, ""), b"memory");

        assert!(!left.exists());
        assert_eq!(store.entries().unwrap().len(), MOST);
        assert!(store.template(&key(100, "")).is_some());
        assert_eq!(store.gc(false).unwrap().removed.len(), MOST);
        assert!(store.template(&key(100, "")).is_none());
    }
}
