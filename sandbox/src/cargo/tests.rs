// SPDX-License-Identifier: Apache-2.0
use super::*;
use crate::spec::{Process as Inherited, User};
use std::fs;

fn caller(directory: &Path, variables: &[(&str, &Path)]) -> Caller {
    Caller {
        directory: directory.to_owned(),
        environment: variables.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect(),
        user: User { uid: 1000, gid: 1000, groups: vec![] },
        process: Inherited { umask: 0o022, rlimits: vec![] },
        ignored: 0,
        terminals: [false; 3],
    }
}

#[test]
fn a_test_sees_its_workspace_target_and_toolchain() {
    let place = tempfile::tempdir().unwrap();
    let at = |name: &str| place.path().join(name);
    for directory in ["ws/member", "target/debug/deps", "tc/bin", "tc/lib/rustlib"] {
        fs::create_dir_all(at(directory)).unwrap();
    }
    fs::write(at("ws/Cargo.toml"), "[workspace]\n").unwrap();
    fs::write(at("target/.rustc_info.json"), "{}").unwrap();
    let (package, cargo, home) = (at("ws/member"), at("tc/bin/cargo"), at("home"));
    let caller = caller(&package, &[("CARGO_MANIFEST_DIR", &package), ("CARGO", &cargo), ("HOME", &home)]);
    let process = Process::of(&caller, &at("target/debug/deps/x-1"));
    assert_eq!((process.root.clone(), process.target.clone()), (at("ws"), Some(at("target"))));
    assert_eq!(process.places(), [at("ws"), at("target")]);
    for path in ["target", "target/debug", "tc", "home/.cargo/registry", "home/.rustup/toolchains"] {
        assert!(process.shown.contains(&at(path)), "{path}: {:?}", process.shown);
    }
    assert!(!process.shown.iter().any(|path| path.starts_with(at("ws")) || path.ends_with(".cargo")));
}

#[test]
fn a_doctest_and_a_program_elsewhere_see_their_own_folder() {
    let place = tempfile::tempdir().unwrap();
    let at = |name: &str| place.path().join(name);
    let package = at("p");
    fs::create_dir(&package).unwrap();
    let caller = caller(&package, &[("CARGO_MANIFEST_DIR", &package)]);
    let shown = |executable: &Path| Process::of(&caller, executable).shown;
    assert!(shown(&at("rustdoctestA/rust_out")).contains(&at("rustdoctestA")));
    let lone = std::env::temp_dir().join("program");
    assert!(shown(&lone).contains(&lone));
    // What cargo run was given a relative path of is seen from where it was called.
    assert_eq!(Process::of(&caller, Path::new("target/debug/x")).root, package);
}

#[test]
fn in_a_home_a_program_is_shown_all_the_same() {
    let place = tempfile::tempdir().unwrap();
    let at = |name: &str| place.path().join(name);
    fs::create_dir_all(at("target/debug/deps")).unwrap();
    fs::write(at("target/.rustc_info.json"), "{}").unwrap();
    let variables = [("CARGO_MANIFEST_DIR", place.path()), ("HOME", place.path())];
    let shown = Process::of(&caller(place.path(), &variables), &at("target/debug/deps/x-1")).shown;
    assert!(shown.contains(&at("target")), "{shown:?}");
    let lone = at("x");
    assert!(Process::of(&caller(place.path(), &variables), &lone).shown.contains(&lone), "in the home itself");
    let process = Process::of(&caller(Path::new("/"), &[]), Path::new("/opt/tool/x"));
    assert!(process.shown.contains(&PathBuf::from("/opt/tool")), "{:?}", process.shown);
}

#[test]
fn without_cargo_the_directory_is_all_there_is() {
    let process = Process::of(&caller(Path::new("/work"), &[]), Path::new("/opt/x"));
    assert_eq!((process.root, process.directory, process.target), ("/work".into(), "/work".into(), None));
}
