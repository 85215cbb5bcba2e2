// SPDX-License-Identifier: Apache-2.0
//! Machines wait for room: with a ledger of the case's own, in which there is room for one machine and not for two.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::time::Duration;

use harness::Case;
use rustix::process::{Signal, kill_process};
use tests::tier::patient;
use tests::{Bench, Call, Running};

macro_rules! case {
    ($name:ident) => {
        Case { name: concat!("admission::", stringify!($name)), needs: &[], body: $name }
    };
}

pub(crate) const CASES: &[Case] = &[
    case!(a_machine_waits_until_another_has_ended),
    case!(the_dead_take_no_room),
    case!(a_wait_ends_by_a_signal),
    case!(a_ledger_that_cannot_be_used_ends_the_run),
];

type Result = std::result::Result<(), String>;

/// Longer than any of this takes, and ended by the case.
const LONG: &str = "echo up; read go; exit 0";

/// A call in the small host that a directory stands for.
fn call(bench: &Bench, host: &Bench, script: &str) -> Call {
    let ledger = host.path().join("ledger");
    bench.run(["-m", "256M", "--", "sh", "-c", script]).env("SANDBOX_LEDGER", ledger).env("SANDBOX_ADMIT", "400M")
}

/// A run that has taken the room. It ends when its input does.
fn begun(bench: &Bench) -> Running {
    let mut running = call(bench, bench, LONG).input("").spawn();
    let mut line = String::new();
    BufReader::new(running.stdout.take().expect("piped")).read_line(&mut line).expect("it says that it runs");
    assert_eq!(line, "up\n");
    running
}

/// Waits until a run says that it waits.
fn waits(running: &mut Running) {
    let mut line = String::new();
    BufReader::new(running.stderr.take().expect("piped")).read_line(&mut line).expect("it says something");
    assert!(
        line.starts_with("sandbox: waiting for room for 256M and 1 CPU: running machines have 256M of 400M"),
        "{line}"
    );
}

fn a_machine_waits_until_another_has_ended() -> Result {
    let bench = Bench::new();
    let mut first = begun(&bench);
    let other = Bench::new();
    let mut second = call(&other, &bench, "echo second").spawn();
    waits(&mut second);
    assert!(second.try_wait().map_err(|error| error.to_string())?.is_none(), "it has not started");
    // One that need not wait does not.
    let free = Bench::new().run(["-m", "256M", "--", "true"]).env("SANDBOX_ADMIT", "off").wait();
    free.expect(0, "exited");
    drop(first.stdin.take());
    first.ran().expect(0, "exited");
    let ran = second.ran();
    ran.prints("second");
    let queue = ran.report["timings_ms"]["queue"].as_f64().expect("waiting is a stage");
    assert!(queue >= 500.0, "it waited for {queue} ms");
    Ok(())
}

/// SIGKILL frees what a run had, without anybody's doing.
fn the_dead_take_no_room() -> Result {
    let bench = Bench::new();
    let mut first = begun(&bench);
    let other = Bench::new();
    let mut second = call(&other, &bench, "echo second").spawn();
    waits(&mut second);
    first.kill().map_err(|error| error.to_string())?;
    second.ran().prints("second");
    // And who comes later does not even have to wait.
    let ran = call(&bench, &bench, "echo third").wait();
    ran.prints("third");
    assert_eq!(ran.stderr, "");
    Ok(())
}

fn a_wait_ends_by_a_signal() -> Result {
    let bench = Bench::new();
    let first = begun(&bench);
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        let other = Bench::new();
        let mut second = call(&other, &bench, "echo second").spawn();
        waits(&mut second);
        kill_process(second.pid(), signal).map_err(|error| error.to_string())?;
        let ran = second.ran();
        ran.expect(code, "cancelled");
        assert_eq!(ran.report["started"], false);
        assert!(ran.wall < patient(Duration::from_secs(30)), "at once, not when the first has ended");
    }
    drop(first);
    Ok(())
}

fn a_ledger_that_cannot_be_used_ends_the_run() -> Result {
    let bench = Bench::new();
    let notes = bench.path().join("notes");
    std::fs::write(&notes, [b'x'; 64]).map_err(|error| error.to_string())?;
    for place in [Path::new("/proc/no/ledger"), &notes] {
        let ran = bench.shell("echo fine").env("SANDBOX_LEDGER", place).wait();
        ran.expect(125, "setup_error");
        assert!(ran.stderr.contains(&format!("cannot count machines in {}", place.display())), "{}", ran.stderr);
    }
    assert!(std::fs::read(&notes).is_ok_and(|bytes| bytes == [b'x'; 64]), "a file that is no ledger is left alone");
    let ran = bench.shell("true").env("SANDBOX_ADMIT", "plenty").wait();
    ran.expect(125, "usage_error");
    assert!(ran.stderr.contains("SANDBOX_ADMIT is \"plenty\""), "{}", ran.stderr);
    Ok(())
}
