// SPDX-License-Identifier: Apache-2.0
//! What to run, as plain data. Nothing here touches the machine but [`Spec::check`], which explains every refusal.

mod limits;
mod sync;

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::Duration;

pub use limits::{DISK_MAX, DISK_MIN, Limits, Tmpfs, ULIMITS, Ulimit};
pub use sync::{Glob, Sync};

/// Least memory a guest boots with, in bytes.
pub const MEMORY_MIN: u64 = 128 << 20;
/// Most memory that fits below the gap a PC leaves under 4 GiB plus what QEMU's microvm places above it, in bytes.
pub const MEMORY_MAX: u64 = 64 << 30;
/// Memory of a guest unless `-m` says otherwise, in bytes. Only what the guest touches is taken from the host.
pub const MEMORY_DEFAULT: u64 = 1 << 30;
/// Guest memory comes in pieces of this many bytes.
pub const MEMORY_STEP: u64 = 1 << 20;
/// Most virtual CPUs; the guest kernel is built for no more.
pub const CPUS_MAX: u32 = 32;

/// This program, to itself.
pub const OURSELVES: &str = "/proc/self/exe";

/// The variable that says where caches are (XDG Base Directory Specification).
const CACHE_HOME: &str = "XDG_CACHE_HOME";

/// One command and everything about the run that the caller decides.
#[derive(Debug, Clone)]
pub struct Spec {
    /// Program and arguments.
    pub command: Vec<OsString>,
    /// The command's whole environment.
    pub environment: Vec<(OsString, OsString)>,
    /// Working directory in the guest, absolute.
    pub workdir: PathBuf,
    /// Whom the command runs as.
    pub user: User,
    /// What of the host the guest sees.
    pub sight: Sight,
    /// Guest memory in bytes.
    pub memory: u64,
    /// Virtual CPUs.
    pub cpus: u32,
    /// The terminal that the command gets, if it gets one.
    pub terminal: Option<Terminal>,
    /// Time limit from the command's start.
    pub timeout: Option<Duration>,
    /// How long the command may take to end after a signal that ends the run. If given, then the time limit, too, tells it
    /// to end first.
    pub kill_after: Option<Duration>,
    /// Limit of what the command may write to its standard streams, in bytes.
    pub output_limit: Option<u64>,
    /// What else it may use.
    pub limits: Limits,
    /// Which engine to use.
    pub engine: Choice,
    /// Whether anything but hardware virtualization is refused.
    pub require_kvm: bool,
    /// What the guest needs to be a host of sandboxes itself, if it is to be one.
    pub nested: Option<Nested>,
    /// How often the run is repeated at most if it is lost before its command has started.
    pub retries: u32,
    /// Whether the machine boots even where it could be a copy of one that has.
    pub boot: bool,
    /// Resource limits and file mode mask the command starts with.
    pub process: Process,
    /// What is to be kept of what the command changed.
    pub results: Results,
    /// When what tells of a failure is gathered before the machine is gone.
    pub keep: Keep,
    /// The program that serves files and runs the machine, in processes of their own: this one, or what a program that
    /// uses this library has in its place.
    pub program: PathBuf,
}

/// A terminal of the guest's, for the command's standard input and output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terminal {
    /// Whether standard error leads to it too, and so cannot be told from standard output.
    pub error: bool,
}

/// A user as the kernel knows one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
}

/// What of the host the guest sees besides its system directories.
#[derive(Debug, Clone)]
pub struct Sight {
    /// The caller's current directory, shown at the same path.
    pub current: PathBuf,
    /// The caller's home directory, of which only tools are shown.
    pub home: Option<PathBuf>,
    /// Further files and directories that are shown as the current directory is: at the same paths, with what the command
    /// writes there in the private layer.
    pub shown: Vec<PathBuf>,
    /// Further files and directories (`-v`).
    pub volumes: Vec<Volume>,
    /// Whether to show the tools that `PATH` finds in the home directory.
    pub home_tools: bool,
}

/// One `-v SRC:DST[:ro]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// File or directory of the host.
    pub source: PathBuf,
    /// Absolute path in the guest.
    pub target: PathBuf,
    /// Whether the guest may not write to it.
    pub read_only: bool,
}

/// What lets a guest run sandboxes of its own, besides a processor that can: this program and its images.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nested {
    /// This program's executable.
    pub program: PathBuf,
    /// The directory that `XDG_CACHE_HOME` stands for.
    pub cache: PathBuf,
    /// Where in it the images are.
    pub images: PathBuf,
}

/// What a process inherits besides its environment.
#[derive(Debug, Clone)]
pub struct Process {
    /// File mode creation mask.
    pub umask: u32,
    /// Resource limits: Linux's number, soft and hard value.
    pub rlimits: Vec<(u32, u64, u64)>,
}

/// Which engine to use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Choice {
    /// KVM where it can run a kernel, else emulation by QEMU.
    Auto,
    /// KVM or nothing.
    Kvm,
    /// Emulation by QEMU.
    Qemu,
}

/// When what tells of a failure is gathered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Keep {
    /// Never.
    #[default]
    Never,
    /// When the command or its machine failed.
    OnFailure,
    /// However it ended.
    Always,
}

/// What is to be kept of what a command changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Results {
    /// Files and directories that are copied out when the command has ended.
    pub copies: Vec<CopyOut>,
    /// Whether to list what has changed in the private layer.
    pub list: bool,
    /// Where to write that as a tar.
    pub tar: Option<PathBuf>,
    /// What of the current directory takes the changes, if the command succeeds: paths below it.
    pub commits: Vec<PathBuf>,
    /// Which files are brought back, however the command ended.
    pub sync: Sync,
}

/// One `--copy-out GUEST:HOST`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopyOut {
    /// Absolute path in the guest.
    pub guest: PathBuf,
    /// Path on the host: a directory that takes it under its own name, or what it is to be called.
    pub host: PathBuf,
}

/// Why a Spec cannot be run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No program was named.
    #[error("no command given; try: sandbox run -- echo hello")]
    NoCommand,
    /// A string holds a NUL byte, which no Linux process can be given.
    #[error("{what} {text:?} contains a NUL byte")]
    Nul {
        /// Which string.
        what: &'static str,
        /// The string.
        text: OsString,
    },
    /// An environment entry has no name, or one with `=` in it.
    #[error("environment entry {0:?} has no usable name; write it as NAME=VALUE, or as NAME for the caller's value")]
    EnvironmentName(OsString),
    /// Memory out of range.
    #[error("{}M of memory: a guest needs between {}M and {}G", .0 >> 20, MEMORY_MIN >> 20, MEMORY_MAX >> 30)]
    Memory(u64),
    /// Memory that is no whole number of pieces.
    #[error("{0} bytes of memory: not a whole number of MiB")]
    MemoryStep(u64),
    /// CPU count out of range.
    #[error("{0} CPUs: a guest has between 1 and {CPUS_MAX}")]
    Cpus(u32),
    /// Working directory not absolute.
    #[error("working directory {0:?} is not an absolute path")]
    Workdir(PathBuf),
    /// A time limit of zero.
    #[error("a time limit of zero leaves the command no time; leave --timeout out for none")]
    Timeout,
    /// No process at all.
    #[error("a limit of no processes leaves no room for the command; leave --pids-limit out for none")]
    Processes,
    /// A soft limit above its hard one.
    #[error("--ulimit {0}: the soft limit is above the hard one; write it as {0}=SOFT:HARD")]
    Ulimit(&'static str),
    /// A file system too small or too large.
    #[error("{0}: a file system of the guest holds between {min}M and {max}T", min = DISK_MIN >> 20, max = DISK_MAX >> 40)]
    Size(&'static str),
    /// A place where no file system can be.
    #[error(
        "--tmpfs {0:?}: name an absolute path without . and .., neither / nor in /proc, /sys or /dev (--shm-size is for /dev/shm)"
    )]
    TmpfsTarget(PathBuf),
    /// Two of them in one place.
    #[error("--tmpfs {0:?} is given twice")]
    TmpfsTwice(PathBuf),
}

impl Spec {
    /// The environment the command gets: under `--nested` with the way to this program, behind all others, and to its
    /// images.
    #[must_use]
    pub fn guest_environment(&self) -> Vec<(OsString, OsString)> {
        let mut environment = self.environment.clone();
        let Some(nested) = &self.nested else { return environment };
        if !environment.iter().any(|(name, _)| name == CACHE_HOME) {
            environment.push((CACHE_HOME.into(), nested.cache.clone().into()));
        }
        if let Some(place) = nested.program.parent() {
            match environment.iter_mut().find(|(name, _)| name == "PATH") {
                Some((_, path)) if std::env::split_paths(path).any(|other| other == place) => {}
                Some((_, path)) => {
                    path.push(":");
                    path.push(place);
                }
                None => environment.push(("PATH".into(), place.into())),
            }
        }
        environment
    }

    /// Checks what can be checked without looking at the machine.
    ///
    /// # Errors
    /// The first reason why this cannot be run.
    pub fn check(&self) -> Result<(), Error> {
        if self.command.is_empty() {
            return Err(Error::NoCommand);
        }
        let strings = self.command.iter().map(|argument| ("argument", argument));
        let names = self.environment.iter().flat_map(|(name, value)| [("variable", name), ("value", value)]);
        if let Some((what, text)) = strings.chain(names).find(|(_, text)| text.as_bytes().contains(&0)) {
            return Err(Error::Nul { what, text: text.clone() });
        }
        if let Some((name, _)) = self.environment.iter().find(|(name, _)| name.is_empty() || has_equals(name)) {
            return Err(Error::EnvironmentName(name.clone()));
        }
        if !self.workdir.is_absolute() {
            return Err(Error::Workdir(self.workdir.clone()));
        }
        if !(MEMORY_MIN..=MEMORY_MAX).contains(&self.memory) {
            return Err(Error::Memory(self.memory));
        }
        if !self.memory.is_multiple_of(MEMORY_STEP) {
            return Err(Error::MemoryStep(self.memory));
        }
        if !(1..=CPUS_MAX).contains(&self.cpus) {
            return Err(Error::Cpus(self.cpus));
        }
        if self.timeout == Some(Duration::ZERO) {
            return Err(Error::Timeout);
        }
        self.limits.check()
    }
}

fn has_equals(name: &OsString) -> bool {
    name.as_bytes().contains(&b'=')
}

#[cfg(test)]
pub(crate) mod tests;
