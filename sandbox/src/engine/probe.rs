// SPDX-License-Identifier: Apache-2.0
//! Which engine can serve here, or why none does.
//!
//! That `/dev/kvm` opens, and makes machines, does not mean that it runs kernels: there are ones that emulate a part of
//! the instructions. So KVM counts as usable only when a guest of a few instructions ([`guest`]) has run on it and left the
//! right results ([`trial`]). That happens in a process of its own with a deadline ([`apart`]), and once in a boot ([`cache`]).

pub(crate) mod apart;
mod cache;
mod guest;
mod trial;

use std::env;
use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Engine;
use crate::spec::{Choice, OURSELVES};

/// QEMU's program for this architecture.
const QEMU: &str = "qemu-system-x86_64";

/// Where QEMU is looked for besides `PATH`.
const PLACES: [&str; 3] = ["/usr/bin", "/usr/local/bin", "/usr/libexec"];

/// KVM's device.
const DEVICE: &str = "/dev/kvm";

/// Why no engine serves.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// KVM was demanded, and cannot be used.
    #[error(
        "no hardware virtualization, which --engine kvm and --require-kvm ask for: {0}; {remedy}. Without these options \
         the command runs emulated", remedy = .0.remedy()
    )]
    NoKvm(Finding),
    /// QEMU is not installed.
    #[error(
        "no {QEMU} in PATH or {}; install it (Debian, Ubuntu: apt-get install qemu-system-x86)", PLACES.join(", ")
    )]
    NoQemu,
}

/// What was found of KVM on this host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Finding {
    /// `/dev/kvm` does not exist.
    Missing,
    /// `/dev/kvm` exists and this user may not open it.
    Permission,
    /// `/dev/kvm` cannot be opened for another reason, or is something else.
    Broken(String),
    /// Something else has taken the processor's virtualization.
    Busy(String),
    /// KVM lacks what the engine needs.
    Old(String),
    /// KVM does not run what a kernel consists of; where it failed.
    Unfit(String),
    /// Nobody knows: the trial came to no end.
    Untried(String),
    /// It has run a guest and the results were right.
    Usable,
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Missing => write!(f, "{DEVICE} does not exist"),
            Self::Permission => write!(f, "{DEVICE} exists, but this user may not open it"),
            Self::Broken(why) => write!(f, "{DEVICE} cannot be used: {why}"),
            Self::Busy(why) => write!(f, "{DEVICE} opens, but is taken: {why}"),
            Self::Old(why) => write!(f, "{DEVICE} opens, but is too old: {why}"),
            Self::Unfit(how) => write!(f, "{DEVICE} opens, but cannot run a kernel: {how}"),
            Self::Untried(why) => write!(f, "{DEVICE} opens, but the trial of it failed: {why}"),
            Self::Usable => write!(f, "{DEVICE} works"),
        }
    }
}

impl Finding {
    /// What can be done about it.
    #[must_use]
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Missing => {
                "load kvm_amd or kvm_intel (modprobe); in a virtual machine, its host must allow nested virtualization, in a \
                 container the device must be passed in"
            }
            Self::Permission => "join the group that owns it (usermod -aG kvm USER, as root) and log in again",
            Self::Broken(_) => "dmesg may say why; often virtualization is switched off in the firmware's settings",
            Self::Busy(_) => "end the other hypervisor (VirtualBox, VMware) or unload its modules",
            Self::Old(_) => "a newer kernel is needed",
            Self::Unfit(_) => {
                "it emulates, or is defective: use a machine with hardware virtualization, or ask this one's host for it"
            }
            Self::Untried(_) => "try again when the machine is less busy",
            Self::Usable => "nothing",
        }
    }

    /// What a failed open(2) means.
    fn of_open(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound => Self::Missing,
            io::ErrorKind::PermissionDenied => Self::Permission,
            _ => Self::Broken(error.to_string()),
        }
    }

    /// Whether it holds until the next boot. Others may end at any time, or be looked at for nothing.
    fn lasts(&self) -> bool {
        matches!(self, Self::Usable | Self::Unfit(_) | Self::Old(_))
    }
}

/// Looks at KVM anew, whatever is remembered of it.
#[must_use]
pub fn survey() -> Finding {
    look(false, Path::new(OURSELVES))
}

/// Looks at KVM, but has `program`, which must be this one, try it only once in a boot.
#[must_use]
pub fn kvm(program: &Path) -> Finding {
    look(true, program)
}

/// Has the next run try KVM again: to be called when a machine has failed in a way that a usable KVM does not.
pub fn distrust_kvm() {
    if let Some(place) = cache::place() {
        cache::forget(&place);
    }
}

fn look(remembered: bool, program: &Path) -> Finding {
    // By opening it, for mode bits tell only half.
    if let Err(error) = OpenOptions::new().read(true).write(true).open(DEVICE) {
        return Finding::of_open(&error);
    }
    let place = cache::place();
    if remembered && let Some(finding) = place.as_deref().and_then(cache::recall) {
        return finding;
    }
    let finding = match apart::ask(program) {
        Ok(finding) => finding,
        Err(error) => Finding::Untried(crate::explain(&error)),
    };
    if let Some(place) = place.filter(|_| finding.lasts()) {
        cache::keep(&place, &finding);
    }
    finding
}

/// Picks the engine. `program` must be this one.
///
/// # Errors
/// Why none serves, and what to do.
pub fn probe(choice: Choice, require_kvm: bool, program: &Path) -> Result<Engine, Error> {
    if choice != Choice::Qemu || require_kvm {
        match kvm(program) {
            Finding::Usable => return Ok(Engine::Kvm(program.to_owned())),
            finding if require_kvm || choice == Choice::Kvm => return Err(Error::NoKvm(finding)),
            _ => {}
        }
    }
    qemu().map(Engine::Qemu)
}

/// Finds QEMU.
///
/// # Errors
/// If there is none.
pub fn qemu() -> Result<PathBuf, Error> {
    find(QEMU).ok_or(Error::NoQemu)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_open_is_told_by_its_reason() {
        let of = |errno: rustix::io::Errno| Finding::of_open(&errno.into());
        assert_eq!(of(rustix::io::Errno::NOENT), Finding::Missing);
        assert_eq!(of(rustix::io::Errno::ACCESS), Finding::Permission);
        assert!(matches!(of(rustix::io::Errno::NODEV), Finding::Broken(why) if why.contains("No such device")));
    }

    #[test]
    fn only_what_a_trial_has_settled_is_remembered() {
        let text = String::new;
        let passing = [Finding::Missing, Finding::Permission, Finding::Broken(text()), Finding::Busy(text())];
        assert!(!passing.iter().chain(&[Finding::Untried(text())]).any(Finding::lasts));
        assert!([Finding::Usable, Finding::Unfit(text()), Finding::Old(text())].iter().all(Finding::lasts));
    }

    #[test]
    fn a_refusal_says_what_was_found_and_what_to_do() {
        let text = Error::NoKvm(Finding::Permission).to_string();
        assert!(text.contains("may not open it; join the group"), "{text}");
    }
}
