// SPDX-License-Identifier: Apache-2.0
//! The options that keep something of what a command changed, and how that is shown.

use std::ffi::OsStr;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use clap::Args;
use clap::builder::{OsStringValueParser, TypedValueParser};

use super::tell;
use crate::caller::Caller;
use crate::outcome::Verdict;
use crate::run::Outcome;
use crate::spec::{CopyOut, Glob, Results, Sync};

/// Most lines about what was left out.
const LINES: usize = 10;

/// What is to be kept.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// Copy a file or directory out when the command has ended, however it did
    #[arg(long = "copy-out", value_name = "GUEST:HOST", value_parser = copy_parser())]
    copies: Vec<CopyOut>,
    /// List what the command added, modified and deleted in its private layer, on standard error
    #[arg(long)]
    diff: bool,
    /// Write that as a tar
    #[arg(long, value_name = "FILE")]
    diff_tar: Option<PathBuf>,
    /// Apply what the command changed at this path of the current directory, if it succeeds
    #[arg(long = "commit", value_name = "PATH")]
    commits: Vec<PathBuf>,
    /// Bring back files that the command wrote below the current directory, however it ended: by a pattern of their paths
    /// there (out/**/*.txt), or what a test crate writes: insta, llvm-cov, trybuild
    #[arg(long = "sync-out", value_name = "GLOB", value_delimiter = ',', value_parser = Globs::parse)]
    globs: Vec<Globs>,
}

/// What one word of `--sync-out` means.
#[derive(Debug, Clone)]
struct Globs(Vec<Glob>);

impl Globs {
    fn parse(text: &str) -> Result<Self, String> {
        Glob::parse(text).map(Self)
    }
}

fn copy_parser() -> impl TypedValueParser<Value = CopyOut> {
    OsStringValueParser::new().try_map(|text| copy(&text))
}

/// `GUEST:HOST`, at the first colon.
pub(super) fn copy(text: &OsStr) -> Result<CopyOut, String> {
    let bytes = text.as_bytes();
    let cut = bytes.iter().position(|byte| *byte == b':').map(|at| (&bytes[..at], &bytes[at + 1..]));
    match cut {
        Some((guest, host)) if !guest.is_empty() && !host.is_empty() => {
            Ok(CopyOut { guest: OsStr::from_bytes(guest).into(), host: OsStr::from_bytes(host).into() })
        }
        _ => Err("write it as GUEST:HOST, with neither empty".to_owned()),
    }
}

impl Options {
    /// With paths as they are meant from the caller's directory.
    pub(super) fn of(&self, caller: &Caller) -> Result<Results, String> {
        let directory = &caller.directory;
        let copies = self
            .copies
            .iter()
            .map(|copy| CopyOut { guest: directory.join(&copy.guest), host: directory.join(&copy.host) });
        let commits = self.commits.iter().map(|path| below(path, directory));
        Ok(Results {
            copies: copies.collect(),
            list: self.diff,
            tar: self.diff_tar.as_ref().map(|path| directory.join(path)),
            commits: commits.collect::<Result<_, _>>()?,
            sync: Sync {
                globs: self.globs.iter().flat_map(|globs| globs.0.clone()).collect(),
                places: vec![directory.clone()],
            },
        })
    }
}

/// A path as seen from the directory it must be in.
fn below(path: &Path, directory: &Path) -> Result<PathBuf, String> {
    let mut seen = PathBuf::new();
    for part in path.strip_prefix(directory).unwrap_or(path).components() {
        match part {
            Component::CurDir => {}
            Component::Normal(name) => seen.push(name),
            _ => return Err(format!("cannot commit {}: name a path below the current directory", path.display())),
        }
    }
    Ok(seen)
}

/// Shows what is to be shown of the results.
pub(super) fn show(outcome: &Outcome) {
    if let Some(list) = &outcome.results.list {
        // Nothing is left to tell about one that cannot be written.
        drop(io::stderr().write_all(list.as_bytes()));
    }
    let left = &outcome.results.left;
    left.iter().take(LINES).for_each(|left| tell(format_args!("sandbox: left out: {left}")));
    if left.len() > LINES {
        tell(format_args!("sandbox: left out: {} more", left.len() - LINES));
    }
    // Of a command that succeeded the cause says it.
    if let Some(failed) = outcome.results.failed.as_ref().filter(|_| outcome.cause.verdict() == Verdict::Fail) {
        tell(format_args!("sandbox: left out: the command's results: {}", failed.words));
    }
    for path in &outcome.results.unchanged {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        tell(format_args!("sandbox: nothing changed in {}", path.display()));
    }
    if outcome.results.uncommitted {
        tell(format_args!("sandbox: nothing was committed, since the command did not succeed"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_are_cut_at_the_first_colon() {
        let copied = copy(OsStr::new("/a:b:c")).expect("parses");
        assert_eq!((copied.guest, copied.host), ("/a".into(), "b:c".into()));
        for bad in ["", "a", ":b", "a:"] {
            assert!(copy(OsStr::new(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn commits_are_below_the_directory() {
        let directory = Path::new("/home/me");
        for (path, seen) in [(".", ""), ("a/./b", "a/b"), ("/home/me/c", "c"), ("/home/me", "")] {
            assert_eq!(below(Path::new(path), directory), Ok(seen.into()), "{path}");
        }
        for bad in ["..", "a/../b", "/etc", "/home/me/../you"] {
            assert!(below(Path::new(bad), directory).is_err(), "{bad}");
        }
    }
}
