// SPDX-License-Identifier: Apache-2.0
use super::super::spool::tests::{file, record, spool};
use super::*;
use proptest::prelude::*;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

/// A directory to write to, and one beside it that nobody may touch; links of the first lead there.
struct Place {
    root: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        for name in ["inside/sub", "outside/deep"] {
            fs::create_dir_all(root.path().join(name)).unwrap();
        }
        fs::write(root.path().join("outside/deep/canary"), "alive").unwrap();
        symlink("../outside", root.path().join("inside/out")).unwrap();
        symlink(root.path().join("outside/deep/canary"), root.path().join("inside/sub/file")).unwrap();
        Self { root }
    }

    fn inside(&self, name: &str) -> PathBuf {
        self.root.path().join("inside").join(name)
    }

    fn apply(&self, records: &[Vec<u8>]) -> Result<Vec<Left>, Error> {
        Target::open(&self.inside("")).unwrap().apply(&spool(records)?, Path::new(""), None, |_| true)
    }

    fn check(&self) {
        let outside = self.root.path().join("outside");
        assert_eq!(fs::read_to_string(outside.join("deep/canary")).unwrap(), "alive");
        let count = |place: &Path| fs::read_dir(place).unwrap().count();
        let counts = (count(self.root.path()), count(&outside), count(&outside.join("deep")));
        assert_eq!(counts, (2, 1, 1), "something was written outside");
    }
}

#[test]
fn files_come_with_content_mode_and_time() {
    let place = Place::new();
    let told = [
        record(Kind::Directory, State::Added, b"new", b""),
        file("new/a", "text"),
        record(Kind::Link, State::Added, b"new/l", b"a"),
        file("unseen/parents/b", ""),
    ];
    assert_eq!(place.apply(&told).unwrap(), [] as [Left; 0]);
    let metadata = fs::metadata(place.inside("new/l")).unwrap();
    assert_eq!((metadata.permissions().mode() & 0o7777, metadata.mtime()), (0o755, 1_000_000_000));
    assert_eq!(fs::read_to_string(place.inside("new/a")).unwrap(), "text");
    assert_eq!(fs::metadata(place.inside("new")).unwrap().mtime(), 1_000_000_000);
    assert!(place.inside("unseen/parents/b").exists());
    place.check();
}

#[test]
fn links_of_the_host_are_replaced_and_never_followed() {
    let place = Place::new();
    place.apply(&[file("sub/file", "new")]).unwrap();
    assert!(fs::symlink_metadata(place.inside("sub/file")).unwrap().is_file());
    let through = place.apply(&[file("out/deep/canary", "dead")]);
    assert!(matches!(through, Err(Error::Write { .. })), "{through:?}");
    let gone = place.apply(&[record(Kind::File, State::Removed, b"out/deep/canary", b"")]);
    assert!(matches!(gone, Err(Error::Write { .. })), "{gone:?}");
    place.apply(&[record(Kind::Directory, State::Changed, b"out", b""), file("out/x", "")]).unwrap();
    assert!(fs::symlink_metadata(place.inside("out")).unwrap().is_dir());
    place.check();
}

#[test]
fn what_is_removed_is_removed_whole_and_not_behind_links() {
    let place = Place::new();
    place.apply(&[record(Kind::Directory, State::Removed, b"sub", b"")]).unwrap();
    place.apply(&[record(Kind::Link, State::Removed, b"out", b"")]).unwrap();
    place.apply(&[record(Kind::Directory, State::Removed, b"was/never", b"")]).unwrap();
    assert_eq!(fs::read_dir(place.inside("")).unwrap().count(), 0);
    place.check();
}

#[test]
fn devices_and_links_that_lead_out_are_left_out() {
    let place = Place::new();
    let told = [
        record(Kind::Special, State::Added, b"dev", b""),
        record(Kind::Link, State::Added, b"l1", b"/etc/passwd"),
        record(Kind::Link, State::Added, b"l2", b"../outside"),
        record(Kind::Link, State::Added, b"l3", b"sub/file"),
    ];
    let left = place.apply(&told).unwrap();
    assert_eq!(left.len(), 3, "{left:?}");
    assert!(left[0].contains("\"dev\"") && left[2].contains("\"l2\""), "{left:?}");
    assert!(!place.inside("l1").exists() && fs::symlink_metadata(place.inside("l3")).is_ok());
    place.check();
}

#[test]
fn a_kind_may_take_anothers_place() {
    let place = Place::new();
    place.apply(&[file("sub", "a file now")]).unwrap();
    assert_eq!(fs::read_to_string(place.inside("sub")).unwrap(), "a file now");
    place.apply(&[record(Kind::Directory, State::Changed, b"sub", b"")]).unwrap();
    assert!(place.inside("sub").is_dir());
    place.check();
}

/// One name, of a few, so that records meet.
fn name() -> impl Strategy<Value = &'static str> {
    prop_oneof![Just("out"), Just("sub"), Just("file"), Just("deep"), Just("canary"), Just(".."), Just("a")]
}

fn told() -> impl Strategy<Value = Vec<u8>> {
    let kind = prop_oneof![Just(Kind::Directory), Just(Kind::File), Just(Kind::Link), Just(Kind::Special)];
    let state = prop_oneof![Just(State::Added), Just(State::Changed), Just(State::Removed)];
    let target = prop_oneof![Just("../outside"), Just("a"), Just("/etc"), Just("out/../.."), Just("sub/../../outside")];
    (kind, state, proptest::collection::vec(name(), 1..4), target).prop_map(|(kind, state, path, target)| {
        let content = if state == State::Removed || kind == Kind::Directory { "" } else { target };
        let content = if kind == Kind::Special { "" } else { content };
        record(kind, state, path.join("/").as_bytes(), content.as_bytes())
    })
}

proptest! {
    /// Whatever a guest tells, one time after the other, nothing is written or removed elsewhere.
    #[test]
    fn nothing_reaches_outside(tellings in proptest::collection::vec(proptest::collection::vec(told(), 1..6), 1..5)) {
        let place = Place::new();
        for telling in tellings {
            let _any = place.apply(&telling);
            place.check();
        }
    }
}

#[test]
fn what_spares_leaves_directories_where_they_are() {
    let place = Place::new();
    fs::write(place.inside("plain"), "old").unwrap();
    let apply = |told: &[Vec<u8>]| {
        let target = Target::open(&place.inside("")).unwrap().sparing();
        target.apply(&spool(told).unwrap(), Path::new(""), None, |_| true)
    };
    for told in [file("sub", "new"), file("out/x", "new"), file("plain/x", "new")] {
        let error = apply(&[told]).unwrap_err();
        assert!(error.is_in_the_way(), "{error:?}");
    }
    assert!(apply(&[file("plain", "new")]).unwrap().is_empty());
    assert_eq!(fs::read_to_string(place.inside("plain")).unwrap(), "new");
    assert_eq!(fs::read_dir(place.inside("")).unwrap().count(), 3, "nothing half done is left");
    place.check();
}
