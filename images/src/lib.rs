// SPDX-License-Identifier: Apache-2.0
//! Kernel and initramfs of the guest: how they are built, stored and checked.

mod command_line;

pub use command_line::COMMAND_LINE;
