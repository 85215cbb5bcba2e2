// SPDX-License-Identifier: Apache-2.0
//! What the monitor and its parent say to each other: the plan at the beginning, a last word at the end.
//!
//! Both are the same executable, so the format (postcard) needs no version. The descriptors that come with a plan, in
//! this order: KVM, kernel, initramfs, console, the file server's connection, and a stream for each port.

use postcard::Error;
use serde::{Deserialize, Serialize};

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
    /// The part of the kernel command line that is not the monitor's.
    pub(crate) command_line: String,
    /// Host ports, in the order of their streams.
    pub(crate) ports: Vec<u32>,
}

/// How the machine ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Word {
    /// By the guest's doing; what it did.
    Guest(String),
    /// By something that failed; what.
    Failed(String),
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
            command_line: "quiet".to_owned(),
            ports: vec![1, 2],
        };
        assert_eq!(Plan::decode(&plan.encode().unwrap()).unwrap(), plan);
        let word = Word::Guest("triple fault".to_owned());
        assert_eq!(Word::decode(&word.encode().unwrap()).unwrap(), word);
        assert!(Word::decode(&[]).is_err());
    }
}
