// SPDX-License-Identifier: Apache-2.0
//! Where a test's output goes while it runs, and what is kept beside it if the test does not pass.

use std::ffi::{OsStr, OsString};
use std::fs::{self, DirBuilder, File, TryLockError};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::thread::{self, JoinHandle};

use crate::cli::tell;
use crate::report::Report;
use crate::run::{Outcome, Streams};

/// What there is in the end, for people.
pub(super) const NAMES: &str = "stdout, stderr, console, report.json, repeat.sh";

/// All files that there may be in an attempt's directory.
const FILES: [&str; 6] = ["stdout", "stderr", "stdin", "console", "report.json", "repeat.sh"];

/// Most of an output that is looked at, and most that is shown in a record: what a test writes must not decide how much memory we need.
const JUDGED: u64 = 64 << 20;
const SHOWN: u64 = 1 << 20;

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

/// Has a place of evidence for this process alone until the file is closed, as its death does too: what another run leaves there would
/// be taken for an earlier time's. Waits for the one that has it.
///
/// # Errors
/// That there is no such directory, and none can be made.
pub fn hold(place: &Path) -> io::Result<File> {
    let words = || tell(format_args!("sandbox: waits for another run of this suite, which has {}", place.display()));
    hold_after(place, words)
}

/// The same; `waits` is called once if it waits, when it has open what another one has.
fn hold_after(place: &Path, waits: impl FnOnce()) -> io::Result<File> {
    let mut waits = Some(waits);
    loop {
        fs::create_dir_all(place)?;
        // The directory itself is locked (flock(2)), for a file would have to stay there. Where a file system has no locks we go on
        // without, as cargo does.
        let directory = match File::open(place) {
            // Whoever had it has just removed it, as a test does that has passed.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            opened => opened?,
        };
        if let Err(TryLockError::WouldBlock) = directory.try_lock() {
            if let Some(waits) = waits.take() {
                waits();
            }
            directory.lock()?;
        }
        // It may have been removed meanwhile, and be another's now.
        let own = directory.metadata()?;
        if fs::metadata(place).is_ok_and(|there| (there.dev(), there.ino()) == (own.dev(), own.ino())) {
            return Ok(directory);
        }
    }
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

    /// What the command wrote, when the run is over: what is to be looked at of it, and what is to be said if that is not all.
    pub(super) fn output(&mut self) -> io::Result<([Vec<u8>; 2], String)> {
        for echo in self.echoes.drain(..) {
            echo.join().unwrap_or_else(|_| Err(io::Error::other("a thread that passes output on panicked")))?;
        }
        let (mut texts, mut note) = ([Vec::new(), Vec::new()], String::new());
        for ((text, file), name) in texts.iter_mut().zip(&mut self.outputs).zip(FILES) {
            let whole = file.metadata()?.len();
            if whole > JUDGED {
                note.push_str(&format!(
                    "\nonly the first {} MiB of {name} were looked at, of {whole} bytes",
                    JUDGED >> 20
                ));
            }
            file.rewind()?;
            file.take(JUDGED).read_to_end(text)?;
        }
        Ok((texts, note))
    }

    /// The end of it, for people.
    pub(super) fn ends(&mut self) -> io::Result<[Vec<u8>; 2]> {
        let mut texts = [Vec::new(), Vec::new()];
        for ((text, file), name) in texts.iter_mut().zip(&mut self.outputs).zip(FILES) {
            let before = file.metadata()?.len().saturating_sub(SHOWN);
            if before > 0 {
                let path = self.place.join(name);
                text.extend(format!("[{before} bytes before this are in {}]\n", path.display()).into_bytes());
            }
            file.seek(SeekFrom::Start(before))?;
            file.take(SHOWN).read_to_end(text)?;
        }
        Ok(texts)
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
    use std::sync::mpsc;
    use std::time::Duration;

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
        let (output, note) = evidence.output().expect("it is there");
        assert_eq!((output, note.as_str()), ([b"own".to_vec(), Vec::new()], ""));
        assert_eq!(evidence.ends().expect("it is there"), [b"own".to_vec(), Vec::new()]);
    }

    #[test]
    fn a_flood_is_not_taken_into_memory() {
        let place = tempfile::tempdir().expect("a directory can be made");
        let (mut evidence, streams) = Evidence::begin(place.path(), 1, b"", false).expect("it can be made");
        let mut stdout = File::from(streams.stdout);
        stdout.set_len(JUDGED).and_then(|()| stdout.seek(SeekFrom::End(0))).expect("it can be made so long");
        stdout.write_all(b"end").expect("it can be written");
        let ([text, _], note) = evidence.output().expect("it is there");
        assert_eq!(text.len() as u64, JUDGED);
        assert_eq!(note, "\nonly the first 64 MiB of stdout were looked at, of 67108867 bytes");
        let [text, other] = evidence.ends().expect("it is there");
        let told = format!("[66060291 bytes before this are in {}]\n", place.path().join("1/stdout").display());
        assert!(text.starts_with(told.as_bytes()) && text.ends_with(b"\0end") && other.is_empty());
        assert_eq!(text.len() as u64, SHOWN + told.len() as u64);
    }

    #[test]
    fn one_run_at_a_time_has_a_place() {
        let place = tempfile::tempdir().expect("a directory can be made");
        let place = place.path().join("new/place");
        let held = hold(&place).expect("nobody has it");
        let other = File::open(&place).expect("it is there");
        assert!(matches!(other.try_lock(), Err(TryLockError::WouldBlock)));
        let waits = thread::spawn({
            let place = place.clone();
            move || hold(&place).map(|_held| fs::exists(place.join("left")))
        });
        fs::write(place.join("left"), "").expect("a file can be made");
        drop(held);
        assert!(waits.join().expect("no panic").expect("it gets it").expect("it can be looked at"));
        assert!(hold(&place.join("left")).is_err(), "it is no directory");

        let (place, held) = (place.join("gone"), hold(&place.join("gone")).expect("nobody has it"));
        let (waiting, told) = mpsc::channel();
        let waits = thread::spawn({
            let place = place.clone();
            move || hold_after(&place, || waiting.send(()).expect("somebody listens"))
        });
        told.recv_timeout(Duration::from_secs(10)).expect("it waits");
        fs::remove_dir(&place).expect("it is empty");
        drop(held);
        let _held = waits.join().expect("no panic").expect("it gets another");
        assert!(matches!(File::open(&place).expect("it is there").try_lock(), Err(TryLockError::WouldBlock)));
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
