// SPDX-License-Identifier: Apache-2.0
//! One run: a [`Spec`] becomes devices, devices a machine, the machine's word an [`Outcome`].
//!
//! [`run`] assembles the parts and takes them down in order; [`watch`] is the part in between, where the command
//! lives. Every wait has a deadline, and what the guest does not say in time has an ending of its own.

mod assemble;
mod begin;
mod exec;
mod ground;
mod images_check;
pub(crate) mod kept;
mod limits;
mod lines;
mod lookup;
mod met;
mod mount;
pub mod results;
mod retry;
mod watch;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use guest_init::wire::Tally;

use crate::admission;
use crate::cli::tell;
use crate::disk;
use crate::engine::{self, Engine};
use crate::fs;
use crate::outcome::{Cause, Killed};
use crate::session::Session;
use crate::spec::Spec;
use crate::stages::Stages;
use crate::sys::signals::Signals;
use crate::terminal::{Gate, Terminal};
use crate::view;
use assemble::{Assembled, assemble, supply};
pub use begin::Begin;
use ground::Ground;
use lines::{Lines, Relays};
pub use met::Hit;
use results::{Keeping, Visit};
use watch::{Furnished, Real, Watch};

/// How long output that the guest had sent before its machine ended may take to reach its reader.
const FLUSH_LIMIT: Duration = Duration::from_secs(2);

/// Console lines kept; shown when the machine failed.
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

impl Streams {
    fn try_clone(&self) -> io::Result<Self> {
        let Self { stdin, stdout, stderr } = self;
        Ok(Self { stdin: stdin.try_clone()?, stdout: stdout.try_clone()?, stderr: stderr.try_clone()? })
    }
}

/// What became of a run.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Why it ended.
    pub cause: Cause,
    /// Whether the command provably started.
    pub started: bool,
    /// Whether the guest may have got the command. If not, or if its init has said that nothing of it has run, it provably
    /// never started; else, unless it has started, nobody knows.
    pub sent: bool,
    /// Which attempt this was; the first is 1.
    pub attempt: u32,
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
    /// The guest console's last lines.
    pub console: Vec<String>,
    /// What of the view the caller may not expect.
    pub notices: Vec<String>,
    /// What `PATH` names and the command had not.
    pub unfound: Vec<String>,
    /// What was kept of what the command changed.
    pub results: results::Taken,
    /// What tells of a failure, if that was to be kept.
    pub evidence: Option<results::Evidence>,
}

impl Outcome {
    /// A run that ended before anything was started.
    #[must_use]
    pub fn refused(cause: Cause, stages: Stages) -> Self {
        Self {
            cause,
            started: false,
            sent: false,
            attempt: 1,
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
            unfound: Vec::new(),
            results: results::Taken::default(),
            evidence: None,
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
    #[error(transparent)]
    Admission(#[from] admission::Error),
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
        let mut text = crate::explain(self);
        if is_too_large(self) {
            text.push_str("; guest memory and its disk count as files: raise the limit of file sizes (ulimit -f)");
        }
        match self {
            Self::Spec(_) => Cause::UsageError(text),
            Self::Cancelled(signal) => Cause::Cancelled(*signal),
            Self::Admission(admission::Error::Cancelled(signal)) => Cause::Cancelled(*signal),
            Self::Admission(admission::Error::Policy { .. }) => Cause::UsageError(text),
            _ => Cause::SetupError(text),
        }
    }
}

/// Whether a limit of file sizes was met.
fn is_too_large(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut causes = std::iter::successors(Some(error), |error| error.source());
    causes
        .any(|cause| cause.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::FileTooLarge))
}

/// Runs a command. The calling thread must be one that lives as long as the process or the run, whichever is
/// shorter: the kernel ends the run with it.
#[must_use]
pub fn run(spec: &Spec, streams: Streams, signals: Option<&Signals>) -> Outcome {
    run_and_visit(spec, streams, signals, None)
}

/// The same, with a shell in the machine if the command fails.
pub(crate) fn run_and_visit(
    spec: &Spec,
    streams: Streams,
    signals: Option<&Signals>,
    visit: Option<&Visit>,
) -> Outcome {
    if spec.retries == 0 {
        return run_once(spec, streams, signals, visit, false);
    }
    let fails = |outcome: &Outcome| {
        let (attempt, cause) = (outcome.attempt, &outcome.cause);
        tell(format_args!("sandbox: attempt {attempt} failed before the command started, and is repeated: {cause}"));
    };
    let attempt = || streams.try_clone().map(|streams| run_once(spec, streams, signals, visit, true));
    retry::persist(spec.retries, attempt, fails)
}

/// The same; if there may be another attempt, nothing is taken of standard input before the command has started.
fn run_once(spec: &Spec, streams: Streams, signals: Option<&Signals>, visit: Option<&Visit>, again: bool) -> Outcome {
    let mut outcome = Outcome::refused(Cause::SetupError(String::new()), Stages::begin());
    outcome.cause = match attempt(spec, streams, signals, visit, again, &mut outcome) {
        Ok(cause) => cause,
        Err(error) => error.cause(),
    };
    outcome
}

fn attempt(
    spec: &Spec,
    streams: Streams,
    signals: Option<&Signals>,
    visit: Option<&Visit>,
    again: bool,
    outcome: &mut Outcome,
) -> Result<Cause, Error> {
    let (supply, theirs) = supply(spec, visit.is_some())?;
    let Assembled { lease, mut machine, mut files, mut check, view, lines, disk } =
        assemble(spec, signals, theirs, false, outcome)?;
    let outputs = [streams.stdout.as_fd(), streams.stderr.as_fd()];
    let mut terminal = Terminal::look(streams.stdin.as_fd(), outputs, spec.terminal.is_some())?;
    let held = again.then(Arc::<Gate>::default);
    let gate = terminal.gate().or_else(|| held.clone());
    let (control, relays) = lines.connect(streams, spec.output_limit, gate, false)?;
    let furnished = Furnished::Not(&view, &mut check);
    let mut ground = Ground::Own { machine: &mut machine, files: &mut files };
    let world = Real { session: Session::new(control)?, relays: &relays, signals, ground: &mut ground };
    let watch = Watch::new(spec, world, furnished, &mut terminal);
    let mut watch = watch.on_start(|| held.iter().for_each(|gate| gate.open()));
    let watched = watch.until_the_end(outcome);
    let session = watch.into_world().session;
    // From here on its keys are the caller's: whoever waits for results can end that.
    terminal.leave();
    // Whatever else went wrong: with damaged images nothing else means anything.
    check.passed()?;
    let mut cause = watched?;
    if let Some(supply) = &supply {
        outcome.cause = cause;
        Keeping::new(session, supply, signals).follow(spec, visit, &mut ground, &relays, outcome);
        cause = outcome.cause.clone();
    }
    files.kill();
    machine.end()?;
    drop(lease);
    outcome.killed = machine.console().killed().to_vec();
    outcome.console = machine.console().last_lines(CONSOLE_LINES);
    if let Some(evidence) = &mut outcome.evidence {
        evidence.console = machine.console().last_lines(usize::MAX);
    }
    relays.settle(outcome, &mut cause)?;
    outcome.stages.end("end");
    met::name_victim(&mut cause, &outcome.tally, &outcome.killed);
    outcome.hits = met::hits(spec, &cause, &outcome.tally, &outcome.killed);
    if disk.as_ref().is_some_and(disk::is_starved) {
        outcome.hits.push(met::starved(&disk::place()));
    }
    Ok(cause)
}

/// What the view is made from.
#[must_use]
pub fn request(spec: &Spec) -> view::Request {
    let environment: BTreeMap<_, _> = spec.environment.iter().cloned().collect();
    let sight = &spec.sight;
    view::Request {
        cwd: sight.current.clone(),
        shown: sight.shown.clone(),
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
