// SPDX-License-Identifier: Apache-2.0
//! A hundred thousand runs in a made-up world: guest, machine, file server, readers, users and clock, each of which may fail at any
//! moment. What is true in it is known, and no verdict may say otherwise ([`oracle`]).
//!
//! A run follows from its number. One that goes wrong is repeated by `SANDBOX_SIMULATE=number`; `SANDBOX_FUZZ_ITERATIONS` says how many
//! there are.

mod dice;
mod guest;
mod oracle;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io;
use std::time::{Duration, Instant};

use guest_init::wire::{End, FromGuest, ToGuest};

use super::ready::{Asked, Ready};
use super::world::Output;
use super::{Furnished, Watch, World};
use crate::engine::{Ending, Engine};
use crate::outcome::Cause;
use crate::run::ground::meaning;
use crate::run::images_check::ImagesCheck;
use crate::run::{Error, Outcome};
use crate::session;
use crate::spec::Spec;
use crate::stages::Stages;
use crate::sys::signals::Caught;
use crate::terminal::Terminal;
use crate::view::View;
use dice::{Dice, FAULTS, Fault};
use guest::{Guest, Plan};

const RUNS: u64 = 100_000;

/// A run is over by then, whatever happens: a boot, a command, two graces and a drain, each at its limit.
const LONGEST: Duration = Duration::from_secs(600);

/// What happens at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Event {
    /// Guest init says this.
    Say(FromGuest),
    /// The command starts, if it has not been decided otherwise.
    Start,
    /// It writes so much; so much arrives.
    Write(usize, u64),
    Arrive(usize, u64),
    /// It ends, if this is still its first end.
    End(End),
    /// All that was written has arrived, or never will.
    StreamEnds(usize),
    Fault(Fault),
    /// What a fault looks like from here, a moment later.
    MachineGone,
    ControlGone,
    /// A user's signal.
    Signal(i32),
    /// A reader holds a stream up, or goes on.
    Reader(bool),
}

/// The world, and what is true in it.
#[derive(Debug)]
struct Simulation {
    dice: Dice,
    begun: Instant,
    now: Instant,
    events: BinaryHeap<Reverse<(Instant, u64)>>,
    happenings: Vec<Event>,
    guest: Guest,
    faults: Vec<Fault>,
    /// What has been said and not heard yet.
    inbox: Vec<FromGuest>,
    control_gone: bool,
    garbage: bool,
    ending: Option<Ending>,
    gone: bool,
    files_gone: bool,
    console_said: bool,
    stops: bool,
    signals: Vec<i32>,
    sent_signals: Vec<i32>,
    arrived: [u64; 2],
    stream_ended: [bool; 2],
    writing: bool,
    bell: bool,
    limit: Option<u64>,
    turns: u64,
}

impl Simulation {
    fn new(number: u64, dice: Dice, plan: Plan, limit: Option<u64>) -> Self {
        let now = Instant::now();
        let mut world = Self {
            dice,
            begun: now,
            now,
            events: BinaryHeap::new(),
            happenings: Vec::new(),
            guest: Guest::new(plan),
            faults: Vec::new(),
            inbox: Vec::new(),
            control_gone: false,
            garbage: false,
            ending: None,
            gone: false,
            files_gone: false,
            console_said: false,
            stops: false,
            signals: Vec::new(),
            sent_signals: Vec::new(),
            arrived: [0; 2],
            stream_ended: [false; 2],
            writing: false,
            bell: false,
            limit,
            turns: number,
        };
        world.boot();
        for _ in 0..world.dice.one_of(&[0, 0, 1, 1, 1, 2]) {
            let fault = world.dice.one_of(&FAULTS);
            let at = world.dice.up_to(8000);
            world.at(at, Event::Fault(fault));
        }
        if world.dice.once_in(6) {
            for _ in 0..=world.dice.below(2) {
                let (signal, at) = (world.dice.one_of(&[1, 2, 15, 3, 10]), world.dice.up_to(6000));
                world.at(at, Event::Signal(signal));
            }
        }
        if world.dice.once_in(8) {
            let (from, more) = (world.dice.up_to(5000), world.dice.up_to(40_000));
            world.at(from, Event::Reader(true));
            world.at(from + more, Event::Reader(false));
        }
        world
    }

    fn at(&mut self, after: Duration, event: Event) {
        self.happenings.push(event);
        self.events.push(Reverse((self.now + after, self.happenings.len() as u64 - 1)));
    }

    fn has(&self, fault: Fault) -> bool {
        self.faults.contains(&fault)
    }

    /// Whether the guest can do anything at all.
    fn lives(&self) -> bool {
        self.ending.is_none() && !self.has(Fault::Frozen) && !self.has(Fault::Halted)
    }

    fn bytes(&self) -> u64 {
        self.arrived.iter().sum()
    }

    fn exceeded(&self) -> bool {
        self.limit.is_some_and(|limit| self.bytes() > limit)
    }

    /// Has everything happen until then.
    fn pass(&mut self, until: Instant) {
        while let Some(Reverse((at, number))) = self.events.peek().copied().filter(|Reverse((at, _))| *at <= until) {
            self.events.pop();
            self.now = at;
            self.happen(self.happenings[number as usize]);
        }
        self.now = until;
    }

    fn fail(&mut self, fault: Fault) {
        if !self.lives() {
            return;
        }
        self.faults.push(fault);
        let moment = self.dice.up_to(1500);
        match fault {
            Fault::Killed => self.end(Ending::Crash("signal 9".to_owned())),
            Fault::Panic | Fault::OutOfMemory | Fault::Reset => self.end(Ending::Guest("by a triple fault".to_owned())),
            Fault::Halted => self.console_said = true,
            Fault::Files => self.files_gone = true,
            Fault::Control => self.at(moment, Event::ControlGone),
            Fault::Stream(which) => self.at(moment, Event::StreamEnds(which)),
            Fault::Garbage => self.garbage = true,
            Fault::Turn => self.inbox.push(FromGuest::Mounted),
            Fault::Mute | Fault::Frozen => {}
        }
    }

    /// The machine's process ends. Its parts go one after the other, in any order.
    fn end(&mut self, ending: Ending) {
        self.ending = Some(ending);
        for event in [Event::MachineGone, Event::ControlGone, Event::StreamEnds(0), Event::StreamEnds(1)] {
            let moment = self.dice.up_to(1500);
            self.at(moment, event);
        }
    }

    fn look(&self, asked: &Asked<'_>) -> Ready {
        Ready {
            machine: self.gone,
            files: self.files_gone && asked.files,
            bell: self.bell,
            control: asked.control && (!self.inbox.is_empty() || self.control_gone || self.garbage),
            signals: !self.signals.is_empty(),
            console: self.console_said,
            images: false,
        }
    }
}

impl World for Simulation {
    fn now(&self) -> Instant {
        self.now
    }

    fn wait(&mut self, asked: &Asked<'_>, until: Option<Instant>) -> io::Result<Ready> {
        self.turns += 1;
        // Now and then this process does not get to run for a while.
        if self.dice.once_in(10) {
            let late = self.now + self.dice.up_to(3000);
            self.pass(late);
        }
        loop {
            let ready = self.look(asked);
            let any = ready.machine || ready.files || ready.bell || ready.control || ready.signals || ready.console;
            if any || until.is_some_and(|until| until <= self.now) {
                return Ok(ready);
            }
            match (self.events.peek().map(|Reverse((at, _))| *at), until) {
                (Some(next), Some(until)) => self.pass(next.min(until)),
                (Some(next), None) => self.pass(next),
                (None, Some(until)) => self.pass(until),
                (None, None) => return Err(io::Error::other("nothing will ever happen, and it is waited for")),
            }
            if self.now - self.begun > LONGEST {
                return Err(io::Error::other("the run does not end"));
            }
        }
    }

    fn hear(&mut self) -> Result<Vec<FromGuest>, session::Error> {
        if self.inbox.is_empty() && self.control_gone {
            return Err(session::Error::Closed);
        }
        if std::mem::take(&mut self.garbage) {
            return Err(session::Error::Connection(io::Error::other("this is no message")));
        }
        Ok(std::mem::take(&mut self.inbox))
    }

    fn tell(&mut self, message: &ToGuest) -> Result<(), session::Error> {
        if self.lives() && !self.control_gone && !self.has(Fault::Control) {
            self.obey(message);
        }
        Ok(())
    }

    fn output(&self) -> Output {
        Output {
            drained: self.stream_ended == [true; 2] && !self.writing,
            writing: self.writing,
            bytes: self.bytes(),
            exceeded: self.exceeded(),
        }
    }

    fn holds(&self, sent: [u64; 2]) -> bool {
        self.arrived == sent
    }

    fn hear_bell(&mut self) {
        self.bell = false;
    }

    fn read_console(&mut self) {
        self.stops |= std::mem::take(&mut self.console_said);
    }

    fn machine_stops(&self) -> bool {
        self.stops
    }

    fn machine_ended(&mut self) -> Result<Cause, Error> {
        let ending = self.ending.clone().unwrap_or(Ending::Ours);
        Ok(meaning(ending, self.has(Fault::OutOfMemory), self.has(Fault::Panic) || self.has(Fault::OutOfMemory)))
    }

    fn files_ended(&mut self) -> Result<Cause, Error> {
        Ok(Cause::VmmCrash("the file server ended".to_owned()))
    }

    fn caught(&mut self) -> io::Result<Option<Caught>> {
        let caught = (!self.signals.is_empty()).then(|| self.signals.remove(0));
        Ok(caught.map(|signal| Caught { signal, typed: false }))
    }

    fn signals_are_ours(&self) -> bool {
        true
    }

    fn stop(&mut self, _everybody: bool) -> io::Result<()> {
        Ok(())
    }
}

/// One run; what was found wrong with it.
fn run(number: u64, base: &Spec, view: &View) -> Result<Cause, String> {
    let mut dice = Dice(number);
    let plan = Plan::draw(&mut dice);
    let wait = |dice: &mut Dice| Some(Duration::from_millis(10 + dice.below(6000)));
    let mut spec = Spec { output_limit: dice.once_in(5).then(|| dice.below(4000)), ..base.clone() };
    spec.timeout = if plan.runs_on() || dice.once_in(4) { wait(&mut dice) } else { None };
    spec.kill_after = if dice.once_in(4) { wait(&mut dice) } else { None };
    let mut outcome = Outcome::refused(Cause::SetupError(String::new()), Stages::begin());
    outcome.engine = Some(if dice.once_in(2) { Engine::Qemu("qemu".into()) } else { Engine::Kvm("us".into()) });
    let mut check = ImagesCheck::begin([None, None]).map_err(|error| error.to_string())?;
    let mut terminal = Terminal::none();
    let world = Simulation::new(0, dice, plan, spec.output_limit);
    let mut watch = Watch::new(&spec, world, Furnished::Not(view, &mut check), &mut terminal);
    let ended = watch.until_the_end(&mut outcome);
    let world = watch.into_world();
    let told = format!("{ended:?}");
    let judged = match ended {
        Ok(cause) => oracle::judge(&world, &spec, &outcome, &cause).map(|()| cause),
        Err(error) => Err(crate::explain(&error)),
    };
    judged.map_err(|wrong| format!("run {number}: {wrong}; it ended {told} with {outcome:?} in {world:#?}"))
}

#[test]
fn no_verdict_is_wrong_whatever_fails() {
    let place = tempfile::tempdir().expect("a directory can be made");
    let mut base = crate::spec::tests::spec();
    base.command = vec!["/bin/true".into()];
    base.sight.current = place.path().to_owned();
    let view = View::of(&crate::run::request(&base)).expect("it can be shown");
    let variable = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    if let Some(number) = variable("SANDBOX_SIMULATE") {
        run(number, &base, &view).expect("no wrong verdict");
        return;
    }
    let runs = variable("SANDBOX_FUZZ_ITERATIONS").map_or(RUNS, |wanted| wanted.max(RUNS));
    let mut ends = std::collections::BTreeMap::new();
    for number in 0..runs {
        let cause = run(number, &base, &view).unwrap_or_else(|wrong| panic!("{wrong}"));
        *ends.entry(cause.name()).or_insert(0) += 1;
    }
    println!("{runs} runs ended: {ends:?}");
    // A world in which something never happens shows nothing about it.
    let all = ["cancelled", "boot_timeout", "exited", "guest_panic", "guest_reset", "lost_contact", "not_found"];
    for name in all.into_iter().chain(["oom", "output_limit", "setup_error", "signaled", "timeout", "vmm_crash"]) {
        assert!(ends.get(name).is_some_and(|count| *count > 50), "hardly any run ended with {name}: {ends:?}");
    }
}
