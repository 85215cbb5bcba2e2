// SPDX-License-Identifier: Apache-2.0
//! The ways to reach a device: its worker, and the `vhost` crate's side of a vhost-user connection.

use super::driver::{MEMORY, RING, Side};
use crate::memory::Memory;
use crate::sys::eventfd;
use crate::virtio::device::{Device, Fault};
use crate::virtio::ring::{self, Notify, Ring, Setup};
use crate::virtio::vhost_user::{Ending, Server, serve};
use crate::virtio::worker::Worker;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};
use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, mpsc};
use std::time::Duration;
use vhost::vhost_user::message::{VhostUserConfigFlags, VhostUserProtocolFeatures, VhostUserVirtioFeatures};
use vhost::vhost_user::{Frontend, VhostUserFrontend};
use vhost::{VhostBackend, VhostUserMemoryRegionInfo, VringConfigData};
use vm_memory::GuestAddressSpace;

/// Where a test lets the peer see guest memory.
const PEER: u64 = 0x7f00_0000_0000;

/// Which way.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    Bare,
    VhostUser,
}

/// How a device ended, whichever way it was reached.
#[derive(Debug)]
pub(super) enum End {
    Fault(Fault),
    Other,
}

/// A front-end of either kind.
pub(super) enum Front {
    Bare { worker: Worker, faults: mpsc::Receiver<Fault> },
    VhostUser { frontend: Frontend, server: Server },
}

/// A second descriptor of the same file. (The crates' own types do not convert without `unsafe`.)
pub(super) fn duplicate(fd: RawFd) -> OwnedFd {
    let this = pidfd_open(getpid(), PidfdFlags::empty()).expect("pidfd");
    pidfd_getfd(this, fd, PidfdGetfdFlags::empty()).expect("duplicate")
}

struct Bell(OwnedFd);

impl Notify for Bell {
    fn notify(&self) -> Result<(), Errno> {
        eventfd::signal(&self.0)
    }
}

impl Front {
    pub(super) fn new(kind: Kind, device: Box<dyn Device>, memory: Memory, file: &File) -> Self {
        match kind {
            Kind::Bare => {
                let (report, faults) = mpsc::channel();
                let on_fault = Box::new(move |fault| report.send(fault).expect("report"));
                Self::Bare { worker: Worker::spawn(device, memory, on_fault).expect("worker"), faults }
            }
            Kind::VhostUser => {
                let rings = device.traits().rings.len();
                let (ours, theirs) = UnixStream::pair().expect("pair");
                let server = serve(ours, device).expect("serve");
                Self::VhostUser { frontend: greet(theirs, rings, file), server }
            }
        }
    }

    pub(super) fn features(&self) -> u64 {
        match self {
            Self::Bare { worker, .. } => worker.traits().features,
            Self::VhostUser { frontend, .. } => frontend.get_features().expect("features"),
        }
    }

    pub(super) fn config(&mut self, offset: u32, length: usize) -> Vec<u8> {
        match self {
            Self::Bare { worker, .. } => {
                let mut bytes = vec![0xff; length];
                worker.config(offset as usize, &mut bytes);
                bytes
            }
            Self::VhostUser { frontend, .. } => {
                let blank = vec![0; length];
                frontend.get_config(offset, length as u32, VhostUserConfigFlags::empty(), &blank).expect("config").1
            }
        }
    }

    pub(super) fn start(&mut self, index: usize, side: &Side, memory: &Memory) -> Result<(), String> {
        match self {
            Self::Bare { worker, .. } => {
                let setup = Setup {
                    size: RING,
                    descriptors: side.base,
                    available: side.available(),
                    used: side.used(),
                    position: side.position,
                    features: ring::FEATURES,
                    kick: Arc::new(duplicate(side.kick.as_raw_fd())),
                    notify: Box::new(Bell(duplicate(side.call.as_raw_fd()))),
                };
                let ring = Ring::new(setup, RING, &memory.memory()).map_err(|error| error.to_string())?;
                worker.start_ring(index as u16, ring, ring::FEATURES);
                Ok(())
            }
            Self::VhostUser { frontend, .. } => {
                let config = VringConfigData {
                    queue_max_size: RING,
                    queue_size: RING,
                    flags: 0,
                    desc_table_addr: side.base.wrapping_add(PEER),
                    used_ring_addr: side.used().wrapping_add(PEER),
                    avail_ring_addr: side.available().wrapping_add(PEER),
                    log_addr: None,
                };
                (|| {
                    frontend.set_vring_num(index, RING)?;
                    frontend.set_vring_base(index, side.position)?;
                    frontend.set_vring_addr(index, &config)?;
                    frontend.set_vring_call(index, &side.call)?;
                    frontend.set_vring_kick(index, &side.kick)?;
                    frontend.set_vring_enable(index, true)
                })()
                .map_err(|error| error.to_string())
            }
        }
    }

    pub(super) fn stop(&mut self, index: usize) -> u16 {
        match self {
            Self::Bare { worker, .. } => worker.stop_ring(index as u16).expect("running"),
            Self::VhostUser { frontend, .. } => frontend.get_vring_base(index).expect("base") as u16,
        }
    }

    pub(super) fn reset(&mut self) {
        match self {
            Self::Bare { worker, .. } => worker.reset(),
            Self::VhostUser { .. } => unreachable!("the protocol has no reset here"),
        }
    }

    pub(super) fn into_server(self) -> Server {
        match self {
            Self::Bare { .. } => unreachable!("no server"),
            Self::VhostUser { server, .. } => server,
        }
    }

    pub(super) fn end(&mut self) -> End {
        match self {
            Self::Bare { faults, .. } => End::Fault(faults.recv_timeout(Duration::from_secs(10)).expect("fault")),
            Self::VhostUser { server, .. } => {
                let ended = server.ended();
                let mut polled = [PollFd::from_borrowed_fd(ended, PollFlags::IN)];
                let deadline = Timespec { tv_sec: 10, tv_nsec: 0 };
                assert_eq!(rustix::event::poll(&mut polled, Some(&deadline)), Ok(1), "it did not end");
                match server.ending().expect("reason") {
                    Ending::Fault(Fault::Ring { index, source: ring::Error::Queue(_) }) => {
                        let source = ring::Error::Queue(virtio_queue::Error::InvalidAvailRingIndex);
                        End::Fault(Fault::Ring { index: *index, source })
                    }
                    _ => End::Other,
                }
            }
        }
    }
}

/// Negotiates, and hands the memory over.
fn greet(socket: UnixStream, rings: usize, file: &File) -> Frontend {
    let mut frontend = Frontend::from_stream(socket, rings as u64);
    frontend.set_owner().expect("owner");
    let features = frontend.get_features().expect("features");
    assert!(features & VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits() != 0);
    let offered = frontend.get_protocol_features().expect("protocol features");
    frontend.set_protocol_features(offered).expect("protocol features");
    assert!(offered.contains(VhostUserProtocolFeatures::REPLY_ACK));
    frontend.set_hdr_flags(vhost::vhost_user::message::VhostUserHeaderFlag::NEED_REPLY);
    assert_eq!(frontend.get_queue_num().expect("rings"), rings as u64);
    frontend.set_features(features).expect("features");
    let region = VhostUserMemoryRegionInfo {
        guest_phys_addr: 0,
        memory_size: MEMORY,
        userspace_addr: PEER,
        mmap_offset: 0,
        mmap_handle: file.as_raw_fd(),
    };
    frontend.set_mem_table(&[region]).expect("memory");
    frontend
}
