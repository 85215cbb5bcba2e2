// SPDX-License-Identifier: Apache-2.0
//! One emulated host, from its boot to its end.
//!
//! QEMU 7.2 delivers an interrupt that KVM injects with VMRUN a second time if its loop is left
//! before the guest leaves by itself (`helper_vmrun` sets `exception_index` and nothing takes it back; target/i386/tcg/sysemu/svm_helper.c),
//! even while interrupts are off. Under `-icount` the loop is left whenever a timer of the host's is due: so one in some thousand
//! machines has its timer's interrupt while it handles its timer's interrupt, and waits for its own spin lock for ever. Such a
//! host measures nothing, through no fault of what is measured, and another takes its place. It is known by the processor time
//! that it takes without a word. Since such a host's every step repeats, in the next one runs begin at another moment between two
//! ticks: then its ticks fall elsewhere in the guests'.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::{MARK, STEPS, Values};

/// A host needs half a minute; a crowded one some minutes.
const LIMIT: Duration = Duration::from_secs(900);

/// Processor time without a word that is beyond doubt: all of a measurement takes less.
const SILENCE: Duration = Duration::from_secs(60);

/// How often it is looked at.
const LOOK: Duration = Duration::from_secs(5);

/// Boots a host, after so many others that stood still. None if it does, too.
pub(super) fn run(kernel: &Path, archive: &Path, others: u32) -> Result<Option<Values>> {
    let mut child = qemu(kernel, archive, others).stdout(Stdio::piped()).spawn().context("cannot start QEMU")?;
    let heard = listen(&mut child).and_then(|lines| hear(&child, &lines));
    // At once unless it has ended by itself.
    let ended = match &heard {
        Ok(Heard { end: End::Itself, .. }) => child.wait()?,
        _ => child.kill().and_then(|()| child.wait())?,
    };
    let Heard { values, complete, said, end } = heard?;
    match end {
        End::Late => bail!("the measuring host hung: {said}"),
        End::Still => Ok(None),
        End::Itself => {
            ensure!(complete, "the measuring host ended early ({ended}): {said}");
            Ok(Some(values))
        }
    }
}

/// What a host has printed.
#[derive(Default)]
struct Heard {
    values: Values,
    complete: bool,
    /// What is no record.
    said: String,
    end: End,
}

#[derive(Default)]
enum End {
    #[default]
    Itself,
    /// It goes on without a word.
    Still,
    Late,
}

fn listen(child: &mut Child) -> Result<Receiver<String>> {
    let output = BufReader::new(child.stdout.take().context("piped")?);
    let (sender, lines) = sync_channel(64);
    // It ends with the host, or with who listens.
    thread::spawn(move || output.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
    Ok(lines)
}

fn hear(child: &Child, lines: &Receiver<String>) -> Result<Heard> {
    let deadline = Instant::now() + LIMIT;
    let (mut heard, mut busy) = (Heard::default(), Duration::ZERO);
    loop {
        match lines.recv_timeout(LOOK) {
            Ok(line) => {
                heard.take(line.trim_end());
                busy = processor_time(child.id()).unwrap_or(busy);
            }
            Err(RecvTimeoutError::Disconnected) => return Ok(heard),
            Err(RecvTimeoutError::Timeout) if processor_time(child.id())? > busy + SILENCE => {
                heard.end = End::Still;
                return Ok(heard);
            }
            Err(RecvTimeoutError::Timeout) => {}
        }
        if Instant::now() > deadline {
            heard.end = End::Late;
            return Ok(heard);
        }
    }
}

impl Heard {
    fn take(&mut self, line: &str) {
        match line.strip_prefix(MARK).map(serde_json::from_str::<Value>) {
            Some(Ok(Value::Array(record))) => {
                let name = record.first().and_then(Value::as_str);
                if let (Some(name), Some(value)) = (name, record.get(1).and_then(Value::as_f64)) {
                    self.values.entry(name.to_owned()).or_default().push(value);
                }
            }
            Some(Ok(Value::Bool(complete))) => self.complete = complete,
            _ => self.said.extend([line, "\n"]),
        }
    }
}

/// What all threads of a process have had of processors (proc_pid_stat(5), utime and stime).
fn processor_time(process: u32) -> Result<Duration> {
    let text = fs::read_to_string(format!("/proc/{process}/stat"))?;
    // A program's name may have spaces and parentheses; what comes behind it has not. The first word there is the third.
    let (_, rest) = text.rsplit_once(')').context("no name in stat")?;
    let ticks = rest.split_whitespace().skip(11).take(2).map(str::parse::<u64>).sum::<Result<u64, _>>()?;
    Ok(Duration::from_millis(ticks * 1000 / rustix::param::clock_ticks_per_second()))
}

/// The machine. Its kernel is told the rate of its clock, so that it calibrates nothing; `nokaslr` keeps it the same.
/// What the kernel does not know becomes init's environment.
fn qemu(kernel: &Path, archive: &Path, others: u32) -> Command {
    let line = "console=ttyS0 loglevel=1 panic=-1 reboot=t nokaslr tsc=reliable tsc_early_khz=1000000 lpj=4000000 \
                no_timer_check mitigations=off rcupdate.rcu_expedited=1";
    let line = format!("{line} {STEPS}={others}");
    // It ends with the thread that waits for it, however that ends.
    let mut qemu = Command::new("setpriv");
    qemu.args(["--pdeathsig", "KILL", "qemu-system-x86_64"]);
    qemu.args(["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-monitor", "none"]);
    qemu.args(["-M", "q35", "-cpu", "EPYC,+svm,-xsave", "-accel", "tcg,thread=single", "-smp", "1", "-m", "3G"]);
    qemu.args(["-icount", "shift=0,sleep=off", "-seed", "1", "-rtc", "base=2026-01-01,clock=vm", "-serial", "stdio"]);
    qemu.arg("-kernel").arg(kernel).arg("-initrd").arg(archive).args(["-append", &line]);
    qemu.stdin(Stdio::null()).stderr(Stdio::null()).env_clear().env("PATH", "/usr/bin:/bin");
    qemu
}
