// SPDX-License-Identifier: Apache-2.0
//! Where a test's output goes while it runs, and what is kept beside it if the test does not pass.

use std::ffi::{OsStr, OsString};
use std::fs::{self, DirBuilder, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Read, Seek, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::thread::{self, JoinHandle};

use crate::report::Report;
use crate::run::{Outcome, Streams};

/// What there is in the end, for people.
pub(super) const NAMES: &str = "stdout, stderr, console, report.json, repeat.sh";

/// All files that there may be in an attempt's directory.
const FILES: [&str; 6] = ["stdout", "stderr", "stdin", "console", "report.json", "repeat.sh"];

/// Longest name of a directory; file systems take 255 bytes.
const LONGEST: usize = 100;

/// The directory of one attempt.
pub(super) struct Evidence {
    place: PathBuf,
    /// What the command writes to standard output and standard error goes here. Its names may be gone, or another run's, by the
    /// time it is read.
    outputs: Vec<File>,
    echoes: Vec<JoinHandle<io::Result<()>>>,
}

/// Where an attempt's standard input is kept.
pub(super) fn input(place: &Path, attempt: usize) -> PathBuf {
    place.join(attempt.to_string()).join("stdin")
}

/// Removes what an earlier time has left in a test's directory. That may be one of the user's, so it goes by name.
pub(super) fn clear(place: &Path) {
    for entry in fs::read_dir(place).into_iter().flatten().flatten() {
        let numbered = entry.file_name().to_str().is_some_and(|name| name.bytes().all(|byte| byte.is_ascii_digit()));
        if numbered && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove(&entry.path());
        }
    }
}

/// Removes an attempt's directory, unless something is in it that is not ours.
fn remove(attempt: &Path) {
    for name in FILES {
        let _not_there = fs::remove_file(attempt.join(name));
    }
    let _not_ours = fs::remove_dir(attempt);
}

/// A name for a directory that no other test's has: the test's own, unless that has something in it that a path, or somebody who
/// stores paths, does not take.
#[must_use]
pub fn directory(test: &str) -> OsString {
    let fine = |letter: char| letter.is_ascii_alphanumeric() || "-_.".contains(letter);
    let plain: String = test.chars().map(|letter| if fine(letter) { letter } else { '_' }).take(LONGEST).collect();
    if plain == test && !plain.starts_with('.') && !plain.is_empty() {
        return plain.into();
    }
    let mut hash = DefaultHasher::new();
    test.hash(&mut hash);
    format!("{}-{:08x}", plain.trim_start_matches('.'), hash.finish() & 0xffff_ffff).into()
}

impl Evidence {
    /// Makes the directory, and the streams that lead to it; with `echo` also to our own.
    pub(super) fn begin(place: &Path, attempt: usize, bytes: &[u8], echo: bool) -> io::Result<(Self, Streams)> {
        let mut evidence = Self { place: place.join(attempt.to_string()), outputs: Vec::new(), echoes: Vec::new() };
        fs::create_dir_all(place)?;
        // What a test prints may be a secret of the variables it was given.
        DirBuilder::new().mode(0o700).create(&evidence.place)?;
        let stdin = if bytes.is_empty() {
            File::open("/dev/null")?
        } else {
            let file = input(place, attempt);
            fs::write(&file, bytes)?;
            File::open(file)?
        };
        let stdout = evidence.stream("stdout", echo.then(io::stdout))?;
        let stderr = evidence.stream("stderr", echo.then(io::stderr))?;
        Ok((evidence, Streams { stdin: stdin.into(), stdout, stderr }))
    }

    fn stream(&mut self, name: &str, echo: Option<impl Write + Send + 'static>) -> io::Result<OwnedFd> {
        let file = File::options().read(true).write(true).create_new(true).open(self.place.join(name))?;
        self.outputs.push(file.try_clone()?);
        let Some(echo) = echo else { return Ok(file.into()) };
        let (reader, writer) = io::pipe()?;
        let thread = thread::Builder::new().name(format!("echo {name}")).spawn(move || pass(reader, file, echo))?;
        self.echoes.push(thread);
        Ok(writer.into())
    }

    /// What the command wrote, when the run is over.
    pub(super) fn output(&mut self) -> io::Result<(Vec<u8>, Vec<u8>)> {
        for echo in self.echoes.drain(..) {
            echo.join().unwrap_or_else(|_| Err(io::Error::other("a thread that passes output on panicked")))?;
        }
        let mut texts = [Vec::new(), Vec::new()];
        for (text, file) in texts.iter_mut().zip(&mut self.outputs) {
            file.rewind()?;
            file.read_to_end(text)?;
        }
        let [stdout, stderr] = texts;
        Ok((stdout, stderr))
    }

    /// Adds what else is known. A machine without a word on its console leaves an empty file.
    pub(super) fn keep(self, outcome: &Outcome, report: &Report, line: &OsStr) -> io::Result<PathBuf> {
        let write = |name: &str, text: &[u8]| fs::write(self.place.join(name), text);
        let console: String = outcome.console.iter().map(|line| format!("{line}\n")).collect();
        write("console", console.as_bytes())?;
        report.write(&mut File::create(self.place.join("report.json"))?)?;
        write("repeat.sh", &[line.as_bytes(), b"\n"].concat())?;
        Ok(self.place)
    }

    /// Removes all of it: the test has passed.
    pub(super) fn discard(self) {
        remove(&self.place);
    }
}

/// Copies a stream to two places, at once.
fn pass(mut from: impl Read, mut file: File, mut echo: impl Write) -> io::Result<()> {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let count = match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            read => read?,
        };
        let piece = buffer.get(..count).unwrap_or_default();
        file.write_all(piece)?;
        // Whoever has stopped listening still gets a verdict.
        drop(echo.write_all(piece).and_then(|()| echo.flush()));
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn names_of_directories_are_plain_and_differ() {
        assert_eq!(directory("compiles-c_1.2"), "compiles-c_1.2");
        let odd = ["a/b", "a_b", "a b", "..", "", ".hidden", "a::b", "a\u{e9}b", &"x".repeat(300), &"x".repeat(301)];
        let mut names: Vec<String> = odd.iter().map(|name| directory(name).into_string().expect("ASCII")).collect();
        for name in &names {
            assert!(!name.contains('/') && !name.starts_with('.') && (1..120).contains(&name.len()), "{name}");
        }
        names.sort();
        names.dedup();
        assert_eq!(names.len(), odd.len(), "{names:?}");
    }

    #[test]
    fn only_what_is_ours_is_removed_and_read() {
        let place = tempfile::tempdir().expect("a directory can be made");
        let at = |name: &str| place.path().join(name);
        for (directory, file) in [("1", "stdout"), ("2", "mine"), ("src", "stdout")] {
            fs::create_dir(at(directory)).expect("a directory can be made");
            fs::write(at(directory).join(file), "old").expect("a file can be made");
        }
        clear(place.path());
        assert!(!at("1").exists() && at("2/mine").exists() && at("src/stdout").exists());
        assert!(Evidence::begin(place.path(), 2, b"", false).is_err(), "it is the user's");

        let (mut evidence, streams) = Evidence::begin(place.path(), 1, b"", false).expect("it can be made");
        let mode = at("1").metadata().expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o700, "others can read it");
        File::from(streams.stdout).write_all(b"own").expect("it can be written");
        clear(place.path());
        fs::create_dir(at("1")).expect("a directory can be made");
        fs::write(at("1/stdout"), "another's").expect("a file can be made");
        assert_eq!(evidence.output().expect("it is there").0, b"own");
    }

    #[test]
    fn what_is_passed_on_is_kept_too() {
        let place = tempfile::tempdir().expect("a directory can be made");
        let path = place.path().join("stdout");
        let mut heard = Vec::new();
        pass(&b"both"[..], File::create(&path).expect("a file can be made"), &mut heard).expect("it can be written");
        assert_eq!((heard.as_slice(), fs::read(path).expect("it is there").as_slice()), (&b"both"[..], &b"both"[..]));
    }
}
