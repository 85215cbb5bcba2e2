// SPDX-License-Identifier: Apache-2.0
//! The guest of a made-up world: what its init and its command do, each after a while of its own.

use std::time::Instant;

use guest_init::wire::{End, Ended, FromGuest, Met, Step, Tally, ToGuest, VERSION};

use super::{Dice, Event, Fault, Simulation};

/// What is to become of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Plan {
    Ends(End),
    OutOfMemory,
    RunsOn,
    NotFound,
    NoDirectory,
    NoRoot,
}

impl Plan {
    pub(super) fn draw(dice: &mut Dice) -> Self {
        match dice.below(16) {
            0..4 => Self::Ends(End::Exited(0)),
            4..7 => Self::Ends(End::Exited(dice.one_of(&[1, 124, 125, 137]))),
            7..9 => Self::Ends(End::Signaled(dice.one_of(&[2, 6, 9, 15]))),
            9 => Self::Ends(End::Reset),
            10 => Self::OutOfMemory,
            11..13 => Self::RunsOn,
            13 => Self::NotFound,
            14 => Self::NoDirectory,
            _ => Self::NoRoot,
        }
    }

    pub(super) fn runs_on(self) -> bool {
        self == Self::RunsOn
    }
}

/// The command, as it truly is.
#[derive(Debug)]
pub(super) struct Guest {
    pub(super) plan: Plan,
    pub(super) started: Option<Instant>,
    pub(super) ended: Option<(End, Instant)>,
    /// What it has written, whether or not that has arrived.
    pub(super) written: [u64; 2],
    /// Bytes on the way.
    underway: [u64; 2],
}

impl Guest {
    pub(super) fn new(plan: Plan) -> Self {
        Self { plan, started: None, ended: None, written: [0; 2], underway: [0; 2] }
    }
}

const ENOENT: i32 = 2;

impl Simulation {
    /// The machine comes up. A crowded host takes its time for it.
    pub(super) fn boot(&mut self) {
        let boot = self.dice.up_to(5000);
        self.at(boot, Event::Say(FromGuest::Hello { version: VERSION }));
    }

    fn say(&mut self, within: u64, message: FromGuest) {
        let moment = self.dice.up_to(within);
        self.at(moment, Event::Say(message));
    }

    /// Guest init does what it is told.
    pub(super) fn obey(&mut self, message: &ToGuest) {
        if self.has(Fault::Mute) {
            return;
        }
        match message {
            ToGuest::Mount(_) if self.guest.plan == Plan::NoRoot => {
                self.say(500, FromGuest::Failed { step: Step::MountRoot, errno: ENOENT });
            }
            ToGuest::Mount(_) => self.say(500, FromGuest::Mounted),
            ToGuest::Exec(_) => {
                // Each is said before the next: a conversation keeps its order.
                let moment = self.dice.up_to(300);
                self.at(moment, Event::Say(FromGuest::Ready));
                let moment = moment + self.dice.up_to(300);
                self.at(moment, Event::Start);
            }
            ToGuest::Signal { signal, .. } => self.signal(*signal),
            ToGuest::Ping => self.say(2000, FromGuest::Pong(Tally::default())),
            ToGuest::Resize(_) | ToGuest::Beside(_) | ToGuest::Tell(_) | ToGuest::Log(_) => {}
        }
    }

    fn signal(&mut self, signal: i32) {
        if self.guest.started.is_none() || self.guest.ended.is_some() || self.dice.once_in(3) {
            return;
        }
        let end =
            if self.dice.once_in(2) { End::Signaled(signal as u8) } else { End::Exited(self.dice.below(3) as u8) };
        let moment = self.dice.up_to(3000);
        self.at(moment, Event::End(end));
    }

    /// Has something happen.
    pub(super) fn happen(&mut self, event: Event) {
        match event {
            Event::Say(message) if self.lives() && !self.has(Fault::Mute) && !self.control_gone => {
                self.inbox.push(message);
            }
            Event::Start if self.lives() && !self.has(Fault::Mute) => self.start(),
            Event::Write(stream, bytes) if self.lives() && self.guest.ended.is_none() => {
                self.guest.written[stream] += bytes;
                self.guest.underway[stream] += bytes;
                let moment = self.dice.up_to(2000);
                self.at(moment, Event::Arrive(stream, bytes));
            }
            Event::Arrive(stream, bytes) if self.lives() && !self.stream_ended[stream] => {
                self.guest.underway[stream] -= bytes;
                self.arrived[stream] += bytes;
                self.end_streams();
                self.bell = true;
            }
            Event::End(end) if self.lives() && self.guest.ended.is_none() => self.end_command(end),
            Event::StreamEnds(stream) => {
                self.stream_ended[stream] = true;
                self.bell = true;
            }
            Event::Fault(fault) => self.fail(fault),
            Event::MachineGone => self.gone = true,
            Event::ControlGone => self.control_gone = true,
            Event::Signal(signal) => {
                self.signals.push(signal);
                self.sent_signals.push(signal);
            }
            Event::Reader(holds) => {
                self.writing = holds;
                self.bell = true;
            }
            // Nobody is left to do it.
            _ => {}
        }
    }

    fn start(&mut self) {
        let refused = |step| FromGuest::NotStarted { step, errno: ENOENT };
        let message = match self.guest.plan {
            Plan::NotFound => refused(Step::Exec),
            Plan::NoDirectory => refused(Step::Cwd),
            _ => FromGuest::Started,
        };
        // Said in the same breath, but heard only if the connection lasts.
        if !self.control_gone {
            self.inbox.push(message);
        }
        if message != FromGuest::Started {
            return;
        }
        self.guest.started = Some(self.now);
        for _ in 0..self.dice.below(4) {
            let (moment, stream, bytes) =
                (self.dice.up_to(4000), self.dice.below(2) as usize, 1 + self.dice.below(3000));
            self.at(moment, Event::Write(stream, bytes));
        }
        let end = match self.guest.plan {
            Plan::Ends(end) => end,
            Plan::OutOfMemory => End::Signaled(9),
            _ => return,
        };
        let moment = self.dice.up_to(10_000);
        self.at(moment, Event::End(end));
    }

    fn end_command(&mut self, end: End) {
        self.guest.ended = Some((end, self.now));
        let killed = self.guest.plan == Plan::OutOfMemory && end == End::Signaled(9);
        let met = Met { oom_kills: killed.into(), ..Met::default() };
        let moment = self.dice.up_to(200);
        self.at(moment, Event::Say(FromGuest::Ended(Ended { end, tally: Tally { met, ..Tally::default() } })));
        let moment = moment + self.dice.up_to(1000);
        let [stdout, stderr] = self.guest.written;
        self.at(moment, Event::Say(FromGuest::Drained { stdout, stderr }));
        self.end_streams();
    }

    /// A stream ends behind its last byte.
    fn end_streams(&mut self) {
        for stream in 0..2 {
            if self.guest.ended.is_some() && self.guest.underway[stream] == 0 && !self.stream_ended[stream] {
                let moment = self.dice.up_to(500);
                self.at(moment, Event::StreamEnds(stream));
            }
        }
    }
}
