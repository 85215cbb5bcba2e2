// SPDX-License-Identifier: Apache-2.0

use super::*;
use crate::{Flavour, Origin};
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::time::{Duration, Instant};
use tempfile::TempDir;

fn stored(directory: &TempDir, kind: Kind, bytes: &[u8]) -> Image {
    let origin = match kind {
        Kind::Kernel(flavour) => Origin::Kernel {
            flavour,
            version: "6.12.0".to_owned(),
            source: "tests".to_owned(),
            config_sha256: String::new(),
            compiler: String::new(),
            edited: true,
        },
        Kind::Initramfs => Origin::Initramfs { protocol: 1, init_sha256: String::new() },
        Kind::Template => Origin::Template { boot_sha256: String::new() },
    };
    let path = directory.path().join(kind.file_name());
    fs::write(&path, bytes).unwrap();
    let manifest = Manifest { sha256: digest::of_bytes(bytes), size: bytes.len() as u64, created: 0, origin };
    Image::new(path, manifest)
}

const KERNEL: Kind = Kind::Kernel(Flavour::Base);

#[test]
fn whole_images_open_at_their_first_byte() {
    let directory = TempDir::new().unwrap();
    let archive = cpio::pack(&[]).unwrap();

    for (kind, bytes) in [(KERNEL, elf::tests::kernel()), (Kind::Initramfs, archive)] {
        let mut read = Vec::new();
        stored(&directory, kind, &bytes).open().unwrap().read_to_end(&mut read).unwrap();
        assert_eq!(read, bytes);
    }
}

#[test]
fn truncated_image_is_refused_with_both_sizes() {
    let directory = TempDir::new().unwrap();
    let image = stored(&directory, KERNEL, &elf::tests::kernel());
    let whole = image.manifest().size;
    File::options().write(true).open(image.path()).unwrap().set_len(whole - 1).unwrap();

    let Err(Error::Size { expected, found, .. }) = image.open() else { panic!("a truncated image was opened") };

    assert_eq!((expected, found), (whole, whole - 1));
}

#[test]
fn one_flipped_bit_is_refused() {
    let directory = TempDir::new().unwrap();
    let image = stored(&directory, KERNEL, &elf::tests::kernel());
    let mut bytes = fs::read(image.path()).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(image.path(), bytes).unwrap();

    assert!(matches!(image.open(), Err(Error::Digest { .. })));
    let (_file, check) = image.begin().unwrap();
    assert!(matches!(check.unwrap().finish(), Err(Error::Digest { .. })));
}

/// When the files that a test has just made are old enough to be known again.
fn later() -> SystemTime {
    SystemTime::now() + Duration::from_secs(60)
}

#[test]
fn a_file_that_passed_is_read_again_only_when_it_has_changed() {
    let directory = TempDir::new().unwrap();
    let image = stored(&directory, KERNEL, &elf::tests::kernel());
    let (_file, check) = image.begin().unwrap();
    check.expect("never checked").finish_at(later()).unwrap();
    assert!(image.begin().unwrap().1.is_none());

    // Same size, same times for all that a program can set; and the file system's clock has ticked.
    let before = fs::metadata(image.path()).unwrap();
    let mut bytes = fs::read(image.path()).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    let file = File::options().write(true).open(image.path()).unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    while file.metadata().unwrap().ctime_nsec() == before.ctime_nsec() && Instant::now() < deadline {
        file.write_all_at(&bytes, 0).unwrap();
        file.set_modified(before.modified().unwrap()).unwrap();
    }

    assert!(matches!(image.open(), Err(Error::Digest { .. })));
}

#[test]
fn a_file_that_has_just_changed_is_not_known_again() {
    let directory = TempDir::new().unwrap();
    let image = stored(&directory, KERNEL, &elf::tests::kernel());

    image.open().unwrap();

    assert!(image.begin().unwrap().1.is_some());
}

#[test]
fn a_stamp_is_good_for_one_digest() {
    let directory = TempDir::new().unwrap();
    let mut image = stored(&directory, KERNEL, &elf::tests::kernel());
    let (_file, check) = image.begin().unwrap();
    check.expect("never checked").finish_at(later()).unwrap();

    image.manifest.sha256 = digest::of_bytes(b"another");

    assert!(matches!(image.open(), Err(Error::Digest { .. })));
}

#[test]
fn check_and_reader_do_not_disturb_each_other() {
    let directory = TempDir::new().unwrap();
    let bytes = elf::tests::kernel();
    let (mut file, check) = stored(&directory, KERNEL, &bytes).begin().unwrap();

    let mut read = vec![0; bytes.len() / 2];
    file.read_exact(&mut read).unwrap();
    check.unwrap().finish().unwrap();
    file.read_to_end(&mut read).unwrap();

    assert_eq!(read, bytes);
}

#[test]
fn kernel_for_another_processor_is_refused() {
    let directory = TempDir::new().unwrap();
    let mut bytes = elf::tests::kernel();
    bytes[18] = 183;
    let image = stored(&directory, KERNEL, &bytes);

    assert!(matches!(image.open(), Err(Error::Kernel { source: elf::Error::Machine(183), .. })));
}

#[test]
fn initramfs_that_is_no_archive_is_refused() {
    let directory = TempDir::new().unwrap();
    let image = stored(&directory, Kind::Initramfs, b"\x1f\x8b compressed");

    assert!(matches!(image.open(), Err(Error::Archive { .. })));
}

#[test]
fn missing_file_is_named() {
    let directory = TempDir::new().unwrap();
    let image = stored(&directory, KERNEL, &elf::tests::kernel());
    fs::remove_file(image.path()).unwrap();

    let error = image.open().unwrap_err();

    assert!(error.to_string().contains("vmlinux"), "{error}");
}
