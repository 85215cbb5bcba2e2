// SPDX-License-Identifier: Apache-2.0
//! One run: a [`Spec`] becomes devices, devices a machine, the machine's word an [`Outcome`].
//!
//! [`run`] assembles the parts and takes them down in order; [`watch`] is the part in between, where the command
//! lives. Every wait has a deadline, and what the guest does not say in time has an ending of its own.

mod begin;
mod exec;
mod images_check;
mod limits;
mod lookup;
mod met;
mod mount;
mod watch;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use guest_init::wire::{Tally, port};
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd};

use crate::devices;
use crate::disk;
use crate::engine::{self, Engine, Machine};
use crate::fs;
use crate::outcome::{Cause, Killed};
use crate::relay::{self, Budget, Progress, State};
use crate::session::Session;
use crate::spec::Spec;
use crate::stages::Stages;
use crate::sys::signals::Signals;
use crate::sys::tsc::Moment;
use crate::terminal::Terminal;
use crate::view::{self, View};
pub use begin::Begin;
use begin::Images;
pub use met::Hit;
use watch::Watch;

/// How long output that the guest had sent before its machine ended may take to reach its reader.
const FLUSH_LIMIT: Duration = Duration::from_secs(2);

/// Console lines shown when the machine failed.
const CONSOLE_LINES: usize = 20;

/// The descriptors a command's standard streams are connected to.
#[derive(Debug)]
pub struct Streams {
    /// Read, and given to the command as its standard input.
    pub stdin: OwnedFd,
    /// Gets the command's standard output.
    pub stdout: OwnedFd,
    /// Gets the command's standard error.
    pub stderr: OwnedFd,
}

/// What became of a run.
#[derive(Debug)]
pub struct Outcome {
    /// Why it ended.
    pub cause: Cause,
    /// Whether the command provably started.
    pub started: bool,
    /// What ran it, if it came to that.
    pub engine: Option<Engine>,
    /// What its machine began with, if it came to that.
    pub begin: Option<Begin>,
    /// Where the time went.
    pub stages: Stages,
    /// What the command used, and which limits it met, as far as the guest has told.
    pub tally: Tally,
    /// Whether it told when the command ended, or was ended by a limit; else the figures are older, or none.
    pub tallied: bool,
    /// Which limits were met.
    pub hits: Vec<Hit>,
    /// Whom the guest's kernel killed for want of memory; the last few.
    pub killed: Vec<Killed>,
    /// Bytes taken from standard input.
    pub stdin_bytes: u64,
    /// Bytes written to standard output.
    pub stdout_bytes: u64,
    /// Bytes written to standard error.
    pub stderr_bytes: u64,
    /// The guest console's last lines, if the machine failed.
    pub console: Vec<String>,
    /// What of the view the caller may not expect.
    pub notices: Vec<String>,
}

impl Outcome {
    /// A run that ended before anything was started.
    #[must_use]
    pub fn refused(cause: Cause, stages: Stages) -> Self {
        Self {
            cause,
            started: false,
            engine: None,
            begin: None,
            stages,
            tally: Tally::default(),
            tallied: false,
            hits: Vec::new(),
            killed: Vec::new(),
            stdin_bytes: 0,
            stdout_bytes: 0,
            stderr_bytes: 0,
            console: Vec::new(),
            notices: Vec::new(),
        }
    }
}

/// Why a run could not be set up.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Spec(#[from] crate::spec::Error),
    #[error(transparent)]
    Probe(#[from] engine::ProbeError),
    #[error("cannot find the guest's kernel and initramfs")]
    Store(#[from] images::StoreError),
    #[error("cannot keep a template")]
    Template(#[source] images::StoreError),
    #[error("cannot use what the guest begins with")]
    Image(#[from] images::ImageError),
    #[error("cannot lay out what the guest sees")]
    View(#[from] view::Error),
    #[error("cannot start the file server")]
    FileServer(#[from] fs::Error),
    #[error(transparent)]
    Disk(#[from] disk::Error),
    #[error("cannot start the virtual machine")]
    Engine(#[from] engine::Error),
    #[error("cannot set up the run")]
    System(#[from] io::Error),
    #[error("signal {0} ended the run")]
    Cancelled(i32),
}

impl Error {
    fn cause(&self) -> Cause {
        let text = crate::explain(self);
        match self {
            Self::Spec(_) => Cause::UsageError(text),
            Self::Cancelled(signal) => Cause::Cancelled(*signal),
            _ => Cause::SetupError(text),
        }
    }
}

/// Runs a command. The calling thread must be one that lives as long as the process or the run, whichever is
/// shorter: the kernel ends the run with it.
#[must_use]
pub fn run(spec: &Spec, streams: Streams, signals: Option<&Signals>) -> Outcome {
    let mut outcome = Outcome::refused(Cause::SetupError(String::new()), Stages::begin());
    outcome.cause = match attempt(spec, streams, signals, &mut outcome) {
        Ok(cause) => cause,
        Err(error) => error.cause(),
    };
    outcome
}

fn attempt(spec: &Spec, streams: Streams, signals: Option<&Signals>, outcome: &mut Outcome) -> Result<Cause, Error> {
    let begun = Moment::now();
    spec.check()?;
    let engine = engine::probe(spec.engine, spec.require_kvm)?;
    outcome.engine = Some(engine.clone());
    let store = images::Store::of_user()?;
    let images = Images::find(&engine, &store, spec, begun)?;
    let (start, mut check, begin, notice) = images.begin(spec.boot, signals)?;
    outcome.notices.extend(notice);
    outcome.begin = Some(begin);
    let view = View::of(&request(spec))?;
    outcome.notices.extend_from_slice(view.notices());
    outcome.stages.end("prepare");

    let mut files = fs::Worker::begin(&view, &fs::Start::own())?;
    let socket = unless_cancelled(signals, |call| files.connection(call))?;
    outcome.stages.end("view");

    let disk = spec.disk().map(disk::make).transpose()?;
    let (lines, ports) = Lines::new()?;
    let parts = engine::Parts {
        model: images.model,
        start,
        sockets: engine::Sockets { ports, files: socket, disk: disk.as_ref().map(File::try_clone).transpose()? },
        devices: devices::list,
    };
    let mut machine = engine.start(parts)?;
    // The machine starts meanwhile; it needs the files only once its kernel runs.
    unless_cancelled(signals, |call| files.ready(call))?;
    outcome.stages.end("machine");

    let bell = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(io::Error::from)?);
    let budget = Budget::new(spec.output_limit);
    let outputs = [streams.stdout.as_fd(), streams.stderr.as_fd()];
    let mut terminal = Terminal::look(streams.stdin.as_fd(), outputs, spec.terminal.is_some())?;
    let relays = Relays {
        stdin: relay::input("stdin", streams.stdin, lines.stdin, terminal.gate())?,
        stdout: relay::output("stdout", lines.stdout, streams.stdout, Arc::clone(&budget), Arc::clone(&bell))?,
        stderr: relay::output("stderr", lines.stderr, streams.stderr, Arc::clone(&budget), Arc::clone(&bell))?,
        budget,
        bell,
    };
    let watch = Watch::new(spec, &view, Session::new(lines.control)?, &relays, signals, &mut check, &mut terminal)?;
    let watched = watch.until_the_end(&mut machine, &mut files, outcome);
    // Whatever else went wrong: with damaged images nothing else means anything.
    check.passed()?;
    let mut cause = watched?;
    files.kill();
    finish(&mut machine, &relays, outcome, &mut cause)?;
    met::name_victim(&mut cause, &outcome.tally, &outcome.killed);
    outcome.hits = met::hits(spec, &cause, &outcome.tally, &outcome.killed);
    if disk.as_ref().is_some_and(disk::is_starved) {
        outcome.hits.push(met::starved(&disk::place()));
    }
    Ok(cause)
}

/// Waits for the file server, unless a signal ends the run meanwhile. Other signals are for a command, and there is none.
fn unless_cancelled<T>(
    signals: Option<&Signals>,
    mut wait: impl FnMut(Option<BorrowedFd<'_>>) -> Result<T, fs::Error>,
) -> Result<T, Error> {
    loop {
        match wait(signals.map(AsFd::as_fd)) {
            Err(fs::Error::Called) => {}
            other => return Ok(other?),
        }
        if let Some(signal) = signals.map_or(Ok(None), Signals::ending)? {
            return Err(Error::Cancelled(signal));
        }
    }
}

/// Takes the machine down, lets output that was on its way arrive, and settles the verdict.
fn finish(machine: &mut Machine, relays: &Relays, outcome: &mut Outcome, cause: &mut Cause) -> Result<(), Error> {
    machine.end()?;
    relays.flush(Instant::now() + FLUSH_LIMIT)?;
    outcome.killed = machine.console().killed().to_vec();
    if cause.is_of_the_machine() {
        outcome.console = machine.console().last_lines(CONSOLE_LINES);
    }
    outcome.stdin_bytes = relays.stdin.bytes();
    outcome.stdout_bytes = relays.stdout.bytes();
    outcome.stderr_bytes = relays.stderr.bytes();
    let streams = [
        ("read the command's standard input", &relays.stdin),
        ("write the command's standard output", &relays.stdout),
        ("write the command's standard error", &relays.stderr),
    ];
    for (what, progress) in streams {
        if let Some(error) = progress.failure() {
            // The command's own ending says nothing about bytes that we lost.
            *cause = Cause::SetupError(format!("cannot {what}: {error}"));
        }
    }
    outcome.stages.end("end");
    Ok(())
}

/// The host's ends of the connections that the guest dials.
struct Lines {
    control: UnixStream,
    stdin: UnixStream,
    stdout: UnixStream,
    stderr: UnixStream,
}

impl Lines {
    /// Makes the connections: our ends, and the device's by port.
    fn new() -> io::Result<(Self, Vec<(u32, UnixStream)>)> {
        let mut ports = Vec::new();
        let mut line = |port| -> io::Result<UnixStream> {
            let (ours, theirs) = UnixStream::pair()?;
            ports.push((port, theirs));
            Ok(ours)
        };
        let lines = Self {
            control: line(port::CONTROL)?,
            stdin: line(port::STDIN)?,
            stdout: line(port::STDOUT)?,
            stderr: line(port::STDERR)?,
        };
        Ok((lines, ports))
    }
}

/// The three streams' progress, and what tells of it.
struct Relays {
    stdin: Arc<Progress>,
    stdout: Arc<Progress>,
    stderr: Arc<Progress>,
    budget: Arc<Budget>,
    bell: relay::Bell,
}

impl Relays {
    /// Whether all output has reached its reader.
    fn drained(&self) -> bool {
        self.stdout.state() == State::Done && self.stderr.state() == State::Done
    }

    /// Whether a reader of ours holds the output up.
    fn writing(&self) -> bool {
        self.stdout.state() == State::Writing || self.stderr.state() == State::Writing
    }

    fn bytes_out(&self) -> u64 {
        self.stdout.bytes() + self.stderr.bytes()
    }

    /// Takes the bell's pending rings, so that it can be waited for again.
    fn hear(&self) {
        // "Would block" is the only error, and means that there were none.
        let _none = rustix::io::read(&*self.bell, &mut [0; 8]);
    }

    fn flush(&self, deadline: Instant) -> io::Result<()> {
        while !self.drained() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            let timeout = rustix::event::Timespec::try_from(left).map_err(io::Error::other)?;
            match rustix::event::poll(&mut [PollFd::new(&*self.bell, PollFlags::IN)], Some(&timeout)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => self.hear(),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

/// What the view is made from.
#[must_use]
pub fn request(spec: &Spec) -> view::Request {
    let environment: BTreeMap<_, _> = spec.environment.iter().cloned().collect();
    let sight = &spec.sight;
    view::Request {
        cwd: sight.current.clone(),
        volumes: sight.volumes.clone(),
        path: environment.get(OsStr::new("PATH")).cloned(),
        home: sight.home.clone(),
        home_tools: sight.home_tools,
        environment,
        nested: spec
            .nested
            .as_ref()
            .map(|nested| view::Nested { program: nested.program.clone(), images: nested.images.clone() }),
    }
}
