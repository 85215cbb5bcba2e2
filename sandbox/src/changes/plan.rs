// SPDX-License-Identifier: Apache-2.0
//! Which of what a guest has told is written where below a directory. Pure; not for what is there.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use guest_init::record::{Kind, State};

use super::{Change, Left, Spool};

/// One thing to be done below a directory.
#[derive(Debug)]
pub(crate) struct Step<'a> {
    pub(super) path: Cow<'a, Path>,
    /// The same seen from what was asked for, which links may not leave.
    pub(super) seen: &'a Path,
    pub(super) change: &'a Change,
    /// What comes there; if nothing, then what is there goes.
    pub(super) comes: Option<Kind>,
}

/// What is to be done for some paths.
#[derive(Debug, Default)]
pub(crate) struct Plan<'a> {
    pub(crate) steps: Vec<Step<'a>>,
    pub(crate) left: Vec<Left>,
    /// The paths of which nothing was told.
    pub(crate) unchanged: Vec<PathBuf>,
}

impl Spool {
    /// All of it, in a directory, or with a `name` as what has that in it.
    pub(crate) fn copied(&self, name: Option<&OsStr>) -> Vec<Step<'_>> {
        let steps = self.changes().iter().filter_map(|change| {
            let path = match name {
                Some(name) if change.path.as_os_str().is_empty() => Cow::Owned(PathBuf::from(name)),
                Some(name) => Cow::Owned(Path::new(name).join(&change.path)),
                None if change.path.as_os_str().is_empty() => return None,
                None => Cow::Borrowed(change.path.as_path()),
            };
            Some(Step { path, seen: &change.path, change, comes: coming(change) })
        });
        steps.collect()
    }

    /// What it says of these paths below a place.
    pub(crate) fn committed<'a>(&'a self, place: &Path, paths: &'a [PathBuf]) -> Plan<'a> {
        let mut plan = Plan::default();
        let mut touched = vec![false; paths.len()];
        for change in self.changes() {
            let comes = coming(change);
            if comes != Some(Kind::Directory) && place.starts_with(&change.path) {
                plan.left.push(format!("{:?}: the command removed this directory itself", Path::new("/").join(place)));
                return plan;
            }
            let Some(below) = change.below(place) else { continue };
            let mut wanted = false;
            for (path, touched) in paths.iter().zip(&mut touched) {
                if below.starts_with(path) {
                    (wanted, *touched) = (true, true);
                } else if path.starts_with(below) && comes != Some(Kind::Directory) {
                    // It went with what it was in.
                    *touched = true;
                    if comes == Some(Kind::Link) {
                        plan.left.push(format!("{path:?}: the command made {below:?} a link"));
                    } else {
                        plan.steps.push(Step { path: path.into(), seen: path, change, comes: None });
                    }
                }
            }
            if wanted && !below.as_os_str().is_empty() {
                plan.steps.push(Step { path: below.into(), seen: below, change, comes });
            }
        }
        let unchanged = paths.iter().zip(touched).filter(|(_, touched)| !touched);
        plan.unchanged = unchanged.map(|(path, _)| path.clone()).collect();
        plan
    }
}

fn coming(change: &Change) -> Option<Kind> {
    (change.state != State::Removed).then_some(change.kind)
}

#[cfg(test)]
mod tests {
    use super::super::spool::tests::{file, record, spool};
    use super::*;

    fn plan(told: &[Vec<u8>], paths: &[&str]) -> (Vec<(String, bool)>, usize, Vec<PathBuf>) {
        let paths: Vec<PathBuf> = paths.iter().map(PathBuf::from).collect();
        let spool = spool(told).unwrap();
        let plan = spool.committed(Path::new("home/me"), &paths);
        let steps = plan.steps.iter().map(|step| (step.path.display().to_string(), step.comes.is_some()));
        (steps.collect(), plan.left.len(), plan.unchanged)
    }

    fn gone(path: &str) -> Vec<u8> {
        record(Kind::Directory, State::Removed, path.as_bytes(), b"")
    }

    #[test]
    fn what_was_removed_with_its_parent_is_removed() {
        let steps = |paths: &[(&str, bool)]| paths.iter().map(|(path, comes)| ((*path).to_owned(), *comes)).collect();
        assert_eq!(plan(&[gone("home/me/a")], &["a/b"]), (steps(&[("a/b", false)]), 0, vec![]));
        assert_eq!(plan(&[file("home/me/a", "")], &["a/b", "c"]), (steps(&[("a/b", false)]), 0, vec!["c".into()]));
        assert_eq!(plan(&[file("home/me/a/b", ""), gone("home/me/d")], &["a"]), (steps(&[("a/b", true)]), 0, vec![]));
        let link = record(Kind::Link, State::Added, b"home/me/a", b"c");
        assert_eq!(plan(&[link], &["a/b"]), (vec![], 1, vec![]));
    }

    #[test]
    fn a_directory_that_was_removed_itself_is_told_of() {
        for told in [gone("home/me"), gone("home"), file("home", "")] {
            assert_eq!(plan(&[told], &[""]), (vec![], 1, vec![]));
        }
    }

    #[test]
    fn a_path_without_changes_is_told_of() {
        assert_eq!(plan(&[file("home/me/build/x", ""), file("tmp/y", "")], &["biuld"]).2, [PathBuf::from("biuld")]);
        assert_eq!(plan(&[], &[""]).2, [PathBuf::new()]);
    }
}
