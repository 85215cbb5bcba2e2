// SPDX-License-Identifier: Apache-2.0
//! Calling cargo and nextest as a user at a shell does, and reading what they say of each test.

use std::collections::BTreeMap;
use std::env;
use std::process::Command;

use crate::{program, tier};

/// The variable by which cargo and nextest are told of a runner.
pub const RUNNER: &str = "CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER";

/// Verdicts by the tests' names.
pub type Verdicts = BTreeMap<String, String>;

/// Rids a call of what cargo says to us, who were started by it, and has it use our runner or none.
pub fn prepare(command: &mut Command, runner: bool) {
    const OURS: [&str; 4] = ["CARGO_", "NEXTEST", "RUST_TEST", "SANDBOX_"];
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        if OURS.iter().any(|family| text.starts_with(family)) && text != "CARGO_HOME" {
            command.env_remove(name);
        }
    }
    if runner {
        command.env(RUNNER, format!("{} runner", program().display()));
        command.env("SANDBOX_ENGINE", tier::engine());
    }
}

/// What nextest said of each test, with `--status-level pass`: `PASS [   0.126s] (3/7) tiny tests::panics`.
#[must_use]
pub fn verdicts(text: &str) -> Verdicts {
    let lines = text.lines().filter_map(|line| {
        let (verdict, rest) = line.trim_start().split_once(" [")?;
        let (_, name) = rest.split_once("] ")?;
        let name = name.strip_prefix('(').and_then(|name| name.split_once(") ")).map_or(name, |(_, name)| name);
        let is_word = verdict.chars().all(|letter| letter.is_ascii_uppercase() || "-+".contains(letter));
        (verdict != "Summary" && is_word).then(|| (name.trim().to_owned(), verdict.to_owned()))
    });
    lines.collect()
}

/// What a line of a harness said: `test src/lib.rs - add (line 3) ... ok`. trybuild's say it of each file, with colours.
#[must_use]
pub fn results(text: &str) -> Verdicts {
    let lines = text.lines().map(plain).filter_map(|line| {
        let (name, verdict) = line.trim_start().strip_prefix("test ")?.split_once(" ... ")?;
        Some((name.to_owned(), verdict.split_whitespace().next()?.to_owned()))
    });
    lines.collect()
}

/// A line without what sets colours.
fn plain(line: &str) -> String {
    let mut parts = line.split("\u{1b}[");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| text + part.split_once('m').map_or(part, |(_, rest)| rest))
}
