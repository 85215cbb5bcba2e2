// SPDX-License-Identifier: Apache-2.0
//! A driver of the register window, by the book (virtio 1.2 §3.1.1 and §4.2.3).

use super::driver::{RING, Side};
use crate::sys::eventfd;
use crate::virtio::mmio::{NOTIFY, Window};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

pub(super) const STATUS: u64 = 0x070;
pub(super) const LIVE: u32 = 15;
pub(super) const NEEDS_RESET: u32 = 64;

pub(super) fn read(window: &Window, offset: u64) -> u32 {
    let mut bytes = [0; 4];
    window.read(offset, &mut bytes);
    u32::from_le_bytes(bytes)
}

pub(super) fn write(window: &Window, offset: u64, value: u32) {
    window.write(offset, &value.to_le_bytes());
}

/// What the device offers.
pub(super) fn features(window: &Window) -> u64 {
    let bank = |bank: u32| {
        write(window, 0x014, bank);
        u64::from(read(window, 0x010))
    };
    bank(0) | bank(1) << 32
}

/// Resets the device and brings it up with all its features and these rings. `Err`: the device refused.
pub(super) fn bring_up(window: &Window, rings: &[usize], sides: &[Side]) -> Result<(), String> {
    assert_eq!((read(window, 0), read(window, 4)), (0x7472_6976, 2));
    let set_status = |status| {
        write(window, STATUS, status);
        match read(window, STATUS) {
            same if same == status => Ok(()),
            other => Err(format!("status {status:#x} reads {other:#x}")),
        }
    };
    for status in [0, 1, 3] {
        set_status(status)?;
    }
    let offered = features(window);
    for (bank, bits) in [(0, offered as u32), (1, (offered >> 32) as u32)] {
        write(window, 0x024, bank);
        write(window, 0x020, bits);
    }
    set_status(11)?;
    for index in rings {
        let side = &sides[*index];
        write(window, 0x030, *index as u32);
        assert_eq!(read(window, 0x044), 0, "ring {index} is in use");
        assert!(read(window, 0x034) >= u32::from(RING));
        write(window, 0x038, u32::from(RING));
        for (register, address) in [(0x080, side.base), (0x090, side.available()), (0x0a0, side.used())] {
            write(window, register, address as u32);
            write(window, register + 4, (address >> 32) as u32);
        }
        write(window, 0x044, 1);
        assert_eq!(read(window, 0x044), 1);
    }
    set_status(LIVE)
}

/// Stops one ring.
pub(super) fn stop(window: &Window, index: usize) {
    write(window, 0x030, index as u32);
    write(window, 0x044, 0);
    assert_eq!(read(window, 0x044), 0);
}

pub(super) fn kick(window: &Window, index: usize) {
    write(window, NOTIFY, index as u32);
}

/// Waits for an interrupt, not for ever, and takes it; returns its reasons. There may be none, if the last one was
/// taken late enough.
pub(super) fn wait(window: &Window) -> u32 {
    let deadline = Timespec { tv_sec: 10, tv_nsec: 0 };
    let mut polled = [PollFd::new(window.interrupt(), PollFlags::IN)];
    assert_eq!(poll(&mut polled, Some(&deadline)), Ok(1), "no interrupt came");
    assert!(eventfd::is_eventfd(window.interrupt()));
    rustix::io::read(window.interrupt(), &mut [0; 8]).expect("read");
    let reasons = read(window, 0x060);
    write(window, 0x064, reasons);
    reasons
}
