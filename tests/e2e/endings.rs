// SPDX-License-Identifier: Apache-2.0
//! The ends of a machine that is not its command's end: each has a cause of its own, and the run is over at once.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::time::{Duration, Instant};

use harness::Case;
use rustix::process::{Pid, Signal, kill_process};
use tests::tier::{engine, patient, promptly};
use tests::{Bench, Call, Ran, Running};

macro_rules! case {
    ($name:ident) => {
        Case { name: concat!("endings::", stringify!($name)), needs: &[], body: $name }
    };
}

pub(crate) const CASES: &[Case] = &[
    case!(triple_fault_is_a_guest_reset),
    case!(reset_port_is_a_guest_reset),
    case!(killed_machine_is_a_crash),
    case!(lost_before_its_command_a_run_is_repeated),
    case!(processor_that_spins_is_stopped_at_the_deadline),
    case!(processor_that_halts_for_good_is_stopped_at_the_deadline),
];

type Result = std::result::Result<(), String>;

/// Starts a run and waits until its command has printed a line; then it reads one.
fn begun(call: Call) -> Running {
    let mut child = call.input("").spawn();
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("the command says that it runs");
    assert_eq!(line, "up\n");
    child
}

/// Waits for the end of a run whose machine ends now.
fn over(child: Running) -> Ran {
    let now = Instant::now();
    let ran = child.ran();
    let took = now.elapsed();
    assert!(took < promptly(), "over only {took:?} after the event: {}", ran.report);
    ran
}

/// Root in the guest says how its kernel resets the machine, and has it do so.
fn reset(bench: &Bench, how: &str) -> Ran {
    let script =
        format!("echo {how} > /sys/kernel/reboot/type; echo up; read go; echo b > /proc/sysrq-trigger; sleep 60");
    let mut child = begun(bench.run(["-u", "0", "--", "sh", "-c", &script]));
    child.stdin.take().expect("piped").write_all(b"go\n").expect("the command reads");
    over(child)
}

fn triple_fault_is_a_guest_reset() -> Result {
    let ran = reset(&Bench::new(), "triple");
    ran.expect(125, "guest_reset");
    assert!(engine() != "kvm" || ran.stderr.contains("by a triple fault ("), "{}", ran.stderr);
    Ok(())
}

fn reset_port_is_a_guest_reset() -> Result {
    let ran = reset(&Bench::new(), "kbd");
    ran.expect(125, "guest_reset");
    assert!(ran.stderr.contains("by the reset port"), "{}", ran.stderr);
    Ok(())
}

/// The process that runs the machine; the other child is the file server.
pub(crate) fn machine(run: &Running) -> Pid {
    *machines(run).first().expect("one of its children runs the machine")
}

/// Likewise, if there is one already.
fn machines(run: &Running) -> Vec<Pid> {
    let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", run.id())).expect("the run has children");
    let numbers = children.split_whitespace().map(|number| number.parse().expect("a number"));
    let runs_the_machine = |child: &i32| {
        let line = fs::read_to_string(format!("/proc/{child}/cmdline")).unwrap_or_default();
        // Before it executes anything, a child has our own words, and those may name an engine.
        line.split('\0').next().is_some_and(|name| name.contains("qemu-system")) || line.ends_with("\0vmm\0")
    };
    numbers.filter(runs_the_machine).filter_map(Pid::from_raw).collect()
}

fn killed_machine_is_a_crash() -> Result {
    let bench = Bench::new();
    let child = begun(bench.shell("echo up; read go"));
    kill_process(machine(&child), Signal::KILL).map_err(|error| error.to_string())?;
    let ran = over(child);
    ran.expect(125, "vmm_crash");
    assert!(ran.stderr.contains("signal 9 killed"), "{}", ran.stderr);
    Ok(())
}

/// The first machine is killed while it boots. What came on standard input is still there for the second.
fn lost_before_its_command_a_run_is_repeated() -> Result {
    let bench = Bench::new();
    for (retries, code, attempt) in [("1", 0, 2), ("0", 125, 1)] {
        let mut child = bench.run(["--boot", "--retries", retries, "--", "cat"]).input("").spawn();
        child.stdin.take().expect("piped").write_all(b"whole\n").expect("the pipe is there");
        let begun = Instant::now();
        let machine = loop {
            match machines(&child).first() {
                Some(machine) => break *machine,
                None => assert!(begun.elapsed() < patient(Duration::from_secs(60)), "no machine starts"),
            }
        };
        kill_process(machine, Signal::KILL).map_err(|error| error.to_string())?;
        let ran = child.ran();
        ran.expect(code, if code == 0 { "exited" } else { "vmm_crash" });
        assert_eq!(ran.report["attempt"], attempt);
        assert_eq!(ran.report["never_started"], code != 0);
        let repeated = ran.stderr.contains("sandbox: attempt 1 failed before the command started, and is repeated: ");
        assert_eq!((repeated, ran.text().as_str()), (attempt == 2, if code == 0 { "whole" } else { "" }));
    }
    // Once it has started, never.
    let child = begun(bench.run(["--retries", "3", "--", "sh", "-c", "echo up; read go"]));
    kill_process(machine(&child), Signal::KILL).map_err(|error| error.to_string())?;
    let ran = over(child);
    ran.expect(125, "vmm_crash");
    assert_eq!((&ran.report["attempt"], &ran.report["verdict"]), (&1.into(), &"infrastructure".into()));
    Ok(())
}

/// What the guest's kernel does to its processors for good, with nothing said and nobody there any more. The report has
/// the time from the command's start, in which the limit began.
fn stuck(cpus: &str, how: &str) -> Result {
    const LIMIT: Duration = Duration::from_secs(3);
    let script = format!("echo 0 > /proc/sys/kernel/printk; echo 0 > /proc/sys/kernel/panic; {how}; sleep 60");
    let words = ["-u", "0", "--timeout", "3s", "--cpus", cpus, "--", "sh", "-c", &script];
    let ran = Bench::new().run(words).wait();
    ran.expect(124, "timeout");
    let timings = &ran.report["timings_ms"];
    let before = ["queue", "prepare", "view", "machine", "boot", "mount", "ready", "start"];
    let before: f64 = before.iter().map(|stage| timings[stage].as_f64().expect("every stage is timed")).sum();
    let after = timings["total"].as_f64().expect("the total is timed") - before;
    let range = LIMIT.as_secs_f64() * 1e3..(LIMIT + promptly()).as_secs_f64() * 1e3;
    assert!(range.contains(&after), "ended {after} ms after the command's start");
    Ok(())
}

/// A panicked kernel waits in a loop for somebody to read its last words.
fn processor_that_spins_is_stopped_at_the_deadline() -> Result {
    stuck("1", "echo c > /proc/sysrq-trigger")
}

/// The other processors are stopped by the one that panics: with interrupts off, for good.
fn processor_that_halts_for_good_is_stopped_at_the_deadline() -> Result {
    stuck("2", "echo c > /proc/sysrq-trigger")
}
