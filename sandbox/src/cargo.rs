// SPDX-License-Identifier: Apache-2.0
//! A process that cargo, nextest or rustdoc starts, and what a machine must show it so that it finds what it finds on the host.
//!
//! A test has paths baked in when it is compiled, calls programs that were built beside it, and may call the compiler. So it is
//! shown its workspace, its target directory, its toolchain and cargo's home, at the same paths, and the variables that cargo set
//! for it pass. All of it is read-only on the host's side: what a test writes goes to the private layer and dies with its machine.
//! Credentials are held back as everywhere ([`crate::view`]). Not for what else a run is told: that is the caller's.
//!
//! What cargo and nextest set is in the Cargo book ("Environment Variables", `target.<triple>.runner`) and in nextest's
//! ("Environment variables", "Custom test harnesses").
//!
//! ```no_run
//! use sandbox::{caller::Caller, cargo::Process};
//!
//! // A test binary runs itself in a machine.
//! let executable = std::env::current_exe()?;
//! let process = Process::of(&Caller::look_on()?, &executable);
//! let builder = process.shown.iter().fold(sandbox::Sandbox::builder().directory(&process.root), |b, path| b.shown(path));
//! let sandbox = builder.boot()?;
//! sandbox.command(&executable).current_dir(&process.directory).envs(process.environment).status()?;
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! ```

mod environment;
mod project;

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use crate::caller::Caller;
use crate::spec::Spec;
use crate::view;

/// What of cargo's home a process may need. Its credentials are beside these.
const CARGO_HOME: [&str; 5] = ["bin", "registry", "git", "config.toml", "config"];

/// What of rustup's.
const RUSTUP_HOME: [&str; 3] = ["toolchains", "settings.toml", "update-hashes"];

/// The file by which a target directory is known.
pub(crate) const TARGET_MARK: &str = ".rustc_info.json";

/// A process of cargo's, as data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// The directory of its workspace; or where it starts, if that is elsewhere. To be shown as the current directory is.
    pub root: PathBuf,
    /// The directory it starts in.
    pub directory: PathBuf,
    /// The target directory that its executable is in, if it is in one.
    pub target: Option<PathBuf>,
    /// What else is to be shown, at the same paths. What does not exist, and what nobody may be shown, the view leaves out.
    pub shown: Vec<PathBuf>,
    /// Its environment.
    pub environment: Vec<(OsString, OsString)>,
}

impl Process {
    /// Looks at what cargo has prepared for an executable, started by this caller. A relative path is seen from its directory.
    #[must_use]
    pub fn of(caller: &Caller, executable: &Path) -> Self {
        let executable = caller.directory.join(executable);
        let package = directory(caller, "CARGO_MANIFEST_DIR");
        let workspace = directory(caller, "NEXTEST_WORKSPACE_ROOT").filter(|root| caller.directory.starts_with(root));
        let workspace = workspace.or_else(|| Some(project::root(package.as_deref()?)));
        let root = workspace.clone().filter(|root| caller.directory.starts_with(root));
        let root = root.unwrap_or_else(|| caller.directory.clone());
        let target = executable.ancestors().skip(1).find(|place| place.join(TARGET_MARK).is_file()).map(Path::to_owned);
        let mut shown: Vec<PathBuf> = workspace.into_iter().chain(package).chain(target.clone()).collect();
        let is_empty = view::shown_empty(directory(caller, "HOME").as_deref());
        shown.extend(beside(&executable, &is_empty));
        shown.extend(directory(caller, "OUT_DIR"));
        shown.extend(libraries(caller));
        shown.extend(programs(caller).filter_map(|program| program.parent().map(Path::to_owned)));
        shown.extend(toolchain(caller));
        shown.extend(project::configuration(&root));
        // With the root goes what is in it, unless that is a home, which nobody is shown.
        let empty = is_empty(&root);
        let mut seen = Vec::new();
        shown.retain(|path| {
            let fresh = path.is_absolute() && (empty || !path.starts_with(&root)) && !seen.contains(path);
            seen.push(path.clone());
            fresh
        });
        let environment = environment::of(caller);
        Self { root, directory: caller.directory.clone(), target, shown, environment }
    }

    /// The directories that what it writes may belong to: its workspace, and its target directory if that is elsewhere.
    #[must_use]
    pub fn places(&self) -> Vec<PathBuf> {
        let elsewhere = self.target.iter().filter(|target| !target.starts_with(&self.root));
        [&self.root].into_iter().chain(elsewhere).cloned().collect()
    }

    /// Has a run show all of this.
    pub fn show_in(&self, spec: &mut Spec) {
        spec.sight.current.clone_from(&self.root);
        spec.sight.shown.extend(self.shown.iter().cloned());
    }
}

fn directory(caller: &Caller, name: &str) -> Option<PathBuf> {
    caller.variable(OsStr::new(name)).map(PathBuf::from).filter(|path| path.is_absolute())
}

/// The executable's folder, with what was built for it. One in cargo's `deps` or `examples` has programs and libraries beside
/// that folder; one that lies in a home or in a place of everybody's is alone.
fn beside(executable: &Path, is_empty: impl Fn(&Path) -> bool) -> Option<PathBuf> {
    let folder = executable.parent()?;
    if folder == std::env::temp_dir() || is_empty(folder) {
        return Some(executable.to_owned());
    }
    let grouped = folder.file_name().is_some_and(|name| name == "deps" || name == "examples");
    Some(if grouped { folder.parent()? } else { folder }.to_owned())
}

/// Where the dynamic linker looks for libraries before the system's.
fn libraries(caller: &Caller) -> Vec<PathBuf> {
    caller.variable(OsStr::new(environment::LIBRARIES)).into_iter().flat_map(std::env::split_paths).collect()
}

/// Programs that cargo and nextest name for a test to start.
fn programs(caller: &Caller) -> impl Iterator<Item = PathBuf> {
    let named = caller.environment.iter().filter(|(name, _)| {
        name.to_str().is_some_and(|name| environment::PROGRAMS.iter().any(|family| name.starts_with(family)))
    });
    named.map(|(_, path)| PathBuf::from(path))
}

/// The compiler, cargo, and the sources they have fetched.
fn toolchain(caller: &Caller) -> Vec<PathBuf> {
    let home = directory(caller, "HOME");
    let place = |name, below: &str| directory(caller, name).or_else(|| Some(home.as_ref()?.join(below)));
    let cargo = place("CARGO_HOME", ".cargo").into_iter().flat_map(|place| CARGO_HOME.map(|part| place.join(part)));
    let rustup = place("RUSTUP_HOME", ".rustup").into_iter().flat_map(|place| RUSTUP_HOME.map(|part| place.join(part)));
    // `CARGO` is the cargo that runs, which lies in its toolchain's `bin`.
    let own = directory(caller, "CARGO").and_then(|cargo| Some(cargo.parent()?.parent()?.to_owned()));
    let own = own.filter(|place| place.join("lib/rustlib").is_dir());
    cargo.chain(rustup).chain(own).collect()
}

#[cfg(test)]
mod tests;
