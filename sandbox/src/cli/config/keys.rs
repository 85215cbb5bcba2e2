// SPDX-License-Identifier: Apache-2.0
//! What can be set, what a value of it means, and whether that gives a command more than it had.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use clap::ValueEnum;
use toml::{Table, Value};

use super::files::Found;
use super::{Error, Settings, from, word};
use crate::cli::{limits, parse, results};
use crate::spec::{Choice, Glob, MEMORY_DEFAULT};

/// Something that can be set.
pub(super) struct Key {
    /// Its name in a file; in the environment the same in capitals, behind `SANDBOX_`.
    pub(super) name: &'static str,
    /// The option it stands for.
    option: &'static str,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Size,
    Duration,
    Count,
    Engine,
    /// Whether it is set; the option is given if it is `given`; `narrow` gives a command less than its opposite.
    Flag {
        given: bool,
        narrow: Option<bool>,
    },
    /// One of these; whatever comes later in the list gives a command more, if there is an order.
    Words {
        words: &'static [Choosable],
        ordered: bool,
    },
    /// A path of the host's.
    Path,
    Volumes,
    Variables,
    Ulimits,
    Tmpfs,
    Copies,
    Commits,
    Globs,
}

/// A word that can be chosen, and the option that it stands for; none if it is what is so anyway.
type Choosable = (&'static str, Option<&'static str>);

const KEEP: &[Choosable] =
    &[("never", Some("keep=never")), ("on-failure", Some("keep=on-failure")), ("always", Some("keep=always"))];
const TERMINAL: &[Choosable] = &[("auto", None), ("always", Some("tty")), ("never", Some("no-tty"))];

const fn key(name: &'static str, option: &'static str, kind: Kind) -> Key {
    Key { name, option, kind }
}

/// All there is.
pub(super) static KEYS: [Key; 26] = [
    key("boot", "boot", Kind::Flag { given: true, narrow: None }),
    key("commit", "commit", Kind::Commits),
    key("copy_out", "copy-out", Kind::Copies),
    key("cpus", "cpus", Kind::Count),
    key("diff", "diff", Kind::Flag { given: true, narrow: None }),
    key("disk_size", "disk-size", Kind::Size),
    key("engine", "engine", Kind::Engine),
    key("env", "env", Kind::Variables),
    key("home_tools", "no-home-tools", Kind::Flag { given: false, narrow: Some(false) }),
    key("keep", "keep", Kind::Words { words: KEEP, ordered: true }),
    key("keep_dir", "keep-dir", Kind::Path),
    key("kill_after", "kill-after", Kind::Duration),
    key("memory", "memory", Kind::Size),
    key("nested", "nested", Kind::Flag { given: true, narrow: Some(false) }),
    key("output_limit", "output-limit", Kind::Size),
    key("pids_limit", "pids-limit", Kind::Count),
    key("require_kvm", "require-kvm", Kind::Flag { given: true, narrow: Some(true) }),
    key("retries", "retries", Kind::Count),
    key("shm_size", "shm-size", Kind::Size),
    key("sync_out", "sync-out", Kind::Globs),
    key("terminal", "tty", Kind::Words { words: TERMINAL, ordered: false }),
    key("timeout", "timeout", Kind::Duration),
    key("tmpfs", "tmpfs", Kind::Tmpfs),
    key("ulimits", "ulimit", Kind::Ulimits),
    key("usage", "usage", Kind::Flag { given: true, narrow: None }),
    key("volumes", "volume", Kind::Volumes),
];

/// Those that can be lifted, by the value "none".
const LIFTED: [&str; 3] = ["output_limit", "pids_limit", "timeout"];
const NONE: &str = "none";

/// What a key was set to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::cli) struct Setting {
    /// As it was written.
    pub(super) text: String,
    /// The options it stands for.
    pub(super) words: Vec<OsString>,
    meaning: Meaning,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Meaning {
    /// Bytes, nanoseconds or pieces; `None` is no limit.
    Limit(Option<u128>),
    Flag(bool),
    Engine(String),
    /// A word by its place in the list.
    Word(usize),
    Path,
    List,
}

impl Setting {
    /// Comes after another of the same key.
    pub(super) fn follow(&mut self, earlier: &Setting) {
        if self.meaning == Meaning::List {
            self.words.splice(0..0, earlier.words.iter().cloned());
        }
    }
}

/// What a file sets.
pub(super) fn read(found: &Found) -> Result<Settings, Error> {
    let wrong = |line: Option<usize>, problem: String| {
        let line = line.map(|line| format!(", line {line}")).unwrap_or_default();
        Error::Wrong { place: format!("{:?}{line}", found.path), problem }
    };
    let table: Table = found.text.parse().map_err(|error: toml::de::Error| {
        let before = error.span().and_then(|span| found.text.get(..span.start));
        let line = before.map(|before| before.matches('\n').count() + 1);
        wrong(line, error.message().escape_debug().to_string())
    })?;
    let mut settings = Settings::new();
    for (name, value) in &table {
        let set = set(&mut settings, name, value, &found.directory());
        if !set.map_err(|problem| wrong(None, problem))? {
            return Err(wrong(None, unknown(name, names())));
        }
    }
    Ok(settings)
}

/// Sets what a file in this directory sets; whether there is such a key.
pub(in crate::cli) fn set(
    settings: &mut Settings,
    name: &str,
    value: &Value,
    directory: &Path,
) -> Result<bool, String> {
    let Some(key) = KEYS.iter().find(|key| key.name == name) else { return Ok(false) };
    let setting = setting(key, value, directory).map_err(|problem| format!("{name}: {problem}"))?;
    settings.insert(key.name, setting);
    Ok(true)
}

/// Their names.
pub(in crate::cli) fn names() -> impl Iterator<Item = &'static str> {
    KEYS.iter().map(|key| key.name)
}

/// What the environment sets. Lists are for files.
pub(super) fn environment(variable: &dyn Fn(&str) -> Option<OsString>) -> Result<Settings, Error> {
    let mut settings = Settings::new();
    for key in &KEYS {
        let name = format!("SANDBOX_{}", key.name.to_ascii_uppercase());
        let Some(text) = variable(&name).filter(|_| !key.is_list()) else { continue };
        let text = text.to_string_lossy().into_owned();
        let value = match (key.kind, text.as_str()) {
            (Kind::Flag { .. }, "1" | "true") => Value::Boolean(true),
            (Kind::Flag { .. }, "0" | "false") => Value::Boolean(false),
            (Kind::Count, digits) => digits.parse().map_or(Value::String(text), Value::Integer),
            _ => Value::String(text),
        };
        let setting = setting(key, &value, Path::new(""));
        settings.insert(key.name, setting.map_err(|problem| Error::Wrong { place: name, problem })?);
    }
    Ok(settings)
}

/// Whether these settings of a key give a command more than it has without them.
pub(super) fn widens(key: &Key, own: &Settings, before: &Settings) -> bool {
    let Some(setting) = own.get(key.name) else { return false };
    let earlier = before.get(key.name).map(|setting| &setting.meaning);
    match (&setting.meaning, key.kind) {
        (Meaning::Limit(limit), _) => {
            let had = match earlier {
                Some(Meaning::Limit(had)) => *had,
                _ => default(key, own, before),
            };
            had.is_some_and(|had| limit.is_none_or(|limit| limit > had))
        }
        (Meaning::Flag(set), Kind::Flag { given, narrow }) => {
            let had = if let Some(Meaning::Flag(had)) = earlier { *had } else { !given };
            narrow.is_some_and(|narrow| *set != narrow) && *set != had
        }
        (Meaning::Engine(engine), _) => {
            let had = if let Some(Meaning::Engine(had)) = earlier { had.as_str() } else { "auto" };
            engine != "kvm" && engine != had
        }
        (Meaning::Word(place), Kind::Words { ordered, .. }) => {
            let had = if let Some(Meaning::Word(had)) = earlier { *had } else { 0 };
            ordered && *place > had
        }
        _ => !setting.words.is_empty(),
    }
}

/// The limit that holds if nobody sets another.
fn default(key: &Key, own: &Settings, before: &Settings) -> Option<u128> {
    match key.name {
        "memory" => Some(u128::from(MEMORY_DEFAULT)),
        "cpus" => Some(1),
        // Without it no time passes between the time limit and the end, or there is one attempt.
        "kill_after" | "retries" => Some(0),
        "disk_size" | "shm_size" => {
            let memory = own.get("memory").or_else(|| before.get("memory")).map(|setting| &setting.meaning);
            let Some(Meaning::Limit(Some(memory))) = memory else { return Some(u128::from(MEMORY_DEFAULT / 2)) };
            Some(memory / 2)
        }
        _ => None,
    }
}

impl Key {
    fn is_list(&self) -> bool {
        use Kind::{Commits, Copies, Globs, Tmpfs, Ulimits, Variables, Volumes};
        matches!(self.kind, Volumes | Variables | Ulimits | Tmpfs | Copies | Commits | Globs)
    }
}

fn setting(key: &Key, value: &Value, directory: &Path) -> Result<Setting, String> {
    let option = |text: &str| vec![word(key.option, OsStr::new(text))];
    let (text, words, meaning) = match (key.kind, value) {
        (Kind::Flag { given, .. }, Value::Boolean(set)) => {
            let words = if *set == given { vec![OsString::from(format!("--{}", key.option))] } else { Vec::new() };
            (set.to_string(), words, Meaning::Flag(*set))
        }
        (Kind::Flag { .. }, _) => return Err("write true or false".to_owned()),
        (Kind::Size | Kind::Duration | Kind::Count, Value::String(text))
            if text == NONE && LIFTED.contains(&key.name) =>
        {
            (quoted(text), Vec::new(), Meaning::Limit(None))
        }
        (Kind::Size, Value::String(text)) => (quoted(text), option(text), limit(parse::size(text)?)),
        (Kind::Size | Kind::Count, Value::Integer(number)) => {
            let number = u64::try_from(*number).map_err(|error| format!("{number}: {error}"))?;
            (number.to_string(), option(&number.to_string()), limit(number))
        }
        (Kind::Size, _) => return Err("write a size, as \"512M\"".to_owned()),
        (Kind::Count, _) => return Err("write a number, as 2".to_owned()),
        (Kind::Duration, Value::String(text)) => {
            let time = parse::duration(text)?;
            (quoted(text), option(text), Meaning::Limit(Some(time.as_nanos())))
        }
        (Kind::Duration, _) => return Err("write a time, as \"90s\" or \"1.5h\"".to_owned()),
        (Kind::Engine, Value::String(text)) => {
            let name = Choice::from_str(text, false)?;
            (quoted(text), option(text), Meaning::Engine(format!("{name:?}").to_lowercase()))
        }
        (Kind::Engine, _) => return Err("write \"auto\", \"kvm\" or \"qemu\"".to_owned()),
        (Kind::Words { words, .. }, value) => return chosen(words, value),
        (Kind::Path, Value::String(text)) if !text.is_empty() => {
            (quoted(text), vec![word(key.option, &from(directory, Path::new(text)))], Meaning::Path)
        }
        (Kind::Path, _) => return Err("write a path, as \"kept\"".to_owned()),
        (_, Value::Array(entries)) => {
            let entries: Option<Vec<&str>> = entries.iter().map(Value::as_str).collect();
            let entries = entries.ok_or("write a list of texts, as [\"…\", \"…\"]")?;
            let words: Result<_, String> = entries.iter().map(|entry| listed(key, entry, directory)).collect();
            let text: Vec<String> = entries.iter().map(|entry| shown(key, entry)).collect();
            (format!("[{}]", text.join(", ")), words?, Meaning::List)
        }
        _ => return Err("write a list, as [\"…\"]".to_owned()),
    };
    Ok(Setting { text, words, meaning })
}

/// A word of a list.
fn chosen(words: &[Choosable], value: &Value) -> Result<Setting, String> {
    let place = value.as_str().and_then(|text| words.iter().position(|(own, _)| *own == text));
    let Some((place, (text, option))) = place.and_then(|place| Some((place, words.get(place)?))) else {
        let all: Vec<String> = words.iter().map(|(own, _)| quoted(own)).collect();
        return Err(format!("write one of {}", all.join(", ")));
    };
    let words = option.map(|option| OsString::from(format!("--{option}"))).into_iter().collect();
    Ok(Setting { text: quoted(text), words, meaning: Meaning::Word(place) })
}

fn limit(number: u64) -> Meaning {
    Meaning::Limit(Some(u128::from(number)))
}

/// One entry of a list as an option.
fn listed(key: &Key, entry: &str, directory: &Path) -> Result<OsString, String> {
    match key.kind {
        Kind::Volumes => {
            let volume = parse::volume(OsStr::new(entry))?;
            // In a file, relative to the file.
            let mut text = from(directory, &volume.source);
            text.push(":");
            text.push(&volume.target);
            text.push(if volume.read_only { ":ro" } else { ":rw" });
            parse::volume(&text)?;
            return Ok(word(key.option, &text));
        }
        Kind::Ulimits => {
            limits::ulimit(entry)?;
        }
        Kind::Tmpfs => {
            limits::tmpfs(OsStr::new(entry))?;
        }
        Kind::Copies => {
            let copy = results::copy(OsStr::new(entry))?;
            let mut text = copy.guest.into_os_string();
            text.push(":");
            text.push(from(directory, &copy.host));
            return Ok(word(key.option, &text));
        }
        // From the current directory, as with the option: there is no other place for it.
        Kind::Commits if Path::new(entry).is_absolute() || entry.is_empty() => {
            return Err("write a path below the current directory".to_owned());
        }
        Kind::Commits => {}
        Kind::Globs => {
            Glob::parse(entry)?;
        }
        _ if entry.is_empty() || entry.starts_with('=') => return Err("write it as NAME=VALUE, or as NAME".to_owned()),
        _ => {}
    }
    Ok(word(key.option, OsStr::new(entry)))
}

/// An entry for people: of a variable the name alone, for its value may be a secret.
fn shown(key: &Key, entry: &str) -> String {
    let name = entry.split('=').next().unwrap_or_default();
    quoted(if key.kind == Kind::Variables { name } else { entry })
}

fn quoted(text: &str) -> String {
    format!("{text:?}")
}

/// Says which key was meant, if one of these is near.
pub(in crate::cli) fn unknown<'a>(name: &str, keys: impl IntoIterator<Item = &'a str>) -> String {
    let keys: Vec<&str> = keys.into_iter().collect();
    let near = keys.iter().map(|key| (strsim::jaro_winkler(&name.replace('-', "_"), key), key));
    let best = near.max_by(|one, other| one.0.total_cmp(&other.0)).filter(|(nearness, _)| *nearness > 0.75);
    match best {
        Some((_, near)) => format!("there is no key {name:?}; {near} is one"),
        None => format!("there is no key {name:?}; there are {}", keys.join(", ")),
    }
}
