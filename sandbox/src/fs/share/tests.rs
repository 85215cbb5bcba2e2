// SPDX-License-Identifier: Apache-2.0
//! Requests a guest's kernel would not make, and ordinary ones, to a share of a directory that can be written to.

mod hostile;

use super::*;
use rustix::fd::AsFd;
use rustix::fs::{FileType, Mode};
use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use virtiofsd::filesystem::{Extensions, FsOptions};
use virtiofsd::fuse::{ROOT_ID, SetattrIn, SetattrValid};

fn caller() -> Context {
    Context { uid: GuestUid::from(0), gid: GuestGid::from(0), pid: 0 }
}

struct Fixture {
    directory: tempfile::TempDir,
    share: Share,
}

fn fixture() -> Fixture {
    let directory = tempfile::tempdir().unwrap();
    let share = share(directory.path());
    share.init(FsOptions::empty()).unwrap();
    Fixture { directory, share }
}

fn share(place: &std::path::Path) -> Share {
    let descriptors = fs::File::open("/proc/self/fd").unwrap().as_fd().try_clone_to_owned().unwrap();
    let tree = Tree { descriptors, owners: BTreeMap::new(), devices: Vec::new() };
    let plan = Plan { parent: 0, uid: 0, gid: 0, steps: Vec::new(), volumes: Vec::new() };
    Share::new(place.to_str().unwrap(), tree, &plan, Mapping::Same, 1000).unwrap()
}

impl Fixture {
    fn lookup(&self, name: &CStr) -> io::Result<Entry> {
        self.share.lookup(caller(), ROOT_ID, name)
    }
}

#[test]
fn a_name_is_one_component() {
    for bad in [c"", c".", c"..", c"a/b", c"/etc", c"../etc"] {
        assert!(component(bad).is_err(), "{bad:?}");
    }
    for good in [c"a", c"...", c".ssh", c"a b\n\xff"] {
        assert!(component(good).is_ok(), "{good:?}");
    }
}

#[test]
fn no_set_id_file_and_no_device_is_made() {
    assert_eq!(permitted(0o104_755, 0o104_755).unwrap(), 0o100_755);
    assert_eq!(permitted(0o2755, DIRECTORY).unwrap(), 0o2755);
    assert!(permitted(0o020_666, 0o020_666).is_err());
    assert!(permitted(0o060_666, 0o060_666).is_err());
}

#[test]
fn names_that_lead_elsewhere_are_refused_everywhere() {
    let fixture = fixture();
    let share = &fixture.share;
    fs::write(fixture.directory.path().join("a"), "").unwrap();
    let file = fixture.lookup(c"a").unwrap().inode;
    for name in [c"..", c"/etc/passwd", c"../../etc", c"."] {
        let none = Extensions::default;
        assert!(share.lookup(caller(), ROOT_ID, name).is_err());
        assert!(share.mkdir(caller(), ROOT_ID, name, 0o755, 0, none()).is_err());
        assert!(share.mknod(caller(), ROOT_ID, name, 0o100_644, 0, 0, none()).is_err());
        assert!(share.symlink(caller(), c"x", ROOT_ID, name, none()).is_err());
        assert!(share.create(caller(), ROOT_ID, name, 0o644, false, 2, 0, none()).is_err());
        assert!(share.link(caller(), file, ROOT_ID, name).is_err());
        assert!(share.rename(caller(), ROOT_ID, c"a", ROOT_ID, name, 0).is_err());
        assert!(share.rename(caller(), ROOT_ID, name, ROOT_ID, c"b", 0).is_err());
        assert!(share.unlink(caller(), ROOT_ID, name).is_err());
        assert!(share.rmdir(caller(), ROOT_ID, name).is_err());
    }
    assert!(fixture.lookup(c"a").is_ok());
}

#[test]
fn a_pipe_can_be_seen_but_not_opened() {
    let fixture = fixture();
    let directory = fs::File::open(fixture.directory.path()).unwrap();
    rustix::fs::mknodat(&directory, "pipe", FileType::Fifo, Mode::from_raw_mode(0o666), 0).unwrap();
    let pipe = fixture.lookup(c"pipe").unwrap();
    for flags in 0..3 {
        assert!(fixture.share.open(caller(), pipe.inode, false, flags).is_err());
    }
    let valid = SetattrValid::SIZE;
    assert!(fixture.share.setattr(caller(), pipe.inode, SetattrIn::default(), None, valid).is_err());
}

#[test]
fn a_link_is_not_followed() {
    let fixture = fixture();
    std::os::unix::fs::symlink("/etc", fixture.directory.path().join("link")).unwrap();
    let link = fixture.lookup(c"link").unwrap();
    assert_eq!(fixture.share.readlink(caller(), link.inode).unwrap(), b"/etc");
    assert!(fixture.share.lookup(caller(), link.inode, c"passwd").is_err());
    assert!(fixture.share.open(caller(), link.inode, false, 0).is_err());
    assert!(fixture.share.opendir(caller(), link.inode, 0).is_err());
}

#[test]
fn links_to_one_file_have_one_number() {
    let fixture = fixture();
    let at = |name: &str| fixture.directory.path().join(name);
    fs::write(at("a"), "").unwrap();
    fs::hard_link(at("a"), at("b")).unwrap();
    fs::write(at("c"), "").unwrap();
    let [a, b, c] = [c"a", c"b", c"c"].map(|name| fixture.lookup(name).unwrap());
    assert_eq!((a.inode, a.attr.ino), (b.inode, b.attr.ino));
    assert_ne!(a.inode, c.inode);
    assert_ne!(a.attr.ino, c.attr.ino);
}

#[test]
fn a_guest_cannot_make_a_file_set_user_id() {
    let fixture = fixture();
    let share = &fixture.share;
    let (made, _, _) = share.create(caller(), ROOT_ID, c"a", 0o6755, false, 2, 0, Extensions::default()).unwrap();
    let attr = SetattrIn { mode: 0o106_777, ..SetattrIn::default() };
    share.setattr(caller(), made.inode, attr, None, SetattrValid::MODE).unwrap();
    let mode = fs::metadata(fixture.directory.path().join("a")).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o777);
}

#[test]
fn a_file_that_may_only_be_written_can_be_truncated() {
    let fixture = fixture();
    let path = fixture.directory.path().join("a");
    fs::write(&path, "content").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o200)).unwrap();
    let file = fixture.lookup(c"a").unwrap().inode;
    // Root may read whatever it likes, unless it gives that up; each thread has rights of its own.
    let rights = capabilities(None).unwrap();
    set_capabilities(None, CapabilitySets { effective: CapabilitySet::empty(), ..rights }).unwrap();

    let truncated = fixture.share.setattr(caller(), file, SetattrIn::default(), None, SetattrValid::SIZE);

    set_capabilities(None, rights).unwrap();
    assert_eq!(truncated.unwrap().0.size, 0);
    assert_eq!(fs::metadata(path).unwrap().len(), 0);
}

#[test]
fn numbers_and_handles_that_were_never_given_are_refused() {
    let fixture = fixture();
    let share = &fixture.share;
    for inode in [0, 2, 77, u64::MAX] {
        assert!(share.lookup(caller(), inode, c"a").is_err());
        assert!(share.getattr(caller(), inode, None).is_err());
        assert!(share.open(caller(), inode, false, 0).is_err());
        assert!(share.releasedir(caller(), inode, 0, 1).is_err());
        share.forget(caller(), inode, u64::MAX);
    }
    share.forget(caller(), ROOT_ID, u64::MAX);
    assert!(share.getattr(caller(), ROOT_ID, None).is_ok());
    assert!(share.readdir(caller(), ROOT_ID, 12345, 4096, 0).is_err());
}

#[test]
fn what_can_change_is_believed_for_a_short_time() {
    let fixture = fixture();
    fs::write(fixture.directory.path().join("a"), "").unwrap();
    let entry = fixture.lookup(c"a").unwrap();
    assert_eq!((entry.entry_timeout, entry.attr_timeout), (SHORT, SHORT));
    assert_eq!(fixture.lookup(c"b").err().and_then(|error| error.raw_os_error()), Some(Errno::NOENT.raw_os_error()));
    let (_, options) = fixture.share.open(caller(), entry.inode, false, 0).unwrap();
    assert!(!options.contains(OpenOptions::KEEP_CACHE));
}
