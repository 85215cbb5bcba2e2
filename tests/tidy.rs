// SPDX-License-Identifier: Apache-2.0
//! House rules that a machine can check: who may import what, one door for each external crate, how long a file and
//! a function may be, and that no error's cause is thrown away. The rules' reasons are in docs/decisions.md.

use std::fs;
use std::path::{Path, PathBuf};

/// Packages from left to right: each may use those before it.
const LINE: [&str; 5] = ["guest-init", "images", "sandbox", "harness", "tests"];

/// Modules of `sandbox`, and what each must never name.
const NEVER: &[(&str, &[&str])] = &[
    ("spec", &["crate::"]),
    ("outcome", &["crate::"]),
    ("memory", &["crate::virtio", "crate::engine", "crate::run", "crate::session", "crate::view", "crate::fs"]),
    ("sys", &["crate::virtio", "crate::engine", "crate::run", "crate::session", "crate::view", "crate::fs"]),
    ("admission", &["crate::virtio", "crate::engine", "crate::run", "crate::session", "crate::view", "crate::fs"]),
    ("packets", &["crate::"]),
    ("confine", &["crate::virtio", "crate::engine", "crate::run", "crate::session", "crate::view", "crate::fs"]),
    ("virtio/device", &["vhost_user", "mmio", "crate::engine", "kvm", "vsock::", "rng::"]),
    ("virtio/ring", &["vhost_user", "mmio", "crate::engine", "kvm", "vsock::", "rng::"]),
    ("virtio/worker", &["vhost_user", "mmio", "crate::engine", "kvm", "vsock::", "rng::"]),
    ("virtio/disk", &["vhost", "mmio", "engine", "kvm", "worker", "vsock", "rng::", "qemu", "QEMU"]),
    ("virtio/rng", &["vhost", "mmio", "engine", "kvm", "worker", "vsock", "qemu", "QEMU"]),
    ("virtio/vsock", &["vhost", "mmio", "engine", "kvm", "worker", "rng::", "qemu", "QEMU"]),
    ("virtio/mmio", &["kvm", "crate::engine", "vhost", "vsock::", "rng::"]),
    ("virtio/remote", &["kvm", "crate::engine", "mmio::", "crate::virtio::vhost_user", "vsock::", "rng::"]),
    ("virtio/vhost_user", &["kvm", "crate::engine", "vsock::", "rng::"]),
    ("engine", &["vsock::", "rng::", "crate::session", "crate::view", "crate::fs", "crate::run"]),
    ("engine/kvm", &["vhost_user", "super::qemu", "engine::qemu"]),
    ("engine/qemu", &["kvm_", "mmio", "super::kvm", "engine::kvm"]),
    ("session", &["crate::virtio", "crate::engine", "crate::run", "crate::view"]),
];

/// External crates and the one place of `sandbox` that may name each.
const DOORS: &[(&str, &[&str])] = &[
    // Each side of the protocol: a server for QEMU, and the front end of a device that lives in another process.
    ("vhost::", &["virtio/vhost_user", "virtio/remote"]),
    ("virtio_queue::", &["virtio/ring"]),
    ("kvm_ioctls::", &["engine/kvm", "engine/probe", "sys/kvm"]),
    ("kvm_bindings::", &["engine/kvm", "engine/probe", "sys/kvm"]),
    ("linux_loader::", &["engine/kvm/boot"]),
    ("vm_superio::", &["engine/kvm/platform"]),
    ("virtiofsd::", &["fs"]),
    ("vhost_fs::", &["fs"]),
    ("vhost_user_backend_fs::", &["fs"]),
    ("vm_memory_fs::", &["fs"]),
    ("virtio_queue_fs::", &["fs"]),
    ("libc::", &["sys"]),
    ("nix::", &["sys"]),
    ("seccompiler::", &["confine"]),
    ("landlock::", &["confine"]),
    ("clap_mangen::", &["cli"]),
    ("tar::", &["changes/tar"]),
    ("quick_junit::", &["junit", "cli/junit", "cli/suite"]),
    ("clap_complete::", &["cli"]),
    ("toml::", &["cli/config", "cli/suite", "cargo/project"]),
    ("libtest_mimic::", &["cli/suite"]),
    ("regex_lite::", &["cli/suite"]),
    ("glob::", &["spec/sync"]),
    ("shlex::", &["quoting"]),
    ("strsim::", &["cli/config"]),
];

/// The modules that may hold unsafe blocks, and how many there may be in all, tests included. Clippy sees to it that each is
/// argued.
const UNSAFE: [&str; 3] = ["sandbox/src/sys", "guest-init/src/sys", "tests/hostile/src/bare"];
const UNSAFE_BLOCKS: usize = 40;

/// Most lines of a file, tests included, and of a function.
const FILE_LINES: usize = 400;
const FUNCTION_LINES: usize = 60;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the package is in the repository").to_owned()
}

struct Source {
    /// Path from the repository's root.
    name: String,
    text: String,
}

impl Source {
    /// Lines of the program itself: no comments, and nothing from the first test module on.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines = self.text.lines().enumerate().map(|(number, line)| (number + 1, line));
        lines
            .take_while(|(_, line)| !line.trim_start().starts_with("#[cfg(test)]"))
            .filter(|(_, line)| !line.trim_start().starts_with("//"))
    }

    fn is_test(&self) -> bool {
        self.name.ends_with("tests.rs") || self.name.contains("/tests/") || self.name.contains("conformance")
    }

    /// Whether the file is this module of `sandbox` or below it.
    fn is_of(&self, module: &str) -> bool {
        self.is_at(&format!("sandbox/src/{module}"))
    }

    /// Whether the file is the module at this path from the root, or below it.
    fn is_at(&self, module: &str) -> bool {
        self.name.strip_prefix(module).is_some_and(|rest| rest == ".rs" || rest.starts_with('/'))
    }
}

fn sources() -> Vec<Source> {
    let root = root();
    let mut found = Vec::new();
    let mut open: Vec<PathBuf> = LINE.iter().map(|package| root.join(package)).collect();
    while let Some(place) = open.pop() {
        for entry in fs::read_dir(&place).expect("a directory of the repository can be read") {
            let path = entry.expect("its entries can be read").path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(&root).expect("it is below the root").display().to_string();
                found.push(Source { name, text: fs::read_to_string(&path).expect("a source is text") });
            }
        }
    }
    assert!(found.len() > 30, "only {} sources found: is the walk broken?", found.len());
    found
}

fn report(rule: &str, breaches: Vec<String>) {
    assert!(breaches.is_empty(), "{rule}:\n  {}", breaches.join("\n  "));
}

/// Whether the line names a path that starts like this, as a word of its own.
fn names(line: &str, what: &str) -> bool {
    line.match_indices(what).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        before.is_none_or(|letter| !letter.is_alphanumeric() && letter != '_')
    })
}

#[test]
fn packages_form_a_line() {
    let mut breaches = Vec::new();
    for (place, package) in LINE.iter().enumerate() {
        let manifest = fs::read_to_string(root().join(package).join("Cargo.toml")).expect("every package has one");
        for later in &LINE[place + 1..] {
            let uses = manifest.lines().any(|line| line.starts_with(&format!("{later} ")) && line.contains('='));
            if uses {
                breaches.push(format!("{package} depends on {later}"));
            }
        }
    }
    report("a package uses only those to its left", breaches);
}

#[test]
fn modules_keep_to_the_import_table() {
    let mut breaches = Vec::new();
    for source in sources().iter().filter(|source| !source.is_test()) {
        for (_, never) in NEVER.iter().filter(|(module, _)| source.is_of(module)) {
            for (number, line) in source.code() {
                for what in never.iter().filter(|what| names(line, what)) {
                    breaches.push(format!("{}:{number} names {what}", source.name));
                }
            }
        }
    }
    report("a module names only what the table allows", breaches);
}

#[test]
fn every_external_crate_has_one_door() {
    let mut breaches = Vec::new();
    for source in sources().iter().filter(|source| source.name.starts_with("sandbox/src") && !source.is_test()) {
        for (name, doors) in DOORS.iter().filter(|(_, doors)| !doors.iter().any(|door| source.is_of(door))) {
            for (number, line) in source.code().filter(|(_, line)| names(line, name)) {
                breaches.push(format!("{}:{number} names {name} outside {doors:?}: {}", source.name, line.trim()));
            }
        }
    }
    report("an external crate is named in one place", breaches);
}

#[test]
fn no_cause_is_thrown_away() {
    let needle = concat!("map_err(", "|_");
    let mut breaches = Vec::new();
    for source in sources() {
        for (number, line) in source.text.lines().enumerate().filter(|(_, line)| line.contains(needle)) {
            breaches.push(format!("{}:{} {}", source.name, number + 1, line.trim()));
        }
    }
    report("an error keeps its cause as #[source]", breaches);
}

#[test]
fn unsafe_blocks_are_few_and_in_three_modules() {
    let needles = [concat!("unsafe", " {"), concat!("unsafe", " impl ")];
    let (mut blocks, mut breaches) = (0, Vec::new());
    for source in sources() {
        let lines = source.text.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with("//"));
        for (number, line) in lines {
            blocks += line.matches(needles[0]).count();
            if needles.iter().any(|needle| line.contains(needle)) && !UNSAFE.iter().any(|module| source.is_at(module)) {
                breaches.push(format!("{}:{} {}", source.name, number + 1, line.trim()));
            }
        }
    }
    report("unsafe blocks are in three modules", breaches);
    assert!((1..=UNSAFE_BLOCKS).contains(&blocks), "{blocks} unsafe blocks, {UNSAFE_BLOCKS} are the most there may be");
}

#[test]
fn files_keep_to_their_budget() {
    let long = |source: &Source| {
        let lines = source.text.lines().count();
        (lines > FILE_LINES).then(|| format!("{}: {lines} lines", source.name))
    };
    let breaches = sources().iter().filter_map(long).collect();
    report("a file has at most 400 lines", breaches);
}

#[test]
fn functions_keep_to_their_budget() {
    let mut breaches = Vec::new();
    for source in sources() {
        let mut open: Option<(usize, usize, String)> = None;
        for (number, line) in source.text.lines().enumerate() {
            let indent = line.len() - line.trim_start().len();
            let word = line.trim_start();
            let begins =
                ["fn ", "pub fn ", "pub(crate) fn ", "pub(super) fn ", "const fn ", "unsafe fn ", "extern \"C\" fn "]
                    .iter()
                    .any(|start| word.starts_with(start));
            if begins && open.is_none() && !word.ends_with(';') && !word.ends_with('}') {
                open = Some((number, indent, word.to_owned()));
            }
            if let Some((begun, own, name)) = &open
                && word == "}"
                && indent == *own
            {
                let lines = number - begun + 1;
                if lines > FUNCTION_LINES {
                    breaches.push(format!("{}:{} {lines} lines: {name}", source.name, begun + 1));
                }
                open = None;
            }
        }
    }
    report("a function has at most 60 lines", breaches);
}

#[test]
fn every_file_names_its_licence() {
    let unmarked = |source: &Source| {
        let first = source.text.lines().next().unwrap_or_default();
        (first != "// SPDX-License-Identifier: Apache-2.0").then(|| source.name.clone())
    };
    report("the first line is the licence", sources().iter().filter_map(unmarked).collect());
}
