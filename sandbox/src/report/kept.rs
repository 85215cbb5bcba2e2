// SPDX-License-Identifier: Apache-2.0
//! Reports that are kept in a directory, one file for each run, with the name of the test that it was: under nextest each attempt of
//! each test is one. Not for what is made of them: [`crate::junit`].

use std::env;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::Report;

/// The directory.
pub const VARIABLE: &str = "SANDBOX_REPORTS";

/// Most letters of a test's name in a file's: so many fit with all else.
const LETTERS: usize = 120;

/// Which test a run was, as nextest calls it (nextest, "Environment variables set for tests").
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Test {
    /// The run of the whole suite.
    pub run: Option<String>,
    /// The test's program.
    pub binary: String,
    /// Its name in that.
    pub name: String,
    /// Which attempt it was; the first is 1.
    pub attempt: u32,
}

impl Test {
    /// The one that this process was started for, given how variables are looked up.
    fn of(variable: impl Fn(&str) -> Option<String>) -> Option<Self> {
        Some(Self {
            run: variable("NEXTEST_RUN_ID"),
            binary: variable("NEXTEST_BINARY_ID")?,
            name: variable("NEXTEST_TEST_NAME")?,
            attempt: variable("NEXTEST_ATTEMPT").and_then(|text| text.parse().ok()).unwrap_or(1),
        })
    }
}

/// What is kept of a run.
#[derive(Debug, Serialize)]
struct Written<'a> {
    test: Option<&'a Test>,
    #[serde(flatten)]
    report: &'a Report,
}

/// What is read of it again.
#[derive(Debug, Clone, Deserialize)]
pub struct Kept {
    /// Which test it was, if it was one.
    pub test: Option<Test>,
    /// What the run's end says of it.
    pub verdict: String,
    /// How it ended.
    pub cause: String,
    /// The same in a sentence.
    pub detail: Option<String>,
}

/// Why reports cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A directory or file.
    #[error("cannot read {}", .0.display())]
    Read(PathBuf, #[source] io::Error),
    /// Not one of ours.
    #[error("{} is no report of a run", .0.display())]
    Foreign(PathBuf, #[source] serde_json::Error),
}

/// Keeps a report where the environment says, if it does. Of a test that nextest has started it is only if the run `is_test`: what a
/// test itself runs, on the host, is not the test. Nor is nextest's asking for a list.
///
/// # Errors
/// If it cannot be written; which file.
pub fn keep(report: &Report, is_test: bool) -> Result<(), (PathBuf, io::Error)> {
    let Some(directory) = env::var_os(VARIABLE).filter(|path| !path.is_empty()).map(PathBuf::from) else {
        return Ok(());
    };
    let test = if is_test { Test::of(|name| env::var(name).ok()) } else { None };
    if is_test && test.is_none() && env::var_os("NEXTEST").is_some() {
        return Ok(());
    }
    let path = directory.join(name(test.as_ref()));
    write(&path, &Written { test: test.as_ref(), report }).map_err(|error| (path, error))
}

/// A name of its own for each attempt of each test, that people can read.
fn name(test: Option<&Test>) -> String {
    let Some(test) = test else {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        return format!("run-{}-{}.json", since.as_nanos(), std::process::id());
    };
    let mut digest = DefaultHasher::new();
    test.hash(&mut digest);
    let plain = |letter: char| if letter.is_ascii_alphanumeric() { letter } else { '-' };
    let readable: String = test.binary.chars().chain(['-']).chain(test.name.chars()).map(plain).take(LETTERS).collect();
    format!("{readable}-{}-{:016x}.json", test.attempt, digest.finish())
}

/// Whole, or not at all: who is killed here leaves nothing that looks like a report.
fn write(path: &Path, report: &Written<'_>) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(directory)?;
    let mut file = tempfile::NamedTempFile::new_in(directory)?;
    file.write_all(&serde_json::to_vec_pretty(report)?)?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}

/// All that is kept in a directory.
///
/// # Errors
/// What cannot be read.
pub fn read(directory: &Path) -> Result<Vec<Kept>, Error> {
    let listed = fs::read_dir(directory).map_err(|error| Error::Read(directory.to_owned(), error))?;
    let mut found = Vec::new();
    for entry in listed {
        let path = entry.map_err(|error| Error::Read(directory.to_owned(), error))?.path();
        if path.extension().is_some_and(|extension| extension == "json") {
            let text = fs::read(&path).map_err(|error| Error::Read(path.clone(), error))?;
            found.push(serde_json::from_slice(&text).map_err(|error| Error::Foreign(path, error))?);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::Cause;
    use crate::run::Outcome;
    use crate::stages::Stages;

    fn test(name: &str, attempt: u32) -> Test {
        Test { run: None, binary: "pkg::bin".to_owned(), name: name.to_owned(), attempt }
    }

    #[test]
    fn a_test_goes_by_what_nextest_calls_it() {
        let set = |name: &str| match name {
            "NEXTEST_BINARY_ID" => Some("pkg::bin".to_owned()),
            "NEXTEST_TEST_NAME" => Some("a::b".to_owned()),
            "NEXTEST_ATTEMPT" => Some("2".to_owned()),
            _ => None,
        };
        assert_eq!(Test::of(set), Some(test("a::b", 2)));
        assert_eq!(Test::of(|_| None), None);
    }

    #[test]
    fn each_attempt_has_a_file_of_its_own() {
        let long = "x".repeat(1000);
        let tests = [test("a::b", 1), test("a::b", 2), test("a/b", 1), test(&long, 1), test(&(long.clone() + "y"), 1)];
        let names: std::collections::BTreeSet<String> = tests.iter().map(|test| name(Some(test))).collect();
        assert_eq!(names.len(), tests.len());
        assert!(names.iter().all(|name| name.len() < 200 && !name.contains('/')), "{names:?}");
    }

    #[test]
    fn what_is_kept_can_be_read_again() {
        let place = tempfile::tempdir().unwrap();
        let outcome = Outcome::refused(Cause::BootTimeout, Stages::begin());
        let report = Report::new(&outcome, None);
        write(&place.path().join("new/a.json"), &Written { test: Some(&test("a", 1)), report: &report }).unwrap();
        let kept = read(&place.path().join("new")).unwrap();
        assert_eq!((kept.len(), &*kept[0].verdict, &*kept[0].cause), (1, "infrastructure", "boot_timeout"));
        assert_eq!(kept[0].test, Some(test("a", 1)));
        fs::write(place.path().join("new/b.json"), "{}").unwrap();
        assert!(matches!(read(&place.path().join("new")), Err(Error::Foreign(..))));
    }
}
