// SPDX-License-Identifier: Apache-2.0
//! The README's examples and those of `sandbox run --help`, run as they stand there.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};

use harness::{Case, Need};
use tests::{Bench, program, tier};

pub(crate) const CASES: &[Case] = &[
    Case { name: "readme::examples_do_what_they_show", needs: &[Need::Program("gcc")], body: examples },
    Case { name: "readme::examples_of_help_run", needs: &[Need::Program("gcc"), Need::Program("make")], body: of_help },
];

const README: &str = include_str!("../../README.md");

/// The console sessions: each line after a `$` and what it shows.
fn sessions() -> Vec<(String, String)> {
    let mut found: Vec<(String, String)> = Vec::new();
    for block in README.split("```console\n").skip(1) {
        let block = block.split("```").next().unwrap_or_default();
        for line in block.lines() {
            match (line.strip_prefix("$ "), found.last_mut()) {
                (Some(command), _) => found.push((command.to_owned(), String::new())),
                (None, Some((_, shown))) => {
                    shown.push_str(line);
                    shown.push('\n');
                }
                (None, None) => panic!("output before the first command: {line}"),
            }
        }
    }
    assert!(found.len() > 3, "the README has only {} examples", found.len());
    found
}

/// What somebody who has never seen the tool comes for, each on a screen.
const SUBJECTS: [&str; 5] = [
    "Run untrusted code",
    "Run it with your directory writable",
    "Give it a limit",
    "Get its result out",
    "Use it in CI",
];

fn each_subject_is_on_a_screen() {
    for subject in SUBJECTS {
        let section = README.split("\n## ").find_map(|section| section.strip_prefix(subject)).expect(subject);
        let lines = section.lines().map(|line| 1 + line.chars().count() / 160).sum::<usize>();
        assert!(lines <= 40 && section.contains("```console"), "{subject}: {lines} lines");
    }
}

fn examples() -> Result<(), String> {
    each_subject_is_on_a_screen();
    let bench = Bench::new();
    let place = Bench::new();
    let path = named(&place)?;
    for (command, shown) in sessions() {
        let output = Command::new("sh")
            .args(["-c", &format!("exec 2>&1; {command}")])
            .current_dir(bench.path())
            .env("PATH", &path)
            .stdin(Stdio::null())
            .output()
            .map_err(|error| error.to_string())?;
        assert_eq!(String::from_utf8_lossy(&output.stdout), shown, "$ {command}");
    }
    Ok(())
}

/// A `PATH` with the program under the name that the examples use, whatever the file is called.
pub(crate) fn named(place: &Bench) -> Result<OsString, String> {
    symlink(program(), place.path().join("sandbox")).map_err(|error| error.to_string())?;
    let mut path = place.path().as_os_str().to_owned();
    path.push(":");
    path.push(std::env::var_os("PATH").unwrap_or_default());
    Ok(path)
}

/// What the examples of `--help` take for granted.
fn furnish(bench: &Bench) -> std::io::Result<()> {
    let mode = |path: &Path| fs::set_permissions(path, fs::Permissions::from_mode(0o755));
    bench.write("hello.c", "int main(void) { return 0; }\n");
    bench.write("result.txt", "42\n");
    bench.write("Makefile", "all:\n\t@mkdir -p build && echo made > build/made\ntest check:\n");
    bench.write("untrusted", "#!/bin/sh\nexit 0\n");
    bench.write("crashes", "#!/bin/sh\necho dumped > /tmp/core\n");
    fs::create_dir(bench.path().join("out"))?;
    mode(&bench.path().join("untrusted"))?;
    mode(&bench.path().join("crashes"))?;
    // One of the commands runs as somebody else.
    mode(bench.path())
}

fn of_help() -> Result<(), String> {
    let (bench, place) = (Bench::new(), Bench::new());
    let path = named(&place)?;
    furnish(&bench).map_err(|error| error.to_string())?;
    let help = Command::new(program()).args(["run", "--help"]).output().map_err(|error| error.to_string())?;
    let help = String::from_utf8_lossy(&help.stdout).into_owned();
    let engine = tier::engine();
    // A sandbox in a sandbox has cases of its own, and emulation is for the tier that emulates.
    let runs = |line: &&str| !line.contains("--nested") && (engine == "qemu" || !line.contains("--engine"));
    let indented = README.lines().filter(|line| line.starts_with("    "));
    let lines = help.lines().chain(indented).map(str::trim).filter(|line| line.starts_with("sandbox run "));
    let mut count = 0;
    for line in lines.filter(runs) {
        // Apart from any terminal of ours.
        let output = Command::new("setsid")
            .args(["--wait", "sh", "-c", &format!("exec 2>&1; {line}")])
            .current_dir(bench.path())
            .env("PATH", &path)
            .env("SANDBOX_ENGINE", &engine)
            .stdin(Stdio::null())
            .output()
            .map_err(|error| error.to_string())?;
        let refused = line.contains("--keep-vm") || line.contains("--require-kvm") && engine == "qemu";
        let expected = if refused { 125 } else { 0 };
        assert_eq!(output.status.code(), Some(expected), "$ {line}\n{}", String::from_utf8_lossy(&output.stdout));
        count += 1;
    }
    assert!(count > 12, "only {count} examples found");
    Ok(())
}
