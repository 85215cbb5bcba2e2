// SPDX-License-Identifier: Apache-2.0
//! The listing: a letter and a path for each file, as `git status --short` and `docker diff` do.

use std::fmt::Write;
use std::path::Path;

use guest_init::record::{Kind, State};

use super::{Change, Spool};

impl Spool {
    /// One line for each: `A` for added, `M` for modified, `D` for deleted, then the absolute path, a directory's with a
    /// slash at its end. A name that a terminal could take for something else, or that could be taken for two lines, is
    /// quoted and escaped as in Rust.
    pub(crate) fn list(&self) -> String {
        let mut text = String::new();
        for change in self.changes() {
            let path = Path::new("/").join(&change.path);
            let slash = if change.kind == Kind::Directory { "/" } else { "" };
            // A string takes whatever is written to it.
            let _ = match path.to_str().filter(|path| is_plain(path)) {
                Some(path) => writeln!(text, "{} {path}{slash}", letter(change)),
                None => writeln!(text, "{} {path:?}{slash}", letter(change)),
            };
        }
        text
    }
}

fn letter(change: &Change) -> char {
    match change.state {
        State::Added => 'A',
        State::Changed => 'M',
        State::Removed => 'D',
    }
}

/// Whether it is printed as it stands: `Debug` would change nothing.
fn is_plain(text: &str) -> bool {
    !text.chars().any(|letter| letter == '"' || letter == '\\' || letter.escape_debug().count() > 1 && letter != '\'')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_act_on_a_terminal_are_escaped() {
        for plain in ["/a b", "/it's", "/ä/中", "/-rf"] {
            assert!(is_plain(plain), "{plain}");
        }
        for odd in ["/a\nb", "/\u{1b}[2J", "/\"", "/\\", "/\u{202e}x", "/\u{7f}"] {
            assert!(!is_plain(odd), "{odd:?}");
        }
    }
}
