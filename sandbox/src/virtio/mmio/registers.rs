// SPDX-License-Identifier: Apache-2.0
//! Where the registers are (virtio 1.2 §4.2.2, table 4.1).
//!
//! Not for what they do. A register is 32 bits wide and aligned; everything from [`CONFIG`] on belongs to the device.

/// Reads as this: "virt".
pub(super) const MAGIC: u32 = 0x7472_6976;
/// The version of this window.
pub(super) const VERSION: u32 = 2;
/// Whom the device is from. No driver looks at it.
pub(super) const VENDOR: u32 = 0;

/// Offset of the doorbell; what is written is the ring's number.
pub const NOTIFY: u64 = 0x050;
/// Offset of the device's configuration space.
pub(super) const CONFIG: u64 = 0x100;

/// The registers. A 64-bit one is two of these, the lower half first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Register {
    Magic,
    Version,
    DeviceId,
    Vendor,
    DeviceFeatures,
    DeviceFeaturesSelect,
    DriverFeatures,
    DriverFeaturesSelect,
    QueueSelect,
    QueueSizeMax,
    QueueSize,
    QueueReady,
    Notify,
    InterruptStatus,
    InterruptAcknowledge,
    Status,
    /// A part of the selected ring's address.
    Address(Part, Half),
    /// Length and base of a shared memory region, of which there is none.
    SharedMemory,
    ConfigGeneration,
}

/// A part of a ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Descriptors,
    Available,
    Used,
}

/// Half of an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Half {
    Low,
    High,
}

impl Register {
    /// The register at this offset. `None`: none that does anything here, such as that which selects a shared memory
    /// region, or the one that resets a ring, which is not offered.
    pub(super) fn at(offset: u64) -> Option<Self> {
        Some(match offset {
            0x000 => Self::Magic,
            0x004 => Self::Version,
            0x008 => Self::DeviceId,
            0x00c => Self::Vendor,
            0x010 => Self::DeviceFeatures,
            0x014 => Self::DeviceFeaturesSelect,
            0x020 => Self::DriverFeatures,
            0x024 => Self::DriverFeaturesSelect,
            0x030 => Self::QueueSelect,
            0x034 => Self::QueueSizeMax,
            0x038 => Self::QueueSize,
            0x044 => Self::QueueReady,
            NOTIFY => Self::Notify,
            0x060 => Self::InterruptStatus,
            0x064 => Self::InterruptAcknowledge,
            0x070 => Self::Status,
            0x080 => Self::Address(Part::Descriptors, Half::Low),
            0x084 => Self::Address(Part::Descriptors, Half::High),
            0x090 => Self::Address(Part::Available, Half::Low),
            0x094 => Self::Address(Part::Available, Half::High),
            0x0a0 => Self::Address(Part::Used, Half::Low),
            0x0a4 => Self::Address(Part::Used, Half::High),
            0x0b0 | 0x0b4 | 0x0b8 | 0x0bc => Self::SharedMemory,
            0x0fc => Self::ConfigGeneration,
            _ => return None,
        })
    }
}
