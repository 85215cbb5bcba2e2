// SPDX-License-Identifier: Apache-2.0
//! A front-end: serves one device to another process over a connected socket (vhost-user protocol, as of QEMU 7.2).
//!
//! The other process is a QEMU that runs hostile code, so it is not believed: its file descriptors, tables and ring
//! addresses are checked, and any message out of place closes the connection. Not for the device, which cannot tell
//! this front-end from another. The messages are in [`requests`], their pieces in [`setup`] and [`table`].

mod requests;
mod setup;
mod table;

use super::device::{Device, Fault};
use super::worker::{self, Worker};
use crate::memory::Memory;
use crate::sys::eventfd;
use requests::Requests;
use rustix::io::Errno;
use std::io;
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::JoinHandle;
use vhost::vhost_user::{BackendReqHandler, Error as ProtocolError};
use vm_memory::GuestMemoryMmap;

/// What can go wrong when a server is started.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The device's thread.
    #[error("cannot start the device")]
    Worker(#[source] worker::Error),
    /// The kernel refused a descriptor.
    #[error("cannot make a descriptor of the vhost-user server")]
    Descriptor(#[source] io::Error),
    /// The kernel refused a thread.
    #[error("cannot start the vhost-user server's thread")]
    Thread(#[source] io::Error),
}

/// Why a server has ended.
#[derive(Debug, thiserror::Error)]
pub enum Ending {
    /// The other process closed the connection or is gone.
    #[error("the other process has closed the connection")]
    Closed,
    /// The other process broke the protocol.
    #[error("the other process has broken the protocol")]
    Protocol(#[source] ProtocolError),
    /// The device retired.
    #[error("the device has retired")]
    Fault(#[source] Fault),
    /// A defect of ours: the server's thread panicked.
    #[error("the server's thread panicked")]
    Panicked,
}

/// A device that is being served. Dropping it ends its threads.
///
/// When the other process has gone, bytes that the guest had sent still go to the device's streams until this is
/// dropped: read those to their ends first. A stream that the guest never used ends only when this is dropped.
#[derive(Debug)]
pub struct Server {
    socket: UnixStream,
    thread: Option<JoinHandle<()>>,
    end: Arc<End>,
    worker: Arc<Worker>,
}

/// The end as all threads see it.
#[derive(Debug)]
struct End {
    ending: OnceLock<Ending>,
    /// Readable when the server has ended.
    signal: OwnedFd,
}

/// Serves `device` on `socket` until the peer closes it, the peer or the guest breaks a rule, or the server is dropped.
///
/// # Errors
/// If the kernel refuses a thread or a descriptor.
pub fn serve(socket: UnixStream, device: Box<dyn Device>) -> Result<Server, Error> {
    let signal = eventfd::create().map_err(|errno: Errno| Error::Descriptor(errno.into()))?;
    let end = Arc::new(End { ending: OnceLock::new(), signal });
    let copy = || socket.try_clone().map_err(Error::Descriptor);
    let (retired, theirs, ours) = (copy()?, copy()?, copy()?);

    let memory = Memory::new(GuestMemoryMmap::new());
    let fault_end = Arc::clone(&end);
    let on_fault = Box::new(move |fault| {
        fault_end.record(Ending::Fault(fault));
        // It may be closed already; either way the server's thread will find it so.
        drop(retired.shutdown(Shutdown::Both));
    });
    let worker = Arc::new(Worker::spawn(device, memory.clone(), on_fault, || Ok(())).map_err(Error::Worker)?);

    let name = format!("vu-{}", worker.traits().id.name());
    let finish = Finish { end: Arc::clone(&end), worker: Arc::clone(&worker), socket: theirs };
    let requests = Requests::new(Arc::clone(&worker), memory);
    let thread = std::thread::Builder::new()
        .name(name)
        .spawn(move || {
            let ending = answer(socket, requests);
            finish.end.record(ending);
        })
        .map_err(Error::Thread)?;
    Ok(Server { socket: ours, thread: Some(thread), end, worker })
}

/// Answers messages until there are no more.
fn answer(socket: UnixStream, requests: Requests) -> Ending {
    let mut handler = BackendReqHandler::from_stream(socket, Arc::new(Mutex::new(requests)));
    loop {
        match handler.handle_request() {
            Ok(()) => {}
            Err(ProtocolError::Disconnected | ProtocolError::SocketBroken(_)) => return Ending::Closed,
            Err(error) => return Ending::Protocol(error),
        }
    }
}

impl Server {
    /// A descriptor that becomes and stays readable when the server has ended.
    #[must_use]
    pub fn ended(&self) -> BorrowedFd<'_> {
        self.end.signal.as_fd()
    }

    /// Why it has ended, if it has.
    #[must_use]
    pub fn ending(&self) -> Option<&Ending> {
        self.end.ending.get()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Wakes the thread, whether it waits for a message or for the peer to take an answer.
        drop(self.socket.shutdown(Shutdown::Both));
        if let Some(thread) = self.thread.take() {
            // A panic was recorded as the ending when it happened.
            drop(thread.join());
        }
        // Nobody else holds the worker now, so its thread ends with it.
        debug_assert_eq!(Arc::strong_count(&self.worker), 1);
    }
}

impl End {
    /// Keeps the first reason: the others are its consequences.
    fn record(&self, ending: Ending) {
        drop(self.ending.set(ending));
    }
}

/// What the server's thread does last, however it ends.
struct Finish {
    end: Arc<End>,
    worker: Arc<Worker>,
    socket: UnixStream,
}

impl Drop for Finish {
    fn drop(&mut self) {
        // Others hold the socket too, so closing it would not tell the peer.
        drop(self.socket.shutdown(Shutdown::Both));
        self.worker.hang_up();
        self.end.record(Ending::Panicked);
        // Our own counter cannot be full.
        let _ = eventfd::signal(&self.end.signal);
    }
}

#[cfg(test)]
mod tests;
