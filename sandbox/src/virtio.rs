// SPDX-License-Identifier: Apache-2.0
//! Virtio devices, each written once and driven by any front-end (virtio 1.2).
//!
//! [`device`] is the seam: a device is described by data and fed by calls. [`ring`] is the one user of a split
//! virtqueue, [`worker`] the thread that owns a device. Front-ends complete a [`ring::Ring`] and hand it to the
//! worker: [`mmio`] for a machine of our own, [`vhost_user`] for a QEMU process. A device of another process is
//! [`remote`]. Not for choosing devices: that is `devices`' part.

pub mod device;
pub mod disk;
pub mod mmio;
pub mod remote;
pub mod ring;
pub mod rng;
pub mod vhost_user;
pub mod vsock;
pub mod worker;

#[cfg(test)]
mod conformance;

pub use device::{Device, Id, Traits};
