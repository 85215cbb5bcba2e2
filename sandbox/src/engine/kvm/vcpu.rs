// SPDX-License-Identifier: Apache-2.0
//! The threads that run virtual CPUs, and the one loop they run.
//!
//! KVM's exit becomes an [`Exit`], which names no crate; [`Machine::act`] answers it; the loop goes on or ends. The
//! first processor that ends, ends the machine. Not for what makes a processor, see [`super::vm`]. Follows
//! Documentation/virt/kvm/api.rst §5, "The kvm_run structure".

mod team;

use std::sync::atomic::{AtomicBool, Ordering};

use kvm_ioctls::VcpuExit;
use vmm_sys_util::errno::Error as Errno;

use super::platform::{Effect, Platform};
use super::wiring::Windows;
use super::{Ending, Registers};
use crate::sys::kvm::Cpu;

pub(crate) use team::{Error, Team};

/// Why a processor has left the guest.
#[derive(Debug)]
pub(super) enum Exit<'a> {
    /// It reads a port.
    In { port: u16, data: &'a mut [u8] },
    /// It writes to a port.
    Out { port: u16, data: &'a [u8] },
    /// It reads where there is no memory.
    Read { address: u64, data: &'a mut [u8] },
    /// It writes where there is no memory.
    Write { address: u64, data: &'a [u8] },
    /// A signal came, or the processor waits for another to start it.
    Interrupted,
    /// Anything that no machine goes on after.
    Final(Ending),
}

/// What comes next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Action {
    Continue,
    End(Ending),
}

/// What processors reach by leaving the guest.
#[derive(Debug)]
pub(crate) struct Machine {
    pub(super) platform: Platform,
    pub(super) windows: Windows,
}

impl Machine {
    /// Answers an exit. A read that nobody answers gives all ones.
    pub(super) fn act(&self, exit: Exit<'_>) -> Action {
        match exit {
            Exit::In { port, data } => self.platform.read(port, data),
            Exit::Out { port, data } => {
                if self.platform.write(port, data) == Effect::Reset {
                    return Action::End(Ending::Reset);
                }
            }
            Exit::Read { address, data } => self.windows.read(address, data),
            Exit::Write { address, data } => self.windows.write(address, data),
            Exit::Interrupted => {}
            Exit::Final(ending) => return Action::End(ending),
        }
        Action::Continue
    }
}

/// Runs a processor until it ends or `stop` is set and a signal has come.
fn run(cpu: &mut Cpu, machine: &Machine, stop: &AtomicBool) -> Ending {
    while !stop.load(Ordering::Acquire) {
        let action = match cpu.fd_mut().run() {
            Ok(VcpuExit::InternalError) => {
                let (suberror, data) = cpu.internal_error().unwrap_or_default();
                machine.act(Exit::Final(Ending::InternalError { suberror, data, at: Registers::default() }))
            }
            Ok(exit) => machine.act(neutral(exit)),
            Err(error) => machine.act(failed(error)),
        };
        if let Action::End(ending) = action {
            return placed(ending, cpu);
        }
    }
    Ending::Stopped
}

/// The ending with where the processor was, for those that are its own. Asked for only now: each question is a call.
fn placed(mut ending: Ending, cpu: &Cpu) -> Ending {
    if let Ending::TripleFault { at } | Ending::InternalError { at, .. } | Ending::EntryFailure { at, .. } = &mut ending
    {
        *at = Registers::of(cpu);
    }
    ending
}

fn neutral(exit: VcpuExit<'_>) -> Exit<'_> {
    match exit {
        VcpuExit::IoIn(port, data) => Exit::In { port, data },
        VcpuExit::IoOut(port, data) => Exit::Out { port, data },
        VcpuExit::MmioRead(address, data) => Exit::Read { address, data },
        VcpuExit::MmioWrite(address, data) => Exit::Write { address, data },
        VcpuExit::Intr => Exit::Interrupted,
        VcpuExit::Hlt => Exit::Final(Ending::Halted),
        VcpuExit::Shutdown => Exit::Final(Ending::TripleFault { at: Registers::default() }),
        VcpuExit::FailEntry(reason, _) => Exit::Final(Ending::EntryFailure { reason, at: Registers::default() }),
        VcpuExit::SystemEvent(kind, _) => Exit::Final(Ending::SystemEvent { kind }),
        VcpuExit::MemoryFault { gpa, .. } => Exit::Final(Ending::MemoryFault { address: gpa }),
        other => Exit::Final(Ending::Unexpected { exit: format!("{other:?}") }),
    }
}

/// What KVM_RUN itself says: a signal (EINTR), a processor that is not started yet (EAGAIN), or a failure.
fn failed(error: Errno) -> Exit<'static> {
    match std::io::Error::from(error).kind() {
        std::io::ErrorKind::Interrupted | std::io::ErrorKind::WouldBlock => Exit::Interrupted,
        _ => Exit::Final(Ending::Failed { errno: error.errno() }),
    }
}

#[cfg(test)]
mod tests;
