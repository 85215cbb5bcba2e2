// SPDX-License-Identifier: Apache-2.0
//! Where images are kept, and how the current one is found. Never builds and never downloads.
//!
//! ```text
//! ~/.cache/sandbox/images/kernel-0123456789ab/{vmlinux,manifest.json}
//!                        /initramfs-ba9876543210/{initramfs.cpio,manifest.json}
//!                        /template-001122334455/{memory,manifest.json}
//!                        /current-kernel-base       the name of one of the directories
//!                  /build/…                         trees of builds, removed when they have succeeded
//!                  /lock-kernel, …                  held by whoever builds or removes
//! ```
//!
//! Finding takes no lock: directories and pointers appear and change by rename alone, so each is whole or absent.

mod gc;
mod install;
mod template;

pub use gc::Gc;
pub use install::Lock;
pub(crate) use install::{measure, now};
pub use template::TemplateKey;

use crate::{Flavour, Image, Kind, Manifest, Origin, kernel};
use etcetera::BaseStrategy as _;
use guest_init::wire;
use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

const MANIFEST: &str = "manifest.json";
/// Of the store's directory in the cache.
const NAME: &str = "sandbox";

/// Why an image was not found, or not stored.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody knows where the cache is.
    #[error("cannot tell where the cache is: neither XDG_CACHE_HOME nor a home directory is known")]
    NoCache(#[source] etcetera::HomeDirError),
    /// Nothing of this kind was ever built here.
    #[error("no {kind} in {}; run `{}` or `make build`", images.display(), kind.remedy())]
    Missing {
        /// What was looked for.
        kind: Kind,
        /// Where.
        images: PathBuf,
    },
    /// The pointer is there, and what it points to is not.
    #[error("the current {kind} cannot be used; run `{}` or `make build`", kind.remedy())]
    Broken {
        /// What was looked for.
        kind: Kind,
        /// Why not.
        #[source]
        source: Box<Error>,
    },
    /// The pointer holds no name of an image.
    #[error("{} does not name an image of its kind", .0.display())]
    Pointer(PathBuf),
    /// The manifest is damaged.
    #[error("cannot understand {}", path.display())]
    Manifest {
        /// The manifest.
        path: PathBuf,
        /// Why not.
        #[source]
        source: serde_json::Error,
    },
    /// Built by another version of this program.
    #[error("{} was built from another configuration than this program's; run `{}`", path.display(), kind.remedy())]
    Outdated {
        /// The image.
        path: PathBuf,
        /// What it is.
        kind: Kind,
    },
    /// Its init and this program do not speak the same language.
    #[error("the init in {} speaks protocol {found}, this program {expected}; run `make build`", path.display())]
    Protocol {
        /// The image.
        path: PathBuf,
        /// What the image speaks.
        found: u16,
        /// What this program speaks.
        expected: u16,
    },
    /// Somebody is building.
    #[error("a build is running; try again when it has ended")]
    Busy,
    /// The operating system refused.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was attempted.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// Names the attempt in an I/O error.
pub(crate) fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Io { action, path, source }
}

/// A directory of images.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Store {
    root: PathBuf,
}

/// One directory in the store.
#[derive(Debug)]
pub struct Entry {
    /// Its name: the kind, and the digest of what it was made from.
    pub name: String,
    /// What it holds, or why that cannot be told.
    pub image: Result<Image, Error>,
    /// Whether runs use it.
    pub current: bool,
}

impl Store {
    /// The user's: `$XDG_CACHE_HOME/sandbox`, else `~/.cache/sandbox`.
    pub fn of_user() -> Result<Self, Error> {
        let directories = etcetera::base_strategy::Xdg::new().map_err(Error::NoCache)?;
        Ok(Self::at(directories.cache_dir().join(NAME)))
    }

    /// The one in a given directory, which need not exist yet.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The store's own directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The directory that holds all a run reads.
    pub fn images(&self) -> PathBuf {
        self.root.join("images")
    }

    /// The directory of caches that the store's own is one of.
    pub fn cache(&self) -> &Path {
        self.root.parent().unwrap_or(&self.root)
    }

    pub(crate) fn builds(&self) -> PathBuf {
        self.root.join("build")
    }

    /// The current kernel, if it was built from the configuration this program holds.
    pub fn kernel(&self, flavour: Flavour) -> Result<Image, Error> {
        let image = self.current(Kind::Kernel(flavour))?;
        match &image.manifest().origin {
            Origin::Kernel { config_sha256, .. } if *config_sha256 == kernel::config_digest(flavour) => Ok(image),
            _ => Err(Error::Outdated { path: image.path().to_owned(), kind: Kind::Kernel(flavour) }),
        }
    }

    /// The current initramfs, if its init speaks this program's protocol.
    pub fn initramfs(&self) -> Result<Image, Error> {
        let image = self.current(Kind::Initramfs)?;
        match image.manifest().origin {
            Origin::Initramfs { protocol, .. } if protocol != wire::VERSION => {
                Err(Error::Protocol { path: image.path().to_owned(), found: protocol, expected: wire::VERSION })
            }
            _ => Ok(image),
        }
    }

    fn current(&self, kind: Kind) -> Result<Image, Error> {
        let name = self.selected(kind)?.ok_or_else(|| Error::Missing { kind, images: self.images() })?;
        let image = self.entry(&name).map_err(|source| Error::Broken { kind, source: Box::new(source) })?;
        if image.kind() == kind { Ok(image) } else { Err(Error::Pointer(image.path().to_owned())) }
    }

    /// The name of the current entry.
    fn selected(&self, kind: Kind) -> Result<Option<String>, Error> {
        let Some(pointer) = kind.pointer() else { return Ok(None) };
        let path = self.images().join(pointer);
        let text = match read_small(&path) {
            Ok(text) => String::from_utf8_lossy(&text).into_owned(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed("read", &path)(error)),
        };
        let name = text.trim_end();
        if is_entry(name) { Ok(Some(name.to_owned())) } else { Err(Error::Pointer(path)) }
    }

    /// The image in the directory of that name.
    pub(crate) fn entry(&self, name: &str) -> Result<Image, Error> {
        let directory = self.images().join(name);
        let path = directory.join(MANIFEST);
        let text = read_small(&path).map_err(failed("read", &path))?;
        let manifest: Manifest =
            serde_json::from_slice(&text).map_err(|source| Error::Manifest { path: path.clone(), source })?;
        Ok(Image::new(directory.join(manifest.kind().file_name()), manifest))
    }

    /// Everything in the store, sorted by name.
    pub fn entries(&self) -> Result<Vec<Entry>, Error> {
        let mut current = Vec::new();
        for kind in Kind::ALL {
            current.extend(self.selected(kind)?);
        }
        let names = names_in(&self.images())?.into_iter().filter(|name| is_entry(name));
        Ok(names.map(|name| Entry { image: self.entry(&name), current: current.contains(&name), name }).collect())
    }
}

/// Everything in a small file, by one call: neither its size is asked for nor its end. A run reads six of them.
pub(crate) fn read_small(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; 4096];
    let mut file = fs::File::open(path)?;
    let count = file.read(&mut bytes)?;
    // Only at its end gives a regular file less than was asked for.
    if count == bytes.len() {
        file.read_to_end(&mut bytes)?;
    } else {
        bytes.truncate(count);
    }
    Ok(bytes)
}

/// Names in a directory, sorted; none if it is not there. Names that are not text are nobody's of ours.
fn names_in(directory: &Path) -> Result<Vec<String>, Error> {
    let listed = match fs::read_dir(directory) {
        Ok(listed) => listed,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed("list", directory)(error)),
    };
    let mut names = Vec::new();
    for entry in listed {
        names.extend(entry.map_err(failed("list", directory))?.file_name().into_string());
    }
    names.sort_unstable();
    Ok(names)
}

/// Whether a name can be that of an image's directory. Anything else never leads out of the store.
fn is_entry(name: &str) -> bool {
    Kind::ALL.iter().any(|kind| {
        let digest = name.strip_prefix(kind.name()).and_then(|rest| rest.strip_prefix('-'));
        digest.is_some_and(|digest| !digest.is_empty() && digest.bytes().all(|byte| byte.is_ascii_hexdigit()))
    })
}

#[cfg(test)]
mod tests;
