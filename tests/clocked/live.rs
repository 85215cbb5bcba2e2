// SPDX-License-Identifier: Apache-2.0
//! What can be seen of a run while its command waits: exits and faults of its virtual CPU, the moment when that was
//! made, and the memory that each process has for itself.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::time::{ClockId, clock_gettime};

use super::inside::{Begin, in_step, sandbox, say};

/// KVM's counts, a directory for each machine.
const KVM: &str = "/sys/kernel/debug/kvm";

/// Looks at a run whose command has said a word and waits: `true`, but for its end.
pub(super) fn counts(begin: Begin) -> Result<()> {
    let say = |name: &str, value: f64| say(&format!("{}{name}", begin.prefix()), value);
    let shift = shift()?;
    in_step();
    let started = clock_gettime(ClockId::Monotonic);
    let started = started.tv_sec * 1_000_000_000 + started.tv_nsec;
    let mut child =
        sandbox(begin, &["cat"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let (mut input, mut output) = (child.stdin.take().context("piped")?, child.stdout.take().context("piped")?);
    std::io::Write::write_all(&mut input, b"x")?;
    output.read_exact(&mut [0])?;

    let machine = only_machine()?;
    let count = |name: &str| -> Result<f64> { Ok(number(&machine.join(name))? as f64) };
    let faults = count("pf_taken")?;
    say("machine/exits without faults", count("exits")? - faults);
    say("machine/faults", faults);
    for name in ["io_exits", "mmio_exits", "halt_exits", "irq_exits", "pages_4k", "pages_2m"] {
        say(&format!("machine/{name}"), count(name)?);
    }
    // The guest's counter began with its CPU, so the difference is when that was.
    let made = -number(&machine.join("vcpu0/tsc-offset"))? - shift;
    say("command line/start to vCPU", (made - started) as f64 / 1e6);
    for (role, process) in processes(child.id())? {
        say(&format!("{role}/private KiB"), private(process)? as f64);
    }
    drop(input);
    ensure!(child.wait()?.success(), "the run that was looked at failed");
    Ok(())
}

/// The time stamp counter minus the clock, in nanoseconds.
fn shift() -> Result<i64> {
    let output = Command::new("/usr/bin/clocks").output()?.stdout;
    let word = |at: usize| output.get(at..at + 8).and_then(|bytes| bytes.try_into().ok()).map(i64::from_ne_bytes);
    let (Some(seconds), Some(nanoseconds), Some(counter)) = (word(0), word(8), word(16)) else {
        anyhow::bail!("no clocks");
    };
    Ok(counter - seconds * 1_000_000_000 - nanoseconds)
}

fn only_machine() -> Result<PathBuf> {
    let deadline = Instant::now() + Duration::from_secs(1);
    loop {
        let machines: Vec<_> =
            fs::read_dir(KVM)?.flatten().map(|entry| entry.path()).filter(|it| it.is_dir()).collect();
        // One that has ended may still be on its way out.
        match machines.as_slice() {
            [machine] => return Ok(machine.clone()),
            _ => ensure!(Instant::now() < deadline, "{} machines", machines.len()),
        }
    }
}

fn number(path: &Path) -> Result<i64> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(text.trim().parse()?)
}

/// The processes of the run that this one is the command line of.
pub(super) fn processes(command_line: u32) -> Result<Vec<(&'static str, u32)>> {
    let mut list = vec![("command line", command_line)];
    let children = fs::read_to_string(format!("/proc/{command_line}/task/{command_line}/children"))?;
    for child in children.split_whitespace() {
        let line = fs::read_to_string(format!("/proc/{child}/cmdline"))?;
        let role = if line.contains("fs-worker") { "file server" } else { "monitor" };
        list.push((role, child.parse()?));
    }
    Ok(list)
}

/// KiB that no other process has, but for the guest's memory, which may be a template's in part.
fn private(process: u32) -> Result<u64> {
    let (mut sum, mut counts) = (0, true);
    for line in fs::read_to_string(format!("/proc/{process}/smaps"))?.lines() {
        let mut words = line.split_whitespace();
        let first = words.next().unwrap_or_default();
        if !first.ends_with(':') {
            counts = !line.contains("guest-memory") && !line.contains("/template-");
        } else if counts && first.starts_with("Private_") {
            sum += words.next().unwrap_or_default().parse::<u64>()?;
        }
    }
    Ok(sum)
}
