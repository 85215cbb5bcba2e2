// SPDX-License-Identifier: Apache-2.0
//! What a write to the status register means (virtio 1.2 §2.1 and §3.1.1), as a function of what it holds.
//!
//! The driver sets one bit after the other, in one order, and clears none but by writing 0. A driver that does
//! otherwise has lost its way; going along would mean to guess. Not for carrying a step out.

use virtio_bindings::virtio_config;

/// The bits, each set by the driver unless said otherwise.
pub(super) const ACKNOWLEDGE: u8 = virtio_config::VIRTIO_CONFIG_S_ACKNOWLEDGE as u8;
pub(super) const DRIVER: u8 = virtio_config::VIRTIO_CONFIG_S_DRIVER as u8;
pub(super) const DRIVER_OK: u8 = virtio_config::VIRTIO_CONFIG_S_DRIVER_OK as u8;
pub(super) const FEATURES_OK: u8 = virtio_config::VIRTIO_CONFIG_S_FEATURES_OK as u8;
/// Set by the device.
pub(super) const NEEDS_RESET: u8 = virtio_config::VIRTIO_CONFIG_S_NEEDS_RESET as u8;
pub(super) const FAILED: u8 = virtio_config::VIRTIO_CONFIG_S_FAILED as u8;

/// The driver may choose features: it has said that it can drive the device.
pub(super) const CHOOSING: u8 = ACKNOWLEDGE | DRIVER;
/// The driver may lay its rings out: the features are agreed on.
pub(super) const LAYING_OUT: u8 = CHOOSING | FEATURES_OK;

/// What a write asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing.
    Keep,
    /// Everything anew.
    Reset,
    /// This bit, and it is its turn.
    Set(u8),
    /// What no driver may do.
    Illegal,
}

/// What it means to write `written` when the register holds `now`.
pub(super) fn step(now: u8, written: u32) -> Step {
    if written == 0 {
        return Step::Reset;
    }
    let Ok(written) = u8::try_from(written) else {
        return Step::Illegal;
    };
    // A driver adds its bit to what it has read. The device's bit is not the driver's to set or clear.
    let (held, written) = (now & !NEEDS_RESET, written & !NEEDS_RESET);
    if written & held != held {
        return Step::Illegal;
    }
    match written & !held {
        0 => Step::Keep,
        FAILED => Step::Set(FAILED),
        _ if now & NEEDS_RESET != 0 => Step::Illegal,
        ACKNOWLEDGE if held == 0 => Step::Set(ACKNOWLEDGE),
        DRIVER if held == ACKNOWLEDGE => Step::Set(DRIVER),
        FEATURES_OK if held == CHOOSING => Step::Set(FEATURES_OK),
        DRIVER_OK if held == LAYING_OUT => Step::Set(DRIVER_OK),
        _ => Step::Illegal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIVE: u8 = LAYING_OUT | DRIVER_OK;

    #[test]
    fn only_one_way_leads_to_a_live_device() {
        // Every state that some sequence of writes can reach, with every write there is.
        let mut reached = vec![0_u8, NEEDS_RESET];
        let mut looked_at = 0;
        while let Some(&now) = reached.get(looked_at) {
            looked_at += 1;
            for written in (0..=0x3ff).chain([1 << 16, 0xffff_ff00, u32::MAX]) {
                let next = match step(now, written) {
                    Step::Keep => now,
                    Step::Reset => 0,
                    Step::Set(bit) => {
                        assert_eq!(now & bit, 0);
                        assert_eq!(written as u8 | now, now | bit | (written as u8 & NEEDS_RESET));
                        now | bit
                    }
                    Step::Illegal => now | NEEDS_RESET,
                };
                if next & DRIVER_OK != 0 && now & DRIVER_OK == 0 {
                    assert_eq!((now, written as u8 & !NEEDS_RESET), (LAYING_OUT, LIVE));
                }
                if now & (FAILED | NEEDS_RESET) != 0 {
                    let ended = [0, now, now | FAILED, now | NEEDS_RESET, now | FAILED | NEEDS_RESET];
                    assert!(ended.contains(&next), "{now:#x} {written:#x}");
                }
                if !reached.contains(&next) {
                    reached.push(next);
                }
            }
        }
        let steps = [0, ACKNOWLEDGE, CHOOSING, LAYING_OUT, LIVE];
        let mut expected: Vec<u8> =
            steps.iter().flat_map(|s| [*s, s | FAILED, s | NEEDS_RESET, s | FAILED | NEEDS_RESET]).collect();
        expected.sort_unstable();
        reached.sort_unstable();
        assert_eq!(reached, expected);
    }
}
