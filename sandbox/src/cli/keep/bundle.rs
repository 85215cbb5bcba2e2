// SPDX-License-Identifier: Apache-2.0
//! What tells of a run, as a directory of its own with files of fixed names.
//!
//! Directory and files are new, readable to their user alone, and reached by descriptor, so nothing that is there already is
//! written to. Where the directories are ours, the oldest make room. What is in the files is bounded where it comes from.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustix::fs::{CWD, Mode, OFlags, mkdirat, open, openat};
use rustix::io::Errno;

use crate::run::results::Evidence;

/// Directories that stay where they are ours.
const MOST: usize = 20;

/// Most letters of the command's name in a directory's name.
const NAME: usize = 32;

/// Names that are tried.
const TRIES: u32 = 100;

const PRIVATE: Mode = Mode::RUSR.union(Mode::WUSR);

/// How a name begins: with a time, of which `d` is a digit.
const FORM: &str = "ddddddddTddddddZ-";

/// What goes into a directory.
pub(super) struct Bundle<'a> {
    pub(super) evidence: &'a Evidence,
    pub(super) report: String,
    pub(super) repeat: Vec<u8>,
}

impl Bundle<'_> {
    /// Writes it to a new directory in this one, named after the time and a command: which. With `tidy` old ones make room.
    pub(super) fn write(&self, place: &Path, name: &OsStr, tidy: bool) -> io::Result<PathBuf> {
        let own = new_directory(place, &format!("{}-{}", stamp(SystemTime::now()), plain(name)))?;
        let directory = open(&own, OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
        let put = |name: &str, mode: Mode, bytes: &[u8]| {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            fs::File::from(openat(&directory, name, flags, mode)?).write_all(bytes)
        };
        put("report.json", PRIVATE, self.report.as_bytes())?;
        put("repeat.sh", PRIVATE | Mode::XUSR, &self.repeat)?;
        put("console.txt", PRIVATE, lines(&self.evidence.console).as_bytes())?;
        if let Some(log) = &self.evidence.log {
            put("kernel.txt", PRIVATE, lines(log).as_bytes())?;
        }
        if let Some(list) = &self.evidence.list {
            put("changes.txt", PRIVATE, list.as_bytes())?;
        }
        if !self.evidence.missing.is_empty() {
            put("missing.txt", PRIVATE, lines(&self.evidence.missing).as_bytes())?;
        }
        if tidy {
            make_room(place, &own);
        }
        Ok(own)
    }
}

fn lines(lines: &[String]) -> String {
    lines.iter().fold(String::new(), |mut text, line| {
        // A string takes whatever is written to it.
        let _ = writeln!(text, "{line}");
        text
    })
}

/// Makes a directory whose name begins so and that was not there.
fn new_directory(place: &Path, begin: &str) -> io::Result<PathBuf> {
    for number in 1..=TRIES {
        let path = place.join(if number == 1 { begin.to_owned() } else { format!("{begin}-{number}") });
        match mkdirat(CWD, &path, PRIVATE | Mode::XUSR) {
            Err(Errno::EXIST) => {}
            made => return made.map(|()| path).map_err(io::Error::from),
        }
    }
    Err(Errno::EXIST.into())
}

/// A moment as the beginning of a name: `20261126T231903Z`.
fn stamp(time: SystemTime) -> String {
    humantime::format_rfc3339_seconds(time).to_string().replace(['-', ':'], "")
}

/// A name of letters that mean nothing to anybody.
fn plain(name: &OsStr) -> String {
    let text = name.to_string_lossy();
    let letters = text.chars().map(|letter| if letter.is_ascii_alphanumeric() { letter } else { '_' });
    letters.take(NAME).collect()
}

/// Whether a name is one that [`Bundle::write`] gives.
fn is_ours(name: &str) -> bool {
    let fits = |(own, letter): (char, char)| if own == 'd' { letter.is_ascii_digit() } else { letter == own };
    name.len() > FORM.len() && FORM.chars().zip(name.chars()).all(fits)
}

/// Removes the oldest, of which their names tell, but not the `new` one, whatever the clock says. What cannot be removed stays: another
/// run may be doing the same, and what was to be kept is there.
fn make_room(place: &Path, new: &Path) {
    let entries = fs::read_dir(place).into_iter().flatten().flatten();
    let directories = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    let names = directories.filter_map(|entry| entry.file_name().into_string().ok());
    let mut names: Vec<String> = names.filter(|name| is_ours(name)).collect();
    names.sort();
    let excess = names.len().saturating_sub(MOST);
    let old = names.iter().map(|name| place.join(name)).filter(|path| path != new);
    old.take(excess).for_each(|path| drop(fs::remove_dir_all(path)));
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::time::Duration;

    use super::*;

    fn write(place: &Path, evidence: &Evidence, name: &str) -> PathBuf {
        let bundle = Bundle { evidence, report: "{}\n".to_owned(), repeat: b"true\n".to_vec() };
        bundle.write(place, OsStr::new(name), true).expect("it can be written")
    }

    #[test]
    fn each_run_has_a_directory_of_its_own() {
        let place = tempfile::tempdir().expect("a directory can be made");
        let evidence = Evidence { list: Some("A /x\n".to_owned()), ..Evidence::default() };
        let all: Vec<PathBuf> = (0..3).map(|_| write(place.path(), &evidence, "../e vil\n")).collect();
        for path in &all {
            assert_eq!(path.parent(), Some(place.path()));
            assert!(path.file_name().is_some_and(|name| is_ours(&name.to_string_lossy())), "{path:?}");
            let mode = |path: &Path| path.metadata().expect("it is there").permissions().mode() & 0o7777;
            let modes = [mode(path), mode(&path.join("report.json")), mode(&path.join("repeat.sh"))];
            assert_eq!(modes, [0o700, 0o600, 0o700]);
            assert_eq!(fs::read_to_string(path.join("changes.txt")).expect("it is text"), "A /x\n");
            assert!(!path.join("kernel.txt").exists() && !path.join("missing.txt").exists());
        }
        assert!(all[0] != all[1] && all[1] != all[2]);
    }

    #[test]
    fn the_oldest_make_room_and_nothing_else_does() {
        let place = tempfile::tempdir().expect("a directory can be made");
        for number in 10..40 {
            fs::create_dir(place.path().join(format!("200001{number}T000000Z-x"))).expect("a directory can be made");
        }
        for other in ["mine", "20000101T000000Z", "2000010xT000000Z-x"] {
            fs::create_dir(place.path().join(other)).expect("a directory can be made");
        }
        let new = write(place.path(), &Evidence::default(), "x");
        let entries = fs::read_dir(place.path()).expect("it can be read");
        let names: Vec<String> = entries
            .map(|entry| entry.expect("so can its entries").file_name().to_string_lossy().into_owned())
            .collect();
        assert!(new.exists());
        assert_eq!(names.iter().filter(|name| is_ours(name)).count(), MOST);
        assert!(names.iter().all(|name| name != "20000110T000000Z-x"));
        assert_eq!(names.len(), MOST + 3);
    }

    #[test]
    fn the_new_one_stays_though_the_clock_goes_back() {
        let place = tempfile::tempdir().expect("a directory can be made");
        for number in 10..40 {
            fs::create_dir(place.path().join(format!("990001{number}T000000Z-x"))).expect("a directory can be made");
        }
        fs::write(place.path().join("20000101T000000Z-file"), "").expect("a file can be made");
        assert!(write(place.path(), &Evidence::default(), "x").join("report.json").exists());
    }

    #[test]
    fn names_are_a_time_and_plain_letters() {
        assert_eq!(stamp(SystemTime::UNIX_EPOCH + Duration::from_secs(951_782_400)), "20000229T000000Z");
        assert_eq!(plain(OsStr::new("a.b/c-d\u{1b}")), "a_b_c_d_");
    }
}
