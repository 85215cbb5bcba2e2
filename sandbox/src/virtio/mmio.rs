// SPDX-License-Identifier: Apache-2.0
//! A front-end: a device as a window of registers in the guest's physical memory (virtio 1.2 §4.2, version 2).
//!
//! A state machine fed by plain calls: reads and writes, from any thread. What the driver may do and when is held
//! strictly: what is out of turn is ignored, or, if nothing sensible can follow, makes the device need a reset. How
//! rings lie is fixed when the device goes live; a later write has nothing to change. Not for a device, which cannot
//! tell this front-end from another, and not for how a processor's access or an interrupt reaches the other side: the
//! caller has the descriptors of both. The order of writes is in [`status`], a ring's in [`layout`].

mod backing;
mod layout;
mod line;
mod registers;
mod status;

pub use backing::Backing;
pub use registers::NOTIFY;

use super::device::{Fault, Traits};
use super::ring::{self, Ring};
use super::worker;
use crate::memory::Memory;
use crate::sys::eventfd;
use backing::Behind;
use layout::Layout;
use line::{Bell, Line};
use registers::{CONFIG, MAGIC, Register, VENDOR, VERSION};
use rustix::io::Errno;
use status::{CHOOSING, DRIVER_OK, FEATURES_OK, LAYING_OUT, NEEDS_RESET, Step};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use vm_memory::GuestAddressSpace;

/// Why a window cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The device's thread.
    #[error("cannot start the device")]
    Worker(#[source] worker::Error),
    /// The kernel refused a descriptor.
    #[error("cannot make a descriptor of the register window")]
    Descriptor(#[source] Errno),
}

/// One device's registers.
#[derive(Debug)]
pub struct Window {
    traits: Traits,
    config: Vec<u8>,
    kicks: Vec<Arc<OwnedFd>>,
    line: Arc<Line>,
    memory: Memory,
    state: Mutex<State>,
}

/// What the driver has written so far.
#[derive(Debug)]
struct State {
    behind: Behind,
    /// Without the device's own bit, which [`Line`] holds.
    status: u8,
    device_bank: u32,
    driver_bank: u32,
    accepted: u64,
    /// A bit beyond the 64th was accepted, which nobody offers.
    accepted_beyond: bool,
    selected: u32,
    rings: Vec<Layout>,
}

impl Window {
    /// A window on a device that is new: its driver has not come yet.
    ///
    /// # Errors
    /// If the kernel refuses a descriptor or a thread.
    pub fn new(backing: Backing, memory: Memory) -> Result<Self, Error> {
        let line = Arc::new(Line::new().map_err(Error::Descriptor)?);
        let behind = Behind::new(backing, memory.clone(), &line)?;
        let (traits, config) = (behind.traits(), behind.config());
        let kick = |_: &u16| eventfd::create().map(Arc::new);
        let kicks = traits.rings.iter().map(kick).collect::<Result<_, _>>().map_err(Error::Descriptor)?;
        let state = Mutex::new(State::new(behind, traits));
        Ok(Self { traits, config, kicks, line, memory, state })
    }

    /// An event descriptor for each ring, in order: to signal one is the same as to write its number to [`NOTIFY`].
    #[must_use]
    pub fn kicks(&self) -> &[Arc<OwnedFd>] {
        &self.kicks
    }

    /// Becomes readable when the driver is to be interrupted. Nobody here reads it.
    #[must_use]
    pub fn interrupt(&self) -> &OwnedFd {
        self.line.interrupt()
    }

    /// The first thing that went wrong with the device and was not the guest's doing.
    #[must_use]
    pub fn fault(&self) -> Option<&Fault> {
        self.line.fault()
    }

    /// The machine has ended, and its driver with it: what it has handed over still gets to where it goes.
    pub fn hang_up(&self) {
        self.state().behind.hang_up();
    }

    /// The driver reads. What there is not reads as zeros.
    pub fn read(&self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        if let Some(at) = offset.checked_sub(CONFIG) {
            let rest = usize::try_from(at).ok().and_then(|at| self.config.get(at..)).unwrap_or_default();
            for (out, byte) in data.iter_mut().zip(rest) {
                *out = *byte;
            }
        } else if let (Some(register), Ok(out)) = (Register::at(offset), <&mut [u8; 4]>::try_from(data)) {
            *out = self.value(register).to_le_bytes();
        }
    }

    /// The driver writes. What cannot be written is not.
    pub fn write(&self, offset: u64, data: &[u8]) {
        let (Some(register), Ok(bytes)) = (Register::at(offset), <[u8; 4]>::try_from(data)) else {
            return;
        };
        let written = u32::from_le_bytes(bytes);
        match register {
            Register::Notify => self.kick(written),
            Register::InterruptAcknowledge => self.line.acknowledge(written),
            Register::Status => self.set_status(written),
            Register::QueueReady => self.set_ready(written),
            _ => self.state().store(register, written, self.line.needs_reset()),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn value(&self, register: Register) -> u32 {
        match register {
            Register::Magic => MAGIC,
            Register::Version => VERSION,
            Register::Vendor => VENDOR,
            Register::DeviceId => self.traits.id as u32,
            Register::DeviceFeatures => bank(self.traits.features, self.state().device_bank),
            Register::QueueSizeMax => self.state().selected().map_or(0, |ring| u32::from(ring.size_max)),
            Register::QueueReady => self.state().selected().map_or(0, |ring| u32::from(ring.ready)),
            Register::InterruptStatus => self.line.reasons(),
            Register::Status => u32::from(self.status(&self.state())),
            // A region that does not exist has this length and base.
            Register::SharedMemory => u32::MAX,
            // The rest is for writing, or always 0: the configuration never changes.
            _ => 0,
        }
    }

    fn status(&self, state: &State) -> u8 {
        if self.line.needs_reset() { state.status | NEEDS_RESET } else { state.status }
    }

    fn kick(&self, ring: u32) {
        let kick = usize::try_from(ring).ok().and_then(|ring| self.kicks.get(ring));
        if let Some(kick) = kick {
            // A count that is full wakes as well, so this cannot fail.
            let _rung: Result<(), Errno> = eventfd::signal(kick);
        }
    }

    fn set_status(&self, written: u32) {
        let mut state = self.state();
        match status::step(self.status(&state), written) {
            Step::Keep => {}
            Step::Reset => self.reset(&mut state),
            Step::Set(FEATURES_OK) if !state.features_fit(self.traits.features) => {}
            Step::Set(bit) => {
                state.status |= bit;
                if bit == DRIVER_OK {
                    self.start(&mut state);
                }
            }
            Step::Illegal => self.fail(&mut state),
        }
    }

    /// Completes every ring that is ready, then starts them: all or none.
    fn start(&self, state: &mut State) {
        let memory = self.memory.memory();
        let complete = || {
            let mut rings = Vec::new();
            for ((index, layout), (kick, size_max)) in
                (0..).zip(&state.rings).zip(self.kicks.iter().zip(self.traits.rings))
            {
                if let Some(setup) = layout.setup(state.accepted, kick, Bell(Arc::clone(&self.line))) {
                    rings.push((index, Ring::new(setup, *size_max, &memory)?));
                }
            }
            Ok::<_, ring::Error>(rings)
        };
        match complete() {
            Ok(rings) => {
                let features = state.accepted;
                state.behind.start(rings, features, &memory);
            }
            // The driver learns that it was refused; why is its own affair.
            Err(_not_a_ring) => self.fail(state),
        }
    }

    /// The driver has lost its way, or asks for what cannot be.
    fn fail(&self, state: &mut State) {
        let live = state.status & DRIVER_OK != 0;
        if !self.line.needs_reset() {
            if live {
                state.behind.reset();
            }
            self.line.need_reset(live);
        }
    }

    fn reset(&self, state: &mut State) {
        // A device without rings has nothing to forget, unless something went wrong.
        if state.status & DRIVER_OK != 0 || self.line.needs_reset() {
            state.behind.reset();
        }
        self.line.clear();
        state.forget(self.traits);
    }

    fn set_ready(&self, written: u32) {
        let mut state = self.state();
        let (open, live) = (state.is_open(self.line.needs_reset()), state.status & DRIVER_OK != 0);
        let selected = state.selected;
        match (state.selected_mut(), written) {
            (Some(ring), 1) if open => ring.make_ready(),
            (Some(ring), 0) if ring.ready => {
                ring.ready = false;
                if live && let Ok(index) = u16::try_from(selected) {
                    state.behind.stop(index);
                }
            }
            _ => {}
        }
    }
}

/// 32 of the 64 feature bits.
fn bank(features: u64, bank: u32) -> u32 {
    match bank {
        0 => features as u32,
        1 => (features >> 32) as u32,
        _ => 0,
    }
}

impl State {
    fn new(behind: Behind, traits: Traits) -> Self {
        let mut state = Self {
            behind,
            status: 0,
            device_bank: 0,
            driver_bank: 0,
            accepted: 0,
            accepted_beyond: false,
            selected: 0,
            rings: Vec::new(),
        };
        state.forget(traits);
        state
    }

    /// Everything that was written.
    fn forget(&mut self, traits: Traits) {
        (self.status, self.device_bank, self.driver_bank, self.selected) = (0, 0, 0, 0);
        (self.accepted, self.accepted_beyond) = (0, false);
        self.rings = traits.rings.iter().map(|size_max| Layout::new(*size_max)).collect();
    }

    /// Whether rings can be laid out now.
    fn is_open(&self, needs_reset: bool) -> bool {
        self.status == LAYING_OUT && !needs_reset
    }

    fn features_fit(&self, offered: u64) -> bool {
        self.accepted & !offered == 0 && self.accepted & (1 << VIRTIO_F_VERSION_1) != 0 && !self.accepted_beyond
    }

    fn selected(&self) -> Option<&Layout> {
        usize::try_from(self.selected).ok().and_then(|index| self.rings.get(index))
    }

    fn selected_mut(&mut self) -> Option<&mut Layout> {
        usize::try_from(self.selected).ok().and_then(|index| self.rings.get_mut(index))
    }

    /// Takes a register that is only stored, if it is its time.
    fn store(&mut self, register: Register, written: u32, needs_reset: bool) {
        let (choosing, open) = (self.status == CHOOSING && !needs_reset, self.is_open(needs_reset));
        match register {
            Register::DeviceFeaturesSelect => self.device_bank = written,
            Register::DriverFeaturesSelect => self.driver_bank = written,
            Register::QueueSelect => self.selected = written,
            Register::DriverFeatures if choosing => self.accept(written),
            Register::QueueSize | Register::Address(..) if open => {
                let Some(ring) = self.selected_mut().filter(|ring| !ring.ready) else {
                    return;
                };
                match register {
                    Register::Address(part, half) => ring.set_address(part, half, written),
                    _ => ring.set_size(written),
                }
            }
            _ => {}
        }
    }

    fn accept(&mut self, written: u32) {
        let bits = u64::from(written);
        match self.driver_bank {
            0 => self.accepted = self.accepted & !u64::from(u32::MAX) | bits,
            1 => self.accepted = self.accepted & u64::from(u32::MAX) | bits << 32,
            _ => self.accepted_beyond |= written != 0,
        }
    }
}

#[cfg(test)]
mod tests;
