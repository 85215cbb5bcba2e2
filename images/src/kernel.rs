// SPDX-License-Identifier: Apache-2.0
//! From the distribution's kernel source and our configuration to a vmlinux in the store.
//!
//! What a kernel is made from (source, configuration, edits, compiler) names it, so the same is never built twice. The
//! build tree lies in the cache while it is needed, is never trusted after an interrupted build, and goes when the
//! kernel is in the store.

mod asked;
mod config;
mod edits;
mod group;
mod make;
mod source;

pub(crate) use config::digest as config_digest;

use crate::store::{self, Store};
use crate::{Event, Flavour, Image, Kind, Manifest, Origin, digest};
use group::Group;
use make::Make;
use source::Source;
use std::fs::{self, File};
use std::io;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::thread;

/// Why no kernel was built.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No source.
    #[error(
        "no linux-source-*.tar.xz in {}; `apt-get install linux-source-6.12`, or name a tree with --source or LINUX_SRC",
        .0.display()
    )]
    NoSource(PathBuf),
    /// Something that is no kernel source.
    #[error("{} is not a Linux source tree: its Makefile tells no version", .0.display())]
    NotSource(PathBuf),
    /// The source lacks what we change in it.
    #[error("{} does not hold the line {line:?} that is to be replaced", file.display())]
    Edit {
        /// The file.
        file: PathBuf,
        /// The line.
        line: &'static str,
    },
    /// Programs a build needs.
    #[error("missing {}; `apt-get install {}`", .0.join(", "), make::PACKAGES)]
    Tools(Vec<&'static str>),
    /// Options that did not end up as asked.
    #[error("the kernel's configuration does not hold {}", .0.join(", "))]
    Config(Vec<String>),
    /// A program of the build failed.
    #[error("{program} failed with {status}; its last lines were\n{tail}\nand all of them are in {}", log.display())]
    Failed {
        /// Which.
        program: &'static str,
        /// How.
        status: ExitStatus,
        /// What it said last.
        tail: String,
        /// All it said.
        log: PathBuf,
    },
    /// A program could not be started.
    #[error("cannot run {program}")]
    Run {
        /// Which.
        program: &'static str,
        /// Why not.
        #[source]
        source: io::Error,
    },
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
    /// The store failed.
    #[error(transparent)]
    Store(#[from] store::Error),
}

/// Names the attempt in an I/O error.
fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Io { action, path, source }
}

/// What to build, and how.
#[derive(Debug, Clone)]
pub struct Options {
    /// Which configuration.
    pub flavour: Flavour,
    /// How many compilers at a time; as many as there are processors if not said.
    pub jobs: Option<NonZero<usize>>,
    /// A source tree or archive; the distribution's newest if not said. A tree is built as it is, without our edits,
    /// and changes in it are not noticed.
    pub source: Option<PathBuf>,
    /// Build even what the store has already.
    pub force: bool,
}

/// What names a kernel.
struct Recipe {
    flavour: Flavour,
    source: String,
    edited: bool,
    compiler: String,
}

impl Recipe {
    /// The digest the entry is named after.
    fn key(&self) -> String {
        let config = config::digest(self.flavour);
        let parts = [&self.source, config, &self.compiler];
        digest::of_bytes(parts.join("\n").as_bytes())
    }

    fn origin(self, version: String) -> Origin {
        let config_sha256 = config::digest(self.flavour).to_owned();
        let Self { flavour, source, edited, compiler } = self;
        Origin::Kernel { flavour, version, source, config_sha256, compiler, edited }
    }
}

/// Builds a kernel and makes it the current one of its flavour. At once if the store has it.
pub fn build(store: &Store, options: &Options, progress: &mut dyn FnMut(Event)) -> Result<Image, Error> {
    let flavour = options.flavour;
    let source = Source::find(options.source.as_deref())?;
    make::check_tools()?;
    let edited = source.is_ours();
    let recipe = Recipe { flavour, source: source.identity()?, edited, compiler: make::compiler()? };
    let key = recipe.key();
    let kind = Kind::Kernel(flavour);
    let lock = store.lock(kind, || progress(Event::Waiting))?;
    let name = format!("{}-{}", kind.name(), digest::short(&key));
    if !options.force
        && let Some(image) = store.entry(&name).ok().filter(|image| image.open().is_ok())
    {
        store.select(&lock, &name, kind)?;
        progress(Event::AlreadyBuilt);
        return Ok(image);
    }
    let directory = store.builds().join(&name);
    let vmlinux = compile(&directory, &source, options, progress)?;
    progress(Event::Installing);
    let version = source::version(&vmlinux.source)?;
    let (sha256, size) = store::measure(&vmlinux.path).map_err(failed("read", &vmlinux.path))?;
    let manifest = Manifest { sha256, size, created: store::now(), origin: recipe.origin(version) };
    let mut file = File::open(&vmlinux.path).map_err(failed("open", &vmlinux.path))?;
    let image = store.install(&lock, digest::short(&key), manifest, &mut file)?;
    fs::remove_dir_all(&directory).map_err(failed("remove", &directory))?;
    Ok(image)
}

/// A stripped kernel, still in its build tree.
struct Vmlinux {
    source: PathBuf,
    path: PathBuf,
}

fn compile(
    directory: &Path,
    source: &Source,
    options: &Options,
    progress: &mut dyn FnMut(Event),
) -> Result<Vmlinux, Error> {
    let objects = directory.join("objects");
    // a killed compiler may have left half an object that make takes for a whole one
    match fs::remove_dir_all(&objects) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed("remove", &objects)(error)),
        _ => fs::create_dir_all(&objects).map_err(failed("create", &objects))?,
    }
    let group = Group::new().map_err(|source| Error::Run { program: "sh", source })?;
    let make = Make { group: &group, objects: &objects, log: &directory.join("build.log") };
    let tree = source.prepare(directory, &make, progress)?;

    progress(Event::Configuring);
    let fragment = config::fragment(options.flavour, source.is_ours());
    let path = objects.join("sandbox.config");
    fs::write(&path, &fragment).map_err(failed("write", &path))?;
    make.configure(&tree, &path)?;
    let path = objects.join(".config");
    let result = fs::read_to_string(&path).map_err(failed("read", &path))?;
    config::check(&fragment, &result).map_err(Error::Config)?;

    let jobs = options.jobs.or_else(|| thread::available_parallelism().ok()).unwrap_or(NonZero::<usize>::MIN);
    make.vmlinux(&tree, jobs, config::files_expected(options.flavour), progress)?;
    let path = make.strip()?;
    Ok(Vmlinux { source: tree, path })
}
