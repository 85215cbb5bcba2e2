// SPDX-License-Identifier: Apache-2.0
//! From the rings to the FUSE server and back (virtio 1.2 §5.11), as a vhost-user back end.
//!
//! The library has one of its own, which ends the process on a request it cannot read, and panics on one that leaves no
//! room for an answer's header. Both are up to the guest, so here such a request gets no answer: its chain is handed
//! back empty. A ring that makes no sense is left alone until the next driver begins.
//!
//! And it offers what we do not want: see [`withhold`].
//!
//! Not for what a request means: that is the library's [`Server`] and our share behind it.

use guest_init::wire::VIEW_TAG;
use std::io;
use std::mem::offset_of;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{PoisonError, RwLock};
use vhost_fs::vhost_user::{VhostUserProtocolFeatures, VhostUserVirtioFeatures};
use vhost_user_backend_fs::bitmap::BitmapMmapRegion;
use vhost_user_backend_fs::{VhostUserBackend, VringMutex, VringState, VringT};
use virtio_bindings::{virtio_config::VIRTIO_F_VERSION_1, virtio_ring};
use virtio_queue_fs::{DescriptorChain, QueueOwnedT};
use virtiofsd::descriptor_utils::{Reader, Writer};
use virtiofsd::filesystem::{FileSystem, FsOptions};
use virtiofsd::fuse::{InHeader, InitOut, Opcode, OutHeader};
use virtiofsd::server::Server;
use vm_memory_fs::{
    Address, Bytes, GuestAddress, GuestAddressSpace, GuestMemoryAtomic, GuestMemoryLoadGuard, GuestMemoryMmap,
};
use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::event::{EventConsumer, EventFlag, EventNotifier, new_event_consumer_and_notifier};

/// Guest memory as the library wants it.
pub(super) type Memory = GuestMemoryMmap<BitmapMmapRegion>;
pub(super) type SharedMemory = GuestMemoryAtomic<Memory>;
type Loaded = GuestMemoryLoadGuard<Memory>;

/// Rings: one for what must not wait, one for requests (§5.11.2).
const RINGS: usize = 2;
const RING_SIZE: usize = 1024;

/// The tag's length in the configuration space, NUL bytes behind it (§5.11.4).
const TAG: usize = 36;

/// Where an answer to INIT says what has been agreed on: the lowest byte of its flags, which holds the flag in question.
const AGREED: usize = size_of::<OutHeader>() + offset_of!(InitOut, flags);
const ATOMIC_O_TRUNC: u8 = FsOptions::ATOMIC_O_TRUNC.bits() as u8;
const _: () = assert!(FsOptions::ATOMIC_O_TRUNC.bits() == ATOMIC_O_TRUNC as u64);

/// A back end for one connection.
pub(super) struct Backend<F: FileSystem + Sync> {
    server: Server<F>,
    memory: RwLock<Option<SharedMemory>>,
    event_idx: AtomicBool,
    broken: [AtomicBool; RINGS],
}

impl<F: FileSystem + Sync> Backend<F> {
    pub(super) fn new(files: F) -> Self {
        let broken = [AtomicBool::new(false), AtomicBool::new(false)];
        Self { server: Server::new(files), memory: RwLock::new(None), event_idx: AtomicBool::new(false), broken }
    }

    /// Serves what is in a ring; an error is the guest's and ends the ring.
    fn drain(&self, ring: &mut VringState<SharedMemory>) -> Result<(), virtio_queue_fs::Error> {
        let memory = self.memory.read().unwrap_or_else(PoisonError::into_inner).as_ref().map(SharedMemory::memory);
        let Some(memory) = memory else { return Ok(()) };
        loop {
            ring.disable_notification()?;
            while let Some(chain) = ring.get_queue_mut().iter(memory.clone())?.next() {
                let head = chain.head_index();
                ring.add_used(head, self.answer(&memory, chain))?;
                self.tell(ring)?;
            }
            if !ring.enable_notification()? {
                return Ok(());
            }
        }
    }

    /// Tells the guest of what has been used, unless it does not care. Nobody to tell is the peer's affair.
    fn tell(&self, ring: &mut VringState<SharedMemory>) -> Result<(), virtio_queue_fs::Error> {
        if !self.event_idx.load(Ordering::Relaxed) || ring.needs_notification()? {
            let _hung_up = ring.signal_used_queue();
        }
        Ok(())
    }

    /// Carries a request out; how many bytes of answer there are.
    pub(super) fn answer(&self, memory: &Memory, chain: DescriptorChain<Loaded>) -> u32 {
        let peeked = Reader::new(memory, chain.clone()).ok().and_then(|mut reader| reader.read_obj::<InHeader>().ok());
        let (Some(header), Ok(reader)) = (peeked, Reader::new(memory, chain.clone())) else { return 0 };
        let Ok(writer) = Writer::new(memory, chain.clone()) else { return 0 };
        let silent = [Opcode::Forget as u32, Opcode::BatchForget as u32].contains(&header.opcode);
        if !silent && writer.available_bytes() < size_of::<OutHeader>() {
            return 0;
        }
        let answered = self.server.handle_message(reader, writer, None::<&mut ()>).unwrap_or(0);
        if header.opcode == Opcode::Init as u32 && answered > AGREED && withhold(memory, chain).is_none() {
            return 0;
        }
        u32::try_from(answered).unwrap_or(0)
    }
}

/// Takes `ATOMIC_O_TRUNC` out of an answer to INIT: the library agrees to it, whatever the file system behind it says.
///
/// With it the guest's kernel leaves truncating to the request that opens a file. It makes that request before it looks
/// whether the file is a program that runs, unless the file is opened for writing: so `open(O_RDONLY | O_TRUNC)` failed
/// with ETXTBSY when the program had lost its text already. Without it the kernel looks first and truncates then.
fn withhold(memory: &Memory, chain: DescriptorChain<Loaded>) -> Option<()> {
    let place = place_of(chain, AGREED as u64)?;
    let agreed: u8 = memory.read_obj(place).ok()?;
    memory.write_obj(agreed & !ATOMIC_O_TRUNC, place).ok()
}

/// Where a byte of an answer is: the parts of the chain that we may write are one buffer (§2.7.4).
fn place_of(chain: DescriptorChain<Loaded>, mut offset: u64) -> Option<GuestAddress> {
    for part in chain.writable() {
        match offset.checked_sub(part.len().into()) {
            Some(beyond) => offset = beyond,
            None => return part.addr().checked_add(offset),
        }
    }
    None
}

impl<F: FileSystem + Send + Sync + 'static> VhostUserBackend for Backend<F> {
    type Bitmap = BitmapMmapRegion;
    type Vring = VringMutex<SharedMemory>;

    fn num_queues(&self) -> usize {
        RINGS
    }

    fn max_queue_size(&self) -> usize {
        RING_SIZE
    }

    fn features(&self) -> u64 {
        1 << VIRTIO_F_VERSION_1
            | 1 << virtio_ring::VIRTIO_RING_F_INDIRECT_DESC
            | 1 << virtio_ring::VIRTIO_RING_F_EVENT_IDX
            | VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits()
    }

    fn protocol_features(&self) -> VhostUserProtocolFeatures {
        VhostUserProtocolFeatures::MQ
            | VhostUserProtocolFeatures::REPLY_ACK
            | VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS
            | VhostUserProtocolFeatures::CONFIG
    }

    fn set_event_idx(&self, enabled: bool) {
        self.event_idx.store(enabled, Ordering::Relaxed);
    }

    /// A driver begins, and agrees on features first: what an earlier one did to its rings is over.
    fn acked_features(&self, _features: u64) {
        for broken in &self.broken {
            broken.store(false, Ordering::Relaxed);
        }
    }

    fn get_config(&self, offset: u32, size: u32) -> Vec<u8> {
        let mut space = VIEW_TAG.as_bytes().to_vec();
        space.resize(TAG, 0);
        space.extend_from_slice(&1u32.to_le_bytes());
        let wanted = space.into_iter().skip(offset as usize).chain(std::iter::repeat(0));
        // The vhost-user protocol has no more than 256 bytes of it.
        wanted.take(size.min(256) as usize).collect()
    }

    fn update_memory(&self, memory: SharedMemory) -> io::Result<()> {
        *self.memory.write().unwrap_or_else(PoisonError::into_inner) = Some(memory);
        Ok(())
    }

    /// What ends a ring's thread: without it, dropping the server waits for the thread for ever.
    fn exit_event(&self, _thread: usize) -> Option<(EventConsumer, EventNotifier)> {
        new_event_consumer_and_notifier(EventFlag::NONBLOCK | EventFlag::CLOEXEC).ok()
    }

    fn handle_event(
        &self,
        device_event: u16,
        _events: EventSet,
        rings: &[Self::Vring],
        _thread: usize,
    ) -> io::Result<()> {
        let index = usize::from(device_event);
        let (Some(ring), Some(broken)) = (rings.get(index), self.broken.get(index)) else { return Ok(()) };
        if !broken.load(Ordering::Relaxed) && self.drain(&mut ring.get_mut()).is_err() {
            broken.store(true, Ordering::Relaxed);
        }
        Ok(())
    }
}

#[cfg(test)]
pub(super) mod tests;
