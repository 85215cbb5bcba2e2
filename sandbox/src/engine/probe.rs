// SPDX-License-Identifier: Apache-2.0
//! Which engine can serve here, or why none does.

use std::env;
use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::Engine;
use crate::spec::Choice;

/// QEMU's program for this architecture.
const QEMU: &str = "qemu-system-x86_64";

/// Where QEMU is looked for besides `PATH`.
const PLACES: [&str; 3] = ["/usr/bin", "/usr/local/bin", "/usr/libexec"];

/// Why no engine serves.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// KVM was demanded.
    #[error(
        "the kvm engine is not part of this version, so --engine kvm and --require-kvm cannot be met \
         ({kvm}); without them the command runs emulated, on the qemu engine"
    )]
    NoKvmEngine {
        /// What was found of KVM.
        kvm: Finding,
    },
    /// QEMU is not installed.
    #[error(
        "no {QEMU} in PATH or {}; install it (Debian, Ubuntu: apt-get install qemu-system-x86)", PLACES.join(", ")
    )]
    NoQemu,
}

/// What was found of KVM on this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// `/dev/kvm` does not exist.
    Missing,
    /// `/dev/kvm` exists and this user may not open it.
    Permission,
    /// `/dev/kvm` cannot be opened for another reason.
    Broken(String),
    /// `/dev/kvm` opens; whether it can run a kernel is not known.
    Opens,
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Missing => write!(f, "/dev/kvm does not exist"),
            Self::Permission => write!(f, "/dev/kvm exists, but this user may not open it"),
            Self::Broken(why) => write!(f, "/dev/kvm cannot be opened: {why}"),
            Self::Opens => write!(f, "/dev/kvm opens"),
        }
    }
}

/// Looks at `/dev/kvm` by opening it, for mode bits tell only half.
#[must_use]
pub fn survey() -> Finding {
    match OpenOptions::new().read(true).write(true).open("/dev/kvm") {
        Ok(_) => Finding::Opens,
        Err(error) => match error.kind() {
            io::ErrorKind::NotFound => Finding::Missing,
            io::ErrorKind::PermissionDenied => Finding::Permission,
            _ => Finding::Broken(error.to_string()),
        },
    }
}

/// Picks the engine.
///
/// # Errors
/// Why none serves, and what to do.
pub fn probe(choice: Choice, require_kvm: bool) -> Result<Engine, Error> {
    if choice == Choice::Kvm {
        return Ok(Engine::Kvm);
    }
    if require_kvm || choice == Choice::Kvm {
        return Err(Error::NoKvmEngine { kvm: survey() });
    }
    find(QEMU).map(Engine::Qemu).ok_or(Error::NoQemu)
}

fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let places = env::split_paths(&path).chain(PLACES.iter().map(PathBuf::from));
    places.filter(|place| place.is_absolute()).map(|place| place.join(program)).find(|file| is_executable(file))
}

fn is_executable(file: &Path) -> bool {
    let metadata = std::fs::metadata(file);
    metadata.is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}
