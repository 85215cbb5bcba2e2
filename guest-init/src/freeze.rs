// SPDX-License-Identifier: Apache-2.0
//! Letting the machine be frozen, where it was started for that: it has no devices (kexec_load(2), reboot(2)).
//!
//! Not for what makes a copy of it; see [`crate::frozen`] for how one comes back.

use crate::{frozen, sys};
use rustix::{
    io::Result,
    system::{RebootCommand, reboot},
};

/// Stops the machine for good. Returns in each of its copies.
///
/// # Errors
/// The kernel's refusal; then nothing has stopped.
pub fn freeze() -> Result<()> {
    sys::load_page(&frozen::page(), frozen::PAGE, frozen::SIZE)?;
    reboot(RebootCommand::Kexec)?;
    sys::unload_page()
}
