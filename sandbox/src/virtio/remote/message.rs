// SPDX-License-Identifier: Apache-2.0
//! The messages we send, and the one answer (vhost-user protocol, "Message Specification").
//!
//! The [`vhost`] crate has the layouts. Its own front end is not used: it takes `EAGAIN` for a reason to try again for
//! ever, so a time limit on the socket would not end its wait for a process that is lost. Not for the order of
//! messages.

use super::Error;
use crate::virtio::ring::Place;
use rustix::cmsg_space;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, recv, sendmsg};
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};
use vhost::vhost_user::message::{
    FrontendReq, VhostUserHeaderFlag, VhostUserMemory, VhostUserMemoryRegion, VhostUserU64, VhostUserVringAddr,
    VhostUserVringAddrFlags, VhostUserVringState,
};
use vm_memory::{Address, ByteValued, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion};

/// Version of the protocol, in every message's flags.
const VERSION: u32 = 1;
/// Regions of memory that every back end takes.
const REGIONS: usize = 8;
/// Request, flags and length of the body.
const HEADER: usize = 12;
/// The one answer, header included.
const ANSWER: usize = HEADER + size_of::<VhostUserVringState>();

/// A connection to a back end.
#[derive(Debug)]
pub(super) struct Connection {
    socket: UnixStream,
    patience: Duration,
}

impl Connection {
    /// A connection on which no single wait is longer than `patience`.
    pub(super) fn new(socket: UnixStream, patience: Duration) -> Self {
        Self { socket, patience }
    }

    pub(super) fn set_owner(&self) -> Result<(), Error> {
        self.send(FrontendReq::SET_OWNER, &[], &[])
    }

    pub(super) fn set_features(&self, features: u64) -> Result<(), Error> {
        self.send(FrontendReq::SET_FEATURES, VhostUserU64::new(features).as_slice(), &[])
    }

    /// Shares guest memory. Our addresses of it, which the protocol has for those of rings, are the guest's.
    pub(super) fn set_memory(&self, memory: &GuestMemoryMmap) -> Result<(), Error> {
        let (mut body, mut files) = (Vec::new(), Vec::new());
        for region in memory.iter() {
            let at = region.start_addr().raw_value();
            let file = region.file_offset().ok_or(Error::Memory)?;
            body.extend_from_slice(VhostUserMemoryRegion::new(at, region.len(), at, file.start()).as_slice());
            files.push(file.file().as_fd());
        }
        let count = u32::try_from(files.len()).ok().filter(|_| files.len() <= REGIONS).ok_or(Error::Memory)?;
        let body = [VhostUserMemory::new(count).as_slice(), &body].concat();
        self.send(FrontendReq::SET_MEM_TABLE, &body, &files)
    }

    /// Hands a ring over; it runs once the last of these messages is read.
    pub(super) fn start(
        &self,
        index: u16,
        place: Place,
        kick: BorrowedFd<'_>,
        call: BorrowedFd<'_>,
    ) -> Result<(), Error> {
        let ring = u32::from(index);
        let state = |number| VhostUserVringState::new(ring, number);
        let none = VhostUserVringAddrFlags::empty();
        let address = VhostUserVringAddr::new(ring, none, place.descriptors, place.used, place.available, 0);
        let number = VhostUserU64::new(u64::from(ring));
        self.send(FrontendReq::SET_VRING_NUM, state(u32::from(place.size)).as_slice(), &[])?;
        self.send(FrontendReq::SET_VRING_BASE, state(0).as_slice(), &[])?;
        self.send(FrontendReq::SET_VRING_ADDR, address.as_slice(), &[])?;
        self.send(FrontendReq::SET_VRING_CALL, number.as_slice(), &[call])?;
        self.send(FrontendReq::SET_VRING_KICK, number.as_slice(), &[kick])
    }

    /// Takes a ring back. After the answer, the other side does not touch it.
    pub(super) fn stop(&self, index: u16) -> Result<(), Error> {
        let body = VhostUserVringState::new(u32::from(index), 0);
        self.send(FrontendReq::GET_VRING_BASE, body.as_slice(), &[])?;
        let answer = self.receive()?;
        let flags = VERSION | VhostUserHeaderFlag::REPLY.bits();
        let head = header(FrontendReq::GET_VRING_BASE, flags, body.as_slice());
        // What follows is the ring's position; the next start begins anew.
        let right = answer.starts_with(&[head.as_slice(), &u32::from(index).to_ne_bytes()].concat());
        if right { Ok(()) } else { Err(Error::Answer) }
    }

    fn send(&self, request: FrontendReq, body: &[u8], files: &[BorrowedFd<'_>]) -> Result<(), Error> {
        let text = [header(request, VERSION, body).as_slice(), body].concat();
        let deadline = Instant::now() + self.patience;
        loop {
            let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(REGIONS))];
            let mut ancillary = SendAncillaryBuffer::new(&mut space);
            if !files.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(files)) {
                return Err(Error::Memory);
            }
            let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
            match sendmsg(&self.socket, &[IoSlice::new(&text)], &mut ancillary, flags) {
                // Messages this short go whole or not at all (unix_stream_sendmsg in the kernel's af_unix.c).
                Ok(count) if count == text.len() => return Ok(()),
                Ok(_) => return Err(Error::Closed),
                Err(Errno::AGAIN) => self.wait(PollFlags::OUT, deadline)?,
                Err(Errno::INTR) => {}
                Err(Errno::PIPE | Errno::CONNRESET) => return Err(Error::Closed),
                Err(error) => return Err(Error::Socket(error)),
            }
        }
    }

    fn receive(&self) -> Result<[u8; ANSWER], Error> {
        let mut answer = [0; ANSWER];
        let mut rest = answer.as_mut_slice();
        let deadline = Instant::now() + self.patience;
        while !rest.is_empty() {
            match recv(&self.socket, &mut *rest, RecvFlags::DONTWAIT) {
                Ok((0, _)) | Err(Errno::CONNRESET) => return Err(Error::Closed),
                Ok((count, _)) => rest = rest.get_mut(count..).unwrap_or_default(),
                Err(Errno::AGAIN) => self.wait(PollFlags::IN, deadline)?,
                Err(Errno::INTR) => {}
                Err(error) => return Err(Error::Socket(error)),
            }
        }
        Ok(answer)
    }

    fn wait(&self, what: PollFlags, deadline: Instant) -> Result<(), Error> {
        let left = deadline.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left).unwrap_or(Timespec { tv_sec: 0, tv_nsec: 0 });
        match poll(&mut [PollFd::new(&self.socket, what)], Some(&left)) {
            Ok(0) => Err(Error::Late),
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(Error::Socket(error)),
        }
    }
}

fn header(request: FrontendReq, flags: u32, body: &[u8]) -> [u8; HEADER] {
    // A body is a few hundred bytes.
    let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
    let mut bytes = [0; HEADER];
    for (place, word) in bytes.chunks_exact_mut(4).zip([u32::from(request), flags, length]) {
        place.copy_from_slice(&word.to_ne_bytes());
    }
    bytes
}
