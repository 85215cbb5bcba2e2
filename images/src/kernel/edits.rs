// SPDX-License-Identifier: Apache-2.0
//! What no option offers: single lines of the kernel's source that are replaced in the tree we unpacked ourselves.
//!
//! A last resort, and for speed only: a kernel without these edits works, so a tree the user names is left alone.
//! Options that only the edits make possible are in `edited.config`.

use super::asked::EDITS;
use super::{Error, failed};
use std::fs;
use std::path::Path;

/// Makes them. A source in which a line is not found exactly once is refused.
pub(super) fn apply(tree: &Path) -> Result<(), Error> {
    for edit in &EDITS {
        let path = tree.join(edit.file);
        let text = fs::read_to_string(&path).map_err(failed("read", &path))?;
        if text.lines().filter(|line| *line == edit.from).count() != 1 {
            return Err(Error::Edit { file: path, line: edit.from });
        }
        fs::write(&path, text.replace(edit.from, edit.to)).map_err(failed("write", &path))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::TempDir;

    fn tree(prefix: &str) -> TempDir {
        let tree = TempDir::new().unwrap();
        for edit in &EDITS {
            let path = tree.path().join(edit.file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, format!("before\n{prefix}{}\nafter\n", edit.from)).unwrap();
        }
        tree
    }

    #[test]
    fn lines_are_replaced() {
        let tree = tree("");

        apply(tree.path()).unwrap();

        for edit in &EDITS {
            let text = fs::read_to_string(tree.path().join(edit.file)).unwrap();
            assert_eq!(text, format!("before\n{}\nafter\n", edit.to));
        }
    }

    #[test]
    fn source_without_the_line_is_refused() {
        assert!(matches!(apply(tree("static ").path()), Err(Error::Edit { .. })));
    }
}
