// SPDX-License-Identifier: Apache-2.0
//! The queue: who comes first is served first, however large the others are.
//!
//! The queue is the kernel's, of those that wait for the lock of the turn. Whoever has it looks whether there is room, and keeps
//! it until there is. It hears of a machine's end by the end of its process (pidfd_open(2)) or by the ledger's being written to
//! (inotify(7)). Waiting for the lock blocks, so a thread does that, while this one hears signals and tells how it stands.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{self, TryRecvError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::ledger::{Entry, Lease, Ledger, ancestors};
use super::room::Room;
use super::{ADMIT, Error, Need};
use crate::cli::tell;
use crate::sys::eventfd;
use crate::sys::signals::Signals;
use crate::usage::size;

/// How soon a wait is told of, and how often again: nobody cares about a moment.
const SOON: Duration = Duration::from_millis(500);
const AGAIN: Duration = Duration::from_secs(60);

/// How often to look without having heard of anything: no event tells that other programs have given memory back, or that a
/// process of another container has ended.
const LOOK: Duration = Duration::from_secs(1);

/// The others that keep one may be waiting for another, too.
const STALEMATE: Duration = Duration::from_secs(10);

/// One that waits for its turn, and for room.
pub(super) struct Queue<'a> {
    need: Need,
    /// How much memory all may have, if not as much as the host has.
    within: Option<u64>,
    signals: Option<&'a Signals>,
    /// When to tell next that we wait.
    tell_at: Instant,
    /// How long nothing may change until a process that keeps a machine gets another.
    pub(super) stalemate: Duration,
}

/// What a wait brought.
#[derive(Debug, PartialEq, Eq)]
enum Heard {
    /// Something, or it is time to look.
    News,
    /// A signal came that ends nothing. The turn is to be given back before it has its effect, which may be to stop us.
    Signal,
}

impl<'a> Queue<'a> {
    pub(super) fn new(need: Need, within: Option<u64>, signals: Option<&'a Signals>) -> Self {
        Self { need, within, signals, tell_at: Instant::now() + SOON, stalemate: STALEMATE }
    }

    /// Waits for the turn and for room, and takes it.
    pub(super) fn enter(mut self, mut ledger: Ledger) -> Result<Lease, Error> {
        loop {
            let path = ledger.path().to_owned();
            let place = |source| Error::Ledger { path, source };
            match ledger.try_turn() {
                Ok(true) => {}
                Ok(false) => ledger = self.stand_in_line(&ledger)?,
                Err(source) => return Err(place(source)),
            }
            let mut others = ledger.entries()?;
            // Who is alone has all there is; else the dead may count, if there is room even so.
            let mut fits = others.is_empty() || self.room().fits(self.need, &others);
            if !fits {
                fits = self.wait_for_room(&ledger)?;
                others = ledger.entries()?;
            }
            if fits {
                return ledger.enter(self.need, &others).map_err(place);
            }
            ledger.end_turn()?;
            self.obey()?;
        }
    }

    fn room(&self) -> Room {
        let room = Room::of_host();
        Room { memory: self.within.unwrap_or(room.memory), ..room }
    }

    /// Waits until it is our turn: the ledger that has it.
    fn stand_in_line(&mut self, ledger: &Ledger) -> Result<Ledger, Error> {
        ledger.is_ours()?;
        let bell = Arc::new(eventfd::create().map_err(io::Error::from)?);
        let (own, ring) = (ledger.again()?, Arc::clone(&bell));
        let (sender, receiver) = mpsc::channel();
        // If we do not wait any more, what it gets is dropped, and the turn with it.
        let work = move || {
            drop(sender.send(own.wait_for_turn().map(|()| own)));
            let _never_full = eventfd::signal(&ring);
        };
        thread::Builder::new().name("turn".to_owned()).spawn(work)?;
        loop {
            match receiver.try_recv() {
                Ok(turn) => return Ok(turn?),
                Err(TryRecvError::Empty) => {}
                Err(TryRecvError::Disconnected) => return Err(io::Error::other("the wait panicked").into()),
            }
            if self.hear(&[bell.as_fd()], None)? == Heard::Signal {
                self.obey()?;
            }
            self.tell(ledger)?;
        }
    }

    /// Waits, having the turn, until there is room. If a signal comes first there is none.
    fn wait_for_room(&mut self, ledger: &Ledger) -> Result<bool, Error> {
        ledger.is_ours()?;
        let written = watch(ledger);
        let (mut last, mut changed) = (Vec::new(), Instant::now());
        let (family, mut gone) = (ancestors(), Vec::new());
        loop {
            let others = ledger.living()?;
            if self.room().fits(self.need, &others) {
                return Ok(true);
            }
            if others != last {
                (last, changed) = (others.clone(), Instant::now());
            }
            let kept = others.iter().any(|other| family.contains(&other.pid) && (other.kept || other.pid != family[0]));
            if kept && changed.elapsed() >= self.stalemate {
                return Ok(true);
            }
            self.tell(ledger)?;
            // One that is gone, or another container's, is found by looking. One that is gone and still has its lock (a child has it,
            // or its number is another container's) would be news for ever.
            let others = others.iter().filter(|other| !gone.contains(&other.pid));
            let ends: Vec<_> = others.filter_map(|other| Some((other.pid, end_of(other.pid)?))).collect();
            let fds: Vec<_> = ends.iter().map(|(_, end)| end).chain(&written).map(AsFd::as_fd).collect();
            if self.hear(&fds, Some(LOOK))? == Heard::Signal {
                return Ok(false);
            }
            gone.extend(ends.iter().filter(|(_, end)| has_come(end)).map(|(pid, _)| *pid));
            if let Some(written) = &written {
                hear_of_writes(written);
            }
        }
    }

    /// Waits for any of these, a signal, or the next time to tell or look.
    fn hear(&self, fds: &[std::os::fd::BorrowedFd<'_>], look: Option<Duration>) -> io::Result<Heard> {
        let left = self.tell_at.saturating_duration_since(Instant::now());
        let left = look.map_or(left, |look| left.min(look));
        let left = Timespec::try_from(left).map_err(io::Error::other)?;
        let signals = self.signals.map(AsFd::as_fd);
        let all = signals.iter().chain(fds).map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::IN));
        let mut all: Vec<_> = all.collect();
        match poll(&mut all, Some(&left)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let signal = signals.is_some() && all.first().is_some_and(|fd| !fd.revents().is_empty());
        Ok(if signal { Heard::Signal } else { Heard::News })
    }

    /// Has a signal do what it does while there is no command.
    fn obey(&self) -> Result<(), Error> {
        match self.signals.map_or(Ok(None), Signals::ending)? {
            Some(signal) => Err(Error::Cancelled(signal)),
            None => Ok(()),
        }
    }

    /// Tells that we wait, and for what, when it is time to.
    fn tell(&mut self, ledger: &Ledger) -> io::Result<()> {
        let now = Instant::now();
        if now >= self.tell_at {
            self.tell_at = now + AGAIN;
            tell(format_args!("sandbox: {}", waits(self.need, &ledger.entries()?, &self.room())));
        }
        Ok(())
    }
}

/// What somebody who has to wait is told.
fn waits(need: Need, others: &[Entry], room: &Room) -> String {
    let memory = others.iter().fold(0_u64, |sum, other| sum.saturating_add(other.memory));
    let cpus = others.iter().fold(0_u32, |sum, other| sum.saturating_add(other.cpus));
    format!(
        "waiting for room for {} and {} CPU: running machines have {} of {} and {cpus} of {} CPUs ({} free); \
         {ADMIT}=off does not wait",
        size(need.memory),
        need.cpus,
        size(memory),
        size(room.memory),
        room.cpus,
        size(room.available),
    )
}

/// Readable when the process has ended; none if there is no such process.
fn end_of(pid: u32) -> Option<OwnedFd> {
    let pid = Pid::from_raw(i32::try_from(pid).ok()?)?;
    pidfd_open(pid, PidfdFlags::empty()).ok()
}

/// Whether an end that was waited for has come.
fn has_come(end: &OwnedFd) -> bool {
    poll(&mut [PollFd::new(end, PollFlags::IN)], Some(&Timespec { tv_sec: 0, tv_nsec: 0 })) == Ok(1)
}

/// Readable when a machine of a process that lives on has been struck out. A user may have only so many of these; without
/// one there is still the look.
fn watch(ledger: &Ledger) -> Option<OwnedFd> {
    let watch = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK).ok()?;
    inotify::add_watch(&watch, ledger.path(), inotify::WatchFlags::MODIFY).ok()?;
    Some(watch)
}

fn hear_of_writes(watch: &OwnedFd) {
    let mut buffer = [MaybeUninit::uninit(); 1024];
    let mut events = inotify::Reader::new(watch, &mut buffer);
    while events.next().is_ok() {}
}
