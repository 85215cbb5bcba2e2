// SPDX-License-Identifier: Apache-2.0
//! The end of a run that we end: the guest is asked once more what its command has used, and given a moment to answer.
//!
//! The verdict stands before the question, whatever the answer.

use std::time::{Duration, Instant};

use guest_init::wire::{Tally, ToGuest};

use super::{Watch, World};
use crate::engine::Isolation;
use crate::outcome::Cause;
use crate::run::Outcome;

/// How long the guest may take to answer. On KVM a run should be over at once, so it gets the time that it took to come up,
/// which says how fast it is here and now, but no less than the first of these and no more than the second. An emulated
/// machine on a crowded host needs long for anything, and gets that always.
const PATIENCE: Duration = Duration::from_millis(10);
const MOST_PATIENCE: Duration = Duration::from_millis(500);

/// A verdict, and until when the guest's last figures are waited for.
#[derive(Debug)]
pub(super) struct Farewell {
    cause: Cause,
    until: Instant,
}

impl Farewell {
    pub(super) fn until(&self) -> Instant {
        self.until
    }
}

impl<W: World> Watch<'_, W> {
    /// Ends the run by this cause, after a last question. The first verdict counts.
    pub(super) fn part(&mut self, cause: Cause, outcome: &mut Outcome) {
        if self.farewell.is_none() {
            outcome.stages.end("run");
            let emulated = outcome.engine.as_ref().is_some_and(|engine| engine.isolation() == Isolation::Emulated);
            let boot = outcome.stages.of("boot");
            let patience = if emulated { MOST_PATIENCE } else { boot.clamp(PATIENCE, MOST_PATIENCE) };
            self.farewell = Some(Farewell { cause, until: self.world.now() + patience });
            self.send(&ToGuest::Ping);
        }
    }

    /// Takes what the guest says of its command's consumption: the verdict, if it has been waited for.
    pub(super) fn take_tally(&mut self, tally: Tally, ended: bool, outcome: &mut Outcome) -> Option<Cause> {
        outcome.tally = tally;
        outcome.tallied = ended || self.farewell.is_some();
        self.farewell.take().map(|farewell| farewell.cause)
    }

    /// The verdict, if the answer does not come any more.
    pub(super) fn parted(&mut self, now: Instant) -> Option<Cause> {
        self.farewell.take_if(|farewell| farewell.until <= now).map(|farewell| farewell.cause)
    }

    /// The verdict, now that nobody is there to answer.
    pub(super) fn forsaken(&mut self) -> Option<Cause> {
        self.farewell.take().map(|farewell| farewell.cause)
    }
}
