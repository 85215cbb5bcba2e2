// SPDX-License-Identifier: Apache-2.0
//! How long a machine's end that is not its command's takes to be the run's: by the instruction clock, from the event or the
//! deadline until `sandbox` is gone. That each has its own cause is tests/e2e/endings.rs' to say.

use std::fs;
use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::inside::{command, in_step, millions, say};
use super::live::processes;

const REPORT: &str = "/tmp/ending.json";

/// The limit of a run that comes to it.
const LIMIT: Duration = Duration::from_secs(1);

/// Measures each.
pub(super) fn measure() -> Result<()> {
    say("endings/triple fault", reset("triple")?);
    say("endings/reset port", reset("kbd")?);
    say("endings/killed monitor", killed()?);
    say("endings/time limit", late("read word")?);
    let spin = "echo 0 > /proc/sys/kernel/printk; echo 0 > /proc/sys/kernel/panic; echo c > /proc/sysrq-trigger";
    say("endings/time limit, processor spinning", late(spin)?);
    Ok(())
}

fn run(options: &[&str], script: &str) -> Command {
    in_step();
    let words = ["sandbox", "run", "--engine", "kvm", "--report", REPORT, "-u", "0"];
    let mut run = command(&[&words, options, &["--", "dash", "-c", script]].concat());
    run.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    run
}

/// Starts a run and waits until its command says that it is there.
fn begun(script: &str) -> Result<Child> {
    let mut child = run(&[], &format!("echo up; read word; {script}")).spawn()?;
    child.stdout.as_mut().context("piped")?.read_exact(&mut [0; 3]).context("the command does not run")?;
    Ok(child)
}

/// Since the event, when the run has ended by this cause.
fn over(mut child: Child, event: Instant, cause: &str) -> Result<f64> {
    child.wait()?;
    let took = millions(event.elapsed());
    let told = report()?;
    ensure!(told["cause"] == cause, "ended by {}, not {cause}", told["cause"]);
    Ok(took)
}

fn report() -> Result<Value> {
    Ok(serde_json::from_slice(&fs::read(REPORT)?)?)
}

/// Root in the guest has its kernel reset the machine.
fn reset(how: &str) -> Result<f64> {
    let mut child = begun(&format!("echo {how} > /sys/kernel/reboot/type; echo b > /proc/sysrq-trigger; read word"))?;
    let event = Instant::now();
    // It stays open: the command is to wait for its end.
    child.stdin.as_mut().context("piped")?.write_all(b"go\n")?;
    let input = child.stdin.take();
    let took = over(child, event, "guest_reset");
    drop(input);
    took
}

fn killed() -> Result<f64> {
    let child = begun("read word")?;
    let processes = processes(child.id())?;
    let (_, monitor) = processes.iter().find(|(role, _)| *role == "monitor").context("no monitor")?;
    let monitor = Pid::from_raw(i32::try_from(*monitor)?).context("no process")?;
    let event = Instant::now();
    kill_process(monitor, Signal::KILL)?;
    over(child, event, "vmm_crash")
}

/// Beyond the time limit, which begins with the command.
fn late(script: &str) -> Result<f64> {
    let mut child = run(&["--timeout", "1s"], script).spawn()?;
    let input = child.stdin.take();
    let code = child.wait()?.code();
    drop(input);
    ensure!(code == Some(124), "ended with {code:?}");
    let timings = &report()?["timings_ms"];
    let stage = |name: &str| timings[name].as_f64().with_context(|| format!("no stage {name}"));
    let before = ["prepare", "view", "machine", "boot", "mount", "ready", "start"].map(stage);
    let before: f64 = before.into_iter().sum::<Result<f64>>()?;
    Ok(stage("total")? - before - millions(LIMIT))
}
