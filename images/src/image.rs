// SPDX-License-Identifier: Apache-2.0
//! One stored image, and the check every use of it begins with. Finding one is [`crate::Store`]'s work.

mod stamp;

use crate::{Kind, Manifest, Origin, cpio, digest, elf};
use std::fs::File;
use std::io::{self, Read as _, Seek as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use stamp::Stamp;

/// Why an image cannot be used. Each of these is mended by building it again.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file is not there or not readable.
    #[error("cannot open {}", path.display())]
    Open {
        /// The image.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Reading failed half-way.
    #[error("cannot read {}", path.display())]
    Read {
        /// The image.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Cut short, or something was added.
    #[error("{} has {found} bytes instead of {expected}; run `{remedy}`", path.display())]
    Size {
        /// The image.
        path: PathBuf,
        /// What its manifest says.
        expected: u64,
        /// What is there.
        found: u64,
        /// How to mend it.
        remedy: &'static str,
    },
    /// Not a kernel for this machine.
    #[error("{} is not a kernel this machine can boot; run `{remedy}`", path.display())]
    Kernel {
        /// The image.
        path: PathBuf,
        /// How to mend it.
        remedy: &'static str,
        /// What is wrong with it.
        #[source]
        source: elf::Error,
    },
    /// Not an archive.
    #[error("{} is not an uncompressed newc archive; run `{remedy}`", path.display())]
    Archive {
        /// The image.
        path: PathBuf,
        /// How to mend it.
        remedy: &'static str,
    },
    /// Right in size and shape, and yet not what was built.
    #[error("{} is damaged: its digest is not the one in its manifest; run `{remedy}`", path.display())]
    Digest {
        /// The image.
        path: PathBuf,
        /// How to mend it.
        remedy: &'static str,
    },
}

/// A kernel or an initramfs in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    path: PathBuf,
    manifest: Manifest,
}

impl Image {
    pub(crate) const fn new(path: PathBuf, manifest: Manifest) -> Self {
        Self { path, manifest }
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What it says of itself.
    pub const fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// What it is.
    pub const fn kind(&self) -> Kind {
        self.manifest.kind()
    }

    /// Whether this is a kernel with our edits: it clears each page before it reads a file into it, and it can leave for
    /// another machine, as a template does.
    pub const fn is_edited(&self) -> bool {
        matches!(self.manifest.origin, Origin::Kernel { edited: true, .. })
    }

    /// Opens it for reading from its first byte, after having checked all of it.
    ///
    /// What was checked is what the returned file reads, even if the path is replaced meanwhile.
    pub fn open(&self) -> Result<File, Error> {
        let (file, check) = self.begin()?;
        check.map_or(Ok(()), Check::finish)?;
        Ok(file)
    }

    /// Like [`Image::open`], but for the long part of the check, which can so be done elsewhere at the same time. Until
    /// it has passed, nothing that came of reading the file may be relied upon. There is none for a file that has not
    /// changed since it passed.
    pub fn begin(&self) -> Result<(File, Option<Check>), Error> {
        let mut file = File::open(&self.path).map_err(|source| Error::Open { path: self.path.clone(), source })?;
        let unread = |source| Error::Read { path: self.path.clone(), source };
        let stamp = Stamp::of(self, &file).map_err(unread)?;
        let found = stamp.size();
        if found != self.manifest.size {
            let (path, remedy) = (self.path.clone(), self.kind().remedy());
            return Err(Error::Size { path, expected: self.manifest.size, found, remedy });
        }
        if stamp.is_noted(self) {
            return Ok((file, None));
        }
        self.check_shape(&mut file)?;
        file.rewind().map_err(unread)?;
        let contents = Contents { file: file.try_clone().map_err(unread)?, at: 0 };
        Ok((file, Some(Check { image: self.clone(), stamp, contents })))
    }

    /// The checks that can say more than "damaged".
    fn check_shape(&self, file: &mut File) -> Result<(), Error> {
        let (path, remedy) = (self.path.clone(), self.kind().remedy());
        match self.kind() {
            Kind::Kernel(_) => elf::check_kernel(file).map_err(|source| Error::Kernel { path, remedy, source }),
            Kind::Initramfs => {
                let mut magic = Vec::new();
                let begin = file.take(cpio::MAGIC.len() as u64).read_to_end(&mut magic);
                begin.map_err(|source| Error::Read { path: self.path.clone(), source })?;
                if magic == cpio::MAGIC { Ok(()) } else { Err(Error::Archive { path, remedy }) }
            }
            // Memory has no shape.
            Kind::Template => Ok(()),
        }
    }
}

/// What is left to check of an image that is open: its digest.
#[derive(Debug)]
#[must_use = "an image is good only when its check has passed"]
pub struct Check {
    image: Image,
    /// The file as it was before it was read.
    stamp: Stamp,
    contents: Contents,
}

impl Check {
    /// Reads all of the image.
    pub fn finish(self) -> Result<(), Error> {
        self.finish_at(SystemTime::now())
    }

    fn finish_at(mut self, now: SystemTime) -> Result<(), Error> {
        let path = self.image.path.clone();
        match digest::of_reader(&mut self.contents) {
            Ok(digest) if digest == self.image.manifest.sha256 => {
                if Stamp::of(&self.image, &self.contents.file).is_ok_and(|stamp| stamp == self.stamp) {
                    self.stamp.note(&self.image, now);
                }
                Ok(())
            }
            Ok(_) => Err(Error::Digest { path, remedy: self.image.kind().remedy() }),
            Err(source) => Err(Error::Read { path, source }),
        }
    }
}

/// A file's bytes from the first on, read without moving the position that others read from.
#[derive(Debug)]
struct Contents {
    file: File,
    at: u64,
}

impl io::Read for Contents {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read_at(buffer, self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}

#[cfg(test)]
mod tests;
