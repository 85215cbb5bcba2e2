// SPDX-License-Identifier: Apache-2.0
//! Where a program is found: the search of execvp(3), as glibc does it.
//!
//! Not for executing it: a caller tries each place and says what came of it.

use alloc::{ffi::CString, vec::Vec};
use core::ffi::CStr;
use rustix::io::Errno;

/// Where to look if the environment has no `PATH`.
pub const DEFAULT_PATH: &[u8] = b"/usr/local/bin:/usr/bin:/bin";

/// Longest name of a file, as in `NAME_MAX`.
const NAME_MAX: usize = 255;

/// The value of the first `PATH` of an environment, as getenv(3) finds it: strings ended by NUL, one after the other.
pub fn path(environment: &[u8]) -> &[u8] {
    environment.split(|byte| *byte == 0).find_map(|entry| entry.strip_prefix(b"PATH=")).unwrap_or(DEFAULT_PATH)
}

/// Tries every place where `name` may be until one neither is missing nor may not be executed: the error to report. If
/// `attempt` succeeds it does not return.
///
/// The first `absent` places are said not to hold it. That decides only where to look first: if nothing comes of it,
/// the search is done as it should be.
pub fn search(name: &CStr, path: &[u8], absent: usize, mut attempt: impl FnMut(&CStr) -> Errno) -> Errno {
    let bytes = name.to_bytes();
    if bytes.is_empty() {
        return Errno::NOENT;
    }
    if bytes.contains(&b'/') {
        return attempt(name);
    }
    if bytes.len() > NAME_MAX {
        return Errno::NAMETOOLONG;
    }
    let mut from = |first| {
        let mut forbidden = false;
        for place in path.split(|byte| *byte == b':').skip(first) {
            match attempt(&join(place, bytes)) {
                Errno::ACCESS => forbidden = true,
                Errno::NOENT | Errno::NOTDIR | Errno::STALE | Errno::NODEV | Errno::TIMEDOUT | Errno::NAMETOOLONG => {}
                errno => return errno,
            }
        }
        if forbidden { Errno::ACCESS } else { Errno::NOENT }
    };
    match from(absent) {
        Errno::ACCESS | Errno::NOENT if absent > 0 => from(0),
        errno => errno,
    }
}

/// An empty place is the current directory.
fn join(place: &[u8], name: &[u8]) -> CString {
    let mut path = Vec::with_capacity(place.len() + name.len() + 2);
    path.extend_from_slice(place);
    if !place.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(name);
    // Both parts come from strings that a NUL byte ended.
    CString::new(path).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `search` tried, and its answer, if the places of `answers` say so and all others have no such file.
    fn tried(name: &CStr, path: &str, answers: &[(&str, Errno)]) -> (Vec<String>, Errno) {
        tried_from(0, name, path, answers)
    }

    fn tried_from(absent: usize, name: &CStr, path: &str, answers: &[(&str, Errno)]) -> (Vec<String>, Errno) {
        let mut places = Vec::new();
        let errno = search(name, path.as_bytes(), absent, |place| {
            let place = place.to_str().unwrap().to_owned();
            let answer = answers.iter().find(|(at, _)| *at == place).map_or(Errno::NOENT, |(_, errno)| *errno);
            places.push(place);
            answer
        });
        (places, errno)
    }

    #[test]
    fn a_name_with_a_slash_is_not_searched() {
        assert_eq!(tried(c"./x", "/a:/b", &[]), (vec!["./x".into()], Errno::NOENT));
        assert_eq!(tried(c"/x", "/a", &[("/x", Errno::ACCESS)]).1, Errno::ACCESS);
    }

    #[test]
    fn places_are_tried_in_order_and_empty_ones_are_here() {
        let (places, errno) = tried(c"x", "/a::/b:", &[("/a/x", Errno::NOTDIR)]);
        assert_eq!(places, ["/a/x", "x", "/b/x", "x"]);
        assert_eq!(errno, Errno::NOENT);
    }

    #[test]
    fn forbidden_is_remembered_but_does_not_end_the_search() {
        let (places, errno) = tried(c"x", "/a:/b", &[("/a/x", Errno::ACCESS)]);
        assert_eq!((places.len(), errno), (2, Errno::ACCESS));
    }

    #[test]
    fn any_other_error_ends_the_search() {
        let (places, errno) = tried(c"x", "/a:/b", &[("/a/x", Errno::TOOBIG)]);
        assert_eq!((places.len(), errno), (1, Errno::TOOBIG));
    }

    #[test]
    fn a_place_that_is_said_to_hold_it_is_tried_first() {
        let (places, errno) = tried_from(2, c"x", "/a:/b:/c:/d", &[("/c/x", Errno::TOOBIG)]);
        assert_eq!((places, errno), (vec!["/c/x".into()], Errno::TOOBIG));
    }

    #[test]
    fn a_wrong_word_about_places_changes_no_answer() {
        for absent in [1, 2, 3, usize::MAX] {
            let (places, errno) = tried_from(absent, c"x", "/a:/b", &[("/a/x", Errno::ACCESS)]);
            assert_eq!((places.last().unwrap().as_str(), errno), ("/b/x", Errno::ACCESS), "{absent}");
            assert_eq!(tried_from(absent, c"x", "/a:/b", &[("/a/x", Errno::LOOP)]).1, Errno::LOOP, "{absent}");
            assert_eq!(tried_from(absent, c"x", "/a:/b", &[]).1, Errno::NOENT, "{absent}");
        }
    }

    #[test]
    fn names_that_cannot_be_are_not_tried() {
        assert_eq!(tried(c"", "/a", &[]), (vec![], Errno::NOENT));
        let long = CString::new(vec![b'x'; 256]).unwrap();
        assert_eq!(tried(&long, "/a", &[]), (vec![], Errno::NAMETOOLONG));
    }

    #[test]
    fn the_first_path_of_the_environment_counts() {
        assert_eq!(path(b"A=1\0PATH=/x\0PATH=/y\0"), b"/x");
        assert_eq!(path(b"MYPATH=/x\0"), DEFAULT_PATH);
        assert_eq!(path(b"PATH=\0"), b"");
    }
}
