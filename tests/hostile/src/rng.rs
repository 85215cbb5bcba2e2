// SPDX-License-Identifier: Apache-2.0
//! What the entropy source's good driver asks for (virtio 1.2 §5.4).

use crate::bare::peek;
use crate::device::{After, Device};
use crate::ring::{WRITE, zero};

/// Asks for 32 bytes.
pub(crate) fn good(device: &mut Device) -> bool {
    let buffer = device.buffers;
    zero(buffer, 64);
    device.rings[0].describe(0, buffer, 32, WRITE, 0);
    let served = device.serve(0) == After::Used { head: 0, length: 32 };
    // All zeros once in 2^64 times, and nothing beyond the buffer.
    served && peek::<u64>(buffer) != 0 && peek::<u64>(buffer + 32) == 0
}

/// The same from the start.
pub(crate) fn good_after_start(device: &mut Device) -> bool {
    device.start() && good(device)
}
