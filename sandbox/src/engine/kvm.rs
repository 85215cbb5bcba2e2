// SPDX-License-Identifier: Apache-2.0
//! The kvm engine: our own virtual machine monitor on KVM, in a process of its own.
//!
//! [`monitor`] is the parent's side: it starts the process and judges its end; [`link`] is what the two say to each other.
//! In the process ([`crate::vmm`]), [`vm`] assembles the machine from parts, by addresses of [`layout`]: [`boot`] fills
//! its memory, [`state`] its registers, [`wiring`] joins devices to it, and [`vcpu`] runs it until it ends, with
//! [`platform`] and the windows as what its processors reach.

mod boot;
mod bus;
mod calls;
pub(crate) mod layout;
mod link;
mod monitor;
mod platform;
mod registers;
mod state;
mod vcpu;
pub(crate) mod vm;
mod wiring;

pub(crate) use link::{Begin, Plan, Word};
pub(crate) use monitor::{Error, SUBCOMMAND, Vmm};
pub(super) use monitor::{boots_with, freeze, start};
pub(crate) use registers::Registers;

/// How a machine ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ending {
    /// The guest reset the machine.
    Reset,
    /// A processor met an exception that it could not even report: a crash, or the kernel's way of resetting.
    TripleFault {
        /// Where.
        at: Registers,
    },
    /// A processor halted, and nothing can wake it.
    Halted,
    /// KVM could not go on.
    InternalError {
        /// Its kind, `KVM_INTERNAL_ERROR_…`.
        suberror: u32,
        /// Details for whoever knows KVM's source.
        data: Vec<u64>,
        /// Where.
        at: Registers,
    },
    /// The processor refused to enter the guest.
    EntryFailure {
        /// Its reason, in the processor's own terms.
        reason: u64,
        /// Where.
        at: Registers,
    },
    /// The guest asked for an event of the whole machine.
    SystemEvent {
        /// Its kind, `KVM_SYSTEM_EVENT_…`.
        kind: u32,
    },
    /// Guest memory could not be used.
    MemoryFault {
        /// At this guest address.
        address: u64,
    },
    /// An exit that nothing here asks for.
    Unexpected {
        /// Which.
        exit: String,
    },
    /// KVM_RUN failed.
    Failed {
        /// With this error.
        errno: i32,
    },
    /// A vCPU's thread could not be confined.
    Unconfined {
        /// For this reason.
        errno: i32,
    },
    /// A defect of ours: a vCPU's thread panicked.
    Panicked,
    /// It was stopped by us.
    Stopped,
}

#[cfg(test)]
mod tests;
