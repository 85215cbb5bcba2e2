// SPDX-License-Identifier: Apache-2.0
//! What counts as a name of a file below a directory, and which symbolic links stay there. Pure.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

/// Longest name that Linux takes (`NAME_MAX`).
const NAME_MAX: usize = 255;

/// Most letters of a path in a message.
const SHOWN: usize = 256;

/// A path as a message has it: quoted, without anything that acts on a terminal, and cut short if it is long.
pub(super) fn shown(path: &Path) -> String {
    let mut text = format!("{path:?}");
    if let Some((end, _)) = text.char_indices().nth(SHOWN) {
        text.truncate(end);
        text.push_str("...");
    }
    text
}

/// A path that leads down from where it begins, whatever there is: names and single slashes, no more.
pub(super) fn downward(bytes: &[u8]) -> Option<PathBuf> {
    let name = |name: &[u8]| !name.is_empty() && name != b"." && name != b".." && name.len() <= NAME_MAX;
    let good = bytes.is_empty() || bytes.split(|byte| *byte == b'/').all(name);
    (good && !bytes.contains(&0)).then(|| PathBuf::from(OsStr::from_bytes(bytes)))
}

/// Whether a link at `path` with this content leads nowhere but to what is below the same beginning. Its directories are
/// real ones, so a step up leads where it says; after a name it might not, as that may be a link. Below one that is itself that
/// beginning there is nothing.
pub(super) fn stays(path: &Path, target: &[u8]) -> bool {
    if path.as_os_str().is_empty() || target.is_empty() || target.contains(&0) {
        return false;
    }
    let depth = path.components().count().saturating_sub(1);
    let (mut up, mut named) = (0, false);
    Path::new(OsStr::from_bytes(target)).components().all(|part| match part {
        Component::CurDir => true,
        Component::ParentDir => {
            up += 1;
            !named && up <= depth
        }
        Component::Normal(_) => {
            named = true;
            true
        }
        Component::RootDir | Component::Prefix(_) => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_lead_down() {
        for good in ["", "a", "a/b", "..a/b..", "\u{1}\n"] {
            assert_eq!(downward(good.as_bytes()), Some(good.into()));
        }
        for bad in ["/", "/a", "a/", "a//b", ".", "..", "a/..", "../a", "a/./b", "a\0b"] {
            assert_eq!(downward(bad.as_bytes()), None, "{bad:?}");
        }
        assert!(downward(&[b'x'; 255]).is_some() && downward(&[b'x'; 256]).is_none());
    }

    #[test]
    fn long_paths_are_cut_short() {
        assert_eq!(shown(Path::new("/a\n")), "\"/a\\n\"");
        let long = shown(Path::new(&"ä/".repeat(2000)));
        assert!(long.starts_with("\"ä/ä/") && long.ends_with("..."));
        assert_eq!(long.chars().count(), SHOWN + 3);
    }

    #[test]
    fn links_may_not_lead_out() {
        for (path, target, inside) in [
            ("a", "b", true),
            ("a", "./b/c", true),
            ("d/a", "../b", true),
            ("d/e/a", "../../b", true),
            ("a", "../b", false),
            ("d/a", "../../b", false),
            ("d/a", "/etc/passwd", false),
            ("d/a", "x/../../b", false),
            ("d/a", "x/../b", false),
            ("a", "", false),
            ("a", "b\0", false),
            ("", "sibling", false),
        ] {
            assert_eq!(stays(Path::new(path), target.as_bytes()), inside, "{path} -> {target}");
        }
    }
}
