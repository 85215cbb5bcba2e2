// SPDX-License-Identifier: Apache-2.0
//! `make bench`: a run beside bare QEMU, where a run's time goes, and how fast its streams are; then, in a host with an
//! instruction clock, what a run on KVM costs beside its peers ([`table`]).
//!
//! The machine is shared and noisy: contenders take turns within each round, so what matters are the ratios. Numbers of
//! rounds and bytes come from `BENCH_ROUNDS` and `BENCH_MIB`; with `BENCH_ROUNDS=0` only the second part runs. docs/benchmarks.md keeps results.

mod runner;
mod table;

use std::env;
use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use images::{COMMAND_LINE, Flavour, Store, build_initramfs};
use tests::{Bench, program};

/// An init that resets the machine with its first instruction: reboot(2), `LINUX_REBOOT_CMD_RESTART`.
const RESET_INIT: &str = "
.globl _start
_start:
    mov $169, %eax
    mov $0xfee1dead, %edi
    mov $0x28121969, %esi
    mov $0x01234567, %edx
    syscall
    hlt
";

/// Stages in the order of docs/report.md.
const STAGES: [&str; 11] =
    ["prepare", "queue", "view", "machine", "boot", "mount", "ready", "start", "run", "drain", "end"];

fn main() -> Result<()> {
    if tests::clocked::is_inside() {
        tests::clocked::inside();
    }
    if runner::inside()? {
        return Ok(());
    }
    let bench = Bench::new();
    if setting("BENCH_ROUNDS", 15)? > 0 {
        beside_qemu(&bench)?;
        runner::print(&bench, setting("BENCH_RUNNER_ROUNDS", 5)?)?;
    }
    table::print(bench.path())
}

fn beside_qemu(bench: &Bench) -> Result<()> {
    let rounds = setting("BENCH_ROUNDS", 15)?;
    let mebibytes = setting("BENCH_MIB", 256)?;
    let bare = Bare::prepare(bench.path())?;
    let (mut cloned, mut booted) = (Runs::of("clone", &[]), Runs::of("boot", &["--boot"]));
    // One of each that does not count: caches, and the template.
    let mut theirs = Vec::new();
    bare.boot()?;
    for runs in [&mut cloned, &mut booted] {
        runs.once(bench)?;
        *runs = Runs::of(runs.begin, runs.options);
    }
    for round in 0..rounds {
        // Back and forth: no contender always comes first.
        let mut turns = [0, 1, 2];
        if round % 2 == 1 {
            turns.reverse();
        }
        for turn in turns {
            match turn {
                0 => cloned.once(bench)?,
                1 => theirs.push(bare.boot()?.as_secs_f64() * 1e3),
                _ => booted.once(bench)?,
            }
        }
    }
    println!("## `run -- true` beside bare QEMU, {rounds} rounds, interleaved\n");
    println!(
        "| contender | median ms | best ms | to bare QEMU, median of rounds | least |\n| --- | --- | --- | --- | --- |"
    );
    for (name, samples) in [
        ("`sandbox run -- true`, a clone", &cloned.wall),
        ("`sandbox run --boot -- true`", &booted.wall),
        ("QEMU, same kernel, init resets at once", &theirs),
    ] {
        let mut ratios: Vec<f64> = samples.iter().zip(&theirs).map(|(ours, theirs)| ours / theirs).collect();
        let (mut sorted, ratio) = (samples.clone(), median(&mut ratios));
        println!("| {name} | {:.0} | {:.0} | {ratio:.2} | {:.2} |", median(&mut sorted), sorted[0], ratios[0]);
    }
    println!("\n## Where a run's time goes, median ms\n\n| stage | clone | boot |\n| --- | --- | --- |");
    for (number, stage) in STAGES.iter().enumerate() {
        println!("| {stage} | {:.1} | {:.1} |", median(&mut cloned.stages[number]), median(&mut booted.stages[number]));
    }
    println!("\n## Streams, {mebibytes} MiB\n\n| direction | MB/s |\n| --- | --- |");
    println!("| out (`head -c … /dev/zero`) | {:.0} |", out(bench, mebibytes)?);
    println!("| in (`cat > /dev/null`) | {:.0} |", into(bench, mebibytes)?);
    Ok(())
}

fn setting(name: &str, default: u64) -> Result<u64> {
    match env::var(name) {
        Ok(text) => text.parse().with_context(|| format!("{name} is no number")),
        Err(_) => Ok(default),
    }
}

fn median(samples: &mut [f64]) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples[samples.len() / 2]
}

/// Runs of one kind: how long each took in all and by stage, in milliseconds.
struct Runs {
    /// What their machines must begin with.
    begin: &'static str,
    options: &'static [&'static str],
    wall: Vec<f64>,
    stages: Vec<Vec<f64>>,
}

impl Runs {
    fn of(begin: &'static str, options: &'static [&'static str]) -> Self {
        Self { begin, options, wall: Vec::new(), stages: vec![Vec::new(); STAGES.len()] }
    }

    fn once(&mut self, bench: &Bench) -> Result<()> {
        let ran = bench.run(self.options.iter().chain(&["--", "true"])).wait();
        ensure!(ran.code() == 0, "a run failed: {}", ran.stderr);
        ensure!(ran.report["begin"] == self.begin, "it did not begin as a {}: {}", self.begin, ran.report);
        self.wall.push(ran.wall.as_secs_f64() * 1e3);
        for (samples, stage) in self.stages.iter_mut().zip(STAGES) {
            samples.push(ran.report["timings_ms"][stage].as_f64().context("a stage is missing")?);
        }
        Ok(())
    }
}

/// QEMU as the engine starts it, without devices, and an initramfs that resets at once.
struct Bare {
    kernel: PathBuf,
    initramfs: PathBuf,
}

impl Bare {
    fn prepare(place: &Path) -> Result<Self> {
        let (source, init) = (place.join("reset.S"), place.join("reset"));
        fs::write(&source, RESET_INIT)?;
        let made =
            Command::new("gcc").args(["-nostdlib", "-static", "-no-pie", "-o"]).arg(&init).arg(&source).status()?;
        ensure!(made.success(), "gcc failed");
        let store = Store::at(place.join("store"));
        let initramfs = build_initramfs(&store, &init, &mut |_| {})?;
        let kernel = Store::of_user()?.kernel(Flavour::Base)?;
        Ok(Self { kernel: kernel.path().to_owned(), initramfs: initramfs.path().to_owned() })
    }

    fn boot(&self) -> Result<Duration> {
        let begun = Instant::now();
        let machine = "microvm,acpi=off,pcie=off,usb=off,pit=on,pic=on,rtc=on,isa-serial=on";
        let mut qemu = Command::new("qemu-system-x86_64");
        qemu.args(["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-monitor", "none"]);
        qemu.args(["-M", machine, "-accel", "tcg", "-cpu", "max,-smap", "-smp", "1", "-m", "1G", "-serial", "null"]);
        qemu.arg("-kernel").arg(&self.kernel).arg("-initrd").arg(&self.initramfs);
        qemu.args(["-append", &format!("{COMMAND_LINE} {}", images::clock_words(2_600_000))]).stdin(Stdio::null());
        let status = qemu.status().context("cannot start QEMU")?;
        ensure!(status.success(), "QEMU ended with {status}");
        Ok(begun.elapsed())
    }
}

/// Megabytes a second, by the report's own clock for the command's life.
fn rate(mebibytes: u64, report: &Path) -> Result<f64> {
    let report: serde_json::Value = serde_json::from_slice(&fs::read(report)?)?;
    let timings = &report["timings_ms"];
    let ms = timings["run"].as_f64().context("no run stage")? + timings["drain"].as_f64().context("no drain stage")?;
    Ok((mebibytes << 20) as f64 / 1e6 / (ms / 1e3))
}

fn out(bench: &Bench, mebibytes: u64) -> Result<f64> {
    let mut child = bench.shell(&format!("head -c {} /dev/zero", mebibytes << 20)).spawn();
    let mut output = child.stdout.take().context("piped")?;
    let (mut total, mut buffer) = (0, vec![0; 1 << 16]);
    loop {
        match output.read(&mut buffer)? {
            0 => break,
            count => total += count as u64,
        }
    }
    ensure!(child.wait()?.success() && total == mebibytes << 20, "{total} bytes came");
    rate(mebibytes, &bench.path().join(".report.json"))
}

fn into(bench: &Bench, mebibytes: u64) -> Result<f64> {
    let mut child = bench.shell("cat > /dev/null").input("").spawn();
    let mut stdin = child.stdin.take().context("piped")?;
    let block = vec![0; 1 << 20];
    for _ in 0..mebibytes {
        stdin.write_all(&block)?;
    }
    drop(stdin);
    ensure!(child.wait()?.success(), "the command failed at {}", program().display());
    rate(mebibytes, &bench.path().join(".report.json"))
}
