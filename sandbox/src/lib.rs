// SPDX-License-Identifier: Apache-2.0
//! Runs a command in a microVM of its own.

pub mod fs;
pub mod memory;
mod sys;
pub mod view;
pub mod virtio;
