// SPDX-License-Identifier: Apache-2.0
//! The thread that owns a device: one epoll for its rings' kicks, its own descriptors and our commands.
//!
//! Any front-end drives it by the same few verbs: start a ring, stop it and learn its position, reset. Rings start
//! and stop one at a time. Not for what a device does, and not for how a driver tells a front-end about its rings.
//! Follows virtio 1.2 §3 (device operation) and §2.1.1 (a broken device is retired until its reset).

mod engine;

use super::device::{Device, Fault, Token, Traits};
use super::ring::{self, Notify, Ring};
use crate::memory::Memory;
use crate::sys::epoll::{Epoll, Interest};
use crate::sys::eventfd;
use engine::{Command, Engine, WAKE};
use rustix::io::Errno;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

/// What can go wrong when a worker is made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel refused a descriptor.
    #[error("cannot make a descriptor of the {device} device's worker")]
    Descriptor {
        /// Which device.
        device: &'static str,
        /// The kernel's reason.
        #[source]
        source: Errno,
    },
    /// The kernel refused a thread.
    #[error("cannot start the {device} device's thread")]
    Thread {
        /// Which device.
        device: &'static str,
        /// The kernel's reason.
        #[source]
        source: io::Error,
    },
}

/// What a front-end does when its device has retired. Called from the device's thread, so it must not wait for it.
pub type OnFault = Box<dyn Fn(Fault) + Send>;

/// What a device's thread does first; the device is not served by a thread that failed to. A front-end that is part of a
/// confined process confines it here.
pub type Enter = fn() -> io::Result<()>;

/// A device and its thread. Dropping it ends both.
#[derive(Debug)]
pub struct Worker {
    traits: Traits,
    config: Vec<u8>,
    commands: mpsc::Sender<Command>,
    wake: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    /// Gives a device its thread.
    ///
    /// # Errors
    /// If the kernel refuses a descriptor or the thread.
    pub fn spawn(device: Box<dyn Device>, memory: Memory, on_fault: OnFault, enter: Enter) -> Result<Self, Error> {
        let mut traits = device.traits();
        traits.features |= ring::FEATURES;
        let name = traits.id.name();
        let mut config = vec![0; traits.config];
        device.config(0, &mut config);

        let failed = |source| Error::Descriptor { device: name, source };
        let epoll = Epoll::new().map_err(failed)?;
        let wake = Arc::new(eventfd::create().map_err(failed)?);
        epoll.watch(&wake, WAKE, Interest::Read).map_err(failed)?;
        let (commands, inbox) = mpsc::channel();
        let engine = Engine::new(device, memory, epoll, inbox, on_fault);
        let thread = std::thread::Builder::new()
            .name(format!("virtio-{name}"))
            .spawn(move || engine.run(enter))
            .map_err(|source| Error::Thread { device: name, source })?;
        Ok(Self { traits, config, commands, wake, thread: Some(thread) })
    }

    /// What the device is, the features of rings included.
    #[must_use]
    pub fn traits(&self) -> Traits {
        self.traits
    }

    /// Copies configuration space from `offset` on; zeros beyond its end.
    pub fn config(&self, offset: usize, out: &mut [u8]) {
        let rest = self.config.get(offset..).unwrap_or_default();
        let count = rest.len().min(out.len());
        let (known, unknown) = out.split_at_mut(count);
        known.copy_from_slice(&rest[..count]);
        unknown.fill(0);
    }

    /// Starts a ring under its number; the first one starts the device with `features`.
    pub fn start_ring(&self, index: u16, ring: Ring, features: u64) {
        self.send(Command::Start { index, ring: Box::new(ring), features });
    }

    /// Stops a ring. Returns the position to start it from again, or `None` if it does not run.
    #[must_use]
    pub fn stop_ring(&self, index: u16) -> Option<u16> {
        self.ask(|reply| Command::Stop { index, reply }).flatten()
    }

    /// Replaces a running ring's bell.
    pub fn set_notify(&self, index: u16, notify: Box<dyn Notify>) {
        self.send(Command::SetNotify { index, notify });
    }

    /// Stops every ring and makes the device forget its driver. A retired device can be started again.
    pub fn reset(&self) {
        let _done: Option<()> = self.ask(|reply| Command::Reset { serve: false, reply });
    }

    /// The driver is gone for good: serves what it has handed over, then resets.
    pub fn hang_up(&self) {
        let _done: Option<()> = self.ask(|reply| Command::Reset { serve: true, reply });
    }

    fn ask<T>(&self, command: impl FnOnce(mpsc::Sender<T>) -> Command) -> Option<T> {
        let (reply, answer) = mpsc::channel();
        self.send(command(reply));
        // No answer: the thread has panicked, which was reported as a fault.
        answer.recv().ok()
    }

    fn send(&self, command: Command) {
        if self.commands.send(command).is_ok() {
            // The counter of our own descriptor cannot be full, so this cannot fail.
            let _woken: Result<(), Errno> = eventfd::signal(&self.wake);
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.send(Command::Quit);
        if let Some(thread) = self.thread.take() {
            // A panic was reported as a fault when it happened.
            drop(thread.join());
        }
    }
}

/// The epoll key of a device's own descriptor.
pub(super) fn key(token: Token) -> u64 {
    engine::DEVICE | u64::from(token.0)
}
