// SPDX-License-Identifier: Apache-2.0
//! What is kept of what a command changed: copies, the list, the tar, and what is committed.

mod lacking;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use harness::{Case, Need};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::process::{Signal, kill_process};
use tests::{Bench, Ran};

macro_rules! case {
    ($name:ident $(, $need:expr)*) => {
        Case { name: concat!("results::", stringify!($name)), needs: &[$($need),*], body: $name }
    };
    (lacking::$name:ident) => {
        Case { name: concat!("results::lacking::", stringify!($name)), needs: &[], body: lacking::$name }
    };
}

pub(crate) const CASES: &[Case] = &[
    case!(the_list_of_a_build_is_what_it_writes_on_the_host, Need::Program("make"), Need::Program("gcc")),
    case!(directories_that_moved_are_told_by_what_is_in_them),
    case!(copies_come_out_however_the_command_ended),
    case!(a_copy_takes_the_place_of_nothing_else),
    case!(a_commit_takes_what_went_with_its_parent),
    case!(a_commit_touches_no_other_file_system, Need::Root, Need::Program("unshare")),
    case!(lacking::what_cannot_be_kept_is_a_failure),
    case!(lacking::what_is_missing_hinders_nothing_else),
    case!(lacking::what_cannot_be_read_is_left_out),
    case!(lacking::what_is_too_deep_is_left_out),
    case!(lacking::what_is_not_committed_does_not_count),
    case!(a_file_comes_back_in_no_directorys_place),
    case!(an_interrupt_ends_the_telling),
    case!(an_interrupt_ends_the_writing),
    case!(what_a_hostile_root_leaves_reaches_nothing, Need::Root),
];

type Result = std::result::Result<(), String>;

const MAKEFILE: &str = "\
CFLAGS = -O1
all: build/program libadd.so config.h
build/program: build/main.o build/add.o
\t$(CC) -o $@ $^
build/%.o: %.c config.h
\t@mkdir -p build
\t$(CC) $(CFLAGS) -c -o $@ $<
libadd.so: libadd.so.1
\tln -sf $< $@
libadd.so.1: add.c
\t$(CC) -shared -fPIC -o $@ $<
config.h: config.in
\tsed s/@VALUE@/42/ config.in > config.h
\trm -f stale.txt
\tchmod 600 config.in
";

/// What is in a directory: each path with its kind, permissions and content.
fn tree(place: &Path) -> BTreeMap<String, (u32, Vec<u8>)> {
    let (mut found, mut open) = (BTreeMap::new(), vec![place.to_owned()]);
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(&directory).expect("a directory of the test's own can be read") {
            let path = entry.expect("so can its entries").path();
            let metadata = fs::symlink_metadata(&path).expect("they exist");
            let content = if metadata.is_symlink() {
                fs::read_link(&path).expect("it is a link").into_os_string().into_encoded_bytes()
            } else if metadata.is_dir() {
                open.push(path.clone());
                Vec::new()
            } else {
                fs::read(&path).expect("it is the test's own")
            };
            let name = path.strip_prefix(place).expect("it is below").display().to_string();
            found.insert(name, (metadata.mode(), content));
        }
    }
    found
}

/// The lines that `--diff` would print for what differs.
fn differences(
    before: &BTreeMap<String, (u32, Vec<u8>)>,
    after: &BTreeMap<String, (u32, Vec<u8>)>,
) -> BTreeSet<String> {
    let name = |name: &str, mode: u32| if mode & 0o170_000 == 0o040_000 { format!("{name}/") } else { name.to_owned() };
    let gone = before.iter().filter(|(path, _)| !after.contains_key(*path));
    let gone = gone.map(|(path, (mode, _))| format!("D {}", name(path, *mode)));
    let here = after.iter().filter_map(|(path, value)| match before.get(path) {
        None => Some(format!("A {}", name(path, value.0))),
        Some(old) if old != value => Some(format!("M {}", name(path, value.0))),
        Some(_) => None,
    });
    gone.chain(here).collect()
}

/// The listed lines, with paths seen from a directory; none may be elsewhere.
fn listed(ran: &Ran, place: &Path) -> BTreeSet<String> {
    let root = format!("{}/", place.canonicalize().expect("it exists").display());
    let lines = ran.stderr.lines().filter(|line| ["A ", "M ", "D "].iter().any(|start| line.starts_with(start)));
    lines
        .map(|line| {
            let (letter, path) = line.split_at(2);
            let path = path.strip_prefix(&root).unwrap_or_else(|| panic!("elsewhere: {line}"));
            format!("{letter}{path}")
        })
        .collect()
}

fn the_list_of_a_build_is_what_it_writes_on_the_host() -> Result {
    let (bench, copy) = (Bench::new(), Bench::new());
    for place in [&bench, &copy] {
        place.write("Makefile", MAKEFILE);
        place
            .write("main.c", "#include \"config.h\"\nint add(int, int);\nint main(void) { return add(VALUE, -42); }\n");
        place.write("add.c", "int add(int a, int b) { return a + b; }\n");
        place.write("config.in", "#define VALUE @VALUE@\n");
        place.write("stale.txt", "of an earlier build\n");
    }
    let before = tree(copy.path());
    let made = Command::new("make").current_dir(copy.path()).output().map_err(|error| error.to_string())?;
    assert!(made.status.success(), "{made:?}");
    let after = tree(copy.path());
    let expected = differences(&before, &after);
    assert!(expected.contains("A build/program") && expected.contains("D stale.txt"), "{expected:?}");

    let ran = bench.run(["--diff", "--diff-tar", "changes.tar", "--", "make"]).wait();
    ran.expect(0, "exited");
    assert_eq!(listed(&ran, bench.path()), expected);
    // Two files of the calling side, and no more.
    let own = |tree: BTreeMap<String, (u32, Vec<u8>)>| -> BTreeMap<_, _> {
        tree.into_iter().filter(|(name, _)| name != ".report.json" && name != "changes.tar").collect()
    };
    assert_eq!(own(tree(bench.path())), before, "it was written to without --commit");
    let tar = Command::new("tar").args(["tf", "changes.tar"]).current_dir(bench.path()).output();
    let names =
        tar.map(|tar| String::from_utf8_lossy(&tar.stdout).lines().count()).map_err(|error| error.to_string())?;
    assert_eq!(names, expected.len());

    bench.run(["--commit", "build", "--", "make"]).wait().expect(0, "exited");
    assert_eq!(own(tree(bench.path())).keys().filter(|name| !before.contains_key(*name)).count(), 4, "only build/");
    bench.run(["--commit", ".", "--", "make", "-B"]).wait().expect(0, "exited");
    assert_eq!(own(tree(bench.path())), after);
    let none = Command::new("make").arg("-q").current_dir(bench.path()).status().map_err(|error| error.to_string())?;
    assert!(none.success(), "make finds something left to do");
    Ok(())
}

fn directories_that_moved_are_told_by_what_is_in_them() -> Result {
    let bench = Bench::new();
    fs::create_dir_all(bench.path().join("old/inner")).map_err(|error| error.to_string())?;
    fs::create_dir(bench.path().join("again")).map_err(|error| error.to_string())?;
    for name in ["old/inner/a", "old/b", "again/c", "again/d"] {
        bench.write(name, name);
    }
    let before = tree(bench.path());
    let script = "mv old new; rm -r again; mkdir again; echo more > again/d; echo more >> new/b; : >> new/inner/a";
    let ran = bench.run(["--diff", "--commit", ".", "--", "sh", "-c", script]).wait();
    ran.expect(0, "exited");
    let mut after = tree(bench.path());
    after.remove(".report.json");
    let mut told = listed(&ran, bench.path());
    // What is gone with a directory is not told one by one, and the new one differs from the old by nothing that shows.
    for inner in ["D old/b", "D old/inner/", "D old/inner/a"] {
        told.insert(inner.to_owned());
    }
    assert_eq!(told, differences(&before, &after), "{}", ran.stderr);
    assert_eq!(after["new/inner/a"].1, b"old/inner/a");
    Ok(())
}

fn copies_come_out_however_the_command_ended() -> Result {
    let bench = Bench::new();
    fs::create_dir(bench.path().join("into")).map_err(|error| error.to_string())?;
    let script =
        "mkdir -p /res/d; echo one > /res/a; echo two > /res/d/b; ln -s b /res/d/l; chmod 755 /res/a; kill -9 $$";
    let copies = ["--copy-out", "/res:out", "--copy-out", "/res/a:into", "--copy-out", "/res/d/l:file"];
    let ran = bench.run(copies.iter().chain(&["--commit", ".", "--", "sh", "-c", script])).wait();
    ran.expect(137, "signaled");
    let read =
        |name: &str| fs::read_to_string(bench.path().join(name)).unwrap_or_else(|error| format!("{name}: {error}"));
    assert_eq!([read("out/a"), read("out/d/b"), read("out/d/l")], ["one\n", "two\n", "two\n"]);
    assert_eq!([read("into/a"), read("file")], ["one\n", "two\n"]);
    let mode = fs::metadata(bench.path().join("into/a")).map_err(|error| error.to_string())?.permissions().mode();
    assert_eq!(mode & 0o7777, 0o755);
    assert!(ran.stderr.contains("nothing was committed"), "{}", ran.stderr);

    let late =
        bench.run(["--timeout", "1s", "--copy-out", "/res:late", "--", "sh", "-c", "echo x > /res; sleep 60"]).wait();
    late.expect(124, "timeout");
    assert_eq!(read("late"), "x\n");
    Ok(())
}

/// A directory, a FIFO and a link of the host stay what they are, whatever the command makes of what is copied.
fn a_copy_takes_the_place_of_nothing_else() -> Result {
    let bench = Bench::new();
    fs::create_dir_all(bench.path().join("results/old/deep")).map_err(|error| error.to_string())?;
    bench.write("results/old/deep/f", "precious");
    let mode = Mode::from_raw_mode(0o600);
    mknodat(CWD, bench.path().join("pipe"), FileType::Fifo, mode, 0).map_err(|error| error.to_string())?;
    symlink("results/old/deep/f", bench.path().join("link")).map_err(|error| error.to_string())?;
    let deeper = "mkdir /tmp/results; echo gotcha > /tmp/results/old; echo new > /tmp/results/a";
    for (copy, script, words) in [
        ("/tmp/results:.", "echo gotcha > /tmp/results", "cannot overwrite directory"),
        ("/tmp/results:.", deeper, "cannot overwrite directory"),
        ("/tmp/f:pipe", "echo gotcha > /tmp/f", "cannot overwrite FIFO"),
        ("/tmp/f:link", "echo gotcha > /tmp/f", "cannot overwrite symbolic link"),
    ] {
        let ran = bench.run(["--copy-out", copy, "--", "sh", "-c", script]).wait();
        ran.expect(125, "setup_error");
        assert!(ran.stderr.contains(words) && ran.stderr.contains("with a file"), "{}", ran.stderr);
        let failed = format!("{script}; exit 3");
        let ran = bench.run(["--copy-out", copy, "--", "sh", "-c", &failed]).wait();
        ran.expect(3, "exited");
        assert!(ran.stderr.contains("left out: ") && ran.stderr.contains(words), "{}", ran.stderr);
    }
    let kind = |name: &str| fs::symlink_metadata(bench.path().join(name)).map(|metadata| metadata.file_type());
    assert!(kind("pipe").is_ok_and(|kind| kind.is_fifo()) && kind("link").is_ok_and(|kind| kind.is_symlink()));
    assert!(kind("results/a").is_err(), "something was written beside what is in the way");
    assert_eq!(fs::read(bench.path().join("link")).map_err(|error| error.to_string())?, b"precious");
    Ok(())
}

fn a_commit_takes_what_went_with_its_parent() -> Result {
    let bench = Bench::new();
    for name in ["a/b", "a/c"] {
        fs::create_dir_all(bench.path().join(name)).map_err(|error| error.to_string())?;
        bench.write(&format!("{name}/x"), "1");
    }
    let ran = bench.run(["--commit", "a/b", "--commit", "biuld", "--", "rm", "-rf", "a"]).wait();
    ran.expect(0, "exited");
    assert!(!bench.path().join("a/b").exists() && bench.path().join("a/c/x").exists());
    assert!(ran.stderr.contains("sandbox: nothing changed in biuld\n"), "{}", ran.stderr);
    let ran = bench.run(["--commit", ".", "--", "sh", "-c", "rm -rf \"$PWD\""]).wait();
    ran.expect(0, "exited");
    assert!(ran.stderr.contains("removed this directory itself"), "{}", ran.stderr);
    assert!(bench.path().join("a/c/x").exists());
    Ok(())
}

fn a_commit_touches_no_other_file_system() -> Result {
    let bench = Bench::new();
    fs::create_dir_all(bench.path().join("d/m")).map_err(|error| error.to_string())?;
    bench.write("d/gone", "");
    let script = "mount -t tmpfs m d/m; mkdir d/m/precious; echo alive > d/m/precious/f; \"$@\"; cat d/m/precious/f";
    let call = bench.run(["--commit", ".", "--", "sh", "-c", "rm -rf d; echo new > beside"]);
    let mut apart = bench.host(["unshare", "--mount", "sh", "-ec", script, "sh"]);
    apart.command.arg(call.command.get_program()).args(call.command.get_args());
    let ran = apart.wait();
    ran.expect(0, "exited");
    assert_eq!(ran.text(), "alive", "{}", ran.stderr);
    assert!(ran.stderr.contains("left out: ") && ran.stderr.contains("file system is mounted"), "{}", ran.stderr);
    assert!(bench.path().join("beside").exists());
    Ok(())
}

fn a_file_comes_back_in_no_directorys_place() -> Result {
    let bench = Bench::new();
    for (directory, file) in [("d/.git", "config"), ("e", "mine")] {
        fs::create_dir_all(bench.path().join(directory)).map_err(|error| error.to_string())?;
        fs::write(bench.path().join(directory).join(file), "mine").map_err(|error| error.to_string())?;
    }
    bench.write("f", "mine");
    let script = "rm -r d e f; mkdir f; touch d e f/new x; exit 3";
    let ran = bench.run(["--sync-out", "**", "--", "sh", "-c", script]).wait();
    ran.expect(3, "exited");
    assert_eq!(ran.stderr.matches("sandbox: left out: ").count(), 3, "{}", ran.stderr);
    for mine in ["d/.git/config", "e/mine", "f"] {
        assert_eq!(fs::read(bench.path().join(mine)).map_err(|error| format!("{mine}: {error}"))?, b"mine");
    }
    assert!(bench.path().join("x").exists());
    Ok(())
}

/// Devices, set-user-id programs, links that lead out, names that act on a terminal; and a directory of the host's that is a
/// link there.
fn what_a_hostile_root_leaves_reaches_nothing() -> Result {
    let (bench, outside) = (Bench::new(), Bench::new());
    outside.write("canary", "alive");
    symlink(outside.path(), bench.path().join("link")).map_err(|error| error.to_string())?;
    let script = "\
        rm link; mkdir link; echo dead > link/canary; \
        ln -s /etc/passwd absolute; ln -s ../../../../etc up; mknod device b 8 0; mkfifo fifo; \
        cp /bin/true program; chmod 6755 program; chown 1234 program; touch \"$(printf 'a\\033[2Jb\\nD etc')\"; \
        truncate -s 1T huge 2>/dev/null; rm -f huge";
    let ran = bench.run(["--diff", "--commit", ".", "--copy-out", ".:copy", "--", "sh", "-c", script]).wait();
    ran.expect(0, "exited");
    assert!(ran.stderr.contains("A \"") && ran.stderr.contains("\\u{1b}[2Jb\\nD etc\""), "{:?}", ran.stderr);
    assert!(!ran.stderr.contains('\u{1b}'), "{:?}", ran.stderr);
    assert_eq!(fs::read_to_string(outside.path().join("canary")).map_err(|error| error.to_string())?, "alive");
    for place in ["", "copy/"] {
        let at = |name: &str| bench.path().join(format!("{place}{name}"));
        assert_eq!(fs::read_to_string(at("link/canary")).map_err(|error| error.to_string())?, "dead\n");
        for name in ["absolute", "up", "device", "fifo"] {
            assert!(fs::symlink_metadata(at(name)).is_err(), "{place}{name} was made");
        }
        let program = fs::metadata(at("program")).map_err(|error| error.to_string())?;
        assert_eq!((program.mode() & 0o7777, program.uid()), (0o755, 0));
    }
    assert_eq!(ran.stderr.lines().filter(|line| line.starts_with("sandbox: left out: ")).count(), 8, "{}", ran.stderr);

    let huge = bench.run(["--copy-out", "/huge:huge", "--", "truncate", "-s", "1T", "/huge"]).wait();
    huge.expect(125, "setup_error");
    assert!(huge.stderr.contains("more than 32 GiB"), "{}", huge.stderr);
    Ok(())
}

/// A file of twenty gigabytes that are not there takes long to tell of.
fn an_interrupt_ends_the_telling() -> Result {
    let (bench, spool) = (Bench::new(), Bench::new());
    let words = ["--diff-tar", "out.tar", "--", "truncate", "-s", "20G", "big"];
    let run = bench.run(words).env("TMPDIR", spool.path().display().to_string()).spawn();
    // What has been told goes into a file there that has no name, but for this.
    let telling = || {
        let files = fs::read_dir(format!("/proc/{}/fd", run.id())).into_iter().flatten().flatten();
        files.map(|file| file.path()).any(|file| {
            fs::read_link(&file).is_ok_and(|link| link.starts_with(spool.path()))
                && file.metadata().is_ok_and(|file| file.len() > 1 << 20)
        })
    };
    while !telling() {
        std::thread::yield_now();
    }
    kill_process(run.pid(), Signal::INT).map_err(|error| error.to_string())?;
    run.ran().expect(130, "cancelled");
    assert!(!bench.path().join("out.tar").exists());
    Ok(())
}

/// Who writes into a FIFO is in the middle of it for as long as nobody reads.
fn an_interrupt_ends_the_writing() -> Result {
    let bench = Bench::new();
    let pipe = bench.path().join("pipe");
    mknodat(CWD, &pipe, FileType::Fifo, Mode::from_raw_mode(0o600), 0).map_err(|error| error.to_string())?;
    let run = bench.run(["--diff-tar", "pipe", "--", "truncate", "-s", "8M", "big"]).spawn();
    let mut tar = fs::File::open(&pipe).map_err(|error| error.to_string())?;
    tar.read_exact(&mut [0]).map_err(|error| error.to_string())?;
    kill_process(run.pid(), Signal::INT).map_err(|error| error.to_string())?;
    let mut rest = Vec::new();
    tar.read_to_end(&mut rest).map_err(|error| error.to_string())?;
    run.ran().expect(130, "cancelled");
    assert!(rest.len() < 4 << 20, "{} bytes were still written", rest.len());
    assert!(pipe.exists());
    Ok(())
}
