// SPDX-License-Identifier: Apache-2.0
//! What a test in a machine needs, as data, and where such tests are registered.
//!
//! Registered by the linker (the crate inventory), so that a test stands in one place: its own.

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

/// A test without bounds would hang a suite, or fill the disk with its output.
const BOUNDS: [&str; 2] = ["--timeout=5m", "--output-limit=64M"];

/// The machine that a test wants. Each function is a word of the attribute, with what it takes behind `=`:
/// `#[harness::test(memory = "512M", cpus = 2, root)]`. What is not said is as with `sandbox run`, whose options these are; but a test
/// ends after 5 minutes, or with more than 64 MiB of output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Machine {
    memory: Option<&'static str>,
    cpus: Option<u32>,
    timeout: Option<&'static str>,
    root: bool,
    files: &'static [&'static str],
    env: &'static [&'static str],
}

impl Machine {
    /// As `sandbox run` has it unless told otherwise.
    #[expect(clippy::new_without_default, reason = "what a default does not do is to be const")]
    #[must_use]
    pub const fn new() -> Self {
        Self { memory: None, cpus: None, timeout: None, root: false, files: &[], env: &[] }
    }

    /// Its memory: `memory = "512M"`.
    #[must_use]
    pub const fn memory(self, size: &'static str) -> Self {
        Self { memory: Some(size), ..self }
    }

    /// Its processors: `cpus = 2`.
    #[must_use]
    pub const fn cpus(self, count: u32) -> Self {
        Self { cpus: Some(count), ..self }
    }

    /// When the test is killed: `timeout = "90s"`.
    #[must_use]
    pub const fn timeout(self, duration: &'static str) -> Self {
        Self { timeout: Some(duration), ..self }
    }

    /// That the test is root there: `root`. Otherwise it is who its user is.
    #[must_use]
    pub const fn root(self) -> Self {
        Self { root: true, ..self }
    }

    /// What it sees of the host, read-only and at the same paths, beside what every test sees: `files = ["/srv/data"]`. A relative path is
    /// from the package's directory.
    #[must_use]
    pub const fn files(self, paths: &'static [&'static str]) -> Self {
        Self { files: paths, ..self }
    }

    /// Variables it gets: `env = ["NAME=VALUE", "NAME"]`.
    #[must_use]
    pub const fn env(self, variables: &'static [&'static str]) -> Self {
        Self { env: variables, ..self }
    }

    /// As options of `sandbox run`, for a caller in this directory.
    pub(crate) fn options(&self, directory: &Path) -> Vec<OsString> {
        let mut options: Vec<OsString> = BOUNDS.map(OsString::from).to_vec();
        options.extend(self.memory.map(|size| format!("--memory={size}").into()));
        options.extend(self.cpus.map(|count| format!("--cpus={count}").into()));
        options.extend(self.timeout.map(|duration| format!("--timeout={duration}").into()));
        options.extend(self.root.then(|| "--user=root".into()));
        options.extend(self.env.iter().map(|variable| format!("--env={variable}").into()));
        options.extend(self.files.iter().map(|path| {
            let path = directory.join(path);
            let mut option = OsString::from("--volume=");
            option.push(&path);
            option.push(":");
            option.push(&path);
            option.push(":ro");
            option
        }));
        options
    }
}

/// A test in a machine, as the attribute registers it.
#[doc(hidden)]
#[derive(Debug)]
pub struct Registered {
    module: &'static str,
    function: &'static str,
    pub(crate) machine: Machine,
    pub(crate) ignored: Option<&'static str>,
    pub(crate) body: fn() -> ExitCode,
}

inventory::collect!(Registered);

impl Registered {
    #[must_use]
    pub const fn new(
        module: &'static str,
        function: &'static str,
        machine: Machine,
        ignored: Option<&'static str>,
        body: fn() -> ExitCode,
    ) -> Self {
        Self { module, function, machine, ignored, body }
    }

    /// All of this program, by name.
    pub(crate) fn all() -> Vec<&'static Self> {
        let mut all: Vec<_> = inventory::iter::<Self>().collect();
        all.sort_by_key(|test| test.name());
        all
    }

    /// Its module without the crate, as `cargo test` has it, and its function.
    pub(crate) fn name(&self) -> String {
        match self.module.split_once("::") {
            Some((_, module)) => format!("{module}::{}", self.function),
            None => self.function.to_owned(),
        }
    }

    /// The crate it is in.
    pub(crate) fn suite(&self) -> &'static str {
        self.module.split("::").next().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WANTED: Machine =
        Machine::new().memory("512M").cpus(2).timeout("9s").root().files(&["data", "/srv"]).env(&["A=b c"]);

    #[test]
    fn needs_are_options() {
        let options = |machine: Machine| -> Vec<String> {
            machine.options(Path::new("/p")).into_iter().map(|option| option.into_string().expect("text")).collect()
        };
        assert_eq!(options(Machine::new()), BOUNDS);
        let own = ["--memory=512M", "--cpus=2", "--timeout=9s", "--user=root", "--env=A=b c"];
        let files = ["--volume=/p/data:/p/data:ro", "--volume=/srv:/srv:ro"];
        assert_eq!(options(WANTED), [&BOUNDS[..], &own, &files].concat());
    }

    #[test]
    fn names_are_those_of_cargo() {
        let registered = |module| Registered::new(module, "works", Machine::new(), None, || ExitCode::SUCCESS);
        assert_eq!(registered("suite").name(), "works");
        assert_eq!(registered("suite::deep::er").name(), "deep::er::works");
        assert_eq!(registered("suite::deep::er").suite(), "suite");
    }
}
