// SPDX-License-Identifier: Apache-2.0
//! The parts of a run put together, up to a machine that has been started. Not for what is said to it.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

use super::begin::Images;
use super::images_check::ImagesCheck;
use super::{Error, Lines, Outcome, request};
use crate::admission::{self, Lease};
use crate::devices;
use crate::disk;
use crate::engine::{self, Machine};
use crate::fs;
use crate::packets::{self, Packets};
use crate::spec::{Keep, Spec};
use crate::sys::signals::Signals;
use crate::sys::tsc::Moment;
use crate::view::View;

/// Where the connections come from over which the guest tells of its files, if it is to, or serves a shell.
pub(super) fn supply(spec: &Spec, visited: bool) -> Result<(Option<Packets>, Option<OwnedFd>), Error> {
    if !spec.results.any() && spec.keep == Keep::Never && !visited {
        return Ok((None, None));
    }
    let (ours, theirs) = packets::pair().map_err(io::Error::other)?;
    Ok((Some(ours), Some(theirs)))
}

/// A machine that has been started, and what goes with it.
pub(super) struct Assembled {
    /// What it takes of the host.
    pub(super) lease: Option<Lease>,
    pub(super) machine: Machine,
    pub(super) files: fs::Worker,
    pub(super) check: ImagesCheck,
    pub(super) view: View,
    /// The connections of its first command.
    pub(super) lines: Lines,
    /// What its private layer lies on, if not on memory alone.
    pub(super) disk: Option<File>,
}

/// Starts a machine for this command, once there is room for it. With a `supply` the guest can be told of more connections;
/// one that is `kept` outlives its command.
pub(super) fn assemble(
    spec: &Spec,
    signals: Option<&Signals>,
    supply: Option<OwnedFd>,
    kept: bool,
    outcome: &mut Outcome,
) -> Result<Assembled, Error> {
    spec.check()?;
    let engine = engine::probe(spec.engine, spec.require_kvm, &spec.program)?;
    outcome.engine = Some(engine.clone());
    let store = images::Store::of_user()?;
    let lease = enter(spec, signals, kept, outcome)?;
    let begun = Moment::now();
    let images = Images::find(&engine, &store, spec, begun)?;
    let (start, check, begin, notice) = images.begin(spec.boot, signals)?;
    outcome.notices.extend(notice);
    outcome.begin = Some(begin);
    let view = View::of(&request(spec))?;
    outcome.notices.extend_from_slice(view.notices());
    outcome.unfound.extend_from_slice(view.unfound());
    outcome.stages.end("prepare");

    let mut files = fs::Worker::begin(&view, &fs::Start::of(spec.program.clone()))?;
    let socket = unless_cancelled(signals, |call| files.connection(call))?;
    outcome.stages.end("view");

    let disk = spec.disk().map(disk::make).transpose()?;
    let (lines, ports) = Lines::new(0)?;
    let parts = engine::Parts {
        model: images.model,
        start,
        sockets: engine::Sockets {
            ports,
            files: socket,
            disk: disk.as_ref().map(File::try_clone).transpose()?,
            supply,
        },
        devices: devices::list,
    };
    let machine = engine.start(parts)?;
    // The machine starts meanwhile; it needs the files only once its kernel runs.
    unless_cancelled(signals, |call| files.ready(call))?;
    outcome.stages.end("machine");
    Ok(Assembled { lease, machine, files, check, view, lines, disk })
}

/// Waits until the host has room for one more machine.
fn enter(spec: &Spec, signals: Option<&Signals>, kept: bool, outcome: &mut Outcome) -> Result<Option<Lease>, Error> {
    let queued = Instant::now();
    let need = admission::Need { memory: spec.memory, cpus: spec.cpus, kept };
    let lease = admission::enter(need, signals, &mut outcome.notices);
    outcome.stages.set_aside("queue", queued.elapsed());
    Ok(lease?)
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
