// SPDX-License-Identifier: Apache-2.0
//! What a watch sees and has done: descriptors, processes and the clock. With another world, one that is made up, a watch's
//! whole life takes microseconds, and what is true in it is known (`watch::simulation`).

use std::io;
use std::os::fd::AsFd;
use std::time::Instant;

use guest_init::wire::{FromGuest, ToGuest};
use rustix::event::PollFlags;

use super::ready::{Asked, Ready, ask, look};
use crate::outcome::Cause;
use crate::run::ground::Ground;
use crate::run::{Error, Relays};
use crate::session::{self, Session};
use crate::sys::signals::{Caught, Signals};

/// How the command's output goes.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::run) struct Output {
    /// Whether both streams have come to their ends.
    pub(super) drained: bool,
    /// Whether a reader of ours holds one up.
    pub(super) writing: bool,
    /// Bytes that have reached their reader.
    pub(super) bytes: u64,
    /// Whether that is more than is allowed.
    pub(super) exceeded: bool,
}

/// What a watch lives in.
pub(in crate::run) trait World {
    fn now(&self) -> Instant;

    /// Waits for anything to happen, or until then.
    fn wait(&mut self, asked: &Asked<'_>, until: Option<Instant>) -> io::Result<Ready>;

    /// What the guest has said, sending what is queued besides.
    fn hear(&mut self) -> Result<Vec<FromGuest>, session::Error>;

    /// Queues a message to the guest.
    fn tell(&mut self, message: &ToGuest) -> Result<(), session::Error>;

    fn output(&self) -> Output;

    /// Whether so many bytes of each stream were all there were, or nobody wanted the rest.
    fn holds(&self, sent: [u64; 2]) -> bool;

    /// Takes what has rung for the ends of streams.
    fn hear_bell(&mut self);

    fn read_console(&mut self);

    /// Whether the machine's kernel has said that it stops.
    fn machine_stops(&self) -> bool;

    /// What it means that the machine has ended, or stops.
    fn machine_ended(&mut self) -> Result<Cause, Error>;

    /// What it means that the file server has ended.
    fn files_ended(&mut self) -> Result<Cause, Error>;

    /// The next signal that has come for the command or for us.
    fn caught(&mut self) -> io::Result<Option<Caught>>;

    /// Whether signals are meant for us, too.
    fn signals_are_ours(&self) -> bool;

    /// Stops this process, or its whole group; returns when it is continued.
    fn stop(&mut self, everybody: bool) -> io::Result<()>;
}

/// The real one.
pub(in crate::run) struct Real<'a, 'g> {
    pub(in crate::run) session: Session,
    pub(in crate::run) relays: &'a Relays,
    pub(in crate::run) signals: Option<&'a Signals>,
    pub(in crate::run) ground: &'a mut Ground<'g>,
}

impl World for Real<'_, '_> {
    fn now(&self) -> Instant {
        Instant::now()
    }

    fn wait(&mut self, wanted: &Asked<'_>, until: Option<Instant>) -> io::Result<Ready> {
        let bell = self.relays.bell.as_fd();
        let asked = |fd, events| ask(fd, events, bell);
        // The machine's end comes first: what was said before it is seen with it.
        let fds = [
            asked(Some(self.ground.end_fd()), PollFlags::IN),
            asked(self.ground.files_fd().filter(|_| wanted.files), PollFlags::IN),
            asked(Some(bell), PollFlags::IN),
            asked(wanted.control.then(|| self.session.as_fd()), self.session.interest()),
            asked(self.signals.map(AsFd::as_fd), PollFlags::IN),
            asked(self.ground.console_fd(), PollFlags::IN),
            asked(wanted.images, PollFlags::IN),
        ];
        let [machine, files, bell, control, signals, console, images] = look(fds, until)?;
        Ok(Ready { machine, files, bell, control, signals, console, images })
    }

    fn hear(&mut self) -> Result<Vec<FromGuest>, session::Error> {
        self.session.step()
    }

    fn tell(&mut self, message: &ToGuest) -> Result<(), session::Error> {
        self.session.send(message)
    }

    fn output(&self) -> Output {
        let relays = self.relays;
        Output {
            drained: relays.drained(),
            writing: relays.writing(),
            bytes: relays.bytes_out(),
            exceeded: relays.budget.exceeded(),
        }
    }

    fn holds(&self, [output, error]: [u64; 2]) -> bool {
        self.relays.stdout.holds(output) && self.relays.stderr.holds(error)
    }

    fn hear_bell(&mut self) {
        self.relays.hear();
    }

    fn read_console(&mut self) {
        self.ground.read_console();
    }

    fn machine_stops(&self) -> bool {
        self.ground.stopped()
    }

    fn machine_ended(&mut self) -> Result<Cause, Error> {
        self.ground.cause()
    }

    fn files_ended(&mut self) -> Result<Cause, Error> {
        self.ground.files_ended()
    }

    fn caught(&mut self) -> io::Result<Option<Caught>> {
        self.signals.map_or(Ok(None), Signals::next)
    }

    fn signals_are_ours(&self) -> bool {
        self.signals.is_some_and(Signals::are_ours)
    }

    fn stop(&mut self, everybody: bool) -> io::Result<()> {
        self.signals.map_or(Ok(()), |signals| signals.stop(everybody))
    }
}
