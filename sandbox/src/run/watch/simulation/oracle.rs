// SPDX-License-Identifier: Apache-2.0
//! What may be said of a run of which everything is known.

use guest_init::wire::End;

use super::guest::Plan;
use super::{Fault, Simulation};
use crate::outcome::{Cause, Verdict, Victim};
use crate::run::Outcome;
use crate::spec::Spec;

/// Whether a cause is true; else why not.
pub(super) fn judge(world: &Simulation, spec: &Spec, outcome: &Outcome, cause: &Cause) -> Result<(), String> {
    let guest = &world.guest;
    let ended = guest.ended.map(|(end, _)| end);
    let whole = world.arrived == guest.written;
    let holds = match cause {
        Cause::Exited(status) => ended == Some(End::Exited(*status)) && whole && !world.exceeded(),
        Cause::Signaled(signal) => {
            let killed = *signal == 9 && guest.plan == Plan::OutOfMemory;
            ended == Some(End::Signaled(*signal)) && whole && !killed
        }
        Cause::Oom { victim: Victim::Command(_), .. } => {
            ended == Some(End::Signaled(9)) && guest.plan == Plan::OutOfMemory
        }
        Cause::Oom { victim: Victim::Init, .. } => world.has(Fault::OutOfMemory),
        Cause::Timeout => overdue(world, spec),
        Cause::OutputLimit => world.exceeded(),
        Cause::NotFound(_) => guest.plan == Plan::NotFound && guest.started.is_none(),
        Cause::NotExecutable(_) | Cause::UsageError(_) => false,
        Cause::SetupError(_) => matches!(guest.plan, Plan::NoDirectory | Plan::NoRoot) && guest.started.is_none(),
        Cause::Cancelled(signal) => world.sent_signals.contains(signal),
        Cause::GuestPanic => world.has(Fault::Panic),
        Cause::GuestReset(_) => world.has(Fault::Reset) || world.has(Fault::Halted) || ended == Some(End::Reset),
        Cause::VmmCrash(_) => world.has(Fault::Killed) || world.has(Fault::Files),
        Cause::BootTimeout => world.has(Fault::Mute) || world.has(Fault::Frozen),
        Cause::LostContact(_) => {
            let silent = [Fault::Control, Fault::Garbage, Fault::Turn, Fault::Mute, Fault::Frozen];
            let cut = [Fault::Stream(0), Fault::Stream(1)];
            silent.into_iter().chain(cut).any(|fault| world.has(fault))
        }
    };
    if !holds {
        return Err(format!("{} is not true", cause.name()));
    }
    if cause.verdict() == Verdict::Pass && (ended != Some(End::Exited(0)) || !whole) {
        return Err("it did not pass".to_owned());
    }
    if outcome.started && guest.started.is_none() {
        return Err("it has not started".to_owned());
    }
    if outcome.never_started() && guest.started.is_some() {
        return Err("it has started, and would be started again".to_owned());
    }
    Ok(())
}

/// Whether the time limit has passed before the command ended, or before the last of its output came.
fn overdue(world: &Simulation, spec: &Spec) -> bool {
    let (Some(limit), Some(started)) = (spec.timeout, world.guest.started) else { return false };
    let deadline = started + limit;
    let in_time = world.guest.ended.is_some_and(|(_, at)| at < deadline);
    // A command's end that came in time may have been heard of late: the world stands still at times.
    world.now >= deadline && (!in_time || !world.faults.is_empty() || world.heard_late(deadline))
}

impl Simulation {
    /// Whether a command that ended in time had not told so by its deadline: its word takes up to 200 ms, and a look at it longer
    /// if this process did not get to run.
    fn heard_late(&self, deadline: std::time::Instant) -> bool {
        self.guest.ended.is_some_and(|(_, at)| deadline - at < std::time::Duration::from_millis(200))
    }
}
