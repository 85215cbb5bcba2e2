// SPDX-License-Identifier: Apache-2.0
//! The ways to reach a device: its worker, the `vhost` crate's side of a vhost-user connection, a register window, and
//! a register window that reaches it over a vhost-user connection.

use super::driver::{MEMORY, RING, Side};
use super::window;
use crate::memory::Memory;
use crate::sys::eventfd;
use crate::virtio::device::{Device, Fault};
use crate::virtio::mmio::{Backing, Window};
use crate::virtio::remote::Backend;
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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Bare,
    VhostUser,
    Window,
    Remote,
}

impl Kind {
    pub(super) const ALL: [Self; 4] = [Self::Bare, Self::VhostUser, Self::Window, Self::Remote];
    /// Those that let a stopped ring go on.
    pub(super) const RESUMING: [Self; 2] = [Self::Bare, Self::VhostUser];
    /// Those with registers.
    pub(super) const REGISTERS: [Self; 2] = [Self::Window, Self::Remote];
}

/// How a device ended, whichever way it was reached.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The indices of this ring made no sense.
    Ring(u16),
    /// All that a driver can see.
    NeedsReset,
    Other,
}

impl End {
    fn of(fault: &Fault) -> Self {
        match fault {
            Fault::Ring { index, source: ring::Error::Queue(_) } => Self::Ring(*index),
            _ => Self::Other,
        }
    }
}

/// What is left when the other process, or the machine, has died.
pub(super) enum Remains {
    Server(Server),
    Window(Box<Window>),
}

/// A front-end of either kind.
pub(super) enum Front {
    Bare { worker: Worker, faults: mpsc::Receiver<Fault> },
    VhostUser { frontend: Frontend, server: Server },
    Window { window: Window },
    Remote { window: Window, server: Server },
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
                Self::Bare { worker: Worker::spawn(device, memory, on_fault, || Ok(())).expect("worker"), faults }
            }
            Kind::VhostUser => {
                let rings = device.traits().rings.len();
                let (ours, theirs) = UnixStream::pair().expect("pair");
                let server = serve(ours, device).expect("serve");
                Self::VhostUser { frontend: greet(theirs, rings, file), server }
            }
            Kind::Window => {
                Self::Window { window: Window::new(Backing::Local(device, || Ok(())), memory).expect("window") }
            }
            Kind::Remote => {
                let (ours, theirs) = UnixStream::pair().expect("pair");
                let mut config = vec![0; device.traits().config];
                device.config(0, &mut config);
                let backend = Backend::new(device.traits(), config, theirs);
                let window = Window::new(Backing::Remote(backend), memory).expect("window");
                // It begins to serve only now.
                Self::Remote { window, server: serve(ours, device).expect("serve") }
            }
        }
    }

    pub(super) fn features(&self) -> u64 {
        match self {
            Self::Bare { worker, .. } => worker.traits().features,
            Self::VhostUser { frontend, .. } => frontend.get_features().expect("features"),
            Self::Window { window } | Self::Remote { window, .. } => window::features(window),
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
            Self::Window { window } | Self::Remote { window, .. } => {
                let mut bytes = vec![0xff; length];
                window.read(0x100 + u64::from(offset), &mut bytes);
                bytes
            }
        }
    }

    /// Starts these rings, for a window all that there will be.
    pub(super) fn start(&mut self, rings: &[usize], sides: &[Side], memory: &Memory) -> Result<(), String> {
        match self {
            Self::Window { window } | Self::Remote { window, .. } => window::bring_up(window, rings, sides),
            _ => rings.iter().try_for_each(|index| self.start_one(*index, &sides[*index], memory)),
        }
    }

    fn start_one(&mut self, index: usize, side: &Side, memory: &Memory) -> Result<(), String> {
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
            Self::Window { .. } | Self::Remote { .. } => unreachable!("all at once"),
        }
    }

    pub(super) fn kick(&self, index: usize, side: &Side) {
        match self {
            Self::Bare { .. } | Self::VhostUser { .. } => side.kick.write(1).expect("kick"),
            Self::Window { window } | Self::Remote { window, .. } => window::kick(window, index),
        }
    }

    /// Waits for a notification, not for ever, and takes it.
    pub(super) fn wait(&self, side: &Side) {
        match self {
            Self::Bare { .. } | Self::VhostUser { .. } => {
                let fd = duplicate(side.call.as_raw_fd());
                let deadline = Timespec { tv_sec: 10, tv_nsec: 0 };
                let mut polled = [PollFd::new(&fd, PollFlags::IN)];
                assert_eq!(rustix::event::poll(&mut polled, Some(&deadline)), Ok(1), "no notification came");
                side.call.read().expect("read");
            }
            Self::Window { window } | Self::Remote { window, .. } => drop(window::wait(window)),
        }
    }

    pub(super) fn window(&self) -> &Window {
        match self {
            Self::Bare { .. } | Self::VhostUser { .. } => unreachable!("no registers"),
            Self::Window { window } | Self::Remote { window, .. } => window,
        }
    }

    pub(super) fn stop(&mut self, index: usize) -> u16 {
        match self {
            Self::Bare { worker, .. } => worker.stop_ring(index as u16).expect("running"),
            Self::VhostUser { frontend, .. } => frontend.get_vring_base(index).expect("base") as u16,
            Self::Window { window } | Self::Remote { window, .. } => {
                window::stop(window, index);
                0
            }
        }
    }

    pub(super) fn reset(&mut self) {
        match self {
            Self::Bare { worker, .. } => worker.reset(),
            Self::VhostUser { .. } => unreachable!("the protocol has no reset here"),
            Self::Window { window } | Self::Remote { window, .. } => {
                window::write(window, window::STATUS, 0);
                assert_eq!(window::read(window, window::STATUS), 0);
            }
        }
    }

    /// The other process, or the machine, dies.
    pub(super) fn die(self) -> Remains {
        match self {
            Self::Bare { .. } => unreachable!("nobody there"),
            Self::VhostUser { server, .. } | Self::Remote { server, .. } => Remains::Server(server),
            Self::Window { window } => {
                window.hang_up();
                Remains::Window(Box::new(window))
            }
        }
    }

    pub(super) fn end(&mut self) -> End {
        match self {
            Self::Bare { faults, .. } => End::of(&faults.recv_timeout(Duration::from_secs(10)).expect("fault")),
            Self::VhostUser { server, .. } | Self::Remote { server, .. } => {
                let ended = server.ended();
                let mut polled = [PollFd::from_borrowed_fd(ended, PollFlags::IN)];
                let deadline = Timespec { tv_sec: 10, tv_nsec: 0 };
                assert_eq!(rustix::event::poll(&mut polled, Some(&deadline)), Ok(1), "it did not end");
                match server.ending().expect("reason") {
                    Ending::Fault(fault) => End::of(fault),
                    _ => End::Other,
                }
            }
            Self::Window { window } => {
                while window::read(window, window::STATUS) & window::NEEDS_RESET == 0 {
                    window::wait(window);
                }
                End::NeedsReset
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
