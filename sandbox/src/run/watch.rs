// SPDX-License-Identifier: Apache-2.0
//! The time between a machine's start and a run's end: one loop over descriptors and deadlines.

mod drain;
mod farewell;
mod ready;
mod signals;
#[cfg(test)]
mod simulation;
mod world;

use std::time::Instant;

use guest_init::wire::{FromGuest, ToGuest, VERSION};

use super::images_check::ImagesCheck;
use super::limits::{BOOT_LIMIT, DRAIN_INTERVAL, LONGEST_LIMIT, LOOK_INTERVAL, LOST_LIMIT, PING_INTERVAL, PONG_LIMIT};
use super::{Error, Outcome, exec, mount};
use crate::outcome::Cause;
use crate::spec::Spec;
use crate::sys::signals::Caught;
use crate::terminal::Terminal;
use crate::view::View;
use drain::Drain;
use farewell::Farewell;
pub(super) use ready::{ask, look};
pub(super) use world::{Real, World};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd)]
enum Phase {
    Booting,
    Mounting,
    Starting,
    Running,
    Draining,
}

/// What is to be done before the command can be sent.
pub(super) enum Furnished<'a> {
    /// The root of a new machine is to be assembled with this view, and its images are being checked.
    Not(&'a View, &'a mut ImagesCheck),
    /// All has been done: other commands have run in the machine, or do.
    Already,
}

/// A run in progress.
pub(super) struct Watch<'a, W> {
    spec: &'a Spec,
    world: W,
    furnished: Furnished<'a>,
    on_start: Option<Box<dyn FnOnce() + 'a>>,
    terminal: &'a mut Terminal,
    phase: Phase,
    boot_deadline: Instant,
    deadline: Option<Instant>,
    ping_at: Option<Instant>,
    pong_deadline: Option<Instant>,
    /// The signal that ends the run, and when the command's time to end by itself is over.
    cancelled: Option<(i32, Instant)>,
    /// Whether the time limit has passed, and the command was told to end.
    overdue: bool,
    /// Signals for the command that came before it ran.
    kept: Vec<Caught>,
    /// We have been told to stop: until when the command may do so first.
    stop_at: Option<Instant>,
    /// Whether we were stopped, and nothing has told us yet that it is over.
    stopped: bool,
    /// What broke that may be only the first sign of the machine's end, and until when its end is waited for.
    lost: Option<(Cause, Instant)>,
    control_open: bool,
    files_alive: bool,
    verdict: Option<Cause>,
    /// What ends the run, while the guest's last word is waited for.
    farewell: Option<Farewell>,
    drain: Option<Drain>,
    /// How much output the guest says there was, once it is all on its way.
    sent: Option<[u64; 2]>,
}

impl<'a, W: World> Watch<'a, W> {
    pub(super) fn new(spec: &'a Spec, world: W, furnished: Furnished<'a>, terminal: &'a mut Terminal) -> Self {
        let boot_deadline = world.now() + BOOT_LIMIT;
        Self {
            spec,
            world,
            furnished,
            on_start: None,
            terminal,
            phase: Phase::Booting,
            boot_deadline,
            deadline: None,
            ping_at: None,
            pong_deadline: None,
            cancelled: None,
            overdue: false,
            kept: Vec::new(),
            stop_at: None,
            stopped: false,
            lost: None,
            control_open: true,
            files_alive: true,
            verdict: None,
            farewell: None,
            drain: None,
            sent: None,
        }
    }

    /// Does this when the command has started.
    pub(super) fn on_start(self, act: impl FnOnce() + 'a) -> Self {
        Self { on_start: Some(Box::new(act)), ..self }
    }

    /// Watches until there is a verdict.
    pub(super) fn until_the_end(&mut self, outcome: &mut Outcome) -> Result<Cause, Error> {
        loop {
            let ready = self.wait()?;
            if ready.images {
                self.check_images()?;
            }
            if ready.console {
                self.world.read_console();
            }
            if ready.bell {
                self.world.hear_bell();
            }
            if ready.signals
                && let Some(cause) = self.hear_signals()?
            {
                return Ok(cause);
            }
            if ready.control
                && let Some(cause) = self.hear_guest(outcome)?
            {
                return Ok(cause);
            }
            if self.complete() {
                outcome.stages.end("drain");
                return Ok(self.final_cause());
            }
            if self.world.output().exceeded {
                if self.phase != Phase::Running {
                    return Ok(Cause::OutputLimit);
                }
                self.part(Cause::OutputLimit, outcome);
            }
            if ready.machine || self.world.machine_stops() {
                let cause = self.world.machine_ended()?;
                if let Some(cause) = self.forsaken() {
                    return Ok(cause);
                }
                return Ok(self.cancelled.map_or(cause, |(signal, _)| Cause::Cancelled(signal)));
            }
            if ready.files {
                self.files_alive = false;
                let cause = self.world.files_ended()?;
                self.lose(cause);
            }
            if let Some(cause) = self.check_deadlines(outcome)? {
                return Ok(cause);
            }
        }
    }

    /// The conversation, for what comes after the command.
    pub(super) fn into_world(self) -> W {
        self.world
    }

    fn next_deadline(&self) -> Option<Instant> {
        if let Some(farewell) = &self.farewell {
            return Some(farewell.until());
        }
        let boot =
            matches!(self.phase, Phase::Booting | Phase::Mounting | Phase::Starting).then_some(self.boot_deadline);
        let limit = self.deadline.filter(|_| self.phase == Phase::Running);
        let cancel = self.cancelled.map(|(_, at)| at);
        let lost = self.lost.as_ref().map(|(_, at)| *at);
        let drain = self.drain.map(|_| self.world.now() + DRAIN_INTERVAL);
        let pong = self.pong_deadline.or(self.ping_at).filter(|_| self.phase == Phase::Running);
        let look = self.awaits_keyboard().then(|| self.world.now() + LOOK_INTERVAL);
        let stopped = self.stopped.then(|| self.world.now());
        [boot, limit, cancel, lost, drain, pong, look, self.stop_at, stopped].into_iter().flatten().min()
    }

    fn hear_guest(&mut self, outcome: &mut Outcome) -> Result<Option<Cause>, Error> {
        match self.world.hear() {
            Ok(messages) => {
                for message in messages {
                    if let Some(cause) = self.take(message, outcome)? {
                        return Ok(Some(cause));
                    }
                }
            }
            Err(error) => {
                self.control_open = false;
                self.lose(Cause::LostContact(crate::explain(&error)));
            }
        }
        Ok(None)
    }

    /// Acts on one message. Anything out of turn is a broken protocol: init never sends it.
    fn take(&mut self, message: FromGuest, outcome: &mut Outcome) -> Result<Option<Cause>, Error> {
        match (self.phase, message) {
            (Phase::Booting, FromGuest::Hello { version: VERSION }) => {
                outcome.stages.end("boot");
                self.furnish(outcome)?;
            }
            (Phase::Mounting, FromGuest::Mounted) => {
                outcome.stages.end("mount");
                self.check_images()?;
                self.execute(outcome)?;
            }
            (Phase::Starting, FromGuest::Ready) => outcome.stages.end("ready"),
            (Phase::Starting, FromGuest::Started) => {
                outcome.stages.end("start");
                outcome.started = true;
                if let Some(act) = self.on_start.take() {
                    act();
                }
                self.phase = Phase::Running;
                let now = self.world.now();
                self.deadline = self.spec.timeout.map(|timeout| now + timeout.min(LONGEST_LIMIT));
                self.ping_at = Some(now + PING_INTERVAL);
                return self.pass_on_kept();
            }
            (Phase::Starting, FromGuest::NotStarted { step, errno }) => {
                outcome.sent = false;
                return Ok(Some(exec::not_started(self.spec, step, errno)));
            }
            (Phase::Booting | Phase::Mounting | Phase::Starting, FromGuest::Failed { step, errno }) => {
                outcome.sent = false;
                return Ok(Some(exec::failed(self.spec, step, errno)));
            }
            (Phase::Running, FromGuest::Stopped(_)) => self.command_stopped()?,
            (Phase::Running, FromGuest::Ended(ended)) => {
                if let Some(cause) = self.take_tally(ended.tally, true, outcome) {
                    return Ok(Some(cause));
                }
                outcome.stages.end("run");
                self.verdict = Some(exec::ended(&ended));
                self.phase = Phase::Draining;
                self.drain = Some(Drain::begin(self.world.now(), self.world.output().bytes));
            }
            (Phase::Running, FromGuest::Pong(tally)) => {
                self.pong_deadline = None;
                self.ping_at = Some(self.world.now() + PING_INTERVAL);
                return Ok(self.take_tally(tally, false, outcome));
            }
            (Phase::Draining, FromGuest::Drained { stdout, stderr }) if self.sent.is_none() => {
                self.sent = Some([stdout, stderr]);
            }
            // An answer that crossed the command's end.
            (Phase::Draining, FromGuest::Pong(_)) => {}
            (phase, message) => {
                return Ok(Some(Cause::LostContact(format!("{message:?} while {phase:?} breaks the protocol"))));
            }
        }
        Ok(None)
    }

    /// With damaged images nothing that a guest says means anything.
    fn check_images(&mut self) -> Result<(), Error> {
        match &mut self.furnished {
            Furnished::Not(_, images) => images.passed(),
            Furnished::Already => Ok(()),
        }
    }

    /// Has the root assembled, or sends the command if there is one.
    fn furnish(&mut self, outcome: &mut Outcome) -> Result<(), Error> {
        let Furnished::Not(view, _) = self.furnished else { return self.execute(outcome) };
        self.phase = Phase::Mounting;
        let mount = ToGuest::Mount(mount::message(self.spec, view)?);
        self.send(&mount);
        Ok(())
    }

    /// Sends the command.
    fn execute(&mut self, outcome: &mut Outcome) -> Result<(), Error> {
        self.phase = Phase::Starting;
        let exec = ToGuest::Exec(exec::message(self.spec, self.terminal)?);
        outcome.sent = true;
        // Whatever the command first asks its terminal is answered by the caller's.
        self.terminal.take();
        self.send(&exec);
        Ok(())
    }

    /// Queues a message and sends what can be. A failure shows at the next look at the connection.
    fn send(&mut self, message: &ToGuest) {
        if let Err(error) = self.world.tell(message) {
            self.lose(Cause::LostContact(crate::explain(&error)));
        }
    }

    /// Notes the first sign of an end.
    fn lose(&mut self, cause: Cause) {
        let until = self.world.now() + LOST_LIMIT;
        self.lost.get_or_insert((cause, until));
    }

    /// Whether every byte that the guest has sent of the command's output has reached its reader. That a stream has
    /// ended is not enough: the machine's death ends it too.
    fn complete(&self) -> bool {
        self.sent.is_some_and(|sent| self.world.output().drained && self.world.holds(sent))
    }

    fn final_cause(&mut self) -> Cause {
        if self.world.output().exceeded {
            return Cause::OutputLimit;
        }
        let verdict = self.verdict.take();
        match (self.cancelled, verdict) {
            _ if self.overdue => Cause::Timeout,
            // It did not have it otherwise.
            (Some((signal, _)), Some(Cause::Signaled(own))) if i32::from(own) == signal => Cause::Cancelled(signal),
            (_, Some(verdict)) => verdict,
            (_, None) => Cause::LostContact("the command's end was never told".to_owned()),
        }
    }

    fn check_deadlines(&mut self, outcome: &mut Outcome) -> Result<Option<Cause>, Error> {
        let now = self.world.now();
        if self.farewell.is_some() {
            return Ok(self.parted(now));
        }
        self.follow_the_shell(now)?;
        if let Some((signal, _)) = self.cancelled.filter(|(_, at)| *at <= now) {
            return Ok(Some(Cause::Cancelled(signal)));
        }
        if let Some((cause, _)) = self.lost.as_ref().filter(|(_, at)| *at <= now) {
            return Ok(Some(cause.clone()));
        }
        match self.phase {
            Phase::Booting | Phase::Mounting | Phase::Starting if self.boot_deadline <= now => {
                Ok(Some(Cause::BootTimeout))
            }
            Phase::Running => Ok(self.check_running(now, outcome)),
            Phase::Draining => Ok(self.check_drain(now)),
            _ => Ok(None),
        }
    }

    fn check_running(&mut self, now: Instant, outcome: &mut Outcome) -> Option<Cause> {
        if self.deadline.is_some_and(|at| at <= now) {
            match self.spec.kill_after.filter(|_| !self.overdue) {
                Some(grace) => self.tell_to_end(now + grace.min(LONGEST_LIMIT)),
                None => self.part(Cause::Timeout, outcome),
            }
            return None;
        }
        if self.pong_deadline.is_some_and(|at| at <= now) {
            let limit = PONG_LIMIT.as_secs();
            return Some(Cause::LostContact(format!("guest init did not answer for {limit} s")));
        }
        if self.pong_deadline.is_none() && self.ping_at.is_some_and(|at| at <= now) {
            self.send(&ToGuest::Ping);
            self.pong_deadline = Some(now + PONG_LIMIT);
        }
        None
    }

    fn check_drain(&mut self, now: Instant) -> Option<Cause> {
        let output = self.world.output();
        self.drain.as_mut()?.look(now, output.bytes, output.writing, self.deadline)
    }
}
