// SPDX-License-Identifier: Apache-2.0
//! What a run is told by files and by the environment: `config.toml` of the user, `sandbox.toml` of the project, `SANDBOX_…`.
//!
//! Each setting is an option of `sandbox run` and becomes its words, which are read before those that were typed; so a flag
//! beats all of them, and a value means here what it means there. A project's file may narrow what a command sees and may use
//! as it likes, and widen it only if it is trusted ([`trust`]).

mod files;
pub(super) mod keys;
pub(super) mod trust;

pub(super) use trust::state;

use std::collections::BTreeMap;
use std::env;
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};

use clap::Parser;

use self::files::{Found, Places};
use self::keys::{KEYS, Setting};
use super::run::Arguments;
use super::{Cli, Verb};

/// Why there is no configuration to go by.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("cannot read {path:?}; --no-config does without it")]
    Read { path: PathBuf, source: io::Error },
    #[error("{place}: {problem}")]
    Wrong { place: String, problem: String },
    #[error(
        "{key} in {path:?} would let the command see or use more; look at that file, and if you agree run: sandbox trust {directory:?}"
    )]
    Untrusted { key: &'static str, path: PathBuf, directory: PathBuf },
    #[error(
        "{path:?} belongs to another user (number {owner}), who could have laid it there for you; look at that file, and if you agree \
         run: sandbox trust {directory:?}; --no-config does without"
    )]
    Stranger { path: PathBuf, owner: u32, directory: PathBuf },
    #[error("cannot {attempt} {path:?}")]
    Store { attempt: &'static str, path: PathBuf, source: io::Error },
    #[error("there is no sandbox.toml in {0:?} or above it")]
    NoProject(PathBuf),
    #[error("neither {0} nor HOME says where to look; set one of them")]
    NoHome(&'static str),
    #[error("cannot find out where we are")]
    Directory(#[source] io::Error),
}

/// What one place has set, for `--explain`.
#[derive(Debug, Clone)]
pub(super) struct Source {
    place: String,
    set: Vec<String>,
}

impl Source {
    /// As people read it.
    pub(super) fn explain(sources: &[Source]) -> String {
        let mut text = String::new();
        for source in sources {
            let set = if source.set.is_empty() { "nothing".to_owned() } else { source.set.join(", ") };
            text.push_str(&format!("  {} sets {set}\n", source.place));
        }
        if text.is_empty() { text } else { format!("\nConfiguration, of which the later counts:\n{text}") }
    }
}

/// Settings by the name of their key.
pub(super) type Settings = BTreeMap<&'static str, Setting>;

/// Adds to what was typed what files and the environment say; or says why that cannot be.
pub(super) fn apply(mut typed: Arguments) -> (Arguments, Option<String>) {
    let variable = |name: &str| env::var_os(name).filter(|value| !value.is_empty());
    let gathered = if typed.no_config { Ok(Vec::new()) } else { files(&variable) }
        .and_then(|files| gather(files, &variable, |found| trust::holds(found, &variable)));
    match gathered {
        Err(error) => (typed, Some(crate::explain(&error))),
        Ok((settings, _)) if settings.is_empty() => {
            typed.words = env::args_os().collect();
            (typed, None)
        }
        Ok((settings, sources)) => match again(env::args_os().collect(), &settings) {
            Ok((mut arguments, words)) => {
                (arguments.sources, arguments.words) = (sources, words);
                arguments.command = typed.command;
                (arguments, None)
            }
            Err(error) => (typed, Some(error)),
        },
    }
}

/// The files there are, the user's first.
fn files(variable: &dyn Fn(&str) -> Option<OsString>) -> Result<Vec<Found>, Error> {
    let directory = match env::current_dir() {
        // One that is gone belongs to no project; who needs it will say so.
        Err(error) if error.kind() == io::ErrorKind::NotFound => PathBuf::from("/"),
        directory => directory.map_err(Error::Directory)?,
    };
    Places::of(variable).find(&directory)
}

/// All that files and environment say, the later over the earlier, and who said what.
fn gather(
    files: Vec<Found>,
    variable: &dyn Fn(&str) -> Option<OsString>,
    trusted: impl Fn(&Found) -> Result<bool, Error>,
) -> Result<(Settings, Vec<Source>), Error> {
    let mut all = Settings::new();
    let mut sources = Vec::new();
    for found in files {
        if let Some(owner) = found.stranger
            && !trusted(&found)?
        {
            return Err(Error::Stranger { owner, directory: found.directory(), path: found.path });
        }
        let own = keys::read(&found)?;
        let mut place = format!("{:?}", found.path);
        if found.project
            && let Some(key) = KEYS.iter().find(|key| keys::widens(key, &own, &all))
        {
            if !trusted(&found)? {
                return Err(Error::Untrusted { key: key.name, directory: found.directory(), path: found.path });
            }
            place.push_str(" (trusted)");
        }
        sources.push(source(place, &own));
        merge(&mut all, own);
    }
    let own = keys::environment(variable)?;
    if !own.is_empty() {
        sources.push(source("the environment".to_owned(), &own));
    }
    merge(&mut all, own);
    Ok((all, sources))
}

/// What the environment says, as options.
pub(crate) fn of_environment() -> Result<Vec<OsString>, String> {
    let settings = keys::environment(&|name: &str| env::var_os(name).filter(|value| !value.is_empty()));
    let settings = settings.map_err(|error| crate::explain(&error))?;
    Ok(words(&settings))
}

/// Settings as options.
pub(super) fn words(settings: &Settings) -> Vec<OsString> {
    settings.values().flat_map(|setting| setting.words.iter().cloned()).collect()
}

fn source(place: String, settings: &Settings) -> Source {
    Source { place, set: settings.iter().map(|(key, setting)| format!("{key} = {}", setting.text)).collect() }
}

/// Lists add up, of anything else the later counts.
pub(super) fn merge(all: &mut Settings, later: Settings) {
    for (key, mut setting) in later {
        if let Some(earlier) = all.get(key) {
            setting.follow(earlier);
        }
        all.insert(key, setting);
    }
}

/// What was typed, read once more behind the words of the settings; and all those words.
fn again(typed: Vec<OsString>, settings: &Settings) -> Result<(Arguments, Vec<OsString>), String> {
    let words = words(settings);
    let mut typed = typed.into_iter();
    // The program and its verb come first.
    let mut all: Vec<OsString> = typed.by_ref().take(2).chain(words).collect();
    all.extend(typed);
    match Cli::try_parse_from(&all).map(|cli| cli.verb) {
        Ok(Verb::Run(arguments) | Verb::Shell(arguments)) => Ok((*arguments, all)),
        Ok(Verb::Runner(arguments)) => Ok((arguments.run, all)),
        Ok(_) => Err("the configuration makes no sense for this".to_owned()),
        Err(error) => Err(format!("what was configured and what was typed do not go together: {error}")),
    }
}

/// An option and its value in one word.
fn word(option: &str, value: &OsStr) -> OsString {
    let mut word = OsString::from(format!("--{option}="));
    word.push(value);
    word
}

/// A path of a file that is set in a file: from that file's directory.
fn from(directory: &Path, path: &Path) -> OsString {
    directory.join(path).into_os_string()
}

#[cfg(test)]
mod tests;
