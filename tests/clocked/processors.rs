// SPDX-License-Identifier: Apache-2.0
//! What a second virtual CPU is worth: for how many instructions each one's thread runs until the same job is done.
//!
//! The measuring host has one CPU, so the job is over no sooner. On a host with more it would be over when the busiest
//! thread is.

use std::fs;
use std::io::Read;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};

use super::inside::{command, say};
use super::live::processes;

/// Two processes that count, then a word, then a wait for the end of standard input.
const JOB: &str =
    "count() { i=0; while [ $i -lt 50000 ]; do i=$((i+1)); done; }; count & count; wait; echo x; read line";

/// Kernel ticks a second, as /proc tells them.
const TICKS: f64 = 100.0;

/// Runs the job on one virtual CPU and on two.
pub(super) fn counts() -> Result<()> {
    for cpus in ["1", "2"] {
        let mut run =
            command(&["sandbox", "run", "--engine", "kvm", "--boot", "--cpus", cpus, "--", "dash", "-c", JOB]);
        let mut child = run.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let mut output = child.stdout.take().context("piped")?;
        output.read_exact(&mut [0]).context("the job was not done")?;
        let processes = processes(child.id())?;
        let (_, monitor) = processes.iter().find(|(role, _)| *role == "monitor").context("no monitor")?;
        let times = times(*monitor)?;
        ensure!(times.len().to_string() == cpus, "{} virtual CPUs", times.len());
        say(&format!("{cpus} CPUs/busiest"), times.into_iter().fold(0.0, f64::max));
        drop(child.stdin.take());
        child.wait()?;
    }
    Ok(())
}

/// Millions of instructions of each virtual CPU's thread. Linux scales user and system time so that their sum is what
/// the thread has run, to the nanosecond, before it rounds to ticks.
fn times(monitor: u32) -> Result<Vec<f64>> {
    let mut times = Vec::new();
    for task in fs::read_dir(format!("/proc/{monitor}/task"))? {
        let stat = fs::read_to_string(task?.path().join("stat"))?;
        let (name, rest) = stat.rsplit_once(')').context("no name")?;
        if name.contains("(vcpu-") {
            let fields: Vec<&str> = rest.split_whitespace().collect();
            let field = |at: usize| fields.get(at).and_then(|text| text.parse::<f64>().ok()).context("no time");
            times.push((field(11)? + field(12)?) * 1e3 / TICKS);
        }
    }
    Ok(times)
}
