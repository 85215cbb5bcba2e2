// SPDX-License-Identifier: Apache-2.0
//! What we are sent, and what the command gets of it; and how we stop when the command has.
//!
//! A signal that ends a run is the command's first: it has a grace period, and if it comes to an end in it, that is how the run
//! ended, as with timeout(1) and `docker run`. The next one, or the end of the period, kills everything.

use std::time::Instant;

use guest_init::wire::ToGuest;

use super::{Error, Phase, Watch, World};
use crate::outcome::Cause;
use crate::run::limits::{BOOT_LIMIT, GRACE, LONGEST_LIMIT, PONG_LIMIT, STOP_LIMIT};
use crate::sys::signals::{Caught, ENDING, signal};

impl<W: World> Watch<'_, W> {
    pub(super) fn hear_signals(&mut self) -> Result<Option<Cause>, Error> {
        while let Some(caught) = self.world.caught()? {
            match caught.signal {
                _ if !self.world.signals_are_ours() => self.pass_on_in_turn(caught),
                number if ENDING.contains(&number) => {
                    if self.cancelled.is_some() || self.phase != Phase::Running {
                        return Ok(Some(Cause::Cancelled(number)));
                    }
                    let grace = self.spec.kill_after.unwrap_or(GRACE).min(LONGEST_LIMIT);
                    self.cancelled = Some((number, self.world.now() + grace));
                    self.pass_on(caught);
                }
                // There is no command yet, or no more, that could decide what it means.
                signal::QUIT if self.phase != Phase::Running => return Ok(Some(Cause::Cancelled(signal::QUIT))),
                signal::WINCH if self.spec.terminal.is_some() => self.tell_size(),
                signal::TSTP => {
                    self.stop_at = Some(self.world.now());
                    if self.phase == Phase::Running {
                        self.pass_on(caught);
                        self.stop_at = Some(self.world.now() + STOP_LIMIT);
                    }
                }
                signal::CONT => self.resume(),
                _ => self.pass_on_in_turn(caught),
            }
        }
        Ok(None)
    }

    /// The command gets it now, or when it runs.
    fn pass_on_in_turn(&mut self, caught: Caught) {
        match self.phase {
            Phase::Running => self.pass_on(caught),
            phase if phase < Phase::Running => self.kept.push(caught),
            _ => {}
        }
    }

    /// The command runs: it gets what has come for it.
    pub(super) fn pass_on_kept(&mut self) -> Result<Option<Cause>, Error> {
        self.tell_size();
        for caught in std::mem::take(&mut self.kept) {
            self.pass_on(caught);
        }
        self.hear_signals()
    }

    /// The time limit has passed: the command has until then to end by itself.
    pub(super) fn tell_to_end(&mut self, until: Instant) {
        self.overdue = true;
        self.deadline = Some(until);
        // One that is stopped could not end; timeout(1) does the same.
        for signal in [signal::TERM, signal::CONT] {
            self.send(&ToGuest::Signal { signal, group: false });
        }
    }

    /// Whether the keyboard is for the command, and in the hands of others.
    pub(super) fn awaits_keyboard(&self) -> bool {
        self.phase > Phase::Mounting && self.terminal.is_awaited()
    }

    fn pass_on(&mut self, caught: Caught) {
        self.send(&ToGuest::Signal { signal: caught.signal, group: caught.typed });
    }

    fn tell_size(&mut self) {
        if self.spec.terminal.is_some() && self.phase == Phase::Running {
            self.send(&ToGuest::Resize(self.terminal.size()));
        }
    }

    /// The command has stopped. Whoever has its keyboard gets theirs back; with nobody there to have it continued, it stays as
    /// it is, and so do we: a guest has no other way to stop us, nor our time limit.
    pub(super) fn command_stopped(&mut self) -> Result<(), Error> {
        if self.stop_at.is_some() || self.terminal.is_taken() { self.stop() } else { Ok(()) }
    }

    /// Stops us, as the signal that the keyboard's Ctrl-Z sends would. When we are continued, a signal says so; where there is
    /// nobody to continue us, the kernel does not stop us, and the next look at the deadlines finds that.
    pub(super) fn stop(&mut self) -> Result<(), Error> {
        self.stop_at = None;
        let everybody = self.terminal.is_taken();
        self.terminal.leave();
        self.world.stop(everybody)?;
        self.stopped = true;
        Ok(())
    }

    /// Stops us when the command's time to do so first is over, and finds out what nobody tells: that the stop is over, and that
    /// the keyboard is ours.
    pub(super) fn follow_the_shell(&mut self, now: Instant) -> Result<(), Error> {
        if self.stopped {
            self.resume();
        }
        if self.stop_at.is_some_and(|at| at <= now) {
            self.stop()?;
        }
        if self.awaits_keyboard() {
            self.terminal.take();
        }
        Ok(())
    }

    /// We have been continued: so is the command. What it owed us by now it could not give us.
    pub(super) fn resume(&mut self) {
        let now = self.world.now();
        self.stopped = false;
        self.boot_deadline = now + BOOT_LIMIT;
        self.pong_deadline = self.pong_deadline.map(|_| now + PONG_LIMIT);
        if self.phase > Phase::Mounting {
            self.terminal.take();
        }
        if self.phase == Phase::Running {
            self.send(&ToGuest::Signal { signal: signal::CONT, group: true });
            self.tell_size();
        }
    }
}
