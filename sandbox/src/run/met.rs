// SPDX-License-Identifier: Apache-2.0
//! Which limits a command met: those that ended it, and those that only stood in its way. Pure.
//!
//! What the kernel does not count is not known: a refused descriptor (`--ulimit nofile`), a failed mapping, a file system
//! that was full and is not any more.

use std::path::Path;

use guest_init::wire::{Tally, full};

use crate::outcome::{Cause, Killed, Victim};
use crate::spec::Spec;
use crate::usage::size;

/// Signals that the kernel sends for `RLIMIT_CPU` and `RLIMIT_FSIZE` (signal(7)).
const SIGXCPU: u8 = 24;
const SIGXFSZ: u8 = 25;
const SIGKILL: u8 = 9;

const CPU: u32 = 0;
const FSIZE: u32 = 1;

/// A limit that the command met.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hit {
    /// Which: `memory`, `timeout`, `output`, `pids`, `disk`, `shm`, `tmpfs DST`, `ulimit NAME`.
    pub limit: String,
    /// Whether it ended the run.
    pub ended: bool,
    /// How often, if the kernel counts that.
    pub count: Option<u64>,
    /// A sentence that says so.
    pub words: String,
}

impl Hit {
    fn new(limit: impl Into<String>, ended: bool, count: Option<u64>, words: String) -> Self {
        Self { limit: limit.into(), ended, count, words }
    }
}

/// Puts who was killed into a cause that is about it.
pub(super) fn name_victim(cause: &mut Cause, tally: &Tally, killed: &[Killed]) {
    if let Cause::Oom { victim, peak } = cause {
        *peak = tally.usage.memory_peak;
        if let Victim::Command(who) = victim {
            *who = killed.last().cloned();
        }
    }
}

/// The limits that were met, in the order of the options' help.
pub(super) fn hits(spec: &Spec, cause: &Cause, tally: &Tally, killed: &[Killed]) -> Vec<Hit> {
    let memory = memory(cause, tally, killed);
    let time = (*cause == Cause::Timeout).then(|| Hit::new("timeout", true, None, cause.to_string()));
    let output = (*cause == Cause::OutputLimit).then(|| Hit::new("output", true, None, cause.to_string()));
    let mut hits: Vec<Hit> =
        [memory, time, output, processes(spec, tally), ulimit(spec, cause, tally)].into_iter().flatten().collect();
    hits.extend(filled(spec, tally));
    hits
}

fn memory(cause: &Cause, tally: &Tally, killed: &[Killed]) -> Option<Hit> {
    let kills = tally.met.oom_kills;
    let ended = matches!(cause, Cause::Oom { .. });
    if kills == 0 && !ended {
        return None;
    }
    let words = match killed.last() {
        _ if ended => cause.to_string(),
        Some(last) => format!("the guest ran out of memory and killed {last}; give it more with -m"),
        None => "the guest ran out of memory and killed a process of the command; give it more with -m".to_owned(),
    };
    Some(Hit::new("memory", ended, Some(u64::from(kills)), words))
}

fn processes(spec: &Spec, tally: &Tally) -> Option<Hit> {
    let (limit, refused) = (spec.limits.processes?, tally.met.processes_refused);
    let words = format!("the command reached --pids-limit {limit}: {refused} processes or threads could not be made");
    (refused > 0).then(|| Hit::new("pids", false, Some(refused), words))
}

/// The resource limits that end a process by a signal. A shell passes the end of what it ran on as 128 and the signal.
fn ulimit(spec: &Spec, cause: &Cause, tally: &Tally) -> Option<Hit> {
    let signal = match cause {
        Cause::Signaled(signal) => *signal,
        Cause::Exited(status) => status.checked_sub(128)?,
        _ => return None,
    };
    let limits = spec.rlimits();
    let (_, soft, hard) = *limits.iter().find(|(number, ..)| *number == if signal == SIGXFSZ { FSIZE } else { CPU })?;
    let seconds = (tally.usage.user_us + tally.usage.system_us) / 1_000_000;
    let (name, words) = match signal {
        SIGXFSZ if soft < u64::MAX => {
            ("fsize", format!("a file reached --ulimit fsize={soft}, and its writer was killed (SIGXFSZ)"))
        }
        SIGXCPU if soft < u64::MAX => {
            ("cpu", format!("the command reached --ulimit cpu={soft} and was killed (SIGXCPU)"))
        }
        SIGKILL if seconds >= hard => {
            ("cpu", format!("the command reached the hard --ulimit cpu={hard} and was killed"))
        }
        _ => return None,
    };
    Some(Hit::new(format!("ulimit {name}"), true, None, words))
}

/// File systems that were full when the command ended.
fn filled<'a>(spec: &'a Spec, tally: &'a Tally) -> impl Iterator<Item = Hit> + 'a {
    let half = spec.half_of_memory();
    let limits = &spec.limits;
    let private = (limits.private.unwrap_or(half), "disk".to_owned(), "the private layer".to_owned(), "--disk-size");
    let shm = (limits.shm.unwrap_or(half), "shm".to_owned(), "/dev/shm".to_owned(), "--shm-size");
    let tmpfs = limits.tmpfs.iter().map(move |tmpfs| {
        let name = format!("tmpfs {}", tmpfs.target.display());
        (tmpfs.size.unwrap_or(half), name.clone(), format!("the {name}"), "--tmpfs DST:size=…")
    });
    let bits = std::iter::successors(Some(full::PRIVATE), |bit| bit.checked_shl(1));
    let all = [private, shm].into_iter().chain(tmpfs).zip(bits);
    all.filter(|(_, bit)| tally.met.full & bit != 0).map(|((bytes, limit, what, option), _)| {
        Hit::new(limit, false, None, format!("{what} is full ({}); give it more with {option}", size(bytes)))
    })
}

/// The host has no room left for what the private layer may still take.
pub(super) fn starved(place: &Path) -> Hit {
    let place = place.display();
    let words = format!(
        "the private layer found no room in {place}, where its disk is; make some, or choose another place by TMPDIR"
    );
    Hit::new("disk", false, None, words)
}

#[cfg(test)]
mod tests;
