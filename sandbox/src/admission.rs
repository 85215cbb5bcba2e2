// SPDX-License-Identifier: Apache-2.0
//! Who may start a machine: together they get no more memory and processors than the host has to give.
//!
//! All runs of a user write what they take into one file, the [`Ledger`]. An entry counts for as long as its process holds
//! the lock that goes with it, which the kernel takes from whoever dies; so there is nothing to clean up, and nobody to ask.
//! A run that finds no room waits in the order of arrival ([`turn`]), and hears of each end ([`room`] says what the host
//! has). Not for what a machine itself may use: its own limits are the guest's.
//!
//! Nobody waits for himself: a process that keeps a machine, and wants another while nothing changes, gets it.

mod ledger;
mod room;
mod turn;

use std::env;
use std::ffi::OsStr;
use std::io;
use std::path::PathBuf;

use crate::cli::parse;
use crate::sys::signals::Signals;
pub(crate) use ledger::Lease;
use ledger::Ledger;
use turn::Queue;

/// `off`, or how much memory the machines of all runs may have together.
const ADMIT: &str = "SANDBOX_ADMIT";

/// Another file than the user's own, for those who share a host by other rules.
const LEDGER: &str = "SANDBOX_LEDGER";

/// What a machine takes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Need {
    /// Bytes.
    pub(crate) memory: u64,
    /// Virtual processors.
    pub(crate) cpus: u32,
    /// Whether it is kept for several commands, so that its process may go on to want another.
    pub(crate) kept: bool,
}

/// Why a machine was not let in.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("{ADMIT} is {text:?} ({problem}); it is off, or the memory that all machines may have together")]
    Policy { text: String, problem: String },
    #[error("signal {0} ended the wait")]
    Cancelled(i32),
    #[error("cannot count machines in {}", path.display())]
    Ledger { path: PathBuf, source: io::Error },
    #[error("cannot wait")]
    System(#[from] io::Error),
}

/// What the caller's environment says about it.
#[derive(Debug, PartialEq, Eq)]
enum Policy {
    Off,
    /// As much as the host has.
    Host,
    /// So much memory.
    Within(u64),
}

impl Policy {
    fn of(variable: Option<&OsStr>) -> Result<Self, Error> {
        let Some(text) = variable.filter(|text| !text.is_empty()) else { return Ok(Self::Host) };
        let text = text.to_string_lossy();
        match text.as_ref() {
            "off" => Ok(Self::Off),
            "on" => Ok(Self::Host),
            size => match parse::size(size) {
                Ok(bytes) => Ok(Self::Within(bytes)),
                Err(problem) => Err(Error::Policy { text: size.to_owned(), problem }),
            },
        }
    }
}

/// Waits until there is room for a machine. The room is taken until the lease is dropped. Without a ledger there is none, and
/// why is a notice: that others are not counted makes no run fail.
///
/// # Errors
/// If the environment makes no sense, or a signal ended the wait.
pub(crate) fn enter(need: Need, signals: Option<&Signals>, notices: &mut Vec<String>) -> Result<Option<Lease>, Error> {
    let within = match Policy::of(env::var_os(ADMIT).as_deref())? {
        Policy::Off => return Ok(None),
        Policy::Host => None,
        Policy::Within(memory) => Some(memory),
    };
    let chosen = env::var_os(LEDGER).filter(|path| !path.is_empty()).map(PathBuf::from);
    let named = chosen.is_some();
    let lease = Ledger::of_user(chosen).and_then(|ledger| Queue::new(need, within, signals).enter(ledger));
    match lease {
        Ok(lease) => Ok(Some(lease)),
        Err(error @ (Error::Cancelled(_) | Error::Policy { .. })) => Err(error),
        // Somebody wants to be counted there.
        Err(error) if named => Err(error),
        Err(error) => {
            notices.push(format!("other machines of yours are not counted: {}", crate::explain(&error)));
            Ok(None)
        }
    }
}

#[cfg(test)]
mod tests;
