// SPDX-License-Identifier: Apache-2.0
//! The README's examples, run as they stand there.

use std::os::unix::fs::symlink;
use std::process::{Command, Stdio};

use harness::{Case, Need};
use tests::{Bench, program};

pub(crate) const CASES: &[Case] =
    &[Case { name: "readme::examples_do_what_they_show", needs: &[Need::Program("gcc")], body: examples }];

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

fn examples() -> Result<(), String> {
    let bench = Bench::new();
    // By the name that the examples use, whatever the file is called.
    let place = Bench::new();
    symlink(program(), place.path().join("sandbox")).map_err(|error| error.to_string())?;
    let mut path = place.path().as_os_str().to_owned();
    path.push(":");
    path.push(std::env::var_os("PATH").unwrap_or_default());
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
