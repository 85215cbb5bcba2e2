// SPDX-License-Identifier: Apache-2.0
//! How a run ends, and what it says of it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use harness::{Case, Need};
use rustix::process::{Signal, kill_process};
use tests::Bench;
use tests::tier::{engine, isolation, patient};

macro_rules! case {
    ($name:ident $(, $need:expr)*) => {
        Case { name: concat!("status::", stringify!($name)), needs: &[$($need),*], body: $name }
    };
}

pub(crate) const CASES: &[Case] = &[
    case!(status_is_passed_on),
    case!(signals_are_128_plus_n),
    case!(missing_program_is_127),
    case!(unusable_program_is_126),
    case!(bad_option_is_125),
    case!(missing_workdir_is_said),
    case!(volume_in_the_wrong_place_is_said),
    case!(timeout_is_124),
    case!(guest_panic_is_named),
    case!(power_off_is_a_guest_reset),
    case!(hard_reset_is_a_guest_reset),
    case!(interrupt_is_130),
    case!(interrupt_is_130_before_there_is_a_machine, Need::Program("strace")),
    case!(report_is_complete),
    case!(reaping_init_survives_everything),
];

type Result = std::result::Result<(), String>;

fn status_is_passed_on() -> Result {
    let bench = Bench::new();
    bench.shell("exit 7").wait().expect(7, "exited");
    bench.run(["true"]).wait().expect(0, "exited");
    Ok(())
}

fn signals_are_128_plus_n() -> Result {
    let bench = Bench::new();
    let ran = bench.shell("kill -9 $$").wait();
    ran.expect(137, "signaled");
    assert_eq!(ran.report["signal"], 9);
    bench.shell("kill -TERM $$").wait().expect(143, "signaled");
    Ok(())
}

fn missing_program_is_127() -> Result {
    let bench = Bench::new();
    let ran = bench.run(["--", "no-such-program", "x"]).wait();
    ran.expect(127, "not_found");
    assert!(ran.stderr.contains("no-such-program"), "{}", ran.stderr);
    assert_eq!(ran.report["started"], false);
    bench.run(["--", "./no/such/file"]).wait().expect(127, "not_found");
    Ok(())
}

fn unusable_program_is_126() -> Result {
    let bench = Bench::new();
    bench.write("data", "just text");
    bench.run(["--", "/usr"]).wait().expect(126, "not_executable");
    bench.run(["--", "./data"]).wait().expect(126, "not_executable");
    Ok(())
}

fn bad_option_is_125() -> Result {
    let bench = Bench::new();
    let ran = bench.run(["--no-such-option", "true"]).wait();
    assert_eq!(ran.code(), 125);
    assert!(ran.stderr.contains("--no-such-option"), "{}", ran.stderr);
    bench.run(["-m", "1k", "true"]).wait().expect(125, "usage_error");
    assert_eq!(bench.run(["--cpus", "many", "true"]).wait().code(), 125);
    Ok(())
}

fn missing_workdir_is_said() -> Result {
    let ran = Bench::new().run(["-w", "/no/such/place", "true"]).wait();
    ran.expect(125, "setup_error");
    assert!(ran.stderr.contains("/no/such/place"), "{}", ran.stderr);
    Ok(())
}

fn volume_in_the_wrong_place_is_said() -> Result {
    let bench = Bench::new();
    bench.write("file", "");
    let here = bench.path().display();
    for (source, target) in [("file", "/usr/bin"), (".", "/usr/bin/env")] {
        let ran = bench.run(["-v", &format!("{source}:{target}"), "true"]).wait();
        ran.expect(125, "setup_error");
        let said = &ran.stderr;
        assert!(said.contains(&format!("{here}/{source} at {target}")) && said.contains("a file needs"), "{said}");
    }
    Ok(())
}

fn timeout_is_124() -> Result {
    let ran = Bench::new().run(["--timeout", "2s", "--", "sleep", "60"]).wait();
    ran.expect(124, "timeout");
    assert_eq!(ran.report["started"], true);
    let timings = &ran.report["timings_ms"];
    let before = ["prepare", "view", "machine", "boot", "mount", "ready", "start"];
    let before: f64 = before.iter().map(|stage| timings[stage].as_f64().expect("every stage is timed")).sum();
    let after = timings["total"].as_f64().expect("the total is timed") - before;
    let late = 2000.0 + patient(Duration::from_secs(1)).as_secs_f64() * 1e3;
    assert!((2000.0..late).contains(&after), "ended {after} ms after the command's start");
    Ok(())
}

fn guest_panic_is_named() -> Result {
    let ran = Bench::new().run(["-u", "0", "--", "sh", "-c", "echo c > /proc/sysrq-trigger; sleep 60"]).wait();
    ran.expect(125, "guest_panic");
    assert!(ran.stderr.contains("Kernel panic - not syncing"), "no console on stderr: {}", ran.stderr);
    Ok(())
}

/// A power-off by reboot(2), which in a PID namespace ends that namespace, and by the kernel's own key.
fn power_off_is_a_guest_reset() -> Result {
    let bench = Bench::new();
    bench.write("off.py", "import ctypes; ctypes.CDLL(None).reboot(0x4321FEDC); import time; time.sleep(60)");
    bench.run(["-u", "0", "--", "/usr/bin/python3", "off.py"]).wait().expect(125, "guest_reset");
    let ran = bench.run(["-u", "0", "--", "sh", "-c", "echo o > /proc/sysrq-trigger; sleep 60"]).wait();
    ran.expect(125, "guest_reset");
    Ok(())
}

fn hard_reset_is_a_guest_reset() -> Result {
    let ran = Bench::new().run(["-u", "0", "--", "sh", "-c", "echo b > /proc/sysrq-trigger; sleep 60"]).wait();
    ran.expect(125, "guest_reset");
    Ok(())
}

/// Starts a run, waits until the command says it runs, sends a signal; what came of it, and how soon.
fn signalled(script: &str, signal: Signal) -> (i32, String, Duration) {
    use std::io::{BufRead, BufReader, Read};
    let bench = Bench::new();
    let mut child = bench.shell(script).spawn();
    let mut output = BufReader::new(child.stdout.take().expect("piped"));
    let mut line = String::new();
    output.read_line(&mut line).expect("the command says that it runs");
    let sent = Instant::now();
    kill_process(child.pid(), signal).expect("sandbox runs");
    let mut rest = String::new();
    output.read_to_string(&mut rest).expect("output ends");
    let status = child.wait().expect("sandbox ends");
    (status.code().expect("sandbox exits"), rest, sent.elapsed())
}

fn interrupt_is_130() -> Result {
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143), (Signal::HUP, 129)] {
        // A shell that waits for another program leaves SIGINT to that, which does not get it from us.
        let (status, _, wall) = signalled("echo up; exec sleep 60", signal);
        assert_eq!(status, code);
        assert!(wall < patient(Duration::from_secs(10)), "{signal:?} took {wall:?}");
    }
    Ok(())
}

/// The file server gets stuck on its way, as it would on a network file system whose server is gone.
fn interrupt_is_130_before_there_is_a_machine() -> Result {
    // Its first step, before it hands over its connection, and one of its last.
    for step in ["unshare", "pivot_root"] {
        let bench = Bench::new();
        let mut call = bench.run(["--", "sleep", "60"]);
        let mut strace = std::process::Command::new("strace");
        let (traced, stuck) = (format!("trace={step}"), format!("inject={step}:signal=STOP"));
        strace.args(["-D", "-f", "-qq", "-o", "trace", "-e", &traced, "-e", &stuck, "--"]);
        strace.arg(call.command.get_program()).args(call.command.get_args());
        strace.current_dir(bench.path()).stdin(std::process::Stdio::null());
        call.command = strace;
        let child = call.spawn();
        let stuck =
            || fs::read_to_string(bench.path().join("trace")).is_ok_and(|text| text.contains("stopped by SIGSTOP"));
        let begun = Instant::now();
        while !stuck() {
            assert!(begun.elapsed() < patient(Duration::from_secs(60)), "nothing got stuck in {step}");
            std::thread::sleep(Duration::from_millis(10));
        }
        let sent = Instant::now();
        kill_process(child.pid(), Signal::INT).map_err(|error| error.to_string())?;
        let status = child.output().status;
        assert_eq!(status.code(), Some(130), "stuck in {step}");
        assert!(sent.elapsed() < patient(Duration::from_secs(5)), "stuck in {step}: {:?}", sent.elapsed());
        let report = fs::read_to_string(bench.path().join(".report.json")).map_err(|error| error.to_string())?;
        assert!(report.contains("\"cancelled\""), "{report}");
    }
    Ok(())
}

fn report_is_complete() -> Result {
    let ran = Bench::new()
        .shell("head -c 1000 /dev/zero; echo x >&2; i=0; while [ $i -lt 9999 ]; do i=$((i+1)); done")
        .wait();
    ran.expect(0, "exited");
    let report = &ran.report;
    assert_eq!(report["schema"], 1);
    assert_eq!((&report["engine"], &report["isolation"]), (&engine().into(), &isolation().into()));
    assert_eq!((&report["usage"]["stdout_bytes"], &report["usage"]["stderr_bytes"]), (&1000.into(), &2.into()));
    for (object, field) in [("usage", "user_ms"), ("usage", "memory_peak_bytes"), ("limits", "memory_bytes")] {
        assert!(report[object][field].as_f64().is_some_and(|value| value > 0.0), "{object}.{field} in {report}");
    }
    assert_eq!(ran.stderr, "x\n", "a successful run says nothing of its own");
    Ok(())
}

/// Orphans, zombies and signals to everybody: init goes on, and the verdict is the command's.
fn reaping_init_survives_everything() -> Result {
    let bench = Bench::new();
    bench
        .shell("for i in 1 2 3 4 5; do (sleep 0.2 &) ; done; kill -9 -1 2>/dev/null; exit 3")
        .wait()
        .expect(3, "exited");
    bench.run(["-u", "0", "--", "sh", "-c", "kill -9 1; kill -TERM 1; exit 4"]).wait().expect(4, "exited");
    let script = bench.path().join("script");
    fs::write(&script, "#!/bin/sh\nexit 5\n").map_err(|error| error.to_string())?;
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).map_err(|error| error.to_string())?;
    bench.run(["--", "./script"]).wait().expect(5, "exited");
    Ok(())
}
