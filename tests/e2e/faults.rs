// SPDX-License-Identifier: Apache-2.0
//! Runs that something is done to at a random moment: their machine is killed or stopped, their file server dies, the guest's
//! kernel panics or resets, its connections are cut, the host has no room for their output. What becomes of the command is
//! known, and no verdict may say otherwise. (A hundred thousand runs of a made-up world are `run::watch::simulation`.)
//!
//! A run follows from its number, but for the moment at which the host lets things happen.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Read;
use std::process::Stdio;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use harness::Case;
use rustix::process::{Pid, Signal, kill_process};
use tests::tier::{patient, share};
use tests::{Bench, Ran, Running};

pub(crate) const CASES: &[Case] = &[
    Case { name: "faults::no_verdict_is_wrong", needs: &[], body: some },
    Case { name: "soak::faults", needs: &[], body: many },
];

type Result = std::result::Result<(), String>;

/// Runs at a time, each on whatever processor is free.
const AT_A_TIME: usize = 4;

/// What is done to a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fault {
    Nothing,
    /// The process that runs the machine, and holds its connections, is killed.
    MachineKilled,
    /// It stands still for a while; or for good, once the command runs.
    MachinePaused,
    MachineStopped,
    FilesKilled,
    /// The guest's kernel panics, resets the machine, or loses the device of all its connections.
    KernelPanic,
    KernelReset,
    ConnectionsCut,
    /// The host has no room for the command's output, or for the report.
    OutputFull,
    ReportFull,
    /// We are told to end.
    Terminated,
}

const FAULTS: [Fault; 11] = [
    Fault::Nothing,
    Fault::MachineKilled,
    Fault::MachinePaused,
    Fault::MachineStopped,
    Fault::FilesKilled,
    Fault::KernelPanic,
    Fault::KernelReset,
    Fault::ConnectionsCut,
    Fault::OutputFull,
    Fault::ReportFull,
    Fault::Terminated,
];

/// What a command does, between saying "up" and "done", and its status.
const COMMANDS: [(&str, u8); 3] =
    [("sleep 0.4", 0), ("sleep 0.2", 3), ("head -c 300000 /dev/zero | tr '\\0' x; echo", 0)];

/// Root in the guest takes its connections' device away.
const CUT: &str =
    "for d in /sys/bus/virtio/drivers/vmw_vsock_virtio_transport/virtio*; do echo ${d##*/} > ${d%/*}/unbind; done";

/// A number that looks random and follows from two (splitmix64).
fn mix(number: u64, salt: u64) -> u64 {
    let mut mixed = (number * 31 + salt).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// Reads to the end; tells of the first bytes.
fn read(mut stdout: impl Read + Send + 'static) -> (JoinHandle<Vec<u8>>, Receiver<()>) {
    let (up, ups) = mpsc::channel();
    let reader = thread::spawn(move || {
        let (mut bytes, mut buffer) = (Vec::new(), vec![0; 1 << 16]);
        while let Ok(count @ 1..) = stdout.read(&mut buffer) {
            bytes.extend_from_slice(&buffer[..count]);
            let _nobody_may_care = up.send(());
        }
        bytes
    });
    (reader, ups)
}

/// Signals the run's children of this kind, as far as there are any at the moment.
fn signal(run: &Running, files: bool, signal: Signal) {
    let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", run.id())).unwrap_or_default();
    for child in children.split_whitespace() {
        let line = fs::read_to_string(format!("/proc/{child}/cmdline")).unwrap_or_default();
        // A child that has not executed anything yet has our own words, which name the engine, too.
        let is_machine =
            line.split('\0').next().is_some_and(|name| name.contains("qemu-system")) || line.ends_with("\0vmm\0");
        let is_meant = if files { line.contains("fs-worker") } else { is_machine };
        let pid = child.parse().ok().and_then(Pid::from_raw).filter(|_| is_meant);
        // Who has just ended feels nothing.
        let _gone = pid.map(|pid| kill_process(pid, signal));
    }
}

fn inject(fault: Fault, run: &Running, up: &Receiver<()>) {
    match fault {
        Fault::MachineKilled => signal(run, false, Signal::KILL),
        Fault::FilesKilled => signal(run, true, Signal::KILL),
        Fault::MachinePaused => {
            signal(run, false, Signal::STOP);
            thread::sleep(Duration::from_millis(700));
            signal(run, false, Signal::CONT);
        }
        // Before the command runs two minutes would have to pass.
        Fault::MachineStopped if up.recv_timeout(patient(Duration::from_secs(60))).is_ok() => {
            signal(run, false, Signal::STOP);
        }
        Fault::Terminated => drop(kill_process(run.pid(), Signal::TERM)),
        _ => {}
    }
}

/// One run: what was done to it, and how it ended; or what is wrong about that.
fn run(number: u64) -> std::result::Result<(Fault, String), String> {
    let fault = FAULTS[(number % FAULTS.len() as u64) as usize];
    let (work, status) = COMMANDS[(mix(number, 1) % 3) as usize];
    let after = Duration::from_micros(mix(number, 2) % 800_000);
    let trouble = match fault {
        Fault::KernelPanic => "echo c > /proc/sysrq-trigger",
        Fault::KernelReset => "echo b > /proc/sysrq-trigger",
        Fault::ConnectionsCut => CUT,
        _ => ":",
    };
    let script =
        format!("(sleep {:.3}; {trouble}) & echo up; {work}; echo done; exit {status}", after.as_secs_f64() / 2.0);
    let limit = if fault == Fault::MachineStopped { "2s" } else { "60s" };
    let mut words = vec!["-u", "0", "-m", "256M", "--timeout", limit];
    if fault == Fault::ReportFull {
        words.extend(["--report", "/dev/full"]);
    }
    words.extend(["--", "sh", "-c", &script]);
    let bench = Bench::new();
    let mut call = bench.run(words);
    let full = File::options().write(true).open("/dev/full").map_err(|error| error.to_string())?;
    call.command.stdout(if fault == Fault::OutputFull { Stdio::from(full) } else { Stdio::piped() });
    call.command.stderr(Stdio::piped());
    let mut running = call.spawn_as_is();
    let (reader, up) = match running.stdout.take() {
        Some(stdout) => read(stdout),
        None => read(std::io::empty()),
    };
    if fault != Fault::MachineStopped {
        thread::sleep(after);
    }
    inject(fault, &running, &up);
    let ran = running.ran();
    let text = reader.join().unwrap_or_default();
    let whole = text.starts_with(b"up\n") && text.ends_with(b"done\n");
    match judge(fault, status, whole, &ran) {
        Ok(told) => Ok((fault, told)),
        Err(what) => {
            let report = &ran.report;
            Err(format!("run {number}, {fault:?} after {after:?}: {what}: {}, {report}, {}", ran.status, ran.stderr))
        }
    }
}

/// Whether what is told of a run is true; what that is.
fn judge(fault: Fault, status: u8, whole: bool, ran: &Ran) -> std::result::Result<String, &'static str> {
    let verdict = ran.report["verdict"].as_str().unwrap_or("none");
    let (code, cause) = (ran.status.code(), ran.cause());
    let told = Ok(format!("{verdict}: {cause}"));
    let truth = cause == "exited" && code == Some(status.into()) && whole;
    let right = match (verdict, fault) {
        // There is no report, which alone makes it no success.
        ("none", Fault::ReportFull) => return if code == Some(125) { told } else { Err("it does not say so") },
        // It came before there was anybody to take it.
        ("none", Fault::Terminated) => code.is_none(),
        ("none", _) => false,
        (_, Fault::Nothing | Fault::MachinePaused) => truth,
        (_, Fault::OutputFull) => cause == "setup_error",
        ("pass" | "fail", _) => truth || (cause == "timeout" && fault == Fault::MachineStopped),
        _ => code != Some(0),
    };
    let consistent = verdict == "none" || ran.report["code"] == code.unwrap_or(-1);
    let pass = (verdict == "pass") == (code == Some(0));
    if right && consistent && pass { told } else { Err("this is not true") }
}

/// So many runs; the table of how they ended.
fn runs(count: u64) -> Result {
    let next = AtomicU64::new(0);
    let (ends, wrongs) = (Mutex::new(BTreeMap::new()), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..AT_A_TIME {
            scope.spawn(|| {
                while let Some(number) = Some(next.fetch_add(1, Ordering::Relaxed)).filter(|number| *number < count) {
                    match run(number) {
                        Ok(end) => *ends.lock().expect("nobody panics").entry(end).or_insert(0) += 1,
                        Err(wrong) => wrongs.lock().expect("nobody panics").push(wrong),
                    }
                }
            });
        }
    });
    let mut table = String::new();
    for ((fault, end), count) in ends.into_inner().map_err(|error| error.to_string())? {
        writeln!(table, "| {fault:?} | {end} | {count} |").map_err(|error| error.to_string())?;
    }
    println!("{count} runs with faults:\n{table}");
    let wrongs = wrongs.into_inner().map_err(|error| error.to_string())?;
    if wrongs.is_empty() { Ok(()) } else { Err(format!("{} wrong: {}", wrongs.len(), wrongs.join("\n"))) }
}

fn some() -> Result {
    runs(share(66))
}

fn many() -> Result {
    runs(500)
}
