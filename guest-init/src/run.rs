// SPDX-License-Identifier: Apache-2.0
//! One run of a command: start it, carry its streams, tell the host what becomes of it.
//!
//! One loop around one poll(2) serves everything; nothing in it blocks. It does not end by itself: when all output has
//! been relayed, the host knows from the ends of the streams, and kills the machine, hangs up, or asks for something else.

use crate::{
    cgroup::Group,
    control::{Control, Error},
    drain::{Action, Drain},
    failure::{Failure, at},
    machine,
    namespace::Namespace,
    progress::{News, Progress},
    relay::Relay,
    room::Room,
    sys::{self, Watch},
    terminal::{Terminal, signal},
    vsock::Dialling,
    wire::{Ended, Exec, FromGuest, Met, Step, Tally, ToGuest, Transfer, Usage, port},
};
use alloc::vec::Vec;
use rustix::{
    fd::OwnedFd,
    fs::{Gid, OFlags, Uid, fchown, fcntl_setfl},
    io::Result as Answer,
    pipe::{PipeFlags, pipe_with},
};

/// Does as an [`Exec`] says; returns without an error if the command could not be started at all, or when the host has no
/// more to say of it and goes on to something else. What the command stood on is given back, for others beside it.
///
/// # Errors
/// Only those of the control connection; all others the host has been told of.
pub fn run(control: &mut Control, group: Group, room: Room, exec: Exec) -> Result<(Group, Room), Error> {
    // Dialled first and awaited last: the host's answers arrive while the machine is being set up.
    let streams = Dial::begin(control);
    if let Err(failure) = machine::personalize(&exec).and_then(|()| limit(&group, &exec)) {
        control.fail(failure)?;
        return Ok((group, room));
    }
    control.send(FromGuest::Ready)?;
    match start(&exec, &group, streams) {
        Ok((namespace, relays, terminal)) => {
            drop(exec);
            let mut run = Run {
                group,
                room,
                namespace,
                relays,
                terminal,
                progress: Progress::default(),
                drain: Drain::default(),
                told: false,
                running: false,
                dismissed: false,
            };
            let watched = run.watch(control);
            // The host has no more to say of this command: nothing of it stays.
            run.namespace.end();
            run.group.remove();
            watched.map(|()| (run.group, run.room))
        }
        Err(Failure { step, errno }) => {
            group.remove();
            control.send(FromGuest::NotStarted { step, errno: errno.raw_os_error() })?;
            Ok((group, room))
        }
    }
}

fn limit(group: &Group, exec: &Exec) -> Result<(), Failure> {
    group.limit_memory(exec.memory_max)?;
    exec.processes_max.map_or(Ok(()), |count| group.limit_processes(count))
}

type Started = (Namespace, [Relay; 3], Option<Terminal>);

fn start(exec: &Exec, group: &Group, streams: Answer<Dial>) -> Result<Started, Failure> {
    let terminal =
        exec.terminal.as_ref().map(|wish| Terminal::open(wish, exec.uid)).transpose().map_err(at(Step::Terminal))?;
    let (relays, ends) = streams.and_then(|dial| dial.complete(exec, terminal.as_ref())).map_err(at(Step::Stream))?;
    Ok((Namespace::start(exec, group, ends)?, relays, terminal))
}

/// The connections of standard input, output and error.
struct Dial([Dialling; 3]);

impl Dial {
    fn begin(control: &Control) -> Answer<Self> {
        let dial = |first| Dialling::begin(control.port(first));
        Ok(Self([dial(port::STDIN)?, dial(port::STDOUT)?, dial(port::STDERR)?]))
    }

    /// The relays, and the command's ends of what they read and write: of pipes, or of its terminal.
    fn complete(self, exec: &Exec, terminal: Option<&Terminal>) -> Answer<([Relay; 3], [OwnedFd; 3])> {
        let Self([input, output, error]) = self;
        let (read_error, mut write_error) = pipe(exec)?;
        fcntl_setfl(&read_error, OFlags::NONBLOCK)?;
        let (input, output, read_input, write_output) = match terminal {
            Some(terminal) => {
                if exec.terminal.as_ref().is_some_and(|terminal| terminal.error) {
                    // The pipe is then at its end at once.
                    write_error = terminal.stream()?;
                }
                let input = Relay::typed(input.complete()?, terminal.keyboard()?);
                (
                    input,
                    Relay::outward(terminal.keyboard()?, output.complete()?),
                    terminal.stream()?,
                    terminal.stream()?,
                )
            }
            None => {
                let (read_input, write_input) = pipe(exec)?;
                let (read_output, write_output) = pipe(exec)?;
                fcntl_setfl(&write_input, OFlags::NONBLOCK)?;
                fcntl_setfl(&read_output, OFlags::NONBLOCK)?;
                let input = Relay::inward(input.complete()?, write_input);
                (input, Relay::outward(read_output, output.complete()?), read_input, write_output)
            }
        };
        let relays = [input, output, Relay::outward(read_error, error.complete()?)];
        Ok((relays, [read_input, write_output, write_error]))
    }
}

/// A pipe that belongs to the command's user, who may open it again as `/dev/stdout`.
fn pipe(exec: &Exec) -> Answer<(OwnedFd, OwnedFd)> {
    let ends = pipe_with(PipeFlags::CLOEXEC)?;
    if exec.uid != 0 {
        fchown(&ends.0, Some(Uid::from_raw_unchecked(exec.uid)), Some(Gid::from_raw_unchecked(exec.gid)))?;
    }
    Ok(ends)
}

/// A command on its way.
struct Run {
    group: Group,
    room: Room,
    namespace: Namespace,
    relays: [Relay; 3],
    terminal: Option<Terminal>,
    progress: Progress,
    drain: Drain,
    /// Whether the host knows that all output is on its way.
    told: bool,
    /// Whether the command may be sent signals.
    running: bool,
    /// Whether the host wants nothing of the command any more.
    dismissed: bool,
}

impl Run {
    /// Until the host hangs up, which is an error, or wants something that is not about the command.
    fn watch(&mut self, control: &mut Control) -> Result<(), Error> {
        while !self.dismissed {
            // Standard input does not count: what the command has not read, no one will.
            let incomplete = self.relays[1..].iter().any(Relay::incomplete);
            if self.progress == Progress::Over && !incomplete && !self.told {
                self.told = true;
                let [_, output, error] = &self.relays;
                control.send(FromGuest::Drained { stdout: output.taken(), stderr: error.taken() })?;
            }
            match self.drain.next(sys::monotonic_ms(), incomplete) {
                Action::Kill => self.namespace.kill(),
                Action::Wait(timeout) => self.turn(control, timeout)?,
            }
        }
        Ok(())
    }

    fn turn(&mut self, control: &mut Control, timeout: Option<u64>) -> Result<(), Error> {
        let mut watches = [Watch::NOTHING; 10];
        watches[0] = control.watch();
        watches[1..4].copy_from_slice(&self.milestones());
        for (slots, relay) in watches[4..].chunks_exact_mut(2).zip(&self.relays) {
            slots.copy_from_slice(&relay.watches());
        }
        let Ok(()) = sys::poll(&mut watches, timeout) else { return Err(Error::Closed) };
        let [host, reports, gate, end, streams @ ..] = watches;
        for (slots, relay) in streams.as_chunks().0.iter().zip(&mut self.relays) {
            relay.serve(*slots);
        }
        if reports.seen | gate.seen | end.seen != 0 {
            self.learn(control, [reports, gate, end])?;
        }
        control.serve(host.seen)?;
        self.obey(control)
    }

    /// What the next news of the command can come from.
    fn milestones(&self) -> [Watch; 3] {
        if self.progress == Progress::Over { [Watch::NOTHING; 3] } else { self.namespace.watches() }
    }

    fn learn(&mut self, control: &mut Control, milestones: [Watch; 3]) -> Result<(), Error> {
        let mut news = Vec::new();
        let progress = &mut self.progress;
        self.namespace.serve(milestones, |event| progress.advance(event, |item| news.push(item)));
        news.into_iter().try_for_each(|item| self.announce(control, item))
    }

    fn announce(&mut self, control: &mut Control, news: News) -> Result<(), Error> {
        match news {
            News::Started => {
                self.running = true;
                control.send(FromGuest::Started)
            }
            News::NotStarted(step, errno) => {
                self.wind_up();
                control.send(FromGuest::NotStarted { step, errno })
            }
            News::Stopped(signal) => control.send(FromGuest::Stopped(signal)),
            News::Ended(end, transfer) => {
                self.running = false;
                self.wind_up();
                control.send(FromGuest::Ended(Ended { end, tally: self.tally(transfer) }))
            }
        }
    }

    /// Nothing more is to come but what is on its way.
    fn wind_up(&mut self) {
        self.drain.begin(sys::monotonic_ms());
        if let Some(terminal) = &mut self.terminal {
            terminal.release();
        }
    }

    fn tally(&self, transfer: Option<Transfer>) -> Tally {
        let filled = self.room.filled();
        Tally {
            usage: Usage { private_bytes: filled.private_bytes, transfer, ..self.group.usage() },
            met: Met { full: filled.full, ..self.group.met() },
        }
    }

    fn obey(&mut self, control: &mut Control) -> Result<(), Error> {
        while let Some(message) = control.arrived() {
            match message {
                message @ (ToGuest::Tell(_) | ToGuest::Log(_) | ToGuest::Beside(_)) => {
                    control.put_back(message);
                    self.dismissed = true;
                    break;
                }
                ToGuest::Ping => control.send(FromGuest::Pong(self.tally(None)))?,
                ToGuest::Signal { signal: number, group } => {
                    if self.running
                        && let Some(command) = self.namespace.command()
                    {
                        signal(&command, number, group);
                    }
                }
                ToGuest::Resize(size) => {
                    if let Some(terminal) = &self.terminal {
                        // A size that the kernel does not like is as good as none.
                        _ = terminal.resize(size);
                    }
                }
                ToGuest::Mount(_) | ToGuest::Exec(_) => control.fail(Failure::PROTOCOL)?,
            }
        }
        Ok(())
    }
}
