// SPDX-License-Identifier: Apache-2.0
//! The cage from inside: this test program starts itself again in one, and tries every way out.

use super::*;
use crate::sys::child;
use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::os::unix::net::UnixStream;
use std::process::Command;

/// Says that we are in the cage, which also has the name of a file that was given.
const GIVEN: &str = "SANDBOX_TEST_CAGE";

#[test]
fn nothing_leads_out() {
    let program = std::env::current_exe().unwrap();
    let mut given = tempfile::NamedTempFile::new().unwrap();
    given.write_all(b"given").unwrap();
    let cage = Cage::new(&program, &[given.as_file()]).unwrap();
    let mut command = Command::new(&program);
    command.args(["--exact", "confine::cage::tests::inside", "--ignored", "--nocapture"]).env(GIVEN, given.path());
    child::die_with_parent(&mut command, 3, move || cage.enter());
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{said}{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
#[ignore = "runs in the cage, started by the test above"]
fn inside() {
    let given = std::env::var_os(GIVEN).expect("started by the other test");
    let denied = |what: &str, result: io::Result<()>| {
        let kind = result.map_err(|error| error.kind());
        assert_eq!(kind, Err(ErrorKind::PermissionDenied), "{what}");
    };

    let mut text = String::new();
    File::open(&given).and_then(|mut file| file.read_to_string(&mut text)).expect("what was given can be read");
    assert_eq!(text, "given");
    assert!(fs::metadata("/usr/lib").is_ok() && fs::read_dir("/usr/lib").is_ok(), "libraries can be read");

    denied("write what was given", fs::write(&given, "x"));
    for path in ["/etc/passwd", "/proc/self/environ", "/dev/kvm", "/sys/kernel/notes"] {
        denied(path, File::open(path).map(drop));
    }
    denied("list the root", fs::read_dir("/").map(drop));
    denied("make a file", File::create("/tmp/sandbox-test-cage").map(drop));
    denied("make a directory", fs::create_dir("/tmp/sandbox-test-cage"));
    denied("make a link", std::os::unix::fs::symlink("/", "/tmp/sandbox-test-cage"));
    denied("remove what was given", fs::remove_file(&given));
    denied("execute", Command::new("/bin/true").status().map(drop));
    denied("connect", TcpStream::connect("127.0.0.1:1").map(drop));
    denied("bind", UdpSocket::bind("127.0.0.1:0").map(drop));
    denied("reach a local socket", UnixStream::connect("/run/x").map(drop));
    let parent = rustix::process::getppid().expect("there is a parent");
    denied("signal", rustix::process::kill_process(parent, rustix::process::Signal::TERM).map_err(Into::into));
    denied(
        "take hold of",
        rustix::process::pidfd_open(parent, rustix::process::PidfdFlags::empty()).map(drop).map_err(Into::into),
    );
    denied("leave its namespace", namespace::unshare(UnshareFlags::NEWUSER));
}
