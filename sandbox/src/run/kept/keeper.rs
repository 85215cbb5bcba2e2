// SPDX-License-Identifier: Apache-2.0
//! The thread that a kept machine lives with: starts it, passes orders on to guest init, and says how it ended.
//!
//! Whether guest init still answers is asked by each command's own watch; without a command nobody waits for it.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};
use std::time::Instant;

use guest_init::wire::{FromGuest, ToGuest, VERSION};
use rustix::event::PollFlags;

use super::Order;
use crate::outcome::Cause;
use crate::relay::Bell;
use crate::run::assemble::{Assembled, assemble};
use crate::run::ground::{Fate, Ground};
use crate::run::images_check::ImagesCheck;
use crate::run::limits::{BOOT_LIMIT, LOST_LIMIT};
use crate::run::watch::{ask, look};
use crate::run::{CONSOLE_LINES, Error, Outcome, exec, mount};
use crate::session::Session;
use crate::spec::Spec;
use crate::stages::Stages;
use crate::view::View;

/// What a keeper shares with whoever keeps the machine.
pub(super) struct Keeper {
    pub(super) bell: Bell,
    pub(super) orders: Receiver<Order>,
    pub(super) fate: Arc<Fate>,
}

/// Told when the machine can take commands, or why it never will.
pub(super) type Ready = Sender<Result<Box<Outcome>, Box<Outcome>>>;

impl Keeper {
    /// The thread's whole life.
    pub(super) fn run(self, spec: &Spec, supply: OwnedFd, ready: &Ready) {
        let mut outcome = Outcome::refused(Cause::SetupError(String::new()), Stages::begin());
        outcome.cause = self.keep(spec, supply, ready, &mut outcome).unwrap_or_else(|error| error.cause());
        self.fate.seal(outcome.cause.clone());
        // Once it was ready nobody listens any more.
        drop(ready.send(Err(Box::new(outcome))));
    }

    fn keep(&self, spec: &Spec, supply: OwnedFd, ready: &Ready, outcome: &mut Outcome) -> Result<Cause, Error> {
        // Till the end of this, as the machine.
        let Assembled { lease: _lease, mut machine, mut files, mut check, view, lines, disk: _ } =
            assemble(spec, None, Some(supply), true, outcome)?;
        let vigil = Vigil {
            keeper: self,
            spec,
            view: &view,
            session: Session::new(lines.control)?,
            phase: Phase::Booting,
            lost: None,
            control_open: true,
            files_alive: true,
            boot_deadline: Instant::now() + BOOT_LIMIT,
        };
        let mut ground = Ground::Own { machine: &mut machine, files: &mut files };
        let watched = vigil.until_the_end(&mut ground, &mut check, ready, outcome);
        check.passed()?;
        let cause = watched?;
        files.kill();
        machine.end()?;
        if cause.is_of_the_machine() {
            outcome.console = machine.console().last_lines(CONSOLE_LINES);
        }
        Ok(cause)
    }

    /// Takes the bell's pending rings, so that it can be waited for again.
    fn hear(&self) {
        // "Would block" is the only error, and means that there were none.
        let _none = rustix::io::read(&*self.bell, &mut [0; 8]);
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Booting,
    Mounting,
    Serving,
}

/// A machine that is being watched.
struct Vigil<'a> {
    keeper: &'a Keeper,
    spec: &'a Spec,
    view: &'a View,
    session: Session,
    phase: Phase,
    /// What broke that may be only the first sign of the machine's end, and until when its end is waited for.
    lost: Option<(Cause, Instant)>,
    control_open: bool,
    files_alive: bool,
    boot_deadline: Instant,
}

impl Vigil<'_> {
    fn until_the_end(
        mut self,
        ground: &mut Ground<'_>,
        check: &mut ImagesCheck,
        ready: &Ready,
        outcome: &mut Outcome,
    ) -> Result<Cause, Error> {
        loop {
            let [machine, files, bell, control, console, images] = self.wait(ground, check)?;
            if images {
                check.passed()?;
            }
            if console {
                ground.read_console();
            }
            if bell && let Some(cause) = self.obey() {
                return Ok(cause);
            }
            if control && let Some(cause) = self.hear_guest(check, ready, outcome)? {
                return Ok(cause);
            }
            if machine || ground.stopped() {
                return ground.cause();
            }
            if files {
                self.files_alive = false;
                self.lose(ground.files_ended()?);
            }
            let now = Instant::now();
            if let Some((cause, _)) = self.lost.take_if(|(_, at)| *at <= now) {
                return Ok(cause);
            }
            if self.phase != Phase::Serving && self.boot_deadline <= now {
                return Ok(Cause::BootTimeout);
            }
        }
    }

    /// Waits for anything to happen, or the next deadline.
    fn wait(&self, ground: &Ground<'_>, check: &ImagesCheck) -> io::Result<[bool; 6]> {
        let boot = (self.phase != Phase::Serving).then_some(self.boot_deadline);
        let deadline = boot.into_iter().chain(self.lost.as_ref().map(|(_, at)| *at)).min();
        let bell = self.keeper.bell.as_fd();
        let asked = |fd, events| ask(fd, events, bell);
        // The machine's end comes first: what was said before it is seen with it.
        let fds = [
            asked(Some(ground.end_fd()), PollFlags::IN),
            asked(ground.files_fd().filter(|_| self.files_alive), PollFlags::IN),
            asked(Some(bell), PollFlags::IN),
            asked(self.control_open.then(|| self.session.as_fd()), self.session.interest()),
            asked(ground.console_fd(), PollFlags::IN),
            asked(check.pending(), PollFlags::IN),
        ];
        look(fds, deadline)
    }

    /// Passes orders on; the cause of the machine's end if it is to end.
    fn obey(&mut self) -> Option<Cause> {
        self.keeper.hear();
        for order in self.keeper.orders.try_iter() {
            match order {
                Order::Beside(number) => {
                    // What cannot be sent shows at the next look at the connection.
                    if let Err(error) = self.session.send(&ToGuest::Beside(number)) {
                        self.lost.get_or_insert((Cause::LostContact(crate::explain(&error)), Instant::now()));
                    }
                }
                Order::End => {
                    return Some(Cause::SetupError("its virtual machine was shut down while the command ran".into()));
                }
            }
        }
        None
    }

    fn hear_guest(
        &mut self,
        check: &mut ImagesCheck,
        ready: &Ready,
        outcome: &mut Outcome,
    ) -> Result<Option<Cause>, Error> {
        let messages = match self.session.step() {
            Ok(messages) => messages,
            Err(error) => {
                self.control_open = false;
                self.lose(Cause::LostContact(crate::explain(&error)));
                return Ok(None);
            }
        };
        for message in messages {
            match (self.phase, message) {
                (Phase::Booting, FromGuest::Hello { version: VERSION }) => {
                    outcome.stages.end("boot");
                    self.phase = Phase::Mounting;
                    let mount = ToGuest::Mount(mount::message(self.spec, self.view)?);
                    if let Err(error) = self.session.send(&mount) {
                        self.lose(Cause::LostContact(crate::explain(&error)));
                    }
                }
                (Phase::Mounting, FromGuest::Mounted) => {
                    outcome.stages.end("mount");
                    check.passed()?;
                    self.phase = Phase::Serving;
                    drop(ready.send(Ok(Box::new(outcome.clone()))));
                }
                (_, FromGuest::Failed { step, errno }) => return Ok(Some(exec::failed(self.spec, step, errno))),
                (phase, message) => {
                    return Ok(Some(Cause::LostContact(format!("{message:?} while {phase:?} breaks the protocol"))));
                }
            }
        }
        Ok(None)
    }

    /// Notes the first sign of an end.
    fn lose(&mut self, cause: Cause) {
        self.lost.get_or_insert((cause, Instant::now() + LOST_LIMIT));
    }
}
