// SPDX-License-Identifier: Apache-2.0
//! The list of tests that nextest asks a program for (nextest, "Custom test harnesses"): two calls for each program before the
//! first test, so what they print is kept.
//!
//! By the digest of the program, its arguments and environment, and of names, sizes and times of what it could make a list from: the
//! files of its package and the shared libraries it may load. Whoever lists from more than that says so (`--listing vm`). Only lists
//! that the program has ended with status 0 are kept; like any other output they are its own word, whoever it runs for.

use std::ffi::{OsStr, OsString};
use std::fs::{self, DirBuilder, File, Metadata};
use std::io::{self, Read, Seek, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::Stages;
use crate::cargo::TARGET_MARK;
use crate::cli::run::{self, Prepared};
use crate::outcome::Cause;
use crate::run::{Outcome, Streams};
use crate::spec::{Keep, Results, Spec};

/// What nextest asks with; what may follow asks for a part of the list.
const QUESTION: [&str; 3] = ["--list", "--format", "terse"];
const PARTS: [&str; 2] = ["--ignored", "--bench"];

/// A longer list is none.
const LONGEST: u64 = 64 << 20;

/// Bytes of the digest that a kept list begins with, and a line's end.
const SEAL: usize = 65;

/// A package of more files is not looked through, and its list not kept.
const FILES_MAX: usize = 10_000;

/// How long a list is kept: the programs of old builds are gone by then.
const KEPT: Duration = Duration::from_secs(30 * 24 * 3600);

/// Variables that differ from one question to the next and name what is asked, or for whom.
const PASSING: [&str; 2] = ["NEXTEST_RUN_ID", "LLVM_PROFILE_FILE"];

/// Where libraries are looked for.
const LIBRARIES: &str = "LD_LIBRARY_PATH";

/// Whether a program is asked for its list. Another that is called with `--list` may mean anything by it.
pub(super) fn is_asked_for(command: &[OsString]) -> bool {
    let words = command.get(1..).unwrap_or_default();
    let (question, parts) = words.split_at(words.len().min(QUESTION.len()));
    question == QUESTION && parts.iter().all(|part| PARTS.iter().any(|known| part == known))
}

/// Sets what holds for such a run: no terminal, nothing that is kept of it, and an end to what it may say.
pub(super) fn limit(spec: &mut Spec) {
    spec.terminal = None;
    spec.results = Results::default();
    spec.keep = Keep::Never;
    spec.output_limit = Some(spec.output_limit.map_or(LONGEST, |limit| limit.min(LONGEST)));
}

/// Runs it, or finds what it said before if `kept` is wanted.
pub(super) fn perform(prepared: &Prepared, kept: bool) -> Outcome {
    let stages = Stages::begin();
    let shelf = if kept { Shelf::of(&prepared.spec) } else { None };
    if let Some(list) = shelf.as_ref().and_then(Shelf::read) {
        let cause = print(&list).map_or_else(|error| cannot("print a list", &error), |()| Cause::Exited(0));
        return Outcome::refused(cause, stages);
    }
    let listed = || -> io::Result<(Outcome, Vec<u8>)> {
        let mut file = tempfile::tempfile()?;
        let streams = Streams {
            stdin: File::open("/dev/null")?.into(),
            stdout: file.try_clone()?.into(),
            stderr: io::stderr().as_fd().try_clone_to_owned()?,
        };
        let outcome = run::attempt_on(streams, prepared);
        let mut list = Vec::new();
        file.rewind()?;
        file.take(LONGEST).read_to_end(&mut list)?;
        print(&list)?;
        Ok((outcome, list))
    };
    match listed() {
        Ok((outcome, list)) => {
            if let Some(shelf) = shelf.filter(|_| outcome.cause == Cause::Exited(0)) {
                shelf.keep(&list);
            }
            outcome
        }
        Err(error) => Outcome::refused(cannot("list tests", &error), stages),
    }
}

fn cannot(what: &str, error: &io::Error) -> Cause {
    Cause::SetupError(format!("cannot {what}: {error}"))
}

fn print(list: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(list).and_then(|()| out.flush())
}

/// Where one list is kept.
struct Shelf(PathBuf);

impl Shelf {
    /// The place for what this will say, if that can be foretold.
    fn of(spec: &Spec) -> Option<Self> {
        let name = name(spec).ok()?;
        Some(Self(images::Store::of_user().ok()?.cache().join("sandbox/lists").join(name)))
    }

    fn read(&self) -> Option<Vec<u8>> {
        let file = File::open(&self.0).ok()?;
        let old = file.metadata().ok()?.modified().ok()?.elapsed().is_ok_and(|age| age > KEPT);
        let mut bytes = Vec::new();
        file.take(LONGEST + SEAL as u64).read_to_end(&mut bytes).ok()?;
        // A host that went down, or a cache that was restored in part, may have left less: a list without tests is believed by nextest.
        let (seal, list) = bytes.split_at_checked(SEAL)?;
        (!old && seal == sealed(list).as_bytes()).then(|| list.to_vec())
    }

    /// Keeps a list, and forgets the old. To fail in that costs a machine the next time.
    fn keep(&self, list: &[u8]) {
        let keep = || -> io::Result<()> {
            let place = self.0.parent().unwrap_or(Path::new("/"));
            DirBuilder::new().recursive(true).mode(0o700).create(place)?;
            for entry in place.read_dir()?.flatten() {
                let written = entry.metadata().and_then(|metadata| metadata.modified());
                if written.is_ok_and(|written| written < SystemTime::now() - KEPT) {
                    let _another_has_done_so = fs::remove_file(entry.path());
                }
            }
            let mut file = tempfile::NamedTempFile::new_in(place)?;
            file.write_all(sealed(list).as_bytes())?;
            file.write_all(list)?;
            file.persist(&self.0)?;
            Ok(())
        };
        let _costs_a_machine = keep();
    }
}

/// What stands before a list where it is kept: its digest.
fn sealed(list: &[u8]) -> String {
    format!("{}\n", images::sha256(list))
}

/// A name for everything that the list may depend on.
fn name(spec: &Spec) -> io::Result<String> {
    let program = spec.command.first().ok_or_else(|| io::Error::other("no program"))?;
    let program = spec.workdir.join(program);
    let mut text = String::from("2\n");
    let mut line = |what: &dyn std::fmt::Debug| text.push_str(&format!("{what:?}\n"));
    line(&images::sha256_of(File::open(&program)?)?);
    line(&spec.command);
    line(&spec.workdir);
    line(&spec.user);
    line(&spec.sight.volumes);
    let mut environment: Vec<_> =
        spec.environment.iter().filter(|(name, _)| !PASSING.iter().any(|passing| name == passing)).collect();
    environment.sort();
    line(&environment);
    let mut seen = 0;
    files(&spec.workdir, &mut seen, &mut line)?;
    let libraries = spec.environment.iter().find(|(name, _)| name == LIBRARIES).map(|(_, path)| path);
    for place in libraries.into_iter().flat_map(std::env::split_paths) {
        let is_library = |name: &OsStr| name.as_bytes().windows(3).any(|part| part == b".so");
        for (path, metadata) in entries(&place).unwrap_or_default() {
            if path.file_name().is_some_and(is_library) {
                line(&stamp(&path, &metadata));
                led(&path, &mut line)?;
            }
        }
    }
    Ok(images::sha256(text.as_bytes()))
}

/// Tells of all files below a directory, but for git's and what cargo builds.
fn files(place: &Path, seen: &mut usize, line: &mut dyn FnMut(&dyn std::fmt::Debug)) -> io::Result<()> {
    for (path, metadata) in entries(place)? {
        *seen += 1;
        if *seen > FILES_MAX {
            return Err(io::Error::other("too many files"));
        }
        let built = || path.join(TARGET_MARK).exists() || path.ends_with(".git");
        if !metadata.is_dir() {
            line(&stamp(&path, &metadata));
            if metadata.is_symlink() && !built() {
                led(&path, line)?;
            }
        } else if !built() {
            line(&path);
            files(&path, seen, line)?;
        }
    }
    Ok(())
}

/// Tells of the file that is behind a name, which may lie elsewhere. A directory is not looked through a second time, or elsewhere.
fn led(name: &Path, line: &mut dyn FnMut(&dyn std::fmt::Debug)) -> io::Result<()> {
    match name.metadata() {
        Ok(metadata) if metadata.is_dir() => Err(io::Error::other("a link leads to a directory")),
        Ok(metadata) => {
            line(&stamp(name, &metadata));
            Ok(())
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// What is in a directory, by name.
fn entries(place: &Path) -> io::Result<Vec<(PathBuf, Metadata)>> {
    let mut entries = Vec::new();
    for entry in place.read_dir()? {
        let entry = entry?;
        entries.push((entry.path(), entry.metadata()?));
    }
    entries.sort_by(|one, other| one.0.cmp(&other.0));
    Ok(entries)
}

fn stamp<'a>(path: &'a Path, metadata: &Metadata) -> (&'a Path, [i64; 4]) {
    (path, [i64::from(metadata.mode()), metadata.len().cast_signed(), metadata.mtime(), metadata.mtime_nsec()])
}

#[cfg(test)]
mod tests;
