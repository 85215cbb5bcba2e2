// SPDX-License-Identifier: Apache-2.0
//! The host's and the guest's common language.
//!
//! The library half of guest-init holds what both ends of a run must agree on ([`wire`]); the binary half is the
//! guest's PID 1. Nothing here knows how the bytes travel.
#![cfg_attr(not(test), no_std)]

extern crate alloc;

pub mod wire;
