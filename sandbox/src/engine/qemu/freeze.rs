// SPDX-License-Identifier: Apache-2.0
//! Making templates with QEMU.

use std::fs;
use std::io;
use std::path::Path;

use super::{Boot, Launch, Model, args, not_started};
use crate::engine::{self, Frozen};
use crate::sys::signals::Signals;

/// What decides what such a machine is when it has booted, kernel and initramfs apart: QEMU's file and its arguments.
pub(in crate::engine) fn boots_with(program: &Path, model: Model, command_line: &'static str) -> io::Result<String> {
    let file = fs::metadata(program)?;
    let start = args::Start::Boot { kernel: 0, initramfs: 0, command_line, tsc_khz: 0 };
    let machine = args::Machine { model, start, memory: 0, console: 0, devices: Vec::new() };
    Ok(format!("{} {:?} {:?}", program.display(), engine::identity(&file), machine.arguments()))
}

/// A machine that has frozen itself.
pub(in crate::engine) fn freeze(
    program: &Path,
    model: Model,
    boot: Boot,
    signals: Option<&Signals>,
) -> Result<Frozen, engine::Error> {
    let failed = |source| not_started(program, source);
    let launch = Launch::new(model)?;
    let memory = launch.memory.try_clone().map_err(failed)?;
    let _warming = launch.warm().map_err(failed)?;
    let process = launch.boot(program, boot)?;
    engine::freeze::complete(process, &memory, signals)?;
    // Another process than QEMU could not share what is mapped from elsewhere; so all of it is copied.
    Ok(Frozen::new(memory, Vec::new()).map_err(failed)?)
}
