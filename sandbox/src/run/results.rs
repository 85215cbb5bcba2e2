// SPDX-License-Identifier: Apache-2.0
//! What is kept of what a command changed, between its end and the machine's.
//!
//! Not for what the guest's word is worth ([`crate::changes`]). Each question to the guest is answered over a connection of
//! its own, which the vsock device fetches as it does those of further commands.

mod answer;

use std::cell::Cell;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use guest_init::wire::{Tell, ToGuest, port};
use serde_bytes::ByteBuf;

use crate::changes::{Error, Left, Spool, Target};
use crate::outcome::{Cause, Victim};
use crate::packets::Packets;
use crate::session::Session;
use crate::spec::{CopyOut, Results, Spec};
use crate::sys::signals::Signals;
use crate::virtio::vsock::supply;
use answer::{Answer, SILENCE};

/// What was kept, for whoever tells the user.
#[derive(Debug, Clone, Default)]
pub struct Taken {
    /// The listing, if one was asked for.
    pub list: Option<String>,
    /// What was not copied, and why.
    pub left: Vec<Left>,
    /// Whether something was to be committed and was not, because the command did not succeed.
    pub uncommitted: bool,
}

impl Results {
    /// Whether anything is to be kept.
    pub(super) fn any(&self) -> bool {
        self.changes() || !self.copies.is_empty()
    }

    /// Whether anything is to be kept of the private layer as such.
    fn changes(&self) -> bool {
        self.list || self.tar.is_some() || !self.commits.is_empty()
    }
}

/// Whether a machine in which this has happened can still tell of its files, and somebody waits for that.
fn is_there(cause: &Cause) -> bool {
    use Cause::{Exited, NotExecutable, NotFound, Oom, OutputLimit, Signaled, Timeout};
    match cause {
        Exited(_) | Signaled(_) | Timeout | OutputLimit | NotExecutable(_) | NotFound(_) => true,
        Oom { victim, .. } => matches!(victim, Victim::Command(_)),
        _ => false,
    }
}

/// A guest that is asked about its files.
pub(super) struct Keeping<'a> {
    session: Session,
    supply: &'a Packets,
    signals: Option<&'a Signals>,
    /// The signal that has ended it.
    ended_by: Cell<Option<i32>>,
    /// The number of the next connection.
    number: u32,
}

impl<'a> Keeping<'a> {
    /// After the command of this conversation.
    pub(super) fn new(session: Session, supply: &'a Packets, signals: Option<&'a Signals>) -> Self {
        Self { session, supply, signals, ended_by: Cell::new(None), number: 1 }
    }

    /// The signal by which the caller has put an end to it, if so.
    pub(super) fn ended_by(&self) -> Option<i32> {
        self.ended_by.get()
    }

    /// Keeps what the spec says, of a command that ended so.
    pub(super) fn keep(&mut self, spec: &Spec, cause: &Cause, kept: &mut Taken) -> Result<(), Error> {
        let wanted = &spec.results;
        if !is_there(cause) {
            kept.uncommitted = !wanted.commits.is_empty();
            return Ok(());
        }
        for copy in &wanted.copies {
            let spool = self.ask(copy.guest.as_os_str(), true)?;
            kept.left.extend(copy_out(&spool, copy)?);
        }
        if !wanted.changes() {
            return Ok(());
        }
        let commits = *cause == Cause::Exited(0) && !wanted.commits.is_empty();
        let mut spool = self.ask(OsStr::new(""), wanted.tar.is_some() || commits)?;
        let volumes = spec.sight.volumes.iter().map(|volume| &volume.target);
        let own: Vec<&Path> =
            volumes.chain(spec.limits.tmpfs.iter().map(|tmpfs| &tmpfs.target)).map(|path| without_root(path)).collect();
        // What init has made to mount something at is not the command's doing.
        spool.retain(|change| !own.iter().any(|own| own.starts_with(&change.path)));
        kept.list = wanted.list.then(|| spool.list());
        if let Some(path) = &wanted.tar {
            let file = File::create(path).map_err(|source| Error::Write { path: path.clone(), source })?;
            spool.pack(path, file)?;
        }
        kept.uncommitted = !commits && !wanted.commits.is_empty();
        if commits {
            kept.left.extend(commit(&spool, &spec.sight.current, &wanted.commits)?);
        }
        Ok(())
    }

    /// What the guest tells of what is at a path; or, without one, of what has changed.
    fn ask(&mut self, path: &OsStr, content: bool) -> Result<Spool, Error> {
        let number = self.number;
        self.number = number.wrapping_add(1);
        let stream = self.dialled(number, path, content).map_err(Error::Stream)?;
        Spool::receive(Answer::new(stream, self.signals, &self.ended_by), content)
    }

    fn dialled(&mut self, number: u32, path: &OsStr, content: bool) -> io::Result<UnixStream> {
        let (ours, theirs) = UnixStream::pair()?;
        supply::send(self.supply, &[(port::of(port::CONTROL, number), theirs)]).map_err(io::Error::other)?;
        let mut path = ByteBuf::from(path.as_bytes());
        if !path.is_empty() {
            path.push(0);
        }
        let tell = Tell { number, path, content };
        self.session.send(&ToGuest::Tell(tell)).map_err(io::Error::other)?;
        self.session.finish(SILENCE)?;
        Ok(ours)
    }
}

fn without_root(path: &Path) -> &Path {
    path.strip_prefix("/").unwrap_or(path)
}

/// Into a directory of that name if there is one, as cp(1) does; else under that name.
fn copy_out(spool: &Spool, copy: &CopyOut) -> Result<Vec<Left>, Error> {
    let (directory, name) = match (copy.host.is_dir(), copy.guest.file_name()) {
        (true, Some(name)) => (copy.host.clone(), Some(name)),
        (true, None) => (copy.host.clone(), None),
        (false, _) => {
            let above = copy.host.parent().map_or_else(|| PathBuf::from("/"), Path::to_owned);
            (above, copy.host.file_name())
        }
    };
    Target::open(&directory)?.apply(spool, Path::new(""), name, |_| true)
}

/// What the changes say of these paths below a directory, which the guest sees by its real name.
fn commit(spool: &Spool, directory: &Path, paths: &[PathBuf]) -> Result<Vec<Left>, Error> {
    let real = directory.canonicalize().map_err(|source| Error::Write { path: directory.to_owned(), source })?;
    let wanted = |below: &Path| paths.iter().any(|path| below.starts_with(path));
    Target::open(&real)?.apply(spool, without_root(&real), None, wanted)
}
