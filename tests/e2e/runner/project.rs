// SPDX-License-Identifier: Apache-2.0
//! A crate with a test of each kind, and what cargo and nextest say of it.

use std::fs;
use std::path::{Path, PathBuf};

use tests::nextest::{self, RUNNER};
use tests::{Bench, Call, program, tier};

const MANIFEST: &str = "\
[package]
name = \"tiny\"
version = \"0.1.0\"
edition = \"2021\"
[[bench]]
name = \"speed\"
harness = false
[workspace]
[profile.dev]
debug = false
";

const LIBRARY: &str = r#"
//! ```
//! assert_eq!(tiny::add(1, 2), 3);
//! ```
//! ```should_panic
//! assert_eq!(tiny::add(1, 2), 4);
//! ```
pub fn add(a: u32, b: u32) -> u32 { a + b }
#[cfg(test)]
mod tests {
    use std::{os::unix::process::CommandExt, process::Command};
    #[test] fn passes() { assert_eq!(super::add(1, 2), 3); }
    #[test] fn fails() { assert_eq!(super::add(1, 2), 4); }
    #[test] #[ignore] fn is_ignored() {}
    #[test] #[should_panic] fn panics_as_it_should() { panic!("on purpose"); }
    #[test] #[should_panic] fn does_not_panic() {}
    #[test] fn aborts() { std::process::abort(); }
    #[test] fn exits() { std::process::exit(3); }
    #[test] fn prints() { println!("a: test\nout"); eprintln!("err"); }
    fn shell(script: &str) { panic!("{}", Command::new("sh").args(["-c", script]).exec()) }
    #[test] #[ignore] fn stubborn() { shell("trap '' TERM; while :; do sleep 1; done") }
    #[test] #[ignore] fn writes() {
        std::fs::create_dir_all("tests/snapshots/deep").unwrap();
        std::fs::create_dir_all(".git/hooks").unwrap();
        for path in ["tests/snapshots/deep/a.snap.new", "src/.lib.rs.pending-snap", "src/more.rs", ".git/hooks/a.snap"] {
            std::fs::write(path, "written").unwrap();
        }
        std::os::unix::fs::symlink("/etc/passwd", "tests/b.snap").unwrap();
        panic!("they come back all the same");
    }
    #[test] #[ignore] fn obedient() { shell("exec sleep 600") }
}
"#;

const PROGRAM: &str = r#"
fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    println!("{words:?}");
    std::process::exit(words.first().map_or(0, |word| word.parse().unwrap()));
}
"#;

const TESTS: &str = r#"
use std::{env, fs, path::Path, process::Command};
#[test] fn it_sees_its_package() {
    assert!(fs::read_to_string("Cargo.toml").unwrap().contains("tiny"));
    assert_eq!(env::var_os("CARGO_MANIFEST_DIR").unwrap(), env!("CARGO_MANIFEST_DIR"));
    assert_eq!(env::current_dir().unwrap(), Path::new(env!("CARGO_MANIFEST_DIR")));
    fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/written"), "").unwrap();
}
#[test] fn it_starts_its_program() {
    let mut program = Command::new(env!("CARGO_BIN_EXE_tiny"));
    assert_eq!(program.arg("0").output().unwrap().stdout, b"[\"0\"]\n");
}
"#;

const BENCHMARK: &str = r#"
fn main() { println!("{:?}", std::env::args().skip(1).collect::<Vec<_>>()); }
"#;

/// The crate, in a directory of its own.
pub(super) struct Project(Bench);

impl Project {
    /// Writes it and builds its tests, so that no case pays for that in its time.
    pub(super) fn new() -> Self {
        let project = Self(Bench::new());
        for directory in ["src", "tests", "benches"] {
            fs::create_dir(project.path().join(directory)).expect("a directory can be made");
        }
        project.write("Cargo.toml", MANIFEST);
        project.write("src/lib.rs", LIBRARY);
        project.write("src/main.rs", PROGRAM);
        project.write("tests/it.rs", TESTS);
        project.write("benches/speed.rs", BENCHMARK);
        let built = project.cargo(&["test", "--no-run"], false).wait();
        assert_eq!(built.code(), 0, "{}", built.stderr);
        project
    }

    pub(super) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(super) fn write(&self, name: &str, text: &str) {
        self.0.write(name, text);
    }

    /// A call of cargo, with the runner or on the host.
    pub(super) fn cargo(&self, words: &[&str], runner: bool) -> Call {
        let (verb, rest) = words.split_first().expect("there is a verb");
        let mut call = self.0.host(["cargo", verb, "--offline"]);
        call.command.args(rest);
        self.prepare(call, runner)
    }

    /// The same of nextest, which prints one line for each test.
    pub(super) fn nextest(&self, words: &[&str], runner: bool) -> Call {
        let (verb, rest) = words.split_first().expect("there is a verb");
        let mut call = self.0.host(["cargo", "nextest", verb, "--offline", "--color", "never"]);
        call.command.args(["--status-level", "pass", "--final-status-level", "none"]).args(rest);
        self.prepare(call, runner)
    }

    fn prepare(&self, mut call: Call, runner: bool) -> Call {
        nextest::prepare(&mut call.command, runner);
        call
    }

    /// The same with these options of the runner.
    pub(super) fn nextest_with(&self, options: &str, words: &[&str]) -> Call {
        self.nextest(words, true).env(RUNNER, format!("{} runner {options}", program().display()))
    }

    /// A call of the runner itself.
    pub(super) fn runner(&self, options: &[&str], executable: PathBuf, words: &[&str]) -> Call {
        let mut call = self.0.host([program().into_os_string(), "runner".into()]);
        call.command.arg("--engine").arg(tier::engine()).args(options).arg(executable).args(words);
        call
    }

    /// The program of the library's tests.
    pub(super) fn library_test(&self) -> PathBuf {
        let place = self.path().join("target/debug/deps");
        let programs = fs::read_dir(place).expect("it was built").flatten().map(|entry| entry.path());
        let is_one = |path: &PathBuf| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let text = fs::read(path).unwrap_or_default();
            name.starts_with("tiny-") && path.extension().is_none() && contains(&text, b"panics_as_it_should")
        };
        programs.into_iter().find(is_one).expect("it was built")
    }
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

/// The lines of a harness, a program or rustdoc that say something about the code and not about time.
pub(super) fn results(out: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(out);
    let lines =
        text.lines().filter(|line| !line.is_empty() && !line.contains("finished in") && !line.contains("thread '"));
    let mut lines: Vec<String> = lines.map(str::to_owned).collect();
    lines.sort();
    lines
}
