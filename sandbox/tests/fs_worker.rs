// SPDX-License-Identifier: Apache-2.0
//! The file worker as a process: what it can reach, what it keeps, and when it ends.
//!
//! Needs user namespaces. Where they are forbidden the tests say so and pass, or fail under `SANDBOX_STRICT=1`.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use sandbox::fs::{Error, SUBCOMMAND, Start, Worker};
use sandbox::spec::Volume;
use sandbox::view::{Request, View};
use std::fs;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

fn start() -> Start {
    Start::of(env!("CARGO_BIN_EXE_sandbox").into())
}

/// Whether there are user namespaces; says so if not.
fn namespaces() -> bool {
    let forbidden = ["/proc/sys/user/max_user_namespaces", "/proc/sys/kernel/unprivileged_userns_clone"]
        .iter()
        .any(|path| fs::read_to_string(path).is_ok_and(|text| text.trim() == "0"));
    if forbidden {
        assert!(std::env::var_os("SANDBOX_STRICT").is_none_or(|strict| strict != "1"), "user namespaces are forbidden");
        eprintln!("skipped: user namespaces are forbidden on this host");
    }
    !forbidden
}

fn view(cwd: &Path, volumes: Vec<Volume>) -> View {
    View::of(&Request { cwd: cwd.into(), volumes, ..Request::default() }).unwrap()
}

fn directory() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().canonicalize().unwrap();
    (directory, path)
}

fn ended_in_time(worker: &Worker) -> bool {
    let limit = Timespec { tv_sec: 10, tv_nsec: 0 };
    poll(&mut [PollFd::new(worker, PollFlags::IN)], Some(&limit)).unwrap() == 1
}

fn of_process(worker: &Worker, name: &str) -> PathBuf {
    PathBuf::from(format!("/proc/{}/{name}", worker.id()))
}

#[test]
fn its_root_is_the_view_and_nothing_else() {
    if !namespaces() {
        return;
    }
    let (_keep, cwd) = directory();
    fs::write(cwd.join("file"), "here").unwrap();
    let (worker, _socket) = Worker::start(&view(&cwd, vec![]), &start()).unwrap();

    let root = of_process(&worker, "root");
    let mut names: Vec<_> = fs::read_dir(&root).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["covers", "root", "volumes"]);
    let shown = |path: &str| root.join("root").join(path);
    assert_eq!(fs::read(shown(&cwd.to_str().unwrap()[1..]).join("file")).unwrap(), b"here");
    assert!(shown("usr/bin").is_dir() && shown("etc/passwd").is_file());
    for hidden in
        ["etc/shadow", "etc/ssh", "etc/machine-id", "var/lib", "proc/self", "dev/null", "sys/kernel", "root/.profile"]
    {
        assert!(shown(hidden).symlink_metadata().is_err(), "{hidden} is there");
    }
}

#[test]
fn credentials_in_the_current_directory_are_covered() {
    if !namespaces() {
        return;
    }
    let (_keep, home) = directory();
    let cargo = home.join(".cargo");
    fs::create_dir_all(cargo.join("bin")).unwrap();
    fs::create_dir_all(home.join(".config/gh")).unwrap();
    for file in ["credentials.toml", "config.toml"] {
        fs::write(cargo.join(file), "token").unwrap();
    }
    fs::write(home.join(".config/gh/hosts.yml"), "token").unwrap();
    for (cwd, hidden) in [(&cargo, "credentials.toml"), (&home.join(".config"), "gh/hosts.yml")] {
        let request = Request { cwd: cwd.clone(), home: Some(home.clone()), ..Request::default() };
        let (worker, _socket) = Worker::start(&View::of(&request).unwrap(), &start()).unwrap();
        let seen = of_process(&worker, "root").join("root").join(cwd.strip_prefix("/").unwrap());
        assert!(seen.is_dir());
        // Either nothing, or something empty that the server opens for nobody.
        assert_eq!(fs::read(seen.join(hidden)).unwrap_or_default(), b"", "{hidden}");
        assert_eq!(fs::read(cwd.join(hidden)).unwrap(), b"token");
    }
}

#[test]
fn every_mount_is_restricted() {
    if !namespaces() {
        return;
    }
    let (_keep, cwd) = directory();
    let (_other, data) = directory();
    let volumes = vec![
        Volume { source: data.clone(), target: "/rw".into(), read_only: false },
        Volume { source: data.clone(), target: "/ro".into(), read_only: true },
    ];
    let (worker, _socket) = Worker::start(&view(&cwd, volumes), &start()).unwrap();

    let mounts = fs::read_to_string(of_process(&worker, "mountinfo")).unwrap();
    assert!(mounts.lines().count() > 10, "{mounts}");
    for mount in mounts.lines() {
        let fields: Vec<&str> = mount.split(' ').collect();
        let (at, options) = (fields[4], format!(",{},", fields[5]));
        for wanted in ["nosuid", "nodev", "noexec"] {
            assert!(options.contains(&format!(",{wanted},")), "{mount}");
        }
        assert_eq!(options.contains(",rw,"), at == "/volumes/0", "{mount}");
        assert!(!mount.contains(" shared:") && !mount.contains(" master:"), "{mount}");
    }
    let root = of_process(&worker, "root");
    fs::write(root.join("volumes/0/file"), "x").unwrap();
    assert_eq!(fs::read(data.join("file")).unwrap(), b"x");
    assert!(fs::write(root.join("volumes/1/file"), "y").is_err());
    assert!(fs::write(root.join("file"), "y").is_err());
}

#[test]
fn it_keeps_few_rights_and_descriptors() {
    if !namespaces() {
        return;
    }
    let (_keep, cwd) = directory();
    let (worker, _socket) = Worker::start(&view(&cwd, vec![]), &start()).unwrap();

    let status = fs::read_to_string(of_process(&worker, "status")).unwrap();
    let value = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_ascii_whitespace().nth(1).unwrap().to_owned()
    };
    // CAP_DAC_READ_SEARCH is bit 2: nothing else is needed to read. What it might execute gets no more than it has itself.
    for set in ["CapEff:", "CapPrm:"] {
        assert_eq!(value(set), "0000000000000004", "{set}");
    }
    assert_eq!(value("CapInh:"), "0000000000000000");
    assert_eq!(value("NoNewPrivs:"), "1");
    assert_eq!(value("Seccomp:"), "2");
    // Of the network there is nothing for it: its filter has no call that makes a socket.
    for space in ["user", "mnt"] {
        let space = format!("ns/{space}");
        assert_ne!(
            of_process(&worker, &space).read_link().unwrap(),
            Path::new("/proc/self").join(&space).read_link().unwrap()
        );
    }
    assert_eq!(fs::read(of_process(&worker, "environ")).unwrap(), b"");
    assert!(fs::read_dir(of_process(&worker, "fd")).unwrap().count() < 32);
}

#[test]
fn it_ends_when_the_connection_closes() {
    if !namespaces() {
        return;
    }
    let (_keep, cwd) = directory();
    let (mut worker, socket) = Worker::start(&view(&cwd, vec![]), &start()).unwrap();
    assert!(worker.try_wait().unwrap().is_none());
    drop::<UnixStream>(socket);
    assert!(ended_in_time(&worker));
    assert!(worker.try_wait().unwrap().unwrap().success());
}

#[test]
fn it_ends_when_it_is_dropped() {
    if !namespaces() {
        return;
    }
    let (_keep, cwd) = directory();
    let (worker, _socket) = Worker::start(&view(&cwd, vec![]), &start()).unwrap();
    let process = of_process(&worker, "stat");
    drop(worker);
    assert!(!process.exists());
}

#[test]
fn it_ends_with_the_thread_that_started_it() {
    if !namespaces() {
        return;
    }
    let (_keep, cwd) = directory();
    let view = view(&cwd, vec![]);
    // The socket is kept, so that nothing but the death signal can end the worker.
    let (worker, _socket) = std::thread::spawn(move || Worker::start(&view, &start()).unwrap()).join().unwrap();
    assert!(ended_in_time(&worker));
}

#[test]
fn a_failure_names_the_path() {
    if !namespaces() {
        return;
    }
    let (keep, cwd) = directory();
    let view = view(&cwd, vec![]);
    drop(keep);
    let error = Worker::start(&view, &start()).map(|_| ()).unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, Error::Refused(_)), "{error:?}");
    assert!(text.contains("build the view") && text.contains(cwd.to_str().unwrap()), "{text}");
}

#[test]
fn a_program_that_is_no_worker_is_an_error() {
    let (_keep, cwd) = directory();
    let start = Start { program: "/bin/true".into(), ..start() };
    assert!(matches!(Worker::start(&view(&cwd, vec![]), &start), Err(Error::Ended(_))));
    let start = Start { program: "/nowhere".into(), ..start };
    assert!(matches!(Worker::start(&view(&cwd, vec![]), &start), Err(Error::Spawn { .. })));
}

#[test]
fn a_call_ends_the_wait_for_a_silent_worker() {
    let (_keep, cwd) = directory();
    // It never says a word.
    let start = Start { program: "/bin/sleep".into(), arguments: vec!["60".into()], ..start() };
    let mut worker = Worker::begin(&view(&cwd, vec![]), &start).unwrap();
    let (call, mut caller) = UnixStream::pair().unwrap();
    std::io::Write::write_all(&mut caller, b"!").unwrap();
    assert!(matches!(worker.connection(Some(call.as_fd())), Err(Error::Called)));
    assert!(matches!(worker.ready(Some(call.as_fd())), Err(Error::Called)));
}

#[test]
fn the_subcommand_by_itself_does_nothing() {
    for input in [&b""[..], b"\xff\xff\xff\xff\xff\xff", b"{}"] {
        let mut child = Command::new(env!("CARGO_BIN_EXE_sandbox"))
            .arg(SUBCOMMAND)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), input).unwrap();
        assert!(!child.wait().unwrap().success());
    }
}
