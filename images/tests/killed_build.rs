// SPDX-License-Identifier: Apache-2.0
//! A kernel build that is killed half-way, with a source tree of ten lines in place of Linux.

use images::{Flavour, Store};
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tempfile::TempDir;

/// Says that it works, and then works for ten minutes if it is to stall. Whoever of it lives holds the FIFO open.
const MAKEFILE: &str = r#"VERSION = 6
PATCHLEVEL = 12
SUBLEVEL = 0

allnoconfig:
	cp $(KCONFIG_ALLCONFIG) $(O)/.config
vmlinux:
	@echo "  CC      init/main.o"
	@if [ -e stall ]; then exec 3>stall; echo stalled >&3; echo half > $(O)/vmlinux; sleep 600; fi
	@if [ -e fail ]; then echo 'main.c:1: error: this is it' >&2; exit 1; fi
	gcc -nostdlib -static -Wl,--build-id=none -o $(O)/vmlinux entry.S
"#;

/// The least the linker makes an executable with an entry note of.
const ENTRY: &str = r#".globl _start
_start: hlt
.section .note.Xen, "a", @note
.long 4, 8, 18
.asciz "Xen"
.quad 0x1000000
.section .note.GNU-stack, "", @progbits
"#;

struct Machine {
    directory: TempDir,
}

impl Machine {
    fn new() -> Self {
        let directory = TempDir::new().unwrap();
        let source = directory.path().join("source");
        fs::create_dir(&source).unwrap();
        fs::write(source.join("Makefile"), MAKEFILE).unwrap();
        fs::write(source.join("entry.S"), ENTRY).unwrap();
        Self { directory }
    }

    fn source(&self) -> PathBuf {
        self.directory.path().join("source")
    }

    fn images(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_images"));
        command.args(arguments).env("XDG_CACHE_HOME", self.directory.path()).env("LINUX_SRC", self.source());
        command
    }

    fn store(&self) -> Store {
        Store::at(self.directory.path().join("sandbox"))
    }
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn make_fifo(path: &Path) {
    let status = Command::new("mkfifo").arg(path).status().unwrap();
    assert!(status.success(), "mkfifo {}", path.display());
}

#[test]
fn killed_build_takes_its_children_along_and_leaves_nothing_that_looks_whole() {
    let machine = Machine::new();
    let stall = machine.source().join("stall");
    make_fifo(&stall);
    let mut build = machine.images(&["build", "kernel"]).spawn().unwrap();
    let mut works = BufReader::new(File::open(&stall).unwrap());
    let mut line = String::new();
    works.read_line(&mut line).unwrap();
    assert_eq!(line, "stalled\n");

    build.kill().unwrap();
    build.wait().unwrap();

    // ends when the last of make, its shell and their children is gone
    assert_eq!(works.read_to_end(&mut Vec::new()).unwrap(), 0);
    let error = machine.store().kernel(Flavour::Base).unwrap_err();
    assert!(error.to_string().contains("images build kernel"), "{error}");

    fs::remove_file(&stall).unwrap();
    let output = machine.images(&["build", "kernel"]).output().unwrap();
    assert!(output.status.success(), "{}", errors(&output));
    machine.store().kernel(Flavour::Base).unwrap().open().unwrap();
}

#[test]
fn second_build_is_over_at_once_and_leaves_no_tree() {
    let machine = Machine::new();
    let first = machine.images(&["build", "kernel"]).output().unwrap();
    assert!(first.status.success(), "{}", errors(&first));
    make_fifo(&machine.source().join("stall"));

    // would hang in the FIFO if it built anything
    let second = machine.images(&["build", "kernel"]).output().unwrap();

    assert!(second.status.success(), "{}", errors(&second));
    assert!(errors(&second).contains("is up to date"), "{}", errors(&second));
    assert_eq!(machine.store().gc(true).unwrap().removed, []);
}

#[test]
fn failed_build_shows_why_and_where_to_read_more() {
    let machine = Machine::new();
    fs::write(machine.source().join("fail"), "").unwrap();

    let output = machine.images(&["build", "kernel"]).output().unwrap();

    assert!(!output.status.success());
    let text = errors(&output);
    assert!(text.contains("main.c:1: error: this is it") && text.contains("build.log"), "{text}");
    assert!(machine.store().kernel(Flavour::Base).is_err());
}

#[test]
fn list_and_gc_tell_current_from_old() {
    let machine = Machine::new();
    let output = machine.images(&["build", "kernel"]).output().unwrap();
    assert!(output.status.success(), "{}", errors(&output));
    let makefile = MAKEFILE.replace("SUBLEVEL = 0", "SUBLEVEL = 1");
    fs::write(machine.source().join("Makefile"), makefile).unwrap();
    assert!(machine.images(&["build", "kernel"]).status().unwrap().success());

    let listed = machine.images(&["list"]).output().unwrap();
    let json = machine.images(&["list", "--json"]).output().unwrap();
    let removed = machine.images(&["gc"]).output().unwrap();

    let text = String::from_utf8(listed.stdout).unwrap();
    assert_eq!(text.lines().filter(|line| line.starts_with("kernel  base")).count(), 2, "{text}");
    assert_eq!(text.lines().filter(|line| line.ends_with("yes")).count(), 1, "{text}");
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(json.as_array().unwrap().len(), 2);
    assert!(String::from_utf8(removed.stdout).unwrap().starts_with("removed /"));
    machine.store().kernel(Flavour::Base).unwrap().open().unwrap();
}
