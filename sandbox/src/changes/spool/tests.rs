// SPDX-License-Identifier: Apache-2.0
use super::*;
use proptest::prelude::*;

/// A record of a guest that says what it likes.
pub(in crate::changes) fn record(kind: Kind, state: State, path: &[u8], content: &[u8]) -> Vec<u8> {
    let record = Record {
        kind,
        state,
        mode: 0o7755,
        path_len: path.len() as u16,
        uid: 0,
        gid: 0,
        seconds: 1_000_000_000,
        nanoseconds: u32::MAX,
        links: 1,
        inode: 7,
        size: content.len() as u64,
    };
    let header: Vec<u8> = record.words().iter().flat_map(|word| word.to_le_bytes()).collect();
    [&header[..], path, content].concat()
}

pub(in crate::changes) fn file(path: &str, content: &str) -> Vec<u8> {
    record(Kind::File, State::Added, path.as_bytes(), content.as_bytes())
}

/// A stream of these, with its end.
pub(in crate::changes) fn spool(records: &[Vec<u8>]) -> Result<Spool, Error> {
    let end = record(Kind::End, State::Added, b"", b"");
    Spool::receive(&[records.concat(), end].concat()[..], true)
}

#[test]
fn what_was_told_is_there_by_name() {
    let told = [file("b", "two"), record(Kind::Link, State::Changed, b"a/l", b"../b"), file("a/f", "")];
    let spool = spool(&told).unwrap();
    let names: Vec<_> = spool.changes().iter().map(|change| change.path.to_str().unwrap()).collect();
    assert_eq!(names, ["a/f", "a/l", "b"]);
    assert_eq!(spool.target(&spool.changes()[1]).unwrap(), b"../b");
    let mut text = String::new();
    spool.content(&spool.changes()[2]).read_to_string(&mut text).unwrap();
    assert_eq!((text.as_str(), spool.changes()[2].mode, spool.changes()[2].nanoseconds), ("two", 0o755, 999_999_999));
    assert_eq!(spool.list(), "A /a/f\nM /a/l\nA /b\n");
}

#[test]
fn names_that_lead_elsewhere_are_refused() {
    for name in ["/etc/passwd", "..", "a/../../b", "a//b", "./a", "a\0b", "a/"] {
        assert!(matches!(spool(&[file(name, "x")]), Err(Error::Name(_))), "{name:?}");
    }
    assert!(matches!(spool(&[file(&"x".repeat(256), "")]), Err(Error::Name(_))));
    assert!(matches!(spool(&[file(&"x/".repeat(3000), "")]), Err(Error::Record)));
}

#[test]
fn contradictions_are_refused() {
    let link = record(Kind::Link, State::Added, b"d", b"/etc");
    let gone = record(Kind::Directory, State::Removed, b"d", b"");
    for told in [[file("d", ""), file("d", "")], [link, file("d/passwd", "x")], [gone, file("d/x/y", "")]] {
        let [one, other] = told;
        for told in [[one.clone(), file("d-", ""), other.clone()], [other, file("d!", ""), one]] {
            assert!(matches!(spool(&told), Err(Error::Contradiction(_))), "{told:?}");
        }
    }
    let fine =
        [file("d/x/y", ""), record(Kind::Directory, State::Changed, b"d", b""), file("d-", ""), file("d!/x", "")];
    assert_eq!(spool(&fine).unwrap().changes().len(), 4);
}

#[test]
fn what_could_not_be_read_is_left_out() {
    let failed = |path: &str| record(Kind::Failed, State::Added, path.as_bytes(), &[0; 13])[..48 + path.len()].to_vec();
    let directory = record(Kind::Directory, State::Added, b"d", b"");
    let told = [file("a", "in part"), failed("a"), file("b", "whole"), directory, failed("d"), failed("../\u{1b}")];
    let spool = spool(&told).unwrap();
    let names: Vec<_> = spool.changes().iter().map(|change| change.path.to_str().unwrap()).collect();
    assert_eq!(names, ["b", "d"]);
    let unread: Vec<_> = spool.unread(Path::new("/in")).collect();
    assert!(unread[0].starts_with("\"/in/a\": Permission denied"), "{unread:?}");
    assert!(unread.len() == 3 && !unread[2].contains('\u{1b}'), "{unread:?}");
}

#[test]
fn a_stream_without_its_end_is_nothing() {
    let told = [file("a", "content"), file("b", "content")].concat();
    for length in 0..=told.len() {
        assert!(matches!(Spool::receive(&told[..length], true), Err(Error::Stream(_))), "{length}");
    }
    let failed = record(Kind::Failed, State::Added, b"", &[0; 13]);
    let error = Spool::receive(&failed[..], true).unwrap_err();
    assert!(matches!(&error, Error::Guest { source, .. } if source.raw_os_error() == Some(13)), "{error:?}");
}

#[test]
fn sizes_are_limited_before_they_are_believed() {
    let mut huge = file("a", "");
    huge[40..48].copy_from_slice(&u64::MAX.to_le_bytes());
    assert!(matches!(spool(&[huge.clone()]), Err(Error::TooMuch(_))));
    huge[40..48].copy_from_slice(&(1_u64 << 40).to_le_bytes());
    assert!(matches!(spool(&[huge]), Err(Error::TooMuch(_))));
    let mut link = record(Kind::Link, State::Added, b"l", b"");
    link[40..48].copy_from_slice(&5000_u64.to_le_bytes());
    assert!(matches!(spool(&[link]), Err(Error::Record)));
}

#[test]
fn a_tar_holds_no_special_bits_and_names_once_what_has_two() {
    let mut told = vec![file("a", "same"), file("b", "same"), record(Kind::File, State::Removed, b"d/gone", b"")];
    told.push(record(Kind::Special, State::Added, b"fifo", b""));
    for record in &mut told[..2] {
        record[28] = 2;
    }
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("t.tar");
    spool(&told).unwrap().pack(&path, &|| Ok(())).unwrap();
    let listed = std::process::Command::new("tar").arg("tvf").arg(&path).env("LC_ALL", "C").output().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    let lines: Vec<_> = listed.lines().collect();
    assert_eq!(lines.len(), 3, "{listed}");
    assert!(lines[0].starts_with("-rwxr-xr-x") && lines[0].ends_with(" a"), "{listed}");
    assert!(lines[1].ends_with("b link to a") && lines[2].ends_with("d/.wh.gone"), "{listed}");
}

proptest! {
    #[test]
    fn no_bytes_are_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400), content: bool) {
        let _any = Spool::receive(&bytes[..], content);
    }
}
