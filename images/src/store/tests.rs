// SPDX-License-Identifier: Apache-2.0

use super::*;
use crate::{digest, elf};
use tempfile::TempDir;

const KERNEL: Kind = Kind::Kernel(Flavour::Base);

fn store() -> (TempDir, Store) {
    let directory = TempDir::new().unwrap();
    let store = Store::at(directory.path().join("sandbox"));
    (directory, store)
}

/// Stores a kernel whose last bytes are `salt`.
fn install(store: &Store, salt: &str) -> Image {
    let mut bytes = elf::tests::kernel();
    bytes.extend(salt.as_bytes());
    let sha256 = digest::of_bytes(&bytes);
    let origin = Origin::Kernel {
        flavour: Flavour::Base,
        version: "6.12.0".to_owned(),
        source: "tests".to_owned(),
        config_sha256: kernel::config_digest(Flavour::Base).to_owned(),
        compiler: "gcc".to_owned(),
        edited: true,
    };
    let manifest = Manifest { sha256: sha256.clone(), size: bytes.len() as u64, created: 0, origin };
    let lock = store.lock(KERNEL, || panic!("nobody else builds here")).unwrap();
    store.install(&lock, digest::short(&sha256), manifest, &mut bytes.as_slice()).unwrap()
}

#[test]
fn empty_store_says_what_to_do() {
    let (_directory, store) = store();

    let error = store.kernel(Flavour::Nested).unwrap_err().to_string();

    assert!(error.contains("nested") && error.contains("images build kernel --flavour nested"), "{error}");
    assert!(store.entries().unwrap().is_empty());
}

#[test]
fn the_image_installed_last_is_the_current_one() {
    let (_directory, store) = store();
    install(&store, "one");
    let second = install(&store, "two");

    assert_eq!(store.kernel(Flavour::Base).unwrap(), second);
    second.open().unwrap();
    let current: Vec<bool> = store.entries().unwrap().iter().map(|entry| entry.current).collect();
    assert_eq!(current.iter().filter(|current| **current).count(), 1);
    assert_eq!(current.len(), 2);
}

#[test]
fn installing_over_a_damaged_image_mends_it() {
    let (_directory, store) = store();
    let image = install(&store, "same");
    fs::write(image.path(), "damage").unwrap();

    install(&store, "same").open().unwrap();

    assert!(names_in(&store.images()).unwrap().iter().all(|name| !name.starts_with('.')));
}

#[test]
fn kernel_of_another_configuration_is_outdated() {
    let (_directory, store) = store();
    let image = install(&store, "old");
    let path = image.path().with_file_name(MANIFEST);
    let text = fs::read_to_string(&path).unwrap().replace(kernel::config_digest(Flavour::Base), "0000");
    fs::write(&path, text).unwrap();

    assert!(matches!(store.kernel(Flavour::Base), Err(Error::Outdated { kind: KERNEL, .. })));
}

#[test]
fn initramfs_of_another_protocol_is_refused() {
    let (directory, store) = store();
    let init = directory.path().join("init");
    fs::write(&init, elf::tests::init()).unwrap();
    let image = crate::build_initramfs(&store, &init, &mut |_| {}).unwrap();
    let path = image.path().with_file_name(MANIFEST);
    let mut manifest: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    manifest["protocol"] = 60_000.into();
    fs::write(&path, manifest.to_string()).unwrap();

    assert!(matches!(store.initramfs(), Err(Error::Protocol { found: 60_000, .. })));
}

#[test]
fn pointers_lead_nowhere_but_into_the_store() {
    let (_directory, store) = store();
    install(&store, "one");
    for name in ["../../etc", "kernel-", "kernel-xyz", "", "initramfs-12/../x"] {
        fs::write(store.images().join(KERNEL.pointer().unwrap()), name).unwrap();
        assert!(matches!(store.kernel(Flavour::Base), Err(Error::Pointer(_))), "{name}");
    }
    fs::write(store.images().join(KERNEL.pointer().unwrap()), "kernel-0123456789ab\n").unwrap();
    assert!(matches!(store.kernel(Flavour::Base), Err(Error::Broken { .. })));
}

#[test]
fn damaged_manifest_is_told_apart_from_a_missing_one() {
    let (_directory, store) = store();
    let image = install(&store, "one");
    fs::write(image.path().with_file_name(MANIFEST), "{").unwrap();

    let Err(Error::Broken { source, .. }) = store.kernel(Flavour::Base) else { panic!("a broken image was found") };

    assert!(matches!(*source, Error::Manifest { .. }));
    assert!(store.entries().unwrap()[0].image.is_err());
}

#[test]
fn only_one_builds_at_a_time() {
    let (_directory, store) = store();
    let held = store.lock(KERNEL, || panic!("nobody else builds here")).unwrap();

    assert!(matches!(store.try_lock(KERNEL), Err(Error::Busy)));
    assert!(matches!(store.gc(false), Err(Error::Busy)));
    store.try_lock(Kind::Initramfs).unwrap();

    let (said, heard) = std::sync::mpsc::channel();
    let waiter = {
        let store = store.clone();
        std::thread::spawn(move || store.lock(KERNEL, || said.send(()).unwrap()).unwrap())
    };
    heard.recv().unwrap();
    drop(held);
    waiter.join().unwrap();
}

#[test]
fn gc_removes_what_is_old_or_unfinished_and_nothing_else() {
    let (_directory, store) = store();
    install(&store, "one");
    let current = install(&store, "two");
    fs::create_dir_all(store.images().join(".new-dead/whole")).unwrap();
    fs::create_dir_all(store.builds().join("kernel-0123/objects")).unwrap();
    fs::write(store.builds().join("kernel-0123/objects/a.o"), "12345").unwrap();

    let dry = store.gc(true).unwrap();
    assert_eq!(store.entries().unwrap().len(), 2);
    let wet = store.gc(false).unwrap();

    assert_eq!(dry, wet);
    assert_eq!(wet.removed.len(), 3);
    assert!(wet.bytes() > 5);
    assert_eq!(store.kernel(Flavour::Base).unwrap(), current);
    current.open().unwrap();
    assert_eq!(store.gc(false).unwrap(), Gc::default());
}
