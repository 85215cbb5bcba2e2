// SPDX-License-Identifier: Apache-2.0
//! What runs in a device's thread.
//!
//! One loop: wait, obey commands, pass kicks and readiness on. Everything the device reports as a fault ends here.
//! Not for anything that another thread may call.

use crate::memory::Memory;
use crate::sys::epoll::{Epoll, Interest};
use crate::virtio::device::{Device, Fault, Io, Token};
use crate::virtio::ring::{Notify, Ring};
use crate::virtio::worker::{Enter, OnFault};
use std::panic::AssertUnwindSafe;
use std::sync::mpsc;
use vm_memory::{GuestAddressSpace, GuestMemoryMmap};

/// Epoll key of the descriptor that announces commands.
pub(super) const WAKE: u64 = 1 << 33;
/// Set in the epoll keys of the device's own descriptors; the rest is the token. Without it, a key is a ring's number.
pub(super) const DEVICE: u64 = 1 << 32;

/// What the other threads want.
pub(super) enum Command {
    Start { index: u16, ring: Box<Ring>, features: u64 },
    Stop { index: u16, reply: mpsc::Sender<Option<u16>> },
    SetNotify { index: u16, notify: Box<dyn Notify> },
    Reset { serve: bool, reply: mpsc::Sender<()> },
    Quit,
}

/// Whether the loop goes on.
#[derive(PartialEq, Eq)]
enum Next {
    Wait,
    Quit,
}

/// The device, its rings and the loop around them.
pub(super) struct Engine {
    device: Box<dyn Device>,
    memory: Memory,
    epoll: Epoll,
    inbox: mpsc::Receiver<Command>,
    on_fault: OnFault,
    rings: Vec<Option<Ring>>,
    /// Rings whose device stopped early.
    again: Vec<u16>,
    /// A driver has been announced to the device.
    started: bool,
    /// A fault was reported; nothing starts until the next reset.
    retired: bool,
}

impl Engine {
    pub(super) fn new(
        device: Box<dyn Device>,
        memory: Memory,
        epoll: Epoll,
        inbox: mpsc::Receiver<Command>,
        on_fault: OnFault,
    ) -> Self {
        let rings = device.traits().rings.iter().map(|_| None).collect();
        Self { device, memory, epoll, inbox, on_fault, rings, again: Vec::new(), started: false, retired: false }
    }

    /// Runs until told to quit. A panic is a defect of ours, but still the device's end and no more.
    pub(super) fn run(mut self, enter: Enter) {
        let outcome = std::panic::catch_unwind(AssertUnwindSafe(|| {
            enter().map_err(Fault::Host)?;
            self.serve()
        }));
        match outcome {
            Ok(Ok(())) => {}
            Ok(Err(fault)) => (self.on_fault)(fault),
            Err(_) => (self.on_fault)(Fault::Panicked),
        }
    }

    fn serve(&mut self) -> Result<(), Fault> {
        let mut keys = Vec::new();
        loop {
            self.epoll.wait(&mut keys, !self.again.is_empty()).map_err(Fault::Watch)?;
            for &key in &keys {
                if key == WAKE {
                    if self.obey() == Next::Quit {
                        return Ok(());
                    }
                } else if key & DEVICE != 0 {
                    // The token was made from 32 bits.
                    self.ready(Token(u32::try_from(key & !DEVICE).unwrap_or(u32::MAX)));
                } else {
                    self.kicked(u16::try_from(key).unwrap_or(u16::MAX));
                }
            }
            for index in std::mem::take(&mut self.again) {
                self.kicked(index);
            }
        }
    }

    fn obey(&mut self) -> Next {
        while let Ok(command) = self.inbox.try_recv() {
            match command {
                Command::Start { index, ring, features } => self.start(index, *ring, features),
                // The front-end may have gone away in the meantime; then nobody wants the answer.
                Command::Stop { index, reply } => drop(reply.send(self.stop(index))),
                Command::SetNotify { index, notify } => self.set_notify(index, notify),
                Command::Reset { serve, reply } => {
                    self.reset(serve);
                    let _ = reply.send(());
                }
                Command::Quit => return Next::Quit,
            }
        }
        Next::Wait
    }

    fn start(&mut self, index: u16, ring: Ring, features: u64) {
        if self.retired {
            return;
        }
        let Some(place) = self.rings.get_mut(usize::from(index)) else {
            return;
        };
        if let Err(error) = self.epoll.watch(ring.kick(), u64::from(index), Interest::Read) {
            return self.retire(Fault::Watch(error));
        }
        *place = Some(ring);
        if !std::mem::replace(&mut self.started, true) {
            self.call(|device, io| device.started(features, io));
        }
        self.kicked(index);
    }

    fn stop(&mut self, index: u16) -> Option<u16> {
        let ring = self.rings.get_mut(usize::from(index))?.take()?;
        // It is watched; should the kernel say otherwise, closing it ends the watch just as well.
        let _ = self.epoll.unwatch(ring.kick());
        Some(ring.position())
    }

    fn set_notify(&mut self, index: u16, notify: Box<dyn Notify>) {
        let ring = self.rings.get_mut(usize::from(index)).and_then(Option::as_mut);
        if let Some(Err(source)) = ring.map(|ring| ring.set_notify(notify)) {
            self.retire(Fault::Ring { index, source });
        }
    }

    fn stop_all(&mut self) {
        for index in 0..=u16::MAX {
            if usize::from(index) >= self.rings.len() {
                break;
            }
            self.stop(index);
        }
        self.again.clear();
    }

    fn reset(&mut self, serve: bool) {
        if serve {
            for index in 0..=u16::MAX {
                if usize::from(index) >= self.rings.len() {
                    break;
                }
                self.kicked(index);
            }
        }
        self.stop_all();
        self.device.reset();
        self.started = false;
        self.retired = false;
    }

    fn kicked(&mut self, index: u16) {
        if self.rings.get(usize::from(index)).is_some_and(Option::is_some) {
            self.call(|device, io| device.kicked(index, io));
        }
    }

    fn ready(&mut self, token: Token) {
        self.call(|device, io| device.ready(token, io));
    }

    /// Calls the device between the rings' beginning and end; a fault of either retires it.
    fn call(&mut self, call: impl FnOnce(&mut dyn Device, &mut Io<'_>) -> Result<(), Fault>) {
        let memory = self.memory.memory();
        let result = self.begin(&memory).and_then(|()| {
            let mut io = Io { memory: &memory, rings: &mut self.rings, epoll: &self.epoll };
            call(self.device.as_mut(), &mut io)
        });
        if let Err(fault) = result.and_then(|()| self.finish(&memory)) {
            self.retire(fault);
        }
    }

    fn begin(&mut self, memory: &GuestMemoryMmap) -> Result<(), Fault> {
        for (index, ring) in (0..).zip(&mut self.rings) {
            if let Some(ring) = ring {
                ring.begin(memory).map_err(|source| Fault::Ring { index, source })?;
            }
        }
        Ok(())
    }

    fn finish(&mut self, memory: &GuestMemoryMmap) -> Result<(), Fault> {
        for (index, ring) in (0..).zip(&mut self.rings) {
            let Some(ring) = ring else { continue };
            let more = ring.finish(memory).map_err(|source| Fault::Ring { index, source })?;
            if more && !self.again.contains(&index) {
                self.again.push(index);
            }
        }
        Ok(())
    }

    fn retire(&mut self, fault: Fault) {
        self.stop_all();
        // One report is enough: what follows the first fault is its consequence.
        if !std::mem::replace(&mut self.retired, true) {
            (self.on_fault)(fault);
        }
    }
}

#[cfg(test)]
mod tests;
