// SPDX-License-Identifier: Apache-2.0
//! A ring as the driver lays it out (virtio 1.2 §4.2.3.2), until the device lives.
//!
//! Not for whether it is a ring at all: that is [`ring::Ring::new`]'s to say, at the moment it starts.

use super::line::Bell;
use super::registers::{Half, Part};
use crate::virtio::ring;
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// What was written about one ring.
#[derive(Debug, Default)]
pub(super) struct Layout {
    /// Most entries it can have.
    pub(super) size_max: u16,
    /// Entries, once a possible number was written.
    size: Option<u16>,
    pub(super) ready: bool,
    descriptors: u64,
    available: u64,
    used: u64,
}

impl Layout {
    pub(super) fn new(size_max: u16) -> Self {
        Self { size_max, ..Self::default() }
    }

    /// A number that no ring here can have undoes an earlier one.
    pub(super) fn set_size(&mut self, written: u32) {
        let possible = |size: &u16| size.is_power_of_two() && *size <= self.size_max;
        self.size = u16::try_from(written).ok().filter(possible);
    }

    pub(super) fn set_address(&mut self, part: Part, half: Half, written: u32) {
        let address = match part {
            Part::Descriptors => &mut self.descriptors,
            Part::Available => &mut self.available,
            Part::Used => &mut self.used,
        };
        *address = match half {
            Half::Low => *address & !u64::from(u32::MAX) | u64::from(written),
            Half::High => *address & u64::from(u32::MAX) | u64::from(written) << 32,
        };
    }

    /// A ring without a size never is ready.
    pub(super) fn make_ready(&mut self) {
        self.ready = self.size.is_some();
    }

    /// What a ready ring starts from.
    pub(super) fn setup(&self, features: u64, kick: &Arc<OwnedFd>, notify: Bell) -> Option<ring::Setup> {
        Some(ring::Setup {
            size: self.size.filter(|_| self.ready)?,
            descriptors: self.descriptors,
            available: self.available,
            used: self.used,
            position: 0,
            features,
            kick: Arc::clone(kick),
            notify: Box::new(notify),
        })
    }
}
