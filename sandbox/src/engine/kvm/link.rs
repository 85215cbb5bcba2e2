// SPDX-License-Identifier: Apache-2.0
//! What the monitor and its parent say to each other: the plan at the beginning, a last word at the end.
//!
//! Both are the same executable, so the format (postcard) needs no version. The descriptors that come with a plan, in
//! this order: KVM, the console, guest memory; kernel and initramfs, or a template; and if there are devices, the file
//! server's connection, the disk if there is one, where further ports come from if any may, and a stream for each port.

use postcard::Error;
use serde::{Deserialize, Serialize};

use super::Ending;

/// What to run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Plan {
    /// The process that must be our parent still.
    pub(crate) parent: u32,
    /// Guest memory in bytes.
    pub(crate) memory: u64,
    /// Virtual CPUs.
    pub(crate) cpus: u32,
    /// Whether the CPUs can virtualize in turn.
    pub(crate) nested: bool,
    /// Whether it has a disk, now or, if it is to be frozen, later.
    pub(crate) disk: bool,
    /// What it begins with.
    pub(crate) begin: Begin,
    /// Whether further ports may come while it runs.
    pub(crate) supply: bool,
    /// Host ports, in the order of their streams. A machine that is to be frozen has none, nor any device.
    pub(crate) ports: Option<Vec<u32>>,
}

/// What a machine begins with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Begin {
    /// A kernel, with this part of its command line that is not the monitor's.
    Boot(String),
    /// A template.
    Clone,
}

/// How the machine ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Word {
    /// By the guest's doing; what it did.
    Guest(String),
    /// By something that failed; what.
    Failed(String),
}

impl From<Ending> for Word {
    fn from(ending: Ending) -> Self {
        let guest = |what: &str| Self::Guest(what.to_owned());
        let failed = |what: &str| Self::Failed(what.to_owned());
        match ending {
            Ending::Reset => guest("by the reset port"),
            Ending::TripleFault { at } => Self::Guest(format!("by a triple fault ({at})")),
            Ending::SystemEvent { kind } => Self::Guest(format!("by KVM's system event {kind}")),
            Ending::Halted => failed("a virtual CPU halted outside of KVM"),
            Ending::InternalError { suberror, data, at } => {
                let kind = match suberror {
                    1 => "an instruction could not be emulated",
                    2 => "two exceptions at once",
                    3 => "an event could not be delivered",
                    4 => "an exit for an unknown reason",
                    _ => "of an unknown kind",
                };
                Self::Failed(format!("KVM internal error {suberror} ({kind}), data {data:x?} ({at})"))
            }
            Ending::EntryFailure { reason, at } => {
                Self::Failed(format!("the processor refused to enter the guest, reason {reason:#x} ({at})"))
            }
            Ending::MemoryFault { address } => Self::Failed(format!("guest memory at {address:#x} cannot be used")),
            Ending::Unexpected { exit } => Self::Failed(format!("unexpected exit from the guest: {exit}")),
            Ending::Failed { errno } => {
                Self::Failed(format!("KVM_RUN failed: {}", std::io::Error::from_raw_os_error(errno)))
            }
            Ending::Unconfined { errno } => Self::Failed(format!(
                "cannot confine the thread of a virtual CPU: {}",
                std::io::Error::from_raw_os_error(errno)
            )),
            Ending::Panicked => failed("the thread of a virtual CPU panicked"),
            Ending::Stopped => failed("the virtual CPUs were stopped"),
        }
    }
}

impl Plan {
    pub(crate) fn encode(&self) -> Result<Vec<u8>, Error> {
        postcard::to_allocvec(self)
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Error> {
        postcard::from_bytes(bytes)
    }
}

impl Word {
    pub(crate) fn encode(&self) -> Result<Vec<u8>, Error> {
        postcard::to_allocvec(self)
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Error> {
        postcard::from_bytes(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_understood() {
        let plan = Plan {
            parent: 1,
            memory: 1 << 30,
            cpus: 2,
            nested: false,
            supply: true,
            disk: false,
            begin: Begin::Boot("quiet".to_owned()),
            ports: Some(vec![1, 2]),
        };
        assert_eq!(Plan::decode(&plan.encode().unwrap()).unwrap(), plan);
        let word = Word::Guest("triple fault".to_owned());
        assert_eq!(Word::decode(&word.encode().unwrap()).unwrap(), word);
        assert!(Word::decode(&[]).is_err());
    }
}
