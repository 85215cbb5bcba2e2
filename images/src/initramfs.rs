// SPDX-License-Identifier: Apache-2.0
//! The archive a guest starts from: its init, three device nodes and the directories mounts go to.
//!
//! The init is packed as a file; building it is cargo's work. The same init gives the same archive, byte for byte.

use crate::cpio::{self, Entry};
use crate::store::{self, Store};
use crate::{Event, Image, Kind, Manifest, Origin, digest, elf};
use guest_init::wire;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

/// An init of this size is a mistake: it is read, hashed and copied at every boot.
const INIT_MAX: u64 = 64 << 20;

/// Directories for what is mounted first. Init makes what it needs beyond these.
const DIRECTORIES: [&str; 3] = ["dev", "proc", "sys"];

/// Why no initramfs was made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The init cannot be read.
    #[error("cannot read init {}", path.display())]
    Read {
        /// The program.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The init cannot run in the guest.
    #[error("{} cannot be the guest's init", path.display())]
    Init {
        /// The program.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: elf::Error,
    },
    /// The init is far too large.
    #[error("{} cannot be the guest's init: it has {size} bytes, and {INIT_MAX} is the limit", path.display())]
    Large {
        /// The program.
        path: PathBuf,
        /// Its size.
        size: u64,
    },
    /// The archive could not be written.
    #[error("cannot pack {}", path.display())]
    Pack {
        /// The program.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] store::Error),
}

/// Packs an init program and makes the result the current initramfs.
pub fn build(store: &Store, init: &Path, progress: &mut dyn FnMut(Event)) -> Result<Image, Error> {
    let lock = store.lock(Kind::Initramfs, || progress(Event::Waiting))?;
    let program = read_init(init)?;
    let archive = pack(&program).map_err(|source| Error::Pack { path: init.to_owned(), source })?;
    let sha256 = digest::of_bytes(&archive);
    let manifest = Manifest {
        size: archive.len() as u64,
        created: store::now(),
        origin: Origin::Initramfs { protocol: wire::VERSION, init_sha256: digest::of_bytes(&program) },
        sha256: sha256.clone(),
    };
    Ok(store.install(&lock, digest::short(&sha256), manifest, &mut archive.as_slice())?)
}

fn read_init(path: &Path) -> Result<Vec<u8>, Error> {
    let unread = |source| Error::Read { path: path.to_owned(), source };
    let file = File::open(path).map_err(unread)?;
    let size = file.metadata().map_err(unread)?.len();
    if size > INIT_MAX {
        return Err(Error::Large { path: path.to_owned(), size });
    }
    elf::check_init(&file).map_err(|source| Error::Init { path: path.to_owned(), source })?;
    let mut program = Vec::new();
    file.take(INIT_MAX).read_to_end(&mut program).map_err(unread)?;
    Ok(program)
}

fn pack(init: &[u8]) -> io::Result<Vec<u8>> {
    let mut entries: Vec<_> = DIRECTORIES.iter().map(|name| Entry::Directory { name, mode: 0o755 }).collect();
    // the kernel opens the console as init's first three descriptors before there is a devtmpfs
    entries.push(Entry::CharacterDevice { name: "dev/console", mode: 0o600, major: 5, minor: 1 });
    entries.push(Entry::CharacterDevice { name: "dev/null", mode: 0o666, major: 1, minor: 3 });
    // init seeds the generator before it mounts anything
    entries.push(Entry::CharacterDevice { name: "dev/urandom", mode: 0o666, major: 1, minor: 9 });
    entries.push(Entry::File { name: "init", mode: 0o755, bytes: init });
    cpio::pack(&entries)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use tempfile::TempDir;

    fn build_from(directory: &TempDir, program: &[u8]) -> Result<Image, Error> {
        let store = Store::at(directory.path().join("cache"));
        let init = directory.path().join("init");
        fs::write(&init, program).unwrap();
        build(&store, &init, &mut |_| {})
    }

    #[test]
    fn the_same_init_gives_the_same_archive_in_any_store() {
        let [one, other] = [TempDir::new().unwrap(), TempDir::new().unwrap()];

        let first = build_from(&one, &elf::tests::init()).unwrap();
        let second = build_from(&other, &elf::tests::init()).unwrap();

        assert_eq!(fs::read(first.path()).unwrap(), fs::read(second.path()).unwrap());
        assert_eq!(first.path().parent().unwrap().file_name(), second.path().parent().unwrap().file_name());
    }

    #[test]
    fn built_initramfs_is_found_and_opens() {
        let directory = TempDir::new().unwrap();
        let built = build_from(&directory, &elf::tests::init()).unwrap();

        let found = Store::at(directory.path().join("cache")).initramfs().unwrap();

        assert_eq!(found, built);
        found.open().unwrap();
    }

    #[test]
    fn dynamic_and_foreign_inits_are_refused() {
        let directory = TempDir::new().unwrap();
        let dynamic = elf::tests::elf(3, b"/lib64/ld-linux-x86-64.so.2\0");
        let mut arm = elf::tests::init();
        arm[18] = 183;

        assert!(matches!(build_from(&directory, &dynamic), Err(Error::Init { source: elf::Error::Dynamic, .. })));
        assert!(matches!(build_from(&directory, &arm), Err(Error::Init { source: elf::Error::Machine(183), .. })));
        assert!(matches!(build_from(&directory, b"#!/bin/sh"), Err(Error::Init { source: elf::Error::NotElf, .. })));
    }
}
