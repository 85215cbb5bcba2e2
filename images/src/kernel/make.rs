// SPDX-License-Identifier: Apache-2.0
//! The programs a build runs: what they are given, where their output goes, and what is said when one fails.
//!
//! They get a clean environment, so that neither an outer make's job server nor a user's flags reach the kernel, and
//! fixed names and times, so that the same source gives the same kernel.

use super::{Error, Group, failed};
use crate::Event;
use std::collections::VecDeque;
use std::env;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

/// Debian's names of what [`check_tools`] looks for, and of what it cannot see.
pub(super) const PACKAGES: &str = "make gcc binutils flex bison bc libelf-dev xz-utils";
const TOOLS: [&str; 8] = ["make", "gcc", "ld", "strip", "flex", "bison", "bc", "xz"];

/// How much of a failed program's output goes into the error.
const TAIL_LINES: usize = 20;

/// A build tree and those who work in it.
pub(super) struct Make<'a> {
    pub(super) group: &'a Group,
    pub(super) objects: &'a Path,
    pub(super) log: &'a Path,
}

impl Make<'_> {
    pub(super) fn unpack(&self, archive: &Path, to: &Path, exclude: &str) -> Result<(), Error> {
        let mut tar = clean("tar");
        tar.arg("-xf").arg(archive).arg("-C").arg(to).args(["--strip-components=1", exclude]);
        self.run("tar", tar, &mut |_| {})
    }

    /// Makes `.config` of a fragment; what the fragment does not name is off.
    pub(super) fn configure(&self, source: &Path, fragment: &Path) -> Result<(), Error> {
        let mut make = self.make(source);
        make.arg(variable("KCONFIG_ALLCONFIG", fragment)).arg("allnoconfig");
        self.run("make allnoconfig", make, &mut |_| {})
    }

    pub(super) fn vmlinux(
        &self,
        source: &Path,
        jobs: NonZero<usize>,
        expected: u64,
        progress: &mut dyn FnMut(Event),
    ) -> Result<(), Error> {
        let mut make = self.make(source);
        make.arg(format!("-j{jobs}")).arg("vmlinux");
        let mut done = 0;
        self.run("make vmlinux", make, &mut |line| {
            if is_step(line) {
                done += 1;
                progress(Event::Compiling { done, expected });
            }
        })
    }

    /// Removes what no boot reads. The entry note is loaded, so it stays; opening the image checks that.
    pub(super) fn strip(&self) -> Result<PathBuf, Error> {
        let path = self.objects.join("vmlinux.stripped");
        let mut strip = clean("strip");
        strip.arg("-s").arg(self.objects.join("vmlinux")).arg("-o").arg(&path);
        self.run("strip", strip, &mut |_| {})?;
        Ok(path)
    }

    fn make(&self, source: &Path) -> Command {
        let mut make = clean("make");
        make.arg("-C").arg(source).arg(variable("O", self.objects));
        make
    }

    /// Runs a program to its end; its output goes to the log and, line by line, to `each`.
    fn run(&self, program: &'static str, mut command: Command, each: &mut dyn FnMut(&str)) -> Result<(), Error> {
        let unread = failed("write", self.log);
        let mut log = File::options().create(true).append(true).open(self.log).map_err(failed("open", self.log))?;
        let not_run = |source| Error::Run { program, source };
        let (reader, writer) = io::pipe().map_err(not_run)?;
        command.stdin(Stdio::null()).stdout(writer.try_clone().map_err(not_run)?).stderr(writer);
        let mut child = self.group.adopt(&mut command).spawn().map_err(not_run)?;
        // it holds the writing ends, and the reader is to see the end
        drop(command);
        let tail = follow(reader, &mut log, each);
        let status = child.wait().map_err(not_run)?;
        self.judge(program, status, tail.map_err(unread)?)
    }

    fn judge(&self, program: &'static str, status: ExitStatus, tail: VecDeque<String>) -> Result<(), Error> {
        if status.success() {
            return Ok(());
        }
        let tail: Vec<String> = tail.into_iter().map(|line| format!("    {line}")).collect();
        Err(Error::Failed { program, status, tail: tail.join("\n"), log: self.log.to_owned() })
    }
}

/// Copies lines until the end; returns the last few.
fn follow(reader: io::PipeReader, log: &mut File, each: &mut dyn FnMut(&str)) -> io::Result<VecDeque<String>> {
    let mut tail = VecDeque::new();
    for line in BufReader::new(reader).split(b'\n') {
        let line = String::from_utf8_lossy(&line?).into_owned();
        writeln!(log, "{line}")?;
        each(&line);
        if tail.len() == TAIL_LINES {
            tail.pop_front();
        }
        tail.push_back(line);
    }
    Ok(tail)
}

/// A command with nothing of our environment but what programs cannot do without.
fn clean(program: &str) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("LC_ALL", "C");
    for name in ["PATH", "HOME", "TMPDIR"] {
        if let Some(value) = env::var_os(name) {
            command.env(name, value);
        }
    }
    command.env("KBUILD_BUILD_TIMESTAMP", "Thu Jan  1 00:00:00 UTC 1970");
    command.env("KBUILD_BUILD_USER", "sandbox").env("KBUILD_BUILD_HOST", "sandbox");
    command
}

fn variable(name: &str, value: &Path) -> std::ffi::OsString {
    let mut text = std::ffi::OsString::from(name);
    text.push("=");
    text.push(value);
    text
}

/// `  CC      init/main.o`, or another word in capitals.
fn is_step(line: &str) -> bool {
    line.strip_prefix("  ").is_some_and(|rest| rest.starts_with(|first: char| first.is_ascii_uppercase()))
}

/// Whether all programs a kernel build needs are there; all that are missing at once, not one per attempt.
pub(super) fn check_tools() -> Result<(), Error> {
    let path = env::var_os("PATH").unwrap_or_default();
    let is_there = |tool: &&str| env::split_paths(&path).any(|directory| directory.join(tool).is_file());
    let missing: Vec<&str> = TOOLS.into_iter().filter(|tool| !is_there(tool)).collect();
    if missing.is_empty() { Ok(()) } else { Err(Error::Tools(missing)) }
}

/// What the compiler calls itself.
pub(super) fn compiler() -> Result<String, Error> {
    let output = clean("gcc").arg("--version").output().map_err(|source| Error::Run { program: "gcc", source })?;
    Ok(String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or_default().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::TempDir;

    fn run(script: &str, each: &mut dyn FnMut(&str)) -> (Result<(), Error>, String) {
        let directory = TempDir::new().unwrap();
        let log = directory.path().join("build.log");
        let group = Group::new().unwrap();
        let make = Make { group: &group, objects: directory.path(), log: &log };
        let mut command = clean("sh");
        command.args(["-c", script]);

        let result = make.run("sh", command, each);

        (result, std::fs::read_to_string(&log).unwrap())
    }

    #[test]
    fn output_goes_to_the_log_and_is_counted() {
        let mut steps = 0;

        let (result, log) = run("echo '  CC      a.o'; echo 'warning: b' >&2; echo '  LD      c'", &mut |line| {
            steps += u32::from(is_step(line));
        });

        result.unwrap();
        assert_eq!(steps, 2);
        assert_eq!(log, "  CC      a.o\nwarning: b\n  LD      c\n");
    }

    #[test]
    fn failure_shows_the_last_twenty_lines_and_the_log() {
        let (result, _) = run("seq 1 50; exit 2", &mut |_| {});

        let Err(error @ Error::Failed { .. }) = result else { panic!("a failed program passed") };
        let text = error.to_string();

        assert!(text.contains("    31\n") && text.contains("    50\n") && !text.contains("    30\n"), "{text}");
        assert!(text.contains("build.log") && text.contains("exit status: 2"), "{text}");
    }

    #[test]
    fn outer_make_does_not_reach_the_build() {
        let command = clean("true");

        let names: Vec<_> = command.get_envs().map(|(name, _)| name.to_owned()).collect();

        assert!(names.iter().all(|name| name != "MAKEFLAGS" && name != "CFLAGS"));
    }
}
