// SPDX-License-Identifier: Apache-2.0
//! Runs a command in a microVM of its own.
//!
//! [`Sandbox`] is the door for programs: it boots a machine and runs commands in it, in the manner of
//! [`std::process::Command`]. Below it, a [`Spec`] says what to run, [`run()`] runs it, an [`Outcome`] says how it ended.
//! In between, an [`engine`] runs a machine whose devices are ours ([`virtio`]), a process of its own serves the host's
//! files ([`fs`]) as far as the [`view`] shows them, and the guest's init is told what to do over the control connection
//! ([`session`]).
//! docs/design.md follows one run from the command line to the exit status.

mod admission;
mod boot;
pub mod caller;
pub mod cargo;
pub mod changes;
pub mod cli;
mod confine;
mod devices;
mod disk;
pub mod doctor;
pub mod engine;
pub mod fs;
pub mod junit;
mod library;
pub mod memory;
pub mod outcome;
mod packets;
mod quoting;
mod relay;
pub mod report;
pub mod run;
pub mod session;
pub mod spec;
mod stages;
pub mod suite;
mod sys;
mod terminal;
pub mod usage;
pub mod view;
pub mod virtio;
pub mod vmm;

pub use boot::is_guest;
pub use library::{Builder, Child, Command, Error, Sandbox, Stdio};
pub use outcome::{Cause, Verdict};
pub use run::{Outcome, Streams, run};
pub use spec::Spec;
pub use stages::Stages;
pub use sys::signals::Signals;

/// An error and its causes in one line.
#[must_use]
pub fn explain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
