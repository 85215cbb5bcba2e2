// SPDX-License-Identifier: Apache-2.0
//! What each thread of the monitor may still ask the kernel for, by its role (seccomp(2)). Any other call ends the
//! process: it has a reason only if a guest has taken the thread over.
//!
//! No thread may open anything, connect, make a thread, signal another process or map what can be executed. The numbers
//! are in [`crate::sys::calls`].

use crate::confine::{self, Rule, Rules, argument, argument_without};
use crate::sys::calls;
use std::io;

/// What a thread is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Waits for the machine's end and says how it was.
    First,
    /// Serves a device.
    Device,
    /// Runs a virtual CPU.
    Cpu,
}

impl Role {
    /// Leaves this thread with the calls of its role.
    pub(super) fn enter(self) -> io::Result<()> {
        confine::filter(&self.rules()).map_err(io::Error::other)
    }

    /// The calls of the role, most of them whatever their arguments are.
    fn rules(self) -> Rules {
        let own = match self {
            Self::First => calls::LAST_WORD,
            Self::Device => calls::DEVICE,
            Self::Cpu => calls::VIRTUAL_CPU,
        };
        let mut rules = confine::allow(calls::MONITOR);
        rules.extend(confine::allow(own));
        for call in calls::MAP {
            rules.insert(call, Rule::Where(vec![argument_without(2, calls::EXECUTABLE)]));
        }
        rules.insert(calls::SIGNAL, Rule::Where(vec![argument(0, std::process::id().into())]));
        if self == Self::Cpu {
            let requests = [calls::RUN].into_iter().chain(calls::REGISTERS);
            rules.insert(calls::IOCTL, Rule::Where(requests.map(|request| argument(1, request)).collect()));
        }
        rules
    }
}

#[cfg(test)]
mod tests;
