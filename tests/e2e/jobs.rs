// SPDX-License-Identifier: Apache-2.0
//! Real work: compilers, interpreters, version control.

use std::process::Command;

use harness::{Case, Need};
use tests::Bench;
use tests::tier::whole;

macro_rules! case {
    ($name:ident $(, $need:expr)*) => {
        Case { name: concat!("jobs::", stringify!($name)), needs: &[$($need),*], body: $name }
    };
}

pub(crate) const CASES: &[Case] = &[
    case!(c_compiles_and_leaves_nothing, Need::Program("gcc")),
    case!(python_starts_fifty_of_each, Need::Program("python3")),
    case!(cargo_builds_a_crate, Need::Program("cargo")),
    case!(git_reads_its_log, Need::Program("git")),
    case!(find_counts_what_the_host_has),
];

type Result = std::result::Result<(), String>;

fn c_compiles_and_leaves_nothing() -> Result {
    let bench = Bench::new();
    bench.write("hello.c", "#include <stdio.h>\nint main(void) { puts(\"hello from C\"); }\n");
    bench.shell("gcc hello.c -o hello && ./hello").wait().prints("hello from C");
    assert!(!bench.path().join("hello").exists(), "the program is on the host");
    Ok(())
}

/// Under whatever `python3` the caller's PATH finds first.
fn python_starts_fifty_of_each() -> Result {
    let bench = Bench::new();
    bench.write(
        "fifty.py",
        "import subprocess, threading\n\
         children = [subprocess.Popen(['/bin/sh', '-c', 'exit %d' % n]) for n in range(50)]\n\
         total = []\n\
         threads = [threading.Thread(target=lambda n=n: total.append(n)) for n in range(50)]\n\
         [t.start() for t in threads]; [t.join() for t in threads]\n\
         print(sum(c.wait() for c in children), sum(total))\n",
    );
    bench.run(["python3", "fifty.py"]).wait().prints("1225 1225");
    Ok(())
}

fn cargo_builds_a_crate() -> Result {
    let bench = Bench::new();
    bench.write("Cargo.toml", "[package]\nname = \"tiny\"\nversion = \"0.1.0\"\nedition = \"2021\"\n");
    std::fs::create_dir(bench.path().join("src")).map_err(|error| error.to_string())?;
    bench.write("src/main.rs", "fn main() { println!(\"{}\", (1..=9).product::<u32>()); }\n");
    let ran = bench.run(["-m", "2G", "--", "sh", "-c", "cargo build --offline -q && ./target/debug/tiny"]).wait();
    ran.prints("362880");
    assert!(!bench.path().join("target").exists(), "the build is on the host");
    Ok(())
}

fn git_reads_its_log() -> Result {
    let bench = Bench::new();
    let script = "git init -q . && git -c user.name=a -c user.email=a@b commit -q --allow-empty -m 'first of all'";
    let made = Command::new("sh").args(["-c", script]).current_dir(bench.path()).status();
    assert!(made.map_err(|error| error.to_string())?.success());
    bench.run(["git", "log", "--format=%s"]).wait().prints("first of all");
    Ok(())
}

fn find_counts_what_the_host_has() -> Result {
    let place = if whole() { "/usr" } else { "/usr/share/doc" };
    let script = &format!("find {place} -type f | wc -l");
    let host = Command::new("sh").args(["-c", script]).output().map_err(|error| error.to_string())?;
    let host = String::from_utf8_lossy(&host.stdout).trim().to_owned();
    Bench::new().shell(script).wait().prints(&host);
    Ok(())
}
