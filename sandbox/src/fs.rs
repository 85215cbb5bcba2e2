// SPDX-License-Identifier: Apache-2.0
//! The file worker: a process of its own that serves a [`View`] to the guest over vhost-user (virtio 1.2 §5.11).
//!
//! The story of a start. The parent writes the view into a memfd, which becomes the standard input of our own
//! executable, started again with a hidden subcommand and an empty environment; its standard output is one end of a
//! socket pair. The child moves into namespaces of its own, asks its parent to map its user ids (only a process
//! outside may map them all, user_namespaces(7)), sends back the socket on which it will serve vhost-user, assembles the view from
//! read-only bind mounts, makes it its root and gives up everything else. So the kernel, not our path
//! checks, is the wall: the worker's root *is* the view, and read-only mounts are read-only to it as well.
//! The FUSE server is the virtiofsd crate's, behind [`share`], which makes several file systems look like one.
//!
//! Not for what is in the view ([`crate::view`]) nor for who is at the other end: QEMU or our own VMM.
//!
//! The worker ends when its parent does: by its death signal, when the control socket closes, when the vhost-user
//! connection closes, and when [`Worker`] is dropped. The death signal is sent when the *thread* that started the
//! worker ends (`PR_SET_PDEATHSIG`), so start it from one that lives as long as the run.

mod assemble;
mod backend;
mod confine;
mod control;
mod identity;
mod plan;
mod serve;
mod share;

pub use identity::Identity;
pub use serve::{ServeError, serve};

use crate::sys::child;
use crate::view::View;
use control::{Control, Message};
use plan::Plan;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::ffi::OsString;
use std::io::{self, Seek, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// The hidden subcommand that calls [`serve()`].
pub const SUBCOMMAND: &str = "fs-worker";

/// A start takes some ten milliseconds; a host too busy to do it in this time is of no use.
const START: Duration = Duration::from_secs(20);

/// How long a killed worker may take to end.
const END: Duration = Duration::from_secs(5);

/// How to start a worker.
#[derive(Debug, Clone)]
pub struct Start {
    /// An executable that calls [`serve()`] when it is given `arguments`.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<OsString>,
    /// Whose files the guest's caller owns.
    pub identity: Identity,
}

impl Start {
    /// An executable that knows [`SUBCOMMAND`], on behalf of the user who runs this one.
    pub fn of(program: PathBuf) -> Start {
        Start { program, arguments: vec![SUBCOMMAND.into()], identity: Identity::caller() }
    }
}

/// A running worker. Dropping it ends it.
#[derive(Debug)]
pub struct Worker {
    child: Child,
    pidfd: OwnedFd,
    /// The worker ends when this closes.
    control: Control,
    identity: Identity,
    /// When it must have started.
    deadline: Instant,
}

/// Why there is no worker.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The view could not be handed over.
    #[error("describe the view to the file worker")]
    Describe(#[source] io::Error),
    /// The view has a form that cannot be written down.
    #[error("encode the view for the file worker")]
    Encode(#[source] postcard::Error),
    /// The process could not be started.
    #[error("start the file worker {program:?}")]
    Spawn {
        /// The executable.
        program: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The process could not be talked to.
    #[error("talk to the file worker")]
    Control(#[from] control::Error),
    /// The worker's user ids could not be set up.
    #[error("give the file worker its user ids")]
    Identity(#[from] identity::Error),
    /// The worker said why it cannot serve.
    #[error("file worker failed to {0}")]
    Refused(String),
    /// The worker ended without a word.
    #[error("file worker ended early ({0})")]
    Ended(ExitStatus),
    /// Something else was to be looked at first.
    #[error("wait for the file worker")]
    Called,
    /// The worker could not be watched.
    #[error("watch the file worker")]
    Watch(#[source] io::Error),
}

impl Worker {
    /// Starts a worker that serves `view`. Returns it with the vhost-user connection, which is for QEMU or our VMM.
    pub fn start(view: &View, start: &Start) -> Result<(Worker, UnixStream), Error> {
        let mut worker = Worker::begin(view, start)?;
        let socket = worker.connection(None)?;
        worker.ready(None)?;
        Ok((worker, socket))
    }

    /// Like [`Worker::start`], but does not wait for anything. Next comes [`Worker::connection`].
    pub fn begin(view: &View, start: &Start) -> Result<Worker, Error> {
        let plan = Plan::of(view, start.identity).encode().map_err(Error::Encode)?;
        let (ours, theirs) = control::pair()?;
        let mut command = Command::new(&start.program);
        child::ours(&mut command);
        let child = command
            .args(&start.arguments)
            .stdin(memory_file(&plan).map_err(Error::Describe)?)
            .stdout(Stdio::from(theirs))
            .spawn()
            .map_err(|source| Error::Spawn { program: start.program.clone(), source })?;
        // With it goes our copy of the child's end, whose closing tells of its end.
        drop(command);
        Worker::adopt(child, ours, start.identity)
    }

    fn adopt(mut child: Child, control: Control, identity: Identity) -> Result<Worker, Error> {
        match pidfd_open(Pid::from_child(&child), PidfdFlags::empty()) {
            Ok(pidfd) => Ok(Worker { child, pidfd, control, identity, deadline: Instant::now() + START }),
            Err(error) => {
                // Without its pidfd the child has no owner yet: end it here.
                let _ = child.kill();
                let _ = child.wait();
                Err(Error::Watch(error.into()))
            }
        }
    }

    /// The vhost-user connection. Whoever has it may use it at once; it is answered when [`Worker::ready`] has gone
    /// through the rest of the start.
    ///
    /// If `call` can be read before the worker has said its word, that is the error [`Error::Called`]. Whoever sees no
    /// reason in it to give up may ask again.
    pub fn connection(&mut self, call: Option<BorrowedFd<'_>>) -> Result<UnixStream, Error> {
        match self.hear(call)? {
            Message::Connection(socket) => Ok(UnixStream::from(socket)),
            _ => Err(control::Error::Unexpected.into()),
        }
    }

    /// Goes through the rest of the worker's start with it, after [`Worker::connection`] and with the same `call`.
    pub fn ready(&mut self, call: Option<BorrowedFd<'_>>) -> Result<(), Error> {
        match self.hear(call)? {
            Message::Ready => Ok(()),
            _ => Err(control::Error::Unexpected.into()),
        }
    }

    /// The worker's next word, unless it is its last or `call` comes first. Its ids are mapped when it asks for it.
    fn hear(&mut self, call: Option<BorrowedFd<'_>>) -> Result<Message, Error> {
        loop {
            match self.control.receive_unless(call, self.deadline) {
                Ok(Some(Message::MapMe)) => {
                    let mapped = self.identity.map(self.child.id())?;
                    self.control.send(&Message::Mapped(mapped))?;
                }
                Ok(Some(Message::Failed(text))) => return Err(Error::Refused(text)),
                Ok(Some(message)) => return Ok(message),
                Ok(None) => return Err(Error::Ended(self.child.wait().map_err(Error::Watch)?)),
                Err(control::Error::Called) => return Err(Error::Called),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Ends the worker without waiting for its end.
    pub fn kill(&mut self) {
        // Fails only if the worker has been waited for already.
        let _ = self.child.kill();
    }

    /// How the worker ended, if it has.
    pub fn try_wait(&mut self) -> Result<Option<ExitStatus>, Error> {
        self.child.try_wait().map_err(Error::Watch)
    }

    /// The worker's process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }
}

/// Readable once the worker has ended (pidfd_open(2)).
impl AsFd for Worker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.kill();
        // A worker that waits for a dead network file system does not even die. Leave it to whoever inherits it.
        let limit = Timespec { tv_sec: END.as_secs() as i64, tv_nsec: 0 };
        let _ = poll(&mut [PollFd::new(&self.pidfd, PollFlags::IN)], Some(&limit));
        let _ = self.child.try_wait();
    }
}

/// A file that only whoever holds its descriptor can read.
fn memory_file(bytes: &[u8]) -> io::Result<std::fs::File> {
    let mut file = std::fs::File::from(rustix::fs::memfd_create("view", rustix::fs::MemfdFlags::CLOEXEC)?);
    file.write_all(bytes)?;
    file.rewind()?;
    Ok(file)
}
