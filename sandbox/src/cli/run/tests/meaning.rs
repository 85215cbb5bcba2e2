// SPDX-License-Identifier: Apache-2.0
//! A thousand command lines, each read twice: by our parser, and by a small reader of the rules as `sandbox run --help` has
//! them, which knows nothing of the other.

use std::cell::Cell;
use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{Config, TestRunner};

use super::*;

/// What a command line means.
#[derive(Debug, Default, PartialEq)]
struct Meaning {
    command: Vec<String>,
    /// Options that take a value, of which the last counts, as numbers in bytes, milliseconds or just so.
    numbers: BTreeMap<&'static str, u128>,
    /// Those whose value is no number.
    texts: BTreeMap<&'static str, String>,
    flags: BTreeMap<&'static str, bool>,
    /// Source, target, read-only.
    volumes: Vec<(String, String, bool)>,
    environment: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Takes {
    Nothing,
    Size,
    Duration,
    Count,
    Text,
    Volume,
    Variable,
}

const OPTIONS: [(&str, char, Takes); 22] = [
    ("memory", 'm', Takes::Size),
    ("output-limit", ' ', Takes::Size),
    ("disk-size", ' ', Takes::Size),
    ("shm-size", ' ', Takes::Size),
    ("timeout", ' ', Takes::Duration),
    ("cpus", ' ', Takes::Count),
    ("pids-limit", ' ', Takes::Count),
    ("retries", ' ', Takes::Count),
    ("workdir", 'w', Takes::Text),
    ("engine", ' ', Takes::Text),
    ("report", ' ', Takes::Text),
    ("volume", 'v', Takes::Volume),
    ("env", 'e', Takes::Variable),
    ("interactive", 'i', Takes::Nothing),
    ("rm", ' ', Takes::Nothing),
    ("no-home-tools", ' ', Takes::Nothing),
    ("require-kvm", ' ', Takes::Nothing),
    ("boot", ' ', Takes::Nothing),
    ("explain", ' ', Takes::Nothing),
    ("timings", ' ', Takes::Nothing),
    ("usage", ' ', Takes::Nothing),
    ("nested", ' ', Takes::Nothing),
];

/// The documented rules; `None` is a refusal.
fn documented(words: &[String]) -> Option<Meaning> {
    let mut meaning = Meaning::default();
    for (name, value) in [("PATH", "/bin"), ("HOME", "/home/me"), ("PWD", "/work")] {
        meaning.environment.insert(name.into(), value.into());
    }
    let mut rest = words.iter();
    while let Some(word) = rest.clone().next() {
        if !word.starts_with('-') || word == "-" {
            break;
        }
        rest.next();
        if word == "--" {
            break;
        }
        let mut next = || rest.next().filter(|value| !value.starts_with('-') || *value == "-").cloned();
        if let Some(long) = word.strip_prefix("--") {
            let (name, joined) = match long.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (long, None),
            };
            let (name, _, takes) = *OPTIONS.iter().find(|(own, ..)| *own == name)?;
            match (takes, joined) {
                (Takes::Nothing, Some(_)) => return None,
                (Takes::Nothing, None) => {
                    meaning.flags.insert(name, true);
                }
                (_, Some(value)) => meaning.take(name, takes, &value)?,
                (_, None) => meaning.take(name, takes, &next()?)?,
            }
            continue;
        }
        let mut letters = word.chars().skip(1);
        while let Some(letter) = letters.next() {
            let (name, _, takes) = *OPTIONS.iter().find(|(_, own, _)| *own == letter)?;
            if takes == Takes::Nothing {
                meaning.flags.insert(name, true);
                continue;
            }
            let joined: String = letters.by_ref().collect();
            let value = if joined.is_empty() { next()? } else { joined.strip_prefix('=').unwrap_or(&joined).into() };
            meaning.take(name, takes, &value)?;
        }
    }
    meaning.command = rest.cloned().collect();
    // No variable that is generated has this name; a directory that is given stays.
    if let Some(directory) = meaning.texts.get("workdir") {
        meaning.environment.insert("PWD".into(), directory.clone());
    }
    // What is the default anyway cannot be told from nothing.
    meaning.numbers.retain(|name, value| (*name, *value) != ("memory", 1 << 30));
    (!meaning.command.is_empty()).then_some(meaning)
}

impl Meaning {
    fn take(&mut self, name: &'static str, takes: Takes, value: &str) -> Option<()> {
        match takes {
            Takes::Nothing => return None,
            Takes::Size => {
                self.numbers.insert(name, bytes(value)?);
            }
            Takes::Duration => {
                self.numbers.insert(name, milliseconds(value)?);
            }
            Takes::Count => {
                self.numbers.insert(name, value.parse().ok().filter(|count| *count > 0)?);
            }
            Takes::Text if name == "engine" && !["auto", "kvm", "qemu"].contains(&value) => return None,
            Takes::Text if value.is_empty() => return None,
            Takes::Text => {
                self.texts.insert(name, value.into());
            }
            Takes::Volume => {
                let mut parts: Vec<&str> = value.split(':').collect();
                let read_only = parts.len() == 3 && parts[2] == "ro";
                if read_only {
                    parts.pop();
                }
                let [source, target] = parts[..] else { return None };
                let source = if source.starts_with('/') { source.into() } else { format!("/work/{source}") };
                self.volumes.push((source, target.into(), read_only));
            }
            Takes::Variable => match value.split_once('=') {
                Some((variable, value)) => {
                    self.environment.insert(variable.into(), value.into());
                }
                None if value == "SECRET" => {
                    self.environment.insert("SECRET".into(), "s".into());
                }
                None if value == "HOME" => {
                    self.environment.insert("HOME".into(), "/home/me".into());
                }
                None => {
                    self.environment.remove(value);
                }
            },
        }
        Some(())
    }
}

fn bytes(text: &str) -> Option<u128> {
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let power = match text[digits.len()..].to_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 1,
        "m" | "mb" | "mib" => 2,
        "g" | "gb" | "gib" => 3,
        "t" | "tb" | "tib" => 4,
        _ => return None,
    };
    Some(digits.parse::<u128>().ok()? * 1024_u128.pow(power))
}

fn milliseconds(text: &str) -> Option<u128> {
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "ms" => 1,
        "" | "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    let (whole, part) = digits.split_once('.').unwrap_or((digits, "0"));
    // One digit behind the point is what is generated.
    Some(whole.parse::<u128>().ok()? * unit + part.parse::<u128>().ok()? * unit / 10)
}

/// What our parser makes of it, in the same terms.
fn ours(words: &[String]) -> Option<Meaning> {
    let all = ["sandbox", "run"].into_iter().map(String::from).chain(words.iter().cloned());
    let Verb::Run(arguments) = Cli::try_parse_from(all).ok()?.verb else { panic!("not run") };
    let spec = arguments.spec(&caller()).ok()?;
    let text = |path: &Path| path.to_str().expect("text").to_owned();
    let numbers = [
        ("memory", (spec.memory != MEMORY_DEFAULT).then_some(u128::from(spec.memory))),
        ("output-limit", spec.output_limit.map(u128::from)),
        ("disk-size", spec.limits.private.map(u128::from)),
        ("shm-size", spec.limits.shm.map(u128::from)),
        ("timeout", spec.timeout.map(|time| (time.as_micros() + 500) / 1000)),
        ("cpus", (spec.cpus != 1).then_some(u128::from(spec.cpus))),
        ("retries", (spec.retries != 0).then_some(u128::from(spec.retries))),
        ("pids-limit", spec.limits.processes.map(u128::from)),
    ];
    let engine = match spec.engine {
        Choice::Auto => None,
        Choice::Kvm => Some("kvm".to_owned()),
        Choice::Qemu => Some("qemu".to_owned()),
    };
    let texts = [
        ("workdir", (spec.workdir != Path::new("/work")).then(|| text(&spec.workdir))),
        ("engine", engine),
        ("report", arguments.report.as_deref().map(text)),
    ];
    let flags = [
        ("interactive", arguments.interactive),
        ("rm", arguments.rm),
        ("no-home-tools", !spec.sight.home_tools),
        ("require-kvm", spec.require_kvm),
        ("boot", spec.boot),
        ("explain", arguments.explain),
        ("timings", arguments.timings),
        ("usage", arguments.usage),
        ("nested", spec.nested.is_some()),
    ];
    let volume = |volume: &Volume| (text(&volume.source), text(&volume.target), volume.read_only);
    let string = |text: &OsString| text.to_str().expect("text").to_owned();
    Some(Meaning {
        command: spec.command.iter().map(string).collect(),
        numbers: numbers.into_iter().filter_map(|(name, value)| Some((name, value?))).collect(),
        texts: texts.into_iter().filter_map(|(name, value)| Some((name, value?))).collect(),
        flags: flags.into_iter().filter(|(_, set)| *set).collect(),
        volumes: spec.sight.volumes.iter().map(volume).collect(),
        environment: spec.environment.iter().map(|(name, value)| (string(name), string(value))).collect(),
    })
}

/// Values for what an option takes. Memory is in whole MiB, which is what it is rounded to.
fn value(takes: Takes) -> BoxedStrategy<String> {
    let sizes = || select(&["k", "K", "kb", "KiB", "m", "M", "MiB", "g", "G", "gb", "t", "Tib"][..]);
    match takes {
        Takes::Nothing => Just(String::new()).boxed(),
        Takes::Size => (1_u64..500, sizes()).prop_map(|(count, unit)| format!("{}{unit}", count * 1024)).boxed(),
        Takes::Duration => (1_u64..500, select(&["", ".5", ".2"][..]), select(&["", "ms", "s", "m", "h", "d"][..]))
            .prop_map(|(whole, part, unit)| format!("{whole}{}{unit}", if unit == "ms" { "" } else { part }))
            .boxed(),
        Takes::Count => (2_u32..40).prop_map(|count| count.to_string()).boxed(),
        Takes::Text => select(&["/tmp", "/a b", "kvm", "qemu", "/x=y"][..]).prop_map(String::from).boxed(),
        Takes::Volume => select(&["/a:/b", "/a:/b:ro", "data:/data", "/a b:/=:ro"][..]).prop_map(String::from).boxed(),
        Takes::Variable => select(&["A=1", "A=", "A=b=c", "SECRET", "UNSET", "HOME", "PATH=/x", "A=-m"][..])
            .prop_map(String::from)
            .boxed(),
    }
}

/// What no rule allows, whatever follows.
const WRONG: [&str; 17] = [
    "--bogus",
    "--mem=1G",
    "-Z",
    "--boot=yes",
    "--cpus=many",
    "--cpus=-1",
    "--timeout=soon",
    "-m1X",
    "-m",
    "-iZ",
    "-vx:y:z",
    "--engine=xen",
    "--memory=",
    "--pids-limit=0",
    "--timeout=5 s",
    "-i=1",
    "--disk-size=1.5G",
];

/// One option in any of its forms, now and then one that is wrong.
fn option() -> impl Strategy<Value = Vec<String>> {
    let right = select(&OPTIONS[..]).prop_flat_map(|(long, short, takes)| {
        (value(takes), 0..6).prop_map(move |(value, form)| match (form, takes) {
            (0 | 1, Takes::Nothing) if short != ' ' => vec![format!("-{short}")],
            (_, Takes::Nothing) => vec![format!("--{long}")],
            (0, _) if short != ' ' => vec![format!("-{short}"), value],
            (1, _) if short != ' ' => vec![format!("-{short}{value}")],
            (2, _) if short != ' ' => vec![format!("-{short}={value}")],
            (3, _) if short != ' ' => vec![format!("-i{short}{value}")],
            (4, _) => vec![format!("--{long}"), value],
            _ => vec![format!("--{long}={value}")],
        })
    });
    prop_oneof![30 => right, 1 => select(&WRONG[..]).prop_map(|word| vec![word.to_owned()])]
}

fn line() -> impl Strategy<Value = Vec<String>> {
    let words = select(&["ls", "-l", "--", "--memory", "x=y", "-", "", "-m1G", "run"][..]).prop_map(String::from);
    let command = proptest::collection::vec(words, 0..4);
    (proptest::collection::vec(option(), 0..7), any::<bool>(), command).prop_map(|(options, mark, command)| {
        let mark = mark.then(|| "--".to_owned());
        options.into_iter().flatten().chain(mark).chain(command).collect()
    })
}

#[test]
fn a_thousand_lines_mean_what_the_help_says() {
    let (accepted, refused) = (Cell::new(0), Cell::new(0));
    let config = Config { cases: 1000, failure_persistence: None, ..Config::default() };
    let ran = TestRunner::new(config).run(&line(), |words| {
        let documented = documented(&words);
        let count = if documented.is_some() { &accepted } else { &refused };
        count.set(count.get() + 1);
        prop_assert_eq!(ours(&words), documented);
        Ok(())
    });
    ran.unwrap_or_else(|error| panic!("{error}"));
    assert!(accepted.get() > 200 && refused.get() > 200, "{} accepted, {} refused", accepted.get(), refused.get());
}
