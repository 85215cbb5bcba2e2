// SPDX-License-Identifier: Apache-2.0
//! One ring as its messages arrive (VHOST_USER_SET_VRING_*), until it is complete and may run.
//!
//! Its geometry can change only while it does not run. Not for translating addresses, see [`super::table`].

use crate::sys::eventfd;
use crate::virtio::ring::{self, Notify};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::Errno;
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// Guest addresses of a ring's parts.
#[derive(Debug, Clone, Copy)]
pub(super) struct Addresses {
    pub(super) descriptors: u64,
    pub(super) available: u64,
    pub(super) used: u64,
}

/// What has arrived for one ring.
#[derive(Debug, Default)]
pub(super) struct Setup {
    pub(super) size: Option<u16>,
    pub(super) addresses: Option<Addresses>,
    pub(super) position: u16,
    pub(super) kick: Option<Arc<OwnedFd>>,
    pub(super) call: Option<Arc<OwnedFd>>,
    pub(super) enabled: bool,
    pub(super) running: bool,
}

impl Setup {
    /// The ring, if all of it is here and it shall run but does not.
    pub(super) fn complete(&self, features: u64) -> Option<ring::Setup> {
        if self.running || !self.enabled {
            return None;
        }
        let Addresses { descriptors, available, used } = self.addresses?;
        Some(ring::Setup {
            size: self.size?,
            descriptors,
            available,
            used,
            position: self.position,
            features,
            kick: Arc::clone(self.kick.as_ref()?),
            notify: self.notify(),
        })
    }

    /// The bell to the driver.
    pub(super) fn notify(&self) -> Box<dyn Notify> {
        Box::new(Call(self.call.clone()))
    }
}

/// Checks a bell that the peer hands over: ringing it must never make us wait.
pub(super) fn bell(fd: OwnedFd) -> Result<Arc<OwnedFd>, Errno> {
    if !eventfd::is_eventfd(&fd) {
        return Err(Errno::INVAL);
    }
    let flags = fcntl_getfl(&fd)?;
    fcntl_setfl(&fd, flags | OFlags::NONBLOCK)?;
    Ok(Arc::new(fd))
}

/// Rings by an event descriptor of the peer's; a peer that looks for itself has none.
struct Call(Option<Arc<OwnedFd>>);

impl Notify for Call {
    fn notify(&self) -> Result<(), Errno> {
        self.0.as_ref().map_or(Ok(()), eventfd::signal)
    }
}
