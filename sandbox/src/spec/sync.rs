// SPDX-License-Identifier: Apache-2.0
//! Which of the files that a command wrote are brought back to where it seemed to write them. The one place that names the
//! `glob` crate.

use std::path::{Component, Path, PathBuf};

use glob::{MatchOptions, Pattern};

/// `*` stays in a directory, `**` goes through any number of them; hidden files are files.
const RULES: MatchOptions =
    MatchOptions { case_sensitive: true, require_literal_separator: true, require_literal_leading_dot: false };

/// What the usual test crates write, by the crate's name.
const PRESETS: [(&str, &[&str]); 3] = [
    ("insta", &["**/*.snap", "**/*.snap.new", "**/.*.pending-snap"]),
    ("llvm-cov", &["**/*.profraw"]),
    ("trybuild", &["**/*.stderr"]),
];

/// What is never brought back: git runs what is in there.
const NEVER: &str = ".git";

/// What is to be brought back.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sync {
    /// By their paths below one of the places.
    pub globs: Vec<Glob>,
    /// Directories of the caller's that take them.
    pub places: Vec<PathBuf>,
}

/// A pattern for a path below a place; or a file or directory there, with all that is below it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Glob {
    pattern: Pattern,
    /// If it is a name and no pattern.
    name: Option<PathBuf>,
}

impl Glob {
    /// The patterns of a preset of this name, or this pattern.
    ///
    /// # Errors
    /// Why it is none.
    pub fn parse(text: &str) -> Result<Vec<Self>, String> {
        let preset = PRESETS.iter().find(|(name, _)| *name == text);
        preset.map_or(&[text][..], |(_, globs)| globs).iter().map(|glob| Self::one(glob)).collect()
    }

    fn one(text: &str) -> Result<Self, String> {
        let names = PRESETS.map(|(name, _)| name).join(", ");
        let mut below = PathBuf::new();
        for part in Path::new(text).components() {
            match part {
                Component::Normal(name) => below.push(name),
                Component::CurDir => {}
                _ => return Err(format!("name files below the directory, as tests/**/*.txt does, or {names}")),
            }
        }
        // It was text, all of it.
        let plain = below.to_string_lossy();
        if plain.is_empty() {
            return Err(format!("name files below the directory, as tests/**/*.txt does, or {names}"));
        }
        let pattern =
            Pattern::new(&plain).map_err(|error| format!("{error}; write it as tests/**/*.txt, or {names}"))?;
        let name = (!plain.contains(['*', '?', '['])).then(|| below.clone());
        Ok(Self { pattern, name })
    }

    /// A byte that is no text is a character like any other.
    fn matches(&self, below: &Path) -> bool {
        match &self.name {
            Some(name) => below.starts_with(name),
            None => self.pattern.matches_with(&below.to_string_lossy(), RULES),
        }
    }
}

impl Sync {
    /// Whether this file, seen from one of the places, is wanted.
    #[must_use]
    pub fn wants(&self, below: &Path) -> bool {
        let hidden = below.components().any(|part| part.as_os_str() == NEVER);
        !hidden && self.globs.iter().any(|glob| glob.matches(below))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wants(glob: &str, path: &str) -> bool {
        Sync { globs: Glob::parse(glob).unwrap(), places: vec![] }.wants(Path::new(path))
    }

    #[test]
    fn presets_know_what_their_crates_write() {
        for (preset, path) in [
            ("insta", "src/snapshots/a__b.snap.new"),
            ("insta", "member/tests/.it.rs.pending-snap"),
            ("llvm-cov", "target/llvm-cov-target/x-7-ab-2.profraw"),
            ("trybuild", "wip/case.stderr"),
        ] {
            assert!(wants(preset, path), "{preset}: {path}");
            assert!(!wants(preset, "src/main.rs"), "{preset}");
        }
    }

    #[test]
    fn a_name_need_be_no_text() {
        use std::os::unix::ffi::OsStrExt;
        let globs = Glob::parse("**/*.snap").unwrap();
        let path = Path::new(std::ffi::OsStr::from_bytes(b"t/\xff.snap"));
        assert!(Sync { globs, places: vec![] }.wants(path));
    }

    #[test]
    fn a_star_stays_in_its_directory_and_git_is_left_alone() {
        assert!(wants("out/*.txt", "out/a.txt") && !wants("out/*.txt", "out/b/a.txt"));
        assert!(wants("out/**/*.txt", "out/a.txt") && wants("out/**/*.txt", "out/b/c/a.txt"));
        assert!(wants("./out/./*.txt", "out/a.txt") && wants("out", "out/b/a.txt") && wants("out/", "out/a.txt"));
        assert!(!wants("out", "outer/a.txt") && wants("out/a.txt", "out/a.txt"));
        assert!(!wants("**", ".git/hooks/post-checkout") && !wants("**/*", "vendor/x/.git/config"));
        for bad in ["", ".", "/etc/*", "../*", "a/../../b", "a[", "***"] {
            assert!(Glob::parse(bad).is_err(), "{bad:?}");
        }
    }
}
