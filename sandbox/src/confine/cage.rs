// SPDX-License-Identifier: Apache-2.0
//! A cage for a program that is not ours, prepared before the fork and entered between fork and exec: namespaces of its
//! own, Landlock (landlock(7)) and a filter of system calls.
//!
//! What runs in it is taken for lost already. It can read what a dynamically linked program needs and the files that
//! are named, and nothing else by any name; it can write to no file that it was not given, reach no network and no
//! other process, and execute nothing but itself. The filter names what is refused, not what is allowed: a program that
//! we do not build uses what it likes of the rest.

use super::program::{self, Actions};
use super::{Check, Error, Rule, step};
use crate::sys::{calls, namespace};
use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd, RestrictSelfError,
    Ruleset, RulesetAttr, RulesetCreated, RulesetCreatedAttr, RulesetError, Scope,
};
use rustix::fd::AsFd;
use rustix::io::Errno;
use rustix::thread::UnshareFlags;
use seccompiler::{BpfProgram, SeccompAction};
use std::io;
use std::path::{Path, PathBuf};

/// The newest rules we know of; older kernels keep those that they know.
const NEWEST: ABI = ABI::V6;

/// Where programs find their libraries and data, by whatever distribution. What is missing is left out.
const SYSTEM: [&str; 7] = ["/usr", "/lib", "/lib32", "/lib64", "/nix/store", "/gnu/store", "/etc/ld.so.cache"];

/// The dynamic loader, which executing a program executes too.
const LOADERS: [&str; 2] = ["/lib64/ld-linux-x86-64.so.2", "/lib/ld-musl-x86_64.so.1"];

/// What is ready to be entered.
pub(crate) struct Cage {
    ruleset: RulesetCreated,
    filter: BpfProgram,
}

impl std::fmt::Debug for Cage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cage").field("ruleset", &self.ruleset).finish_non_exhaustive()
    }
}

impl Cage {
    /// Prepares a cage for `program`, which may read `files` too, by their names.
    pub(crate) fn new(program: &Path, files: &[&dyn AsFd]) -> Result<Self, Error> {
        Ok(Self { ruleset: ruleset(program, files)?, filter: filter() })
    }

    /// Enters it. Makes system calls only, so it may run between fork and exec of a process with threads.
    pub(crate) fn enter(&self) -> io::Result<()> {
        let spaces = UnshareFlags::NEWUSER | UnshareFlags::NEWNET | UnshareFlags::NEWIPC | UnshareFlags::NEWUTS;
        namespace::unshare(spaces)?;
        rustix::thread::set_no_new_privs(true)?;
        // Takes nothing away where the kernel has no Landlock.
        self.ruleset.try_clone()?.restrict_self().map_err(|error| match error {
            RulesetError::RestrictSelf(RestrictSelfError::RestrictSelfCall { source, .. }) => source,
            _ => io::ErrorKind::InvalidInput.into(),
        })?;
        seccompiler::apply_filter(&self.filter).map_err(|error| match error {
            seccompiler::Error::Prctl(error) | seccompiler::Error::Seccomp(error) => error,
            _ => io::ErrorKind::InvalidInput.into(),
        })
    }
}

fn ruleset(program: &Path, files: &[&dyn AsFd]) -> Result<RulesetCreated, Error> {
    let read: BitFlags<AccessFs> = AccessFs::ReadFile | AccessFs::ReadDir;
    let mut rules = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(NEWEST))?
        .handle_access(AccessNet::from_all(NEWEST))?
        .scope(Scope::from_all(NEWEST))?
        .create()?;
    // A program of another prefix has its libraries beside it.
    let prefix = program.parent().and_then(Path::parent).filter(|prefix| prefix.parent().is_some());
    for place in SYSTEM.iter().map(Path::new).chain(prefix) {
        if let Ok(place) = PathFd::new(place) {
            rules = rules.add_rule(PathBeneath::new(place, read))?;
        }
    }
    let programs = LOADERS.iter().map(PathBuf::from).chain([program.to_owned()]);
    for program in programs {
        if let Ok(program) = PathFd::new(program) {
            rules = rules.add_rule(PathBeneath::new(program, AccessFs::Execute | AccessFs::ReadFile))?;
        }
    }
    for file in files {
        rules = rules.add_rule(PathBeneath::new(file.as_fd(), AccessFs::ReadFile))?;
    }
    Ok(rules)
}

/// Refuses what is not for others. clone3(2) is said to be missing: a filter cannot see its arguments, and the C library
/// falls back to clone(2).
fn filter() -> BpfProgram {
    let mut rules = super::allow(calls::NOT_FOR_OTHERS);
    rules.insert(calls::CLONE3, Rule::Missing);
    rules.insert(calls::CLONE, Rule::Where(vec![super::argument_without(0, calls::THREAD)]));
    let others = Check { argument: 0, mask: u64::MAX, value: 0, equal: false };
    rules.insert(calls::PRLIMIT, Rule::Where(vec![others]));
    let refused = SeccompAction::Errno(Errno::PERM.raw_os_error().unsigned_abs());
    program::compile(&rules, &Actions { named: refused, missing: super::missing(), other: SeccompAction::Allow })
}

impl From<RulesetError> for Error {
    fn from(error: RulesetError) -> Self {
        step("make a Landlock ruleset")(io::Error::other(error))
    }
}

#[cfg(test)]
mod tests;
