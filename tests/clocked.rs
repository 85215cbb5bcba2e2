// SPDX-License-Identifier: Apache-2.0
//! A host of the measurements' own: an emulated machine with virtualization whose clock is the instructions it has run.
//!
//! QEMU with `-icount shift=0,sleep=off` and one CPU: one instruction is one nanosecond of that host's clock, and idle
//! time is skipped to the next timer, whatever else the machine around it does. So two measurements agree within 1 %,
//! and the counts beside them (system calls, exits, faults) to the last digit or nearly. What an exit costs on silicon
//! it cannot tell: there it is a thousand instructions, here it is one.
//!
//! Everything lies in that host's memory ([`pack`]), since reading a disk would move its clock. Its init is the program
//! that asks for it: it calls [`inside`] when it is process 1, and prints a record of a name and a value in each line.

mod endings;
mod host;
mod inside;
mod live;
mod pack;
mod recorded;
mod trace;

pub use inside::inside;
pub use recorded::{Bar, bars, median};

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, bail};
use images::{Flavour, Store};

use crate::program;

/// What stands before a record on the console, so that it is not taken for anything a kernel prints.
const MARK: &str = "@@ ";

/// Hosts that may stand still.
const HOSTS: u32 = 4;

/// What tells a host's init how long after a tick each run begins, in steps of [`STEP`].
const STEPS: &str = "STEPS";

/// A kernel's tick, here and in guests (`CONFIG_HZ`), and no simple fraction of it.
const TICK: Duration = Duration::from_millis(4);
const STEP: Duration = Duration::from_micros(1300);

/// Measured values by their names, `contender/what`.
pub type Values = BTreeMap<String, Vec<f64>>;

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
pub fn measure(place: &Path, request: &Request) -> Result<Values> {
    let store = Store::of_user()?;
    let archive = place.join("host.cpio");
    fs::write(&archive, pack::host(place, &store, &program(), request)?)?;
    let kernel = store.kernel(Flavour::Nested)?;
    for others in 0..HOSTS {
        if let Some(values) = host::run(kernel.path(), &archive, others)? {
            return Ok(values);
        }
        eprintln!(
            "an emulated host stood still, as its emulator lets happen (tests/clocked/host.rs); another one measures"
        );
    }
    bail!("{HOSTS} emulated hosts stood still one after the other, which is no accident")
}
