// SPDX-License-Identifier: Apache-2.0
//! Machines, and templates that they begin as copies of: as good as those that boot, and no two alike.

use std::collections::HashSet;
use std::fs;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use harness::{Case, Need};
use rustix::process::{Signal, kill_process};
use tests::{Bench, Call, Ran};

macro_rules! case {
    ($group:literal, $name:ident) => {
        Case { name: concat!($group, "::", stringify!($name)), needs: &[], body: $name }
    };
}

pub(crate) const CASES: &[Case] = &[
    case!("templates", a_run_is_a_clone_and_a_boot_gives_the_same),
    case!("templates", one_that_is_damaged_is_refused),
    case!("templates", one_that_cannot_be_kept_is_a_boot_with_a_reason),
    Case {
        name: "templates::one_that_finds_no_room_is_tried_once",
        needs: &[Need::Root, Need::Program("unshare")],
        body: one_that_finds_no_room_is_tried_once,
    },
    case!("templates", an_interrupt_while_one_is_made_ends_the_run),
    case!("machines", each_has_secrets_of_its_own),
    case!("machines", each_knows_the_time),
    case!("machines", all_processors_run),
];

type Result = std::result::Result<(), String>;

/// A store of a case's own with the images of the user's, for what must not happen to those.
struct Cache(Bench);

impl Cache {
    fn new() -> Self {
        let cache = Self(Bench::new());
        let images = images::Store::of_user().expect("a store").images();
        fs::create_dir_all(cache.images()).expect("a directory");
        for entry in fs::read_dir(images).expect("images are built") {
            let entry = entry.expect("an entry");
            let name = entry.file_name();
            if !name.to_string_lossy().starts_with("template-") {
                std::os::unix::fs::symlink(entry.path(), cache.images().join(name)).expect("a link");
            }
        }
        cache
    }

    fn images(&self) -> PathBuf {
        self.0.path().join("sandbox/images")
    }

    fn call(&self, command: [&str; 2]) -> Call {
        let words = [&["--"], &command[..]].concat();
        self.0.run(words).env("XDG_CACHE_HOME", self.0.path())
    }

    fn run(&self) -> Ran {
        self.call(["echo", "ran"]).wait()
    }

    /// What is there besides images and templates that are whole.
    fn unfinished(&self) -> usize {
        let names = fs::read_dir(self.images()).expect("a directory").map(|entry| entry.expect("an entry").file_name());
        names.filter(|name| name.to_string_lossy().starts_with('.')).count()
    }

    fn template(&self) -> Option<PathBuf> {
        let entries = fs::read_dir(self.images()).expect("a directory").map(|entry| entry.expect("an entry").path());
        entries.into_iter().find(|path| path.to_string_lossy().contains("/template-"))
    }
}

fn a_run_is_a_clone_and_a_boot_gives_the_same() -> Result {
    let script = "id; pwd; uname -a; nproc; cat /proc/cmdline; mount | sort; ls -l /dev /sys/bus/virtio/devices | cut -c1-10; \
                  grep MemTotal /proc/meminfo; ulimit -a; cat /proc/sys/kernel/hostname /sys/kernel/kexec_loaded";
    let bench = Bench::new();
    let run = |option: &[&str]| {
        let words = [option, &["--", "sh", "-c", script]].concat();
        bench.run(words).wait()
    };
    let (clone, boot) = (run(&[]), run(&["--boot"]));
    assert_eq!((clone.report["begin"].as_str(), boot.report["begin"].as_str()), (Some("clone"), Some("boot")));
    boot.expect(0, "exited");
    clone.prints(&boot.text());
    Ok(())
}

/// What the kernel and the C library draw when the command starts, and what it asks for itself.
fn each_has_secrets_of_its_own() -> Result {
    let script = "cat /proc/sys/kernel/random/boot_id; od -An -N16 -tx1 /dev/urandom; \
                  od -An -N16 -tx1 /dev/random; cat /proc/self/stat | cut -d' ' -f28; mktemp -u; \
                  for place in / /dev /dev/shm; do stat -f -c %i $place; done";
    let mut seen = HashSet::new();
    for _ in 0..3 {
        let ran = Bench::new().shell(script).wait();
        ran.expect(0, "exited");
        assert_eq!(ran.text().lines().count(), 8, "{}", ran.text());
        for line in ran.text().lines() {
            assert!(seen.insert(line.to_owned()), "{line} came twice");
        }
    }
    Ok(())
}

fn each_knows_the_time() -> Result {
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    let bench = Bench::new();
    // The first makes a template if there is none; the second is what counts.
    bench.shell("true").wait().expect(0, "exited");
    let before = now();
    let script = "date +%s; stat -c %Y / /dev /tmp; cut -d. -f1 /proc/uptime; sleep 1; date +%s";
    let ran = bench.shell(script).wait();
    let after = now();
    ran.expect(0, "exited");
    let numbers: Vec<u64> = ran.text().lines().map(|line| line.parse().expect("a number")).collect();
    let [time, made @ .., uptime, later] = &numbers[..] else { return Err(ran.text()) };
    for moment in [time, later].into_iter().chain(&made[..2]) {
        assert!((before..=after).contains(moment), "{moment} is not from {before} to {after}");
    }
    assert!(*later > *time, "a second passed");
    assert!(*uptime <= after - before + 60, "up for {uptime} s");
    Ok(())
}

fn all_processors_run() -> Result {
    for cpus in ["2", "4"] {
        let script = "nproc; for cpu in $(seq 0 $(($(nproc) - 1))); do taskset -c $cpu sh -c 'echo on' & done; wait";
        let ran = Bench::new().run(["--cpus", cpus, "--", "sh", "-c", script]).wait();
        let on = "\non".repeat(cpus.parse().expect("a number"));
        ran.prints(&format!("{cpus}{on}"));
    }
    Ok(())
}

fn one_that_is_damaged_is_refused() -> Result {
    let cache = Cache::new();
    cache.run().prints("ran");
    let memory = cache.template().ok_or("no template was kept")?.join("memory");
    let mut bytes = fs::read(&memory).map_err(|error| error.to_string())?;
    // The middle is some page of the kernel's; a single bit there may or may not be noticed by anybody else.
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&memory, &bytes).map_err(|error| error.to_string())?;

    let ran = cache.run();

    ran.expect(125, "setup_error");
    assert!(ran.stderr.contains("is damaged") && ran.stderr.contains("`images gc`"), "{}", ran.stderr);
    assert_eq!(ran.text(), "", "no command is sent to such a machine");
    // One that is cut short is not even begun with: another is made.
    bytes.truncate(middle);
    fs::write(&memory, &bytes).map_err(|error| error.to_string())?;
    let ran = cache.run();
    ran.prints("ran");
    assert_eq!(ran.report["begin"], "clone");
    Ok(())
}

fn one_that_cannot_be_kept_is_a_boot_with_a_reason() -> Result {
    let cache = Cache::new();
    // A directory where the lock is to be: even root cannot open it for writing.
    fs::create_dir(cache.0.path().join("sandbox/lock-template")).map_err(|error| error.to_string())?;
    let ran = cache.run();
    ran.prints("ran");
    assert_eq!(ran.report["begin"], "boot");
    let why = ran.report["begin_detail"].as_str().unwrap_or_default();
    assert!(why.contains("lock-template"), "{why}");
    Ok(())
}

/// The cache is on a file system of a few MB, where the images are links.
fn one_that_finds_no_room_is_tried_once() -> Result {
    let cache = Cache::new();
    let script = "mkdir full; mount -t tmpfs -o size=2m full full; cp -a sandbox full; export XDG_CACHE_HOME=$PWD/full; \
                  mkdir full/sandbox/images/.new-template-left; \
                  \"$@\"; mv .report.json first.json; \"$@\"; ls -A full/sandbox/images | grep -c template || :";
    let call = cache.call(["echo", "ran"]);
    let mut apart = cache.0.host(["unshare", "--mount", "sh", "-ec", script, "sh"]);
    apart.command.arg(call.command.get_program()).args(call.command.get_args());
    let ran = apart.wait();
    ran.expect(0, "exited");
    assert_eq!(ran.text(), "ran\nran\n0", "{}", ran.stderr);
    let first = fs::read(cache.0.path().join("first.json")).map_err(|error| error.to_string())?;
    let first: serde_json::Value = serde_json::from_slice(&first).map_err(|error| error.to_string())?;
    for (report, why) in [(&first, "No space left"), (&ran.report, "less than an hour ago")] {
        assert_eq!(report["begin"], "boot");
        assert!(report["begin_detail"].as_str().is_some_and(|detail| detail.contains(why)), "{report}");
    }
    Ok(())
}

fn an_interrupt_while_one_is_made_ends_the_run() -> Result {
    let cache = Cache::new();
    let run = cache.call(["sleep", "60"]).spawn();
    let lock = cache.0.path().join("sandbox/lock-template");
    while !lock.exists() {
        std::thread::yield_now();
    }
    kill_process(run.pid(), Signal::INT).map_err(|error| error.to_string())?;
    assert_eq!(run.output().status.code(), Some(130));
    // Should the signal have been late, there is a template, and it is whole.
    assert_eq!(cache.unfinished(), 0);
    Ok(())
}
