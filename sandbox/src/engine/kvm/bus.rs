// SPDX-License-Identifier: Apache-2.0
//! Address → device, for I/O ports and for memory that is none. Nothing here knows what a device does.

use std::ops::Range;

/// Devices by address, each with the range it answers.
#[derive(Debug)]
pub(super) struct Bus<D> {
    devices: Vec<(Range<u64>, D)>,
}

impl<D> Bus<D> {
    /// A bus with these devices, whose ranges do not overlap.
    pub(super) fn new(mut devices: Vec<(Range<u64>, D)>) -> Self {
        devices.sort_by_key(|(range, _)| range.start);
        debug_assert!(devices.windows(2).all(|pair| pair[0].0.end <= pair[1].0.start), "devices overlap");
        Self { devices }
    }

    /// All devices, by address.
    pub(super) fn devices(&self) -> impl Iterator<Item = &D> {
        self.devices.iter().map(|(_, device)| device)
    }

    /// The device that answers an access of `length` bytes, and how far into its range it is. An access that leaves the
    /// range is nobody's.
    pub(super) fn find(&self, address: u64, length: usize) -> Option<(&D, u64)> {
        let after = self.devices.partition_point(|(range, _)| range.start <= address);
        let (range, device) = self.devices.get(after.checked_sub(1)?)?;
        let end = address.checked_add(length as u64)?;
        (end <= range.end).then(|| (device, address - range.start))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_accesses_find_their_device() {
        let bus = Bus::new(vec![(0x3000..0x4000, 'b'), (0x1000..0x2000, 'a')]);
        let found = |address, length| bus.find(address, length).map(|(device, offset)| (*device, offset));
        assert_eq!(found(0x1000, 4), Some(('a', 0)));
        assert_eq!(found(0x1fff, 1), Some(('a', 0xfff)));
        assert_eq!(found(0x1ffe, 4), None);
        assert_eq!(found(0x2000, 1), None);
        assert_eq!(found(0xfff, 1), None);
        assert_eq!(found(0x3004, 8), Some(('b', 4)));
        assert_eq!(found(u64::MAX, 8), None);
    }

    #[test]
    fn an_empty_bus_answers_nothing() {
        assert!(Bus::<()>::new(vec![]).find(0, 1).is_none());
    }
}
