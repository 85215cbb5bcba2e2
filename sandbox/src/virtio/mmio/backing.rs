// SPDX-License-Identifier: Apache-2.0
//! What is behind a window: a device of this process, or one in a process of its own.
//!
//! The window's verbs, carried out by either. Not for registers.

use super::Error;
use super::line::Line;
use crate::memory::Memory;
use crate::virtio::device::{Device, Fault, Traits};
use crate::virtio::remote::{self, Backend};
use crate::virtio::ring::Ring;
use crate::virtio::worker::{Enter, Worker};
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use vm_memory::GuestMemoryMmap;

/// What a window can be made for.
pub enum Backing {
    /// A device, which gets a thread in this process that begins like this.
    Local(Box<dyn Device>, Enter),
    /// A device in a process of its own.
    Remote(Backend),
}

/// A device that has been taken in.
#[derive(Debug)]
pub(super) enum Behind {
    Local(Worker),
    Remote(Backend, Arc<Line>),
}

impl Behind {
    pub(super) fn new(backing: Backing, memory: Memory, line: &Arc<Line>) -> Result<Self, Error> {
        let line = Arc::clone(line);
        match backing {
            Backing::Local(device, enter) => {
                let on_fault = Box::new(move |fault| line.retire(fault));
                Worker::spawn(device, memory, on_fault, enter).map(Self::Local).map_err(Error::Worker)
            }
            Backing::Remote(backend) => Ok(Self::Remote(backend, line)),
        }
    }

    /// The features of rings included.
    pub(super) fn traits(&self) -> Traits {
        match self {
            Self::Local(worker) => worker.traits(),
            Self::Remote(backend, _) => backend.traits(),
        }
    }

    /// The whole configuration space.
    pub(super) fn config(&self) -> Vec<u8> {
        match self {
            Self::Local(worker) => {
                let mut bytes = vec![0; worker.traits().config];
                worker.config(0, &mut bytes);
                bytes
            }
            Self::Remote(backend, _) => backend.config().to_vec(),
        }
    }

    /// Starts these rings, all that there will be.
    pub(super) fn start(&mut self, rings: Vec<(u16, Ring)>, features: u64, memory: &GuestMemoryMmap) {
        match self {
            Self::Local(worker) => {
                for (index, ring) in rings {
                    worker.start_ring(index, ring, features);
                }
            }
            Self::Remote(backend, line) => {
                line.set_unseen();
                lose(line, backend.start(&rings, features, line.interrupt().as_fd(), memory));
            }
        }
    }

    /// Stops a ring. Afterwards nobody touches it.
    pub(super) fn stop(&mut self, index: u16) {
        match self {
            // It starts anew or not at all, so its position does not matter.
            Self::Local(worker) => drop(worker.stop_ring(index)),
            Self::Remote(backend, line) => lose(line, backend.stop(index)),
        }
    }

    /// Stops every ring and makes the device forget its driver.
    pub(super) fn reset(&mut self) {
        match self {
            Self::Local(worker) => worker.reset(),
            Self::Remote(backend, line) => lose(line, backend.reset()),
        }
    }

    /// The driver is gone for good: serves what it has handed over, then resets.
    pub(super) fn hang_up(&mut self) {
        match self {
            Self::Local(worker) => worker.hang_up(),
            // What it has been kicked for, it serves without us.
            Self::Remote(..) => {}
        }
    }
}

/// A device whose process is lost is lost for good.
fn lose(line: &Line, outcome: Result<(), remote::Error>) {
    if let Err(error) = outcome {
        line.give_up(Fault::Host(io::Error::other(error)));
    }
}
