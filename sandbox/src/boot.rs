// SPDX-License-Identifier: Apache-2.0
//! This boot of the host (proc_sys_kernel(5), `random/boot_id`). What was found out of its KVM, and the rate of its processor's
//! counter, hold until the next.

use std::fs::File;
use std::io::{self, Read};
use std::sync::OnceLock;

const PLACE: &str = "/proc/sys/kernel/random/boot_id";

/// What names it. It is read once.
///
/// # Errors
/// If it cannot be read, or names nothing.
pub(crate) fn id() -> io::Result<&'static str> {
    static ID: OnceLock<String> = OnceLock::new();
    if let Some(id) = ID.get() {
        return Ok(id);
    }
    let named = |error: io::Error| io::Error::new(error.kind(), format!("cannot read {PLACE}: {error}"));
    // The kernel gives all of it at once, and this is more.
    let mut text = [0; 64];
    let length = File::open(PLACE).and_then(|mut file| file.read(&mut text)).map_err(named)?;
    let id = String::from_utf8_lossy(&text[..length]);
    let id = id.trim();
    if id.is_empty() {
        return Err(io::Error::other(format!("{PLACE} is empty")));
    }
    Ok(ID.get_or_init(|| id.to_owned()))
}

/// Whether this host is itself a guest of ours, by what its kernel was told (proc(5), `/proc/cmdline`).
#[must_use]
pub fn is_guest() -> bool {
    std::fs::read_to_string("/proc/cmdline").is_ok_and(|line| line.starts_with(images::COMMAND_LINE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_boot_has_one_name() {
        let first = id().expect("a name");
        assert_eq!(first.len(), 36);
        assert_eq!(id().expect("a name"), first);
    }
}
