// SPDX-License-Identifier: Apache-2.0
//! Register windows on the machine's memory bus, and the descriptors that spare their processors a visit: a kick is an
//! ioeventfd, an interrupt an irqfd. Not for what a register does: that is the window's.
//!
//! Follows virtio 1.2 §4.2.2 (virtio-mmio's registers) and Documentation/virt/kvm/api.rst (KVM_IOEVENTFD, KVM_IRQFD).

use super::bus::Bus;
use super::layout;
use crate::virtio::mmio::Window;

/// The machine's windows, each at its address.
#[derive(Debug)]
pub(super) struct Windows(Bus<Window>);

impl Windows {
    pub(super) fn new(windows: Vec<Window>) -> Self {
        let place = |(number, window)| (layout::window(number), window);
        Self(Bus::new(windows.into_iter().enumerate().map(place).collect()))
    }

    /// The window of a device, by its place in the list.
    #[cfg(test)]
    pub(super) fn window(&self, device: usize) -> Option<&Window> {
        self.0.find(layout::window(device).start, 1).map(|(window, _)| window)
    }

    /// The machine has ended: what its drivers have handed over still gets to where it goes.
    pub(super) fn hang_up(&self) {
        self.0.devices().for_each(Window::hang_up);
    }

    /// Reads from a window; all ones where there is none.
    pub(super) fn read(&self, address: u64, data: &mut [u8]) {
        match self.0.find(address, data.len()) {
            Some((window, offset)) => window.read(offset, data),
            None => data.fill(0xff),
        }
    }

    /// Writes to a window, or to nobody.
    pub(super) fn write(&self, address: u64, data: &[u8]) {
        if let Some((window, offset)) = self.0.find(address, data.len()) {
            window.write(offset, data);
        }
    }
}
