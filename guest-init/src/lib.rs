// SPDX-License-Identifier: Apache-2.0
//! The host's and the guest's common language, and the guest's PID 1.
//!
//! The host needs only [`wire`]: what both ends of a run must agree on. The rest is PID 1 itself, compiled with the
//! feature `init` (and for tests, where it runs with `std` on pipes and socket pairs); the binary adds the start file.
//! From the outside in: `session` answers the host, `mounts`, `machine` and `cgroup` do as it says,
//! `namespace` starts the command, which `exec` becomes, and `run` watches both and relays bytes.
#![cfg_attr(not(test), no_std)]

extern crate alloc;

pub mod frozen;
pub mod record;
pub mod wire;

#[cfg(any(feature = "init", test))]
pub mod cgroup;
#[cfg(any(feature = "init", test))]
pub mod changes;
#[cfg(any(feature = "init", test))]
pub mod control;
#[cfg(any(feature = "init", test))]
pub mod devices;
#[cfg(any(feature = "init", test))]
pub mod drain;
#[cfg(any(feature = "init", test))]
pub mod exec;
#[cfg(any(feature = "init", test))]
pub mod failure;
#[cfg(any(feature = "init", test))]
pub mod freeze;
#[cfg(any(feature = "init", test))]
pub mod log;
#[cfg(any(feature = "init", test))]
pub mod lookup;
#[cfg(any(feature = "init", test))]
pub mod machine;
#[cfg(any(feature = "init", test))]
pub mod mounts;
#[cfg(any(feature = "init", test))]
pub mod namespace;
#[cfg(any(feature = "init", test))]
pub mod progress;
#[cfg(any(feature = "init", test))]
pub mod relay;
#[cfg(any(feature = "init", test))]
pub mod room;
#[cfg(any(feature = "init", test))]
pub mod run;
#[cfg(any(feature = "init", test))]
pub mod session;
#[cfg(any(feature = "init", test))]
pub mod sys;
#[cfg(any(feature = "init", test))]
pub mod terminal;
#[cfg(any(feature = "init", test))]
pub mod vsock;
