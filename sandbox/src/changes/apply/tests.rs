// SPDX-License-Identifier: Apache-2.0
use super::super::spool::tests::{file, record, spool};
use super::*;
use guest_init::record::State;
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
        let (spool, target) = (spool(records)?, Target::open(&self.inside("")).unwrap().replacing());
        target.apply(&spool, &spool.committed(Path::new(""), &[PathBuf::new()]).steps, &|| Ok(()))
    }

    /// As what is copied, not as what is committed.
    fn copy(&self, records: &[Vec<u8>], name: Option<&str>) -> Result<Vec<Left>, Error> {
        let (spool, target) = (spool(records)?, Target::open(&self.inside("")).unwrap());
        target.apply(&spool, &spool.copied(name.map(OsStr::new)), &|| Ok(()))
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
    assert!(matches!(through, Err(Error::Apply { .. })), "{through:?}");
    let gone = place.apply(&[record(Kind::File, State::Removed, b"out/deep/canary", b"")]);
    assert!(matches!(gone, Err(Error::Apply { .. })), "{gone:?}");
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
fn what_is_copied_leaves_what_is_there_as_it_is() {
    let place = Place::new();
    fs::write(place.inside("plain"), "old").unwrap();
    fs::write(place.inside("sub/old"), "old").unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, place.inside("fifo"), FileType::Fifo, 0o600.into(), 0).unwrap();
    let directory = |name: &str| record(Kind::Directory, State::Added, name.as_bytes(), b"");
    let link = |name: &str| record(Kind::Link, State::Added, name.as_bytes(), b"x");
    for (told, there, comes) in [
        (file("sub", "new"), "directory", "a file"),
        (link("sub"), "directory", "a symbolic link"),
        (directory("plain"), "file", "a directory"),
        (directory("out"), "symbolic link", "a directory"),
        (file("out", "new"), "symbolic link", "a file"),
        (file("fifo", "new"), "FIFO", "a file"),
        (link("fifo"), "FIFO", "a symbolic link"),
        (directory("fifo"), "FIFO", "a directory"),
    ] {
        // Nothing is written, also of what sorts before it.
        let error = place.copy(&[file("a", "new"), told], None).unwrap_err();
        let words = crate::explain(&error);
        assert!(error.is_in_the_way() && words.contains(&format!("cannot overwrite {there} \"")), "{words}");
        assert!(words.ends_with(&format!("\" with {comes}")), "{words}");
    }
    for told in [file("out/x", "new"), file("plain/x", "new")] {
        assert!(place.copy(&[told], None).unwrap_err().is_in_the_way());
    }
    assert_eq!(fs::read_dir(place.inside("")).unwrap().count(), 4, "nothing half done is left");
    assert_eq!(fs::read_to_string(place.inside("sub/old")).unwrap(), "old");
    place.copy(&[directory("sub"), file("plain", "new"), link("out")], None).unwrap();
    assert_eq!(fs::read_to_string(place.inside("plain")).unwrap(), "new");
    assert_eq!(fs::read_link(place.inside("out")).unwrap(), Path::new("x"));
    assert!(place.inside("sub/old").exists());
    place.check();
}

#[test]
fn a_link_alone_leads_out_of_what_is_copied() {
    let place = Place::new();
    let left = place.copy(&[record(Kind::Link, State::Added, b"", b"sub")], Some("l")).unwrap();
    assert!(left.len() == 1 && fs::symlink_metadata(place.inside("l")).is_err(), "{left:?}");
}

#[test]
fn directories_keep_what_the_host_had_set() {
    let place = Place::new();
    fs::set_permissions(place.inside("sub"), fs::Permissions::from_mode(0o3775)).unwrap();
    place.apply(&[record(Kind::Directory, State::Changed, b"sub", b"")]).unwrap();
    assert_eq!(fs::metadata(place.inside("sub")).unwrap().mode() & 0o7777, 0o3755);
}

#[test]
fn directories_that_may_not_be_written_are_for_the_moment() {
    let place = Place::new();
    fs::create_dir(place.inside("sub/gone")).unwrap();
    fs::write(place.inside("sub/gone/x"), "").unwrap();
    for name in ["sub/gone", "sub"] {
        fs::set_permissions(place.inside(name), fs::Permissions::from_mode(0o555)).unwrap();
    }
    // To root, who may anyway, modes are only looked at.
    let told = [file("sub/new", ""), record(Kind::Directory, State::Removed, b"sub/gone", b"")];
    place.apply(&told).unwrap();
    assert!(place.inside("sub/new").exists() && !place.inside("sub/gone").exists());
    assert_eq!(fs::metadata(place.inside("sub")).unwrap().mode() & 0o7777, 0o555);
    place.check();
}

#[test]
fn a_signal_ends_it_and_what_was_done_is_told() {
    let place = Place::new();
    let (spool, target) = (spool(&[file("a", ""), file("b", "")]).unwrap(), Target::open(&place.inside("")).unwrap());
    let go_on = || if place.inside("a").exists() { Err(io::Error::other("enough")) } else { Ok(()) };
    let error = target.apply(&spool, &spool.copied(None), &go_on).unwrap_err();
    assert!(crate::explain(&error).contains("b\"; what sorts before it has been written"), "{error:?}");
    assert!(!place.inside("b").exists());
}
