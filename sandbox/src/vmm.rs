// SPDX-License-Identifier: Apache-2.0
//! The monitor's own story, from the hidden subcommand to the machine's end.
//!
//! Not for the parent's side ([`crate::engine`]), nor for what a machine is made of. The order matters: the plan, the
//! confinement of the process while it has one thread, the machine, the filter of each thread, and only then the
//! guest's first instruction.

use std::io;
use std::process::ExitCode;

/// Runs the machine that the plan on standard input describes. For the subcommand `vmm`, before the process has any
/// thread or descriptor of its own.
#[must_use]
pub fn serve() -> ExitCode {
    drop(io::stdin());
    ExitCode::FAILURE
}
