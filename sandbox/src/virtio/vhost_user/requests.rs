// SPDX-License-Identifier: Apache-2.0
//! The peer's messages, one method each, and what they do to the worker.
//!
//! The [`vhost`] crate has read and checked their form; here is what they mean. Features that are not offered are
//! refused by [`refuse`]: the peer had no right to use them.

use super::setup::{Addresses, Setup, bell};
use super::table::Table;
use crate::memory::Memory;
use crate::virtio::ring::Ring;
use crate::virtio::worker::Worker;
use rustix::io::{FdFlags, fcntl_setfd};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use vhost::vhost_user::message::{
    VhostTransferStateDirection, VhostTransferStatePhase, VhostUserConfigFlags, VhostUserInflight, VhostUserLog,
    VhostUserMemoryRegion, VhostUserProtocolFeatures, VhostUserShMemConfig, VhostUserSharedMsg,
    VhostUserSingleMemoryRegion, VhostUserVirtioFeatures, VhostUserVringAddrFlags, VhostUserVringState,
};
use vhost::vhost_user::{Error, GpuBackend, Result, VhostUserBackendReqHandlerMut};
use vm_memory::GuestAddressSpace;

/// The protocol's own feature bit: it comes with negotiation of protocol features, and rings start disabled.
const PROTOCOL_FEATURES: u64 = VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits();

/// Largest ring. The device's own limits cannot be told in this protocol: QEMU offers the driver its own, this.
const SIZE_MAX: u16 = 1024;

/// What the messages have said so far.
pub(super) struct Requests {
    worker: Arc<Worker>,
    memory: Memory,
    table: Table,
    rings: Vec<Setup>,
    features: u64,
}

impl Requests {
    pub(super) fn new(worker: Arc<Worker>, memory: Memory) -> Self {
        let rings = worker.traits().rings.iter().map(|_| Setup::default()).collect();
        Self { worker, memory, table: Table::default(), rings, features: 0 }
    }

    fn offered(&self) -> u64 {
        self.worker.traits().features | PROTOCOL_FEATURES
    }

    fn ring(&mut self, index: u32) -> Result<&mut Setup> {
        let index = usize::try_from(index).unwrap_or(usize::MAX);
        self.rings.get_mut(index).ok_or(Error::InvalidParam)
    }

    /// A ring whose geometry may change.
    fn stopped_ring(&mut self, index: u32) -> Result<&mut Setup> {
        match self.ring(index)? {
            ring if ring.running => Err(Error::InvalidOperation("the ring runs")),
            ring => Ok(ring),
        }
    }

    /// Starts a ring if it is complete.
    fn start_if_complete(&mut self, index: u32) -> Result<()> {
        let features = self.features;
        let Some(setup) = self.ring(index)?.complete(features) else {
            return Ok(());
        };
        let number = u16::try_from(index).unwrap_or(u16::MAX);
        let ring = Ring::new(setup, SIZE_MAX, &self.memory.memory()).map_err(invalid)?;
        self.ring(index)?.running = true;
        self.worker.start_ring(number, ring, features);
        Ok(())
    }

    /// Stops a ring if it runs, and remembers where it was.
    fn stop(&mut self, index: u32) -> Result<()> {
        let number = u16::try_from(index).unwrap_or(u16::MAX);
        let ring = self.ring(index)?;
        if std::mem::take(&mut ring.running)
            && let Some(position) = self.worker.stop_ring(number)
        {
            self.ring(index)?.position = position;
        }
        Ok(())
    }
}

/// A descriptor of the peer's that our children shall not have: the crate receives it inheritable.
fn private(file: File) -> Result<OwnedFd> {
    fcntl_setfd(&file, FdFlags::CLOEXEC).map_err(|errno| Error::ReqHandlerError(errno.into()))?;
    Ok(OwnedFd::from(file))
}

fn invalid(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::ReqHandlerError(io::Error::new(io::ErrorKind::InvalidInput, error))
}

/// The answer to what was not offered.
fn refuse<T>() -> Result<T> {
    Err(Error::InvalidOperation("not offered"))
}

impl VhostUserBackendReqHandlerMut for Requests {
    fn set_owner(&mut self) -> Result<()> {
        Ok(())
    }

    fn reset_owner(&mut self) -> Result<()> {
        refuse()
    }

    fn reset_device(&mut self) -> Result<()> {
        refuse()
    }

    fn get_features(&mut self) -> Result<u64> {
        Ok(self.offered())
    }

    fn set_features(&mut self, features: u64) -> Result<()> {
        if features & !self.offered() != 0 {
            return Err(Error::FeatureMismatch);
        }
        self.features = features;
        if features & PROTOCOL_FEATURES == 0 {
            // Such a peer does not know how to enable a ring.
            for ring in &mut self.rings {
                ring.enabled = true;
            }
        }
        Ok(())
    }

    fn set_mem_table(
        &mut self,
        entries: &[VhostUserMemoryRegion],
        files: Vec<File>,
        _postcopy: Option<bool>,
    ) -> Result<Option<Vec<vhost::VhostUserMemoryRegionBase>>> {
        for file in &files {
            fcntl_setfd(file, FdFlags::CLOEXEC).map_err(|errno| Error::ReqHandlerError(errno.into()))?;
        }
        self.table = Table::install(entries, files, &self.memory)?;
        Ok(None)
    }

    fn set_vring_num(&mut self, index: u32, size: u32) -> Result<()> {
        let Ok(size) = u16::try_from(size) else {
            return Err(Error::InvalidParam);
        };
        self.stopped_ring(index)?.size = Some(size);
        Ok(())
    }

    fn set_vring_addr(
        &mut self,
        index: u32,
        _flags: VhostUserVringAddrFlags,
        descriptors: u64,
        used: u64,
        available: u64,
        _log: u64,
    ) -> Result<()> {
        let addresses = Addresses {
            descriptors: self.table.guest_address(descriptors)?,
            available: self.table.guest_address(available)?,
            used: self.table.guest_address(used)?,
        };
        self.stopped_ring(index)?.addresses = Some(addresses);
        Ok(())
    }

    fn set_vring_base(&mut self, index: u32, position: u32) -> Result<()> {
        let Ok(position) = u16::try_from(position) else {
            return Err(Error::InvalidParam);
        };
        self.stopped_ring(index)?.position = position;
        Ok(())
    }

    fn get_vring_base(&mut self, index: u32) -> Result<VhostUserVringState> {
        self.stop(index)?;
        let ring = self.ring(index)?;
        // A stopped ring starts again with a new kick.
        (ring.kick, ring.call) = (None, None);
        Ok(VhostUserVringState::new(index, u32::from(ring.position)))
    }

    fn set_vring_kick(&mut self, index: u8, fd: Option<File>) -> Result<()> {
        let index = u32::from(index);
        let Some(file) = fd else {
            return Err(Error::InvalidOperation("rings are not polled"));
        };
        self.stopped_ring(index)?.kick = Some(Arc::new(private(file)?));
        self.start_if_complete(index)
    }

    fn set_vring_call(&mut self, index: u8, fd: Option<File>) -> Result<()> {
        let call = match fd {
            Some(file) => Some(bell(private(file)?).map_err(|errno| Error::ReqHandlerError(errno.into()))?),
            None => None,
        };
        let ring = self.ring(u32::from(index))?;
        ring.call = call;
        if ring.running {
            let notify = ring.notify();
            self.worker.set_notify(u16::from(index), notify);
        }
        Ok(())
    }

    fn set_vring_err(&mut self, index: u8, _fd: Option<File>) -> Result<()> {
        // Errors close the connection; there is nothing to signal.
        self.ring(u32::from(index)).map(drop)
    }

    fn get_protocol_features(&mut self) -> Result<VhostUserProtocolFeatures> {
        let mut features = VhostUserProtocolFeatures::MQ;
        // QEMU warns of a configuration space that it does not ask for.
        features.set(VhostUserProtocolFeatures::CONFIG, self.worker.traits().config > 0);
        Ok(features)
    }

    fn set_protocol_features(&mut self, features: u64) -> Result<()> {
        let offered = self.get_protocol_features()? | VhostUserProtocolFeatures::REPLY_ACK;
        if features & !offered.bits() != 0 {
            return Err(Error::FeatureMismatch);
        }
        Ok(())
    }

    fn get_queue_num(&mut self) -> Result<u64> {
        Ok(self.rings.len() as u64)
    }

    fn set_vring_enable(&mut self, index: u32, enable: bool) -> Result<()> {
        self.ring(index)?.enabled = enable;
        if enable { self.start_if_complete(index) } else { self.stop(index) }
    }

    fn get_config(&mut self, offset: u32, size: u32, _flags: VhostUserConfigFlags) -> Result<Vec<u8>> {
        // The crate bounds `size` by its longest message.
        let (Ok(offset), Ok(size)) = (usize::try_from(offset), usize::try_from(size)) else {
            return Err(Error::InvalidParam);
        };
        let mut bytes = vec![0; size];
        self.worker.config(offset, &mut bytes);
        Ok(bytes)
    }

    fn set_config(&mut self, _offset: u32, _bytes: &[u8], _flags: VhostUserConfigFlags) -> Result<()> {
        Err(Error::InvalidOperation("configuration is read-only"))
    }

    fn set_gpu_socket(&mut self, _gpu: GpuBackend) -> Result<()> {
        refuse()
    }

    fn get_shared_object(&mut self, _uuid: VhostUserSharedMsg) -> Result<File> {
        refuse()
    }

    fn get_inflight_fd(&mut self, _inflight: &VhostUserInflight) -> Result<(VhostUserInflight, File)> {
        refuse()
    }

    fn set_inflight_fd(&mut self, _inflight: &VhostUserInflight, _file: File) -> Result<()> {
        refuse()
    }

    fn get_max_mem_slots(&mut self) -> Result<u64> {
        refuse()
    }

    fn add_mem_region(
        &mut self,
        _region: &VhostUserSingleMemoryRegion,
        _fd: File,
        _postcopy: Option<bool>,
    ) -> Result<Option<vhost::VhostUserMemoryRegionBase>> {
        refuse()
    }

    fn remove_mem_region(&mut self, _region: &VhostUserSingleMemoryRegion) -> Result<()> {
        refuse()
    }

    fn set_device_state_fd(
        &mut self,
        _direction: VhostTransferStateDirection,
        _phase: VhostTransferStatePhase,
        _fd: File,
    ) -> Result<Option<File>> {
        refuse()
    }

    fn check_device_state(&mut self) -> Result<()> {
        refuse()
    }

    fn get_shmem_config(&mut self) -> Result<VhostUserShMemConfig> {
        refuse()
    }

    fn set_log_base(&mut self, _log: &VhostUserLog, _file: File) -> Result<()> {
        refuse()
    }
}
