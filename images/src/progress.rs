// SPDX-License-Identifier: Apache-2.0
//! What a build says while it works. Only events: how they look is for whoever receives them.

use std::path::PathBuf;

/// A step of a build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Another build holds the store; this one starts when that has ended.
    Waiting,
    /// The store has it already; nothing is to be done.
    AlreadyBuilt,
    /// The source is being unpacked.
    Unpacking(PathBuf),
    /// The configuration is being made.
    Configuring,
    /// So many of about so many files are compiled.
    Compiling {
        /// Files done.
        done: u64,
        /// Files expected. An estimate: `done` may pass it.
        expected: u64,
    },
    /// The kernel is being stripped and put in the store.
    Installing,
}
