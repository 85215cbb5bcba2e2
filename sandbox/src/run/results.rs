// SPDX-License-Identifier: Apache-2.0
//! What comes between a command's end and its machine's: what is kept of what it changed, what tells of a failure, a shell.
//!
//! Not for what the guest's word is worth ([`crate::changes`]). Each question to the guest is answered over a connection of
//! its own, which the vsock device fetches as it does those of further commands.

mod answer;
mod evidence;
mod visit;

use std::cell::Cell;
use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use guest_init::record::{Kind, State};
use guest_init::wire::{Tell, ToGuest, port};
use serde_bytes::ByteBuf;

use crate::changes::{CONTENT_MAX, Error, GoOn, Left, Spool, Target};
use crate::outcome::{Cause, Verdict, Victim};
use crate::packets::Packets;
use crate::run::ground::Ground;
use crate::run::{Outcome, Relays};
use crate::session::Session;
use crate::spec::{CopyOut, Results, Spec, Sync};
use crate::sys::signals::Signals;
use crate::virtio::vsock::supply;
use answer::{Answer, PATIENCE, SILENCE};
pub use evidence::Evidence;
pub(crate) use visit::Visit;

/// What was kept, for whoever tells the user.
#[derive(Debug, Clone, Default)]
pub struct Taken {
    /// The listing, if one was asked for.
    pub list: Option<String>,
    /// What was not copied, and why.
    pub left: Vec<Left>,
    /// What was to be committed of which nothing had changed.
    pub unchanged: Vec<PathBuf>,
    /// Whether something was to be committed and was not, because the command did not succeed.
    pub uncommitted: bool,
    /// Why something that was wanted is not there; of more than one, the first.
    pub failed: Option<Failed>,
}

/// Why something that was wanted is not there.
#[derive(Debug, Clone)]
pub struct Failed {
    /// For people.
    pub words: String,
    /// Whether the guest had nothing to tell of it, which is the command's doing; else we could not take it.
    pub unread: bool,
}

impl Results {
    /// Whether anything is to be kept.
    pub(super) fn any(&self) -> bool {
        self.changes() || !self.copies.is_empty() || !self.sync.globs.is_empty()
    }

    /// Whether anything is to be kept of the private layer as such.
    fn changes(&self) -> bool {
        self.list || self.tar.is_some() || !self.commits.is_empty()
    }
}

/// Whether a machine in which this has happened can still tell of its files, and somebody waits for that.
pub(crate) fn is_there(cause: &Cause) -> bool {
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
    /// How long an answer may take.
    patience: Duration,
    /// The number of the last connection.
    number: u32,
}

impl<'a> Keeping<'a> {
    /// After the command of this conversation.
    pub(super) fn new(session: Session, supply: &'a Packets, signals: Option<&'a Signals>) -> Self {
        Self { session, supply, signals, ended_by: Cell::new(None), patience: PATIENCE, number: 0 }
    }

    /// What comes after a command, of which the outcome says how it ended: its results, what tells of a failure, a shell.
    pub(super) fn follow(
        mut self,
        spec: &Spec,
        visit: Option<&Visit>,
        ground: &mut Ground<'_>,
        relays: &Relays,
        outcome: &mut Outcome,
    ) {
        let ended = outcome.cause.clone();
        if spec.results.any() {
            match (self.keep(spec, &ended, &mut outcome.results), self.ended_by.get()) {
                (Ok(()), _) => {}
                (Err(_), Some(signal)) => outcome.cause = Cause::Cancelled(signal),
                (Err(error), None) => {
                    let words = crate::explain(&error);
                    // What was asked for is not there, though the command did well. But a guest can see to it that its files cannot be
                    // told of, which makes no failure anything else.
                    if ended.verdict() != Verdict::Fail {
                        outcome.cause = Cause::SetupError(format!("cannot keep the command's results: {words}"));
                    }
                    outcome.results.failed = Some(Failed { words, unread: matches!(error, Error::Guest { .. }) });
                }
            }
            outcome.stages.end("results");
        }
        if spec.keep.wants(&outcome.cause) {
            outcome.evidence = Some(self.gather(spec, &ended, outcome.results.list.as_deref()));
            outcome.stages.end("evidence");
        }
        if let Some(visit) = visit.filter(|_| Visit::is_due(&ended) && !matches!(outcome.cause, Cause::Cancelled(_))) {
            self.receive(visit, ground, relays, outcome);
            outcome.stages.end("shell");
        }
    }

    /// Keeps what the spec says, of a command that ended so. What cannot be kept hinders nothing else; that it cannot is the result
    /// in the end.
    fn keep(&mut self, spec: &Spec, cause: &Cause, kept: &mut Taken) -> Result<(), Error> {
        let wanted = &spec.results;
        if !is_there(cause) {
            kept.uncommitted = !wanted.commits.is_empty();
            return Ok(());
        }
        let mut failed = None;
        for copy in &wanted.copies {
            let copied = self.copy(copy, &mut kept.left);
            note(copied, &mut failed, &mut kept.left)?;
        }
        if !wanted.sync.globs.is_empty() {
            let synced = self.bring_back(&wanted.sync, &mut kept.left);
            self.patience = PATIENCE;
            note(synced, &mut failed, &mut kept.left)?;
        }
        if wanted.list || wanted.tar.is_some() {
            let told = self.list(spec, kept);
            note(told, &mut failed, &mut kept.left)?;
        }
        kept.uncommitted = *cause != Cause::Exited(0) && !wanted.commits.is_empty();
        if *cause == Cause::Exited(0) && !wanted.commits.is_empty() {
            let committed = self.commit(spec, kept);
            note(committed, &mut failed, &mut kept.left)?;
        }
        // Two questions may have had one answer.
        let mut seen = HashSet::new();
        kept.left.retain(|left| seen.insert(left.clone()));
        failed.map_or(Ok(()), Err)
    }

    /// Copies out what is at a path.
    fn copy(&mut self, copy: &CopyOut, left: &mut Vec<Left>) -> Result<(), Error> {
        let spool = self.ask(copy.guest.as_os_str(), true)?;
        left.extend(spool.unread(&copy.guest));
        left.extend(copy_out(&spool, copy, &|| self.listen())?);
        Ok(())
    }

    /// Lists and packs what the command has changed.
    fn list(&mut self, spec: &Spec, kept: &mut Taken) -> Result<(), Error> {
        let wanted = &spec.results;
        let spool = self.changes(spec, OsStr::new(""), wanted.tar.is_some())?;
        kept.left.extend(spool.unread(Path::new("/")));
        kept.list = wanted.list.then(|| spool.list());
        if let Some(path) = &wanted.tar {
            kept.left.extend(spool.pack(path, &|| self.listen())?);
        }
        Ok(())
    }

    /// Commits what is wanted, of which alone the guest is asked: what else it has written may be much.
    fn commit(&mut self, spec: &Spec, kept: &mut Taken) -> Result<(), Error> {
        let (current, commits) = (&spec.sight.current, &spec.results.commits);
        let spool = self.changes(spec, &places([current.as_path()], commits)?, true)?;
        kept.left.extend(spool.unread(Path::new("/")));
        let committed = commit(&spool, current, commits, kept, &|| self.listen());
        if let (Err(error), Some(_)) = (&committed, self.ended_by.get()) {
            // Of a run that was interrupted no error is told; this one says what there is on the host now.
            kept.left.push(crate::explain(error));
        }
        committed
    }

    /// Whether to go on writing to the host: until a signal says that it is enough.
    fn listen(&self) -> io::Result<()> {
        let Some(signal) = self.signals.map_or(Ok(None), Signals::ending)? else { return Ok(()) };
        self.ended_by.set(Some(signal));
        Err(io::Error::other(format!("signal {signal} ended it")))
    }

    /// What the guest tells of what the command has changed at these [`places`].
    fn changes(&mut self, spec: &Spec, places: &OsStr, content: bool) -> Result<Spool, Error> {
        let mut spool = self.ask(places, content)?;
        let volumes = spec.sight.volumes.iter().map(|volume| &volume.target);
        let own: Vec<&Path> =
            volumes.chain(spec.limits.tmpfs.iter().map(|tmpfs| &tmpfs.target)).map(|path| without_root(path)).collect();
        // What init has made to mount something at is not the command's doing.
        spool.retain(|change| !own.iter().any(|own| own.starts_with(&change.path)));
        Ok(spool)
    }

    /// Brings back what is wanted. Names first: most that a test writes nobody wants, and it may be much. Of what is in the way
    /// on the host is told: for that the guest could be to blame. All files together take no longer and no more room than one copy.
    fn bring_back(&mut self, wanted: &Sync, left: &mut Vec<Left>) -> Result<(), Error> {
        let told = self.ask(&places(wanted.places.iter().map(PathBuf::as_path), &[PathBuf::new()])?, false)?;
        left.extend(told.unread(Path::new("/")));
        let (mut room, begun) = (CONTENT_MAX, Instant::now());
        for place in &wanted.places {
            let real = place.canonicalize().map_err(|source| Error::Write { path: place.clone(), source })?;
            for change in told.changes() {
                let Some(below) = change.below(without_root(&real)).filter(|below| wanted.wants(below)) else {
                    continue;
                };
                if change.kind != Kind::File || change.state == State::Removed {
                    continue;
                }
                self.patience = PATIENCE.saturating_sub(begun.elapsed());
                let mut file = match self.ask(Path::new("/").join(&change.path).as_os_str(), true) {
                    Err(error @ Error::Guest { .. }) => {
                        left.push(crate::explain(&error));
                        continue;
                    }
                    asked => asked?,
                };
                // It was one file; whatever it is by now, no more than that is taken.
                file.retain(|now| now.path.as_os_str().is_empty() && now.kind == Kind::File);
                let size = file.changes().iter().map(|now| now.size).sum();
                room = room.checked_sub(size).ok_or(Error::TooMuch("32 GiB of content"))?;
                let steps = file.copied(Some(below.as_os_str()));
                match Target::open(&real)?.apply(&file, &steps, &|| self.listen()) {
                    Err(error) if error.is_in_the_way() => left.push(crate::explain(&error)),
                    applied => left.extend(applied?),
                }
            }
        }
        Ok(())
    }

    /// What the guest tells of what is at an absolute path; or of what has changed at these [`places`].
    fn ask(&mut self, asked: &OsStr, content: bool) -> Result<Spool, Error> {
        let mut path = ByteBuf::from(asked.as_bytes());
        if !path.is_empty() {
            path.push(0);
        }
        let answer = self.answer(|number| ToGuest::Tell(Tell { number, path, content })).map_err(Error::Stream)?;
        match Spool::receive(answer, content) {
            Err(Error::Guest { source, .. }) => {
                let asked = Path::new(asked);
                Err(Error::Guest { path: if asked.is_absolute() { asked } else { Path::new("/") }.to_owned(), source })
            }
            received => received,
        }
    }

    /// The answer to a question, over the connection of a number that is in it.
    fn answer(&mut self, question: impl FnOnce(u32) -> ToGuest) -> io::Result<Answer<'_>> {
        let number = self.next();
        let (ours, theirs) = UnixStream::pair()?;
        supply::send(self.supply, &[(port::of(port::CONTROL, number), theirs)]).map_err(io::Error::other)?;
        self.say(&question(number))?;
        Ok(Answer::new(ours, self.signals, &self.ended_by, self.patience))
    }

    /// A number that no connection had before.
    fn next(&mut self) -> u32 {
        self.number = self.number.wrapping_add(1);
        self.number
    }

    fn say(&mut self, message: &ToGuest) -> io::Result<()> {
        self.session.send(message).map_err(io::Error::other)?;
        self.session.finish(SILENCE)
    }
}

/// Remembers the first failure and tells of the others; of all if after one the guest is asked nothing more.
fn note(done: Result<(), Error>, failed: &mut Option<Error>, left: &mut Vec<Left>) -> Result<(), Error> {
    let Err(error) = done else { return Ok(()) };
    let goes_on = matches!(error, Error::Guest { .. } | Error::TooMuch(_) | Error::Write { .. });
    match failed {
        None if goes_on => {
            *failed = Some(error);
            return Ok(());
        }
        Some(_) if goes_on => {
            left.push(crate::explain(&error));
            return Ok(());
        }
        Some(first) => left.push(crate::explain(first)),
        None => {}
    }
    Err(error)
}

/// Paths below each of these directories, by their real names as the guest is asked for them; empty for all there is. Else a
/// NUL byte begins them: an init that knows of no places finds no path, and says so.
fn places<'p>(directories: impl IntoIterator<Item = &'p Path>, below: &[PathBuf]) -> Result<OsString, Error> {
    let mut places = vec![OsString::new()];
    for directory in directories {
        let real = directory.canonicalize().map_err(|source| Error::Write { path: directory.to_owned(), source })?;
        for path in below {
            // Without the slash that joining nothing leaves at the end.
            let place: PathBuf = without_root(&real).join(path).components().collect();
            if place.as_os_str().is_empty() {
                return Ok(OsString::new());
            }
            places.push(place.into_os_string());
        }
    }
    Ok(places.join(OsStr::new("\0")))
}

fn without_root(path: &Path) -> &Path {
    path.strip_prefix("/").unwrap_or(path)
}

/// Into a directory of that name if there is one, as cp(1) does; else under that name.
fn copy_out(spool: &Spool, copy: &CopyOut, go_on: GoOn<'_>) -> Result<Vec<Left>, Error> {
    let (directory, name) = match (copy.host.is_dir(), copy.guest.file_name()) {
        (true, Some(name)) => (copy.host.clone(), Some(name)),
        (true, None) => (copy.host.clone(), None),
        (false, _) => {
            let above = copy.host.parent().map_or_else(|| PathBuf::from("/"), Path::to_owned);
            (above, copy.host.file_name())
        }
    };
    Target::open(&directory)?.apply(spool, &spool.copied(name), go_on)
}

/// What the changes say of these paths below a directory, which the guest sees by its real name.
fn commit(spool: &Spool, directory: &Path, paths: &[PathBuf], kept: &mut Taken, go_on: GoOn<'_>) -> Result<(), Error> {
    let real = directory.canonicalize().map_err(|source| Error::Write { path: directory.to_owned(), source })?;
    let plan = spool.committed(without_root(&real), paths);
    kept.left.extend(plan.left);
    kept.unchanged = plan.unchanged;
    kept.left.extend(Target::open(&real)?.replacing().apply(spool, &plan.steps, go_on)?);
    Ok(())
}
