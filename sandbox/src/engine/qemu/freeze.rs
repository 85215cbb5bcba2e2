// SPDX-License-Identifier: Apache-2.0
//! Making templates: a machine without devices boots, and its guest, which has nobody to speak to, freezes itself.
//!
//! The machine is that of every run in all that its kernel sees before that. Nothing that a caller chose but the machine's
//! model takes part, and no command ever runs in it.

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::Path;
use std::time::{Duration, Instant};

use guest_init::frozen;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::{Boot, Ending, Error, Launch, Model, Process, args, not_started};
use crate::engine::Frozen;
use crate::sys::signals::{ENDING, Signals};

/// As long as a run waits for a boot.
const LIMIT: Duration = Duration::from_secs(120);

/// What decides what such a machine is when it has booted, kernel and initramfs apart: QEMU's file and its arguments.
pub(in crate::engine) fn boots_with(program: &Path, model: Model, command_line: &'static str) -> io::Result<String> {
    let file = fs::metadata(program)?;
    let start = args::Start::Boot { kernel: 0, initramfs: 0, command_line, tsc_khz: 0 };
    let machine = args::Machine { model, start, memory: 0, console: 0, devices: Vec::new() };
    let identity = [file.dev(), file.ino(), file.size(), file.mtime() as u64, file.mtime_nsec() as u64];
    Ok(format!("{} {identity:?} {:?}", program.display(), machine.arguments()))
}

/// A machine that has frozen itself.
pub(in crate::engine) fn freeze(
    program: &Path,
    model: Model,
    boot: Boot,
    signals: Option<&Signals>,
) -> Result<Frozen, Error> {
    let launch = Launch::new(model)?;
    let failed = |source| not_started(program, source);
    let memory = launch.memory.try_clone().map_err(failed)?;
    let _warming = launch.warm().map_err(failed)?;
    let mut process = launch.boot(program, boot)?;
    let waited = wait(&mut process, signals, Instant::now() + LIMIT).map_err(failed)?;
    // Its processor is halted for good, and now it is gone: nobody writes to this memory any more.
    let ending = process.end().map_err(failed)?;
    match (waited, ending) {
        (Wait::Frozen, Ending::Ours) => {}
        (Wait::Cancelled(signal), _) => return Err(Error::Cancelled(signal)),
        (_, Ending::Guest(how) | Ending::Crash(how)) => {
            let said = process.console().last_lines(3).join("; ");
            return Err(Error::NotFrozen(format!("{how} {said}")));
        }
        (_, Ending::Ours) => return Err(Error::NotFrozen(format!("nothing happened for {} s", LIMIT.as_secs()))),
    }
    let mut page = frozen::page();
    memory.read_exact_at(&mut page, frozen::PAGE).map_err(failed)?;
    if !frozen::is_page(&page) {
        return Err(Error::Page);
    }
    Frozen::new(memory).map_err(failed)
}

/// What there was to wait for.
enum Wait {
    Frozen,
    Cancelled(i32),
    Neither,
}

fn wait(process: &mut Process, signals: Option<&Signals>, deadline: Instant) -> io::Result<Wait> {
    while !process.console().frozen() {
        // The console closes a little before its process ends.
        let console = process.console().poll_fd();
        let mut fds: Vec<_> = [Some(process.end_fd()), signals.map(AsFd::as_fd), console]
            .into_iter()
            .flatten()
            .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN))
            .collect();
        let left = deadline.saturating_duration_since(Instant::now());
        match poll(&mut fds, Some(&Timespec::try_from(left).map_err(io::Error::other)?)) {
            Ok(0) => return Ok(Wait::Neither),
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let ended = fds.first().is_some_and(|fd| !fd.revents().is_empty());
        while let Some(signal) = signals.map_or(Ok(None), Signals::next)? {
            if ENDING.contains(&signal) {
                return Ok(Wait::Cancelled(signal));
            }
        }
        process.read_console();
        if ended && !process.console().frozen() {
            return Ok(Wait::Neither);
        }
    }
    Ok(Wait::Frozen)
}
