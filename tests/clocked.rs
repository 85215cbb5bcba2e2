// SPDX-License-Identifier: Apache-2.0
//! A host of the measurements' own: an emulated machine with virtualization whose clock is the instructions it has run.
//!
//! QEMU with `-icount shift=0,sleep=off` and one CPU: one instruction is one nanosecond of that host's clock, and idle
//! time is skipped to the next timer, whatever else the machine around it does. So two measurements agree within 1 %,
//! and the counts beside them (system calls, exits, faults) to the last digit or nearly. What an exit costs on silicon
//! it cannot tell: there it is a thousand instructions, here it is one.
//!
//! Everything lies in that host's memory ([`pack`]), since reading a disk would move its clock. Its init is the program
//! that asks for it: it calls [`inside`] when it is process 1, and prints a [`Record`] a line.

mod endings;
mod inside;
mod live;
mod pack;
mod recorded;
mod trace;

pub use inside::inside;
pub use recorded::{Bar, bars, median};

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use images::{Flavour, Store};
use rustix::process::Pid;
use serde_json::Value;

use crate::{Watchdog, program};

/// What stands before a record on the console, so that it is not taken for anything a kernel prints.
const MARK: &str = "@@ ";

/// A host needs half a minute; a crowded one some minutes.
const LIMIT: Duration = Duration::from_secs(900);

/// One measured value by its name, `contender/what`.
pub type Record = (String, f64);

/// Whether this process is that host's init, and so must call [`inside`].
#[must_use]
pub fn is_inside() -> bool {
    std::process::id() == 1
}

/// What is to be measured.
#[derive(Debug, Clone)]
pub struct Request {
    /// Rounds in which the contenders take turns; none to leave them out.
    pub rounds: u32,
    /// A Firecracker binary, as one more contender.
    pub firecracker: Option<PathBuf>,
}

/// Boots the host, with this very program as its init, and returns every value it prints, by name.
///
/// # Errors
/// If something that is needed is missing, or the host ends early.
pub fn measure(place: &Path, request: &Request) -> Result<BTreeMap<String, Vec<f64>>> {
    let store = Store::of_user()?;
    let archive = place.join("host.cpio");
    fs::write(&archive, pack::host(place, &store, &program(), request)?)?;
    let kernel = store.kernel(Flavour::Nested)?;
    let mut child = qemu(kernel.path(), &archive).stdout(Stdio::piped()).spawn().context("cannot start QEMU")?;
    let watchdog = Watchdog::over(Pid::from_child(&child), LIMIT);
    let output = child.stdout.take().context("piped")?;
    let (mut values, mut done, mut said) = (BTreeMap::<String, Vec<f64>>::new(), false, Vec::new());
    for line in BufReader::new(output).lines() {
        let line = line?;
        let line = line.trim_end();
        match line.strip_prefix(MARK).map(serde_json::from_str::<Value>) {
            Some(Ok(Value::Array(record))) => {
                let (Some(name), Some(value)) =
                    (record.first().and_then(Value::as_str), record.get(1).and_then(Value::as_f64))
                else {
                    continue;
                };
                values.entry(name.to_owned()).or_default().push(value);
            }
            Some(Ok(Value::Bool(complete))) => done = complete,
            _ => said.push(line.to_owned()),
        }
    }
    let status = child.wait()?;
    ensure!(!watchdog.stop(), "the measuring host hung: {}", said.join("\n"));
    ensure!(done, "the measuring host ended early ({status}): {}", said.join("\n"));
    Ok(values)
}

/// The machine. Its kernel is told the rate of its clock, so that it calibrates nothing; `nokaslr` keeps it the same.
fn qemu(kernel: &Path, archive: &Path) -> Command {
    let line = "console=ttyS0 loglevel=1 panic=-1 reboot=t nokaslr tsc=reliable tsc_early_khz=1000000 lpj=4000000 \
                no_timer_check mitigations=off rcupdate.rcu_expedited=1";
    // It ends with the thread that waits for it, however that ends.
    let mut qemu = Command::new("setpriv");
    qemu.args(["--pdeathsig", "KILL", "qemu-system-x86_64"]);
    qemu.args(["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-monitor", "none"]);
    qemu.args(["-M", "q35", "-cpu", "EPYC,+svm,-xsave", "-accel", "tcg,thread=single", "-smp", "1", "-m", "3G"]);
    qemu.args(["-icount", "shift=0,sleep=off", "-seed", "1", "-rtc", "base=2026-01-01,clock=vm", "-serial", "stdio"]);
    qemu.arg("-kernel").arg(kernel).arg("-initrd").arg(archive).args(["-append", line]);
    qemu.stdin(Stdio::null()).stderr(Stdio::null()).env_clear().env("PATH", "/usr/bin:/bin");
    qemu
}
