// SPDX-License-Identifier: Apache-2.0
//! The hostile guest (tests/hostile) in a real machine: the monitor's confined process, streams behind its socket
//! device, and the file server's process with two volumes. Every case's verdict must be PASS or REJECT.
//!
//! `SANDBOX_HOSTILE` names the guest's program and `SANDBOX_BIN` ours, as `make hostile`, which alone runs this, builds them;
//! without, the test says so and passes, or fails under `SANDBOX_STRICT=1`. A KVM that cannot run it fails: that is no skip.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::thread::{self, JoinHandle};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{CWD, FileType, Mode, mknodat};

use crate::devices;
use crate::engine::kvm::monitor;
use crate::engine::{self, Ending, Machine, Model, Parts, Sockets};
use crate::fs::{Start, Worker};
use crate::spec::Volume;
use crate::sys::tsc::Moment;
use crate::view::{Request, View};

/// The port that the guest dials, as often as it likes: as many streams as a plan has room for.
const PORT: u32 = 1024;
const STREAMS: usize = 11;

const MEMORY: u64 = 128 << 20;

/// A guest that has printed nothing for so long is stuck, and so is what it waits for.
const SILENCE: Timespec = Timespec { tv_sec: 180, tv_nsec: 0 };

/// Fewer cases are not what they are meant to be.
const LEAST: usize = 150;

/// What the test is run with, both by environment variables.
struct Programs {
    ours: PathBuf,
    guest: PathBuf,
}

fn programs() -> Option<Programs> {
    let missing = |what: &str| {
        assert!(std::env::var_os("SANDBOX_STRICT").is_none_or(|strict| strict != "1"), "{what}");
        eprintln!("skipped: {what}");
        None
    };
    let variable = |name: &str| std::env::var_os(name).map(PathBuf::from);
    let (Some(ours), Some(guest)) = (variable("SANDBOX_BIN"), variable("SANDBOX_HOSTILE")) else {
        return missing("SANDBOX_BIN and SANDBOX_HOSTILE are not set: make hostile");
    };
    match File::options().read(true).write(true).open("/dev/kvm") {
        Ok(_) => Some(Programs { ours, guest }),
        Err(error) => missing(&format!("/dev/kvm: {error}")),
    }
}

/// What the guest is shown, and what it is not.
struct Host(tempfile::TempDir);

impl Host {
    fn new() -> Self {
        let host = Self(tempfile::tempdir().unwrap());
        fs::create_dir_all(host.path("current")).unwrap();
        for place in ["writable", "read-only", "outside"] {
            let place = host.path(place);
            fs::create_dir_all(place.join("directory")).unwrap();
            fs::write(place.join("file"), "hello\n").unwrap();
            mknodat(CWD, place.join("fifo"), FileType::Fifo, Mode::from_raw_mode(0o666), 0).unwrap();
            drop(UnixListener::bind(place.join("socket")).unwrap());
            for (link, target) in [("out", "/"), ("up", "../.."), ("process", "/proc/self/root")] {
                std::os::unix::fs::symlink(target, place.join(link)).unwrap();
            }
        }
        host
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().canonicalize().unwrap().join(name)
    }

    fn view(&self) -> View {
        let volume =
            |name: &str, read_only| Volume { source: self.path(name), target: Path::new("/").join(name), read_only };
        let volumes = vec![volume("writable", false), volume("read-only", true)];
        View::of(&Request { cwd: self.path("current"), volumes, ..Request::default() }).unwrap()
    }

    /// Everything in a directory that a guest could have changed.
    fn listing(&self, name: &str) -> BTreeMap<PathBuf, (u32, u64, i64, String)> {
        let mut found = BTreeMap::new();
        let mut open = vec![self.path(name)];
        while let Some(path) = open.pop() {
            let metadata = path.symlink_metadata().unwrap();
            let content = match metadata.file_type() {
                kind if kind.is_file() => fs::read_to_string(&path).unwrap(),
                kind if kind.is_symlink() => path.read_link().unwrap().display().to_string(),
                kind if kind.is_dir() => {
                    open.extend(path.read_dir().unwrap().map(|entry| entry.unwrap().path()));
                    String::new()
                }
                _ => String::new(),
            };
            found.insert(path, (metadata.mode(), metadata.nlink(), metadata.mtime_nsec(), content));
        }
        found
    }
}

/// A stream that sends back what it gets, until the machine is gone.
fn echo() -> (UnixStream, JoinHandle<()>) {
    let (theirs, mut ours) = UnixStream::pair().unwrap();
    let work = move || {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(count @ 1..) = ours.read(&mut buffer) {
            if ours.write_all(&buffer[..count]).is_err() {
                break;
            }
        }
    };
    (theirs, thread::spawn(work))
}

/// What one boot of the guest came to.
struct Boot {
    ending: Ending,
    lines: Vec<String>,
}

fn boot(programs: &Programs, host: &Host, first: u32) -> Boot {
    let start = Start::of(programs.ours.clone());
    let (_worker, files) = Worker::start(&host.view(), &start).unwrap();
    let (streams, echoes): (Vec<_>, Vec<_>) = (0..STREAMS).map(|_| echo()).unzip();
    let parts = Parts {
        model: Model { memory: MEMORY, cpus: 1, nested: false, disk: false, clears_file_pages: true },
        start: engine::Start::Boot(engine::Boot {
            kernel: File::open(&programs.guest).unwrap(),
            initramfs: tempfile::tempfile().unwrap(),
            command_line: format!("first={first} streams={STREAMS}").leak(),
            begun: Moment::now(),
        }),
        sockets: Sockets {
            ports: streams.into_iter().map(|stream| (PORT, stream)).collect(),
            files,
            disk: None,
            supply: None,
        },
        devices: devices::list,
    };
    let mut machine = Machine::Kvm(monitor::start(&programs.ours, parts).unwrap());
    wait(&mut machine);
    let ending = machine.end().unwrap();
    for echo in echoes {
        echo.join().unwrap();
    }
    Boot { ending, lines: machine.console().last_lines(usize::MAX) }
}

/// Until the machine ends, or says nothing any more. What it says is shown as it comes.
fn wait(machine: &mut Machine) {
    let mut shown = 0;
    loop {
        let (ended, said) = {
            let end = machine.end_fd();
            let mut watched = vec![PollFd::from_borrowed_fd(end, PollFlags::IN)];
            watched.extend(machine.console().poll_fd().map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
            let events = poll(&mut watched, Some(&SILENCE)).unwrap();
            (events == 0 || !watched[0].revents().is_empty(), watched.get(1).is_some_and(|fd| !fd.revents().is_empty()))
        };
        if said {
            machine.read_console();
            let lines = machine.console().last_lines(usize::MAX);
            let whole = lines.len().saturating_sub(1);
            for line in lines.iter().take(whole).skip(shown) {
                println!("{line}");
            }
            shown = shown.max(whole);
        } else if ended {
            return;
        }
    }
}

/// The verdict of a line that is about a case, by the case's number.
fn verdict(line: &str) -> Option<(u32, &str)> {
    let number = line.split(' ').next()?.parse().ok()?;
    Some((number, line.rsplit_once(" ... ").map_or("(none)", |(_, verdict)| verdict)))
}

/// The number in a line that begins so.
fn told(lines: &[String], begin: &str) -> Option<usize> {
    lines.iter().find_map(|line| line.strip_prefix(begin)?.split(' ').next()?.parse().ok())
}

#[test]
#[ignore = "make hostile runs it, with programs that are built apart"]
fn every_case_of_the_hostile_guest_passes_or_is_rejected() {
    let Some(programs) = programs() else { return };
    let host = Host::new();
    let untouched = ["outside", "read-only", "current"];
    let before = untouched.map(|name| host.listing(name));
    let (mut verdicts, mut first) = (BTreeMap::new(), 0);
    let cases = loop {
        let Boot { ending, lines } = boot(&programs, &host, first);
        let tail = lines[lines.len().saturating_sub(5)..].join("\n");
        assert_eq!(ending, Ending::Guest("by the reset port".to_owned()), "the guest's last words:\n{tail}");
        let cases = told(&lines, "hostile: ").unwrap_or_else(|| panic!("the guest did not begin:\n{tail}"));
        for (number, verdict) in
            lines.iter().filter_map(|line| verdict(line)).filter(|(_, verdict)| *verdict != "later")
        {
            assert!(verdicts.insert(number, verdict.to_owned()).is_none(), "case {number} ran twice");
        }
        match told(&lines, "hostile: next ") {
            Some(next) if next as u32 > first => first = next as u32,
            Some(next) => panic!("case {next} needs more than {STREAMS} streams"),
            None => {
                assert!(lines.iter().any(|line| line == "hostile: done"), "it did not finish:\n{tail}");
                break cases;
            }
        }
    };
    let held = |verdict: &str| matches!(verdict, "PASS" | "REJECT");
    let bad: Vec<_> = verdicts.iter().filter(|(_, verdict)| !held(verdict)).collect();
    assert!(bad.is_empty(), "{} of {} cases: {bad:#?}", bad.len(), verdicts.len());
    assert_eq!(verdicts.len(), cases, "cases are missing");
    assert!(cases >= LEAST, "only {cases} cases");
    assert_eq!(before, untouched.map(|name| host.listing(name)), "what the guest must not touch has changed");
    for (path, (mode, ..)) in host.listing("writable") {
        let kind = path.symlink_metadata().unwrap().file_type();
        assert!(!kind.is_char_device() && !kind.is_block_device() && mode & 0o6000 == 0, "{path:?}");
    }
}
