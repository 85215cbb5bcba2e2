// SPDX-License-Identifier: Apache-2.0
//! The worker's own story, from the hidden subcommand to the end of the vhost-user connection.
//!
//! Not for the parent's side ([`super::Worker`]). The order matters: the limit of descriptors before the user
//! namespace (which takes the right to raise it), the view before rights are given up, threads last, since a process
//! with threads can take no user namespace and each thread inherits what its creator has given up.

use super::backend::{Backend, Memory, SharedMemory};
use super::control::{self, Control, Message};
use super::identity::Mapping;
use super::plan::Plan;
use super::share::Share;
use super::{assemble, confine};
use crate::confine::Root;
use rustix::fd::AsFd;
use rustix::fs::unlink;
use rustix::process::fchdir;
use std::io::{self, Read};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};
use vhost_fs::vhost_user::{Error as ProtocolError, Listener};
use vhost_user_backend_fs::{Error as DaemonError, VhostUserDaemon};

/// A parent that does not answer has stopped; its end will end us too.
const ANSWER: Duration = Duration::from_secs(20);

/// Why a worker cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// A call that concerns the process as a whole.
    #[error("{doing}")]
    Step {
        /// What was attempted.
        doing: &'static str,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// Standard input does not hold a plan.
    #[error("read the view (this command is for internal use)")]
    Plan(#[source] postcard::Error),
    /// The parent has ended.
    #[error("find the parent alive")]
    Orphan,
    /// The parent could not be talked to.
    #[error("talk to the parent")]
    Control(#[from] control::Error),
    /// This host allows too few open files.
    #[error(transparent)]
    Descriptors(#[from] confine::TooFewDescriptors),
    /// The view could not be built.
    #[error("build the view")]
    Assemble(#[from] assemble::Error),
    /// The worker could not be confined.
    #[error("confine the file worker")]
    Confine(#[from] crate::confine::Error),
    /// The vhost-user server failed.
    #[error("serve vhost-user: {0}")]
    Daemon(String),
}

fn step<E: Into<io::Error>>(doing: &'static str) -> impl FnOnce(E) -> ServeError {
    move |source| ServeError::Step { doing, source: source.into() }
}

/// `VhostUserDaemon`'s errors are no `std::error::Error`.
fn daemon(error: DaemonError) -> ServeError {
    ServeError::Daemon(error.to_string())
}

/// Serves the view described on standard input until the connection closes. For the subcommand
/// [`SUBCOMMAND`](super::SUBCOMMAND), before the process has any thread or descriptor of its own.
pub fn serve() -> ExitCode {
    if crate::confine::begin().is_err() {
        return ExitCode::FAILURE;
    }
    let control = match io::stdout().as_fd().try_clone_to_owned() {
        Ok(socket) => Control::inherited(socket),
        Err(_) => return ExitCode::FAILURE,
    };
    match run(control) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn run(control: Control) -> Result<(), ServeError> {
    let control = Arc::new(control);
    let served = prepare(&control).and_then(|mut daemon| {
        control.send(&Message::Ready)?;
        watch(control.clone())?;
        wait(&mut daemon)
    });
    if let Err(error) = &served {
        // Too late once the guest runs; then nobody reads it, and the exit status has to do.
        let _ = control.send(&Message::Failed(crate::explain(error)));
    }
    served
}

type Daemon = VhostUserDaemon<Arc<Backend<Share>>>;

/// Everything up to serving. The other end of the connection is handed over as soon as there is one, so that QEMU or the
/// monitor can start with it meanwhile.
fn prepare(control: &Control) -> Result<Daemon, ServeError> {
    let mut text = Vec::new();
    io::stdin().read_to_end(&mut text).map_err(step("read standard input"))?;
    let plan = Plan::decode(&text).map_err(ServeError::Plan)?;
    crate::confine::die_with(plan.parent)?;
    let guest_descriptors = confine::raise_descriptor_limit()?;

    crate::confine::separate()?;
    let mapping = map(control)?;
    let root = Root::new()?;
    let (listener, peer) = connection(&root).map_err(step("connect to ourselves"))?;
    control.send(&Message::Connection(peer.into()))?;
    let tree = assemble::assemble(&plan, &root)?;
    let writes = plan.volumes.iter().any(|volume| !volume.read_only);
    confine::give_up_rights(writes)?;
    // A change of credentials clears the death signal (prctl(2)).
    crate::confine::die_with(plan.parent)?;

    let share = Share::new("/", tree, &plan, mapping, guest_descriptors).map_err(step("open the view"))?;
    confine::filter()?;
    start(share, listener)
}

fn map(control: &Control) -> Result<Mapping, ServeError> {
    control.send(&Message::MapMe)?;
    match control.receive(Instant::now() + ANSWER)? {
        Some(Message::Mapped(mapping)) => Ok(mapping),
        Some(_) => Err(control::Error::Unexpected.into()),
        None => Err(ServeError::Orphan),
    }
}

/// A listener and a connection to it. The crate takes no connected socket, only a listener; this one has its name in the root
/// that is to be, which is mounted nowhere but in our own namespace, and only for a moment.
fn connection(root: &Root) -> io::Result<(UnixListener, UnixStream)> {
    const NAME: &str = "vhost-user";
    fchdir(root)?;
    let listener = UnixListener::bind(NAME)?;
    let peer = UnixStream::connect(NAME)?;
    unlink(NAME)?;
    Ok((listener, peer))
}

fn start(share: Share, listener: UnixListener) -> Result<Daemon, ServeError> {
    let memory = SharedMemory::new(Memory::new());
    let backend = Arc::new(Backend::new(share));
    let mut server = VhostUserDaemon::new("vhost-user".into(), backend, memory).map_err(daemon)?;
    server.start(&mut Listener::from(listener)).map_err(daemon)?;
    Ok(server)
}

/// Serves until the other end hangs up, however it does.
fn wait(server: &mut Daemon) -> Result<(), ServeError> {
    match server.wait() {
        Ok(()) => Ok(()),
        Err(DaemonError::HandleRequest(ProtocolError::Disconnected | ProtocolError::PartialMessage)) => Ok(()),
        Err(error) => Err(daemon(error)),
    }
}

/// Ends the process when the control socket closes: when nobody is left who owns this worker.
fn watch(control: Arc<Control>) -> Result<(), ServeError> {
    let watch = move || {
        let _ = control.closed();
        std::process::exit(0);
    };
    std::thread::Builder::new().name("owner".into()).spawn(watch).map_err(step("start a thread"))?;
    Ok(())
}
