// SPDX-License-Identifier: Apache-2.0
//! What a test runs, in the words of `sandbox run`: so that each need means what its option means, and a line that repeats the test
//! is at hand.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use crate::caller::Caller;
use crate::cargo::Process;
use crate::cli;
use crate::library;
use crate::outcome::Cause;
use crate::quoting;
use crate::spec::Spec;

/// The variable that says where a package is.
const MANIFEST: &str = "CARGO_MANIFEST_DIR";

/// A command and all that is to be said about its run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// What that comes to.
    pub spec: Spec,
    line: OsString,
}

impl Plan {
    /// From options of `sandbox run` and a command, as if they had been typed in this directory, by a caller without a terminal.
    /// Files of configuration count for nothing, variables (`SANDBOX_ENGINE` and the like) less than the options.
    ///
    /// # Errors
    /// Why that makes no sense.
    pub fn new(options: Vec<OsString>, command: &[OsString], caller: &Caller, directory: &Path) -> Result<Self, Cause> {
        let caller = Caller { directory: directory.to_owned(), terminals: [false; 3], ..caller.clone() };
        let words = words(options, command)?;
        let spec = spec(&words, caller.passed(), &caller)?;
        let typed = ["sandbox", "run"].map(OsString::from).into_iter().chain(words);
        Ok(Self { spec, line: quoting::line(directory.as_os_str(), typed) })
    }

    /// A program that cargo has built, which starts a test of its own in a machine: with these arguments there, and this variable. The
    /// same options, but it sees what [`Process`] says, and the line that repeats it is its own.
    ///
    /// # Errors
    /// Why that makes no sense, or that there is no `sandbox` program.
    pub fn of_cargo(
        options: Vec<OsString>,
        command: &[OsString],
        variable: (&str, &str),
        process: &Process,
        caller: &Caller,
    ) -> Result<Self, Cause> {
        let caller = Caller { terminals: [false; 3], ..caller.clone() };
        let mut spec = spec(&words(options, command)?, process.environment.clone(), &caller)?;
        process.show_in(&mut spec);
        spec.environment.push((variable.0.into(), variable.1.into()));
        spec.program = library::program(None).map_err(|error| Cause::SetupError(crate::explain(&error)))?;
        // By it the program knows its package, which cargo would have told it.
        let package = caller.variable(OsStr::new(MANIFEST)).map(|place| {
            let mut set = OsString::from(MANIFEST);
            set.push("=");
            set.push(place);
            // As an argument, for a shell takes no variable's name with a quote before it.
            [OsString::from("env"), set]
        });
        let words = package.into_iter().flatten().chain(command.iter().cloned());
        Ok(Self { spec, line: quoting::line(process.directory.as_os_str(), words) })
    }

    /// A line for a shell that does the same, with this file as standard input.
    #[must_use]
    pub fn line(&self, input: Option<&Path>) -> OsString {
        let mut line = self.line.clone();
        line.push(" < ");
        line.push(quoting::quoted(input.unwrap_or(Path::new("/dev/null")).as_os_str()));
        line
    }
}

fn words(options: Vec<OsString>, command: &[OsString]) -> Result<Vec<OsString>, Cause> {
    let mut words = vec![OsString::from("--no-config")];
    words.extend(cli::of_environment().map_err(Cause::UsageError)?);
    words.extend(options);
    words.push("--".into());
    words.extend(command.iter().cloned());
    Ok(words)
}

fn spec(words: &[OsString], passed: cli::run::Variables, caller: &Caller) -> Result<Spec, Cause> {
    let spec = cli::run::spec_of(words, passed, caller).map_err(Cause::UsageError)?;
    spec.check().map_err(|error| Cause::UsageError(error.to_string()))?;
    Ok(spec)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_is_the_line_that_repeats_it() {
        let caller = Caller::look_on().expect("this process can be looked at");
        let options = ["--memory=256M", "--user=root"].map(OsString::from).to_vec();
        let plan =
            Plan::new(options, &["echo".into(), "a b".into()], &caller, Path::new("/tmp")).expect("it makes sense");
        assert_eq!((plan.spec.memory, plan.spec.user.uid), (256 << 20, 0));
        assert_eq!(plan.spec.workdir, Path::new("/tmp"));
        let line = plan.line(None).into_string().expect("text");
        assert!(line.starts_with("cd /tmp && sandbox run --no-config "), "{line}");
        assert!(line.ends_with("--memory=256M --user=root -- echo 'a b' < /dev/null"), "{line}");
        let refused = |option: &str| Plan::new(vec![option.into()], &["true".into()], &caller, Path::new("/tmp"));
        assert!(matches!(refused("--memory=1M"), Err(Cause::UsageError(_))));
        assert!(matches!(refused("--bogus"), Err(Cause::UsageError(_))));
    }
}
