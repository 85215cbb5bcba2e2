// SPDX-License-Identifier: Apache-2.0
//! The command's standard streams: bytes between the caller's descriptors and the guest's connections.
//!
//! One thread for each stream, because the caller's descriptors may be of any kind, are shared with other processes
//! and so must stay blocking. A thread that waits for a slow reader or for input that never comes is nobody's
//! concern but its own stream's; the run never joins one, it asks how far it is.

use std::fs::File;
use std::io::{self, IsTerminal, Read, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use rustix::event::{PollFd, PollFlags, poll};

use crate::terminal::Gate;

/// Bytes moved at a time.
const BATCH: usize = 64 << 10;

/// What an output relay is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// Waiting for the guest.
    Reading,
    /// Waiting for the caller's reader.
    Writing,
    /// At the end.
    Done,
}

/// One stream's progress.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    state: AtomicU8,
    bytes: AtomicU64,
    received: AtomicU64,
    left: AtomicBool,
    failure: Mutex<Option<io::Error>>,
}

impl Progress {
    pub(crate) fn state(&self) -> State {
        match self.state.load(Ordering::Acquire) {
            0 => State::Reading,
            1 => State::Writing,
            _ => State::Done,
        }
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Whether the guest's `sent` bytes were all there were, or nobody wanted the rest.
    pub(crate) fn holds(&self, sent: u64) -> bool {
        self.left.load(Ordering::Acquire) || self.received.load(Ordering::Acquire) == sent
    }

    /// Why the caller's descriptor could not be read or written, unless its reader just went away.
    pub(crate) fn failure(&self) -> Option<io::Error> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn enter(&self, state: State) {
        self.state.store(state as u8, Ordering::Release);
    }

    fn fail(&self, error: io::Error) {
        *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
    }
}

/// How much the command may still write, shared by its two output streams.
#[derive(Debug)]
pub(crate) struct Budget {
    left: AtomicU64,
    exceeded: AtomicBool,
}

impl Budget {
    pub(crate) fn new(limit: Option<u64>) -> Arc<Self> {
        Arc::new(Self { left: AtomicU64::new(limit.unwrap_or(u64::MAX)), exceeded: AtomicBool::new(false) })
    }

    pub(crate) fn exceeded(&self) -> bool {
        self.exceeded.load(Ordering::Acquire)
    }

    /// Takes up to `want`; less means that the limit is reached.
    fn take(&self, want: usize) -> usize {
        let take = |left: u64| Some(left - left.min(want as u64));
        let (Ok(left) | Err(left)) = self.left.fetch_update(Ordering::AcqRel, Ordering::Acquire, take);
        let granted = usize::try_from(left).unwrap_or(usize::MAX).min(want);
        if granted < want {
            self.exceeded.store(true, Ordering::Release);
        }
        granted
    }
}

/// Something that is told whenever a stream has come to its end.
pub(crate) type Bell = Arc<OwnedFd>;

/// Starts moving the command's output from its connection to the caller's descriptor.
pub(crate) fn output(
    name: &str,
    from: UnixStream,
    to: OwnedFd,
    budget: Arc<Budget>,
    bell: Bell,
) -> io::Result<Arc<Progress>> {
    let progress = Arc::new(Progress::default());
    let shared = Arc::clone(&progress);
    thread::Builder::new().name(name.to_owned()).spawn(move || {
        let result = pump_output(&from, &mut File::from(to), &budget, &shared);
        // The guest's writes fail from now on, as those to a pipe without a reader do. An error would only say that
        // the connection is gone already.
        drop(from.shutdown(Shutdown::Both));
        if let Err(error) = result {
            shared.left.store(true, Ordering::Release);
            if error.kind() != io::ErrorKind::BrokenPipe {
                shared.fail(error);
            }
        }
        shared.enter(State::Done);
        ring(&bell);
    })?;
    Ok(progress)
}

fn pump_output(mut from: &UnixStream, to: &mut File, budget: &Budget, progress: &Progress) -> io::Result<()> {
    let mut buffer = vec![0; BATCH];
    loop {
        progress.enter(State::Reading);
        let count = match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => return Ok(()),
        };
        progress.enter(State::Writing);
        progress.received.fetch_add(count as u64, Ordering::AcqRel);
        let granted = budget.take(count);
        write_all(to, &buffer[..granted])?;
        progress.bytes.fetch_add(granted as u64, Ordering::Relaxed);
        if granted < count {
            return Ok(());
        }
    }
}

/// Writes everything, also to a descriptor that whoever shares it with us has made non-blocking.
fn write_all(to: &mut File, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match to.write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => bytes = &bytes[count..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready(to, PollFlags::OUT)?,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Waits until a descriptor that does not block is ready, however long its other end takes: that end is the caller's.
fn ready(file: &File, events: PollFlags) -> io::Result<()> {
    match poll(&mut [PollFd::new(file, events)], None) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Starts moving the caller's input to the command's connection. If the caller goes on `using` it, none is taken once the
/// command wants no more; it costs a look before each read.
///
/// A keyboard is read only while its `gate` is open.
pub(crate) fn input(
    name: &str,
    from: OwnedFd,
    to: UnixStream,
    gate: Option<Arc<Gate>>,
    using: bool,
) -> io::Result<Arc<Progress>> {
    let progress = Arc::new(Progress::default());
    let shared = Arc::clone(&progress);
    thread::Builder::new().name(name.to_owned()).spawn(move || {
        if let Err(error) = pump_input(&mut File::from(from), &to, &shared, gate.as_deref(), using) {
            shared.fail(error);
        }
        // Half-close: what was sent still arrives. An error would only say that the connection is gone already.
        drop(to.shutdown(Shutdown::Write));
        shared.enter(State::Done);
    })?;
    Ok(progress)
}

/// Ends with the input, or when the command wants no more of it.
fn pump_input(
    from: &mut File,
    mut to: &UnixStream,
    progress: &Progress,
    gate: Option<&Gate>,
    using: bool,
) -> io::Result<()> {
    let mut buffer = vec![0; BATCH];
    // Of a terminal only while it is there: one that is hung up is known by that no more. A gate is before other inputs, too.
    let keyboard = gate.is_some() && from.is_terminal();
    loop {
        if let Some(gate) = gate {
            gate.pass();
            ready(from, PollFlags::IN)?;
            // While we waited, we may have gone to the background.
            if !gate.is_open() {
                continue;
            }
        }
        if using && !wanted(from, to)? {
            return Ok(());
        }
        match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => {
                // Taken is taken, whoever gets it: another attempt would not have it.
                progress.bytes.fetch_add(count as u64, Ordering::Relaxed);
                if to.write_all(&buffer[..count]).is_err() {
                    return Ok(());
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready(from, PollFlags::IN)?,
            // A keyboard whose terminal is hung up is at its end.
            Err(error) if keyboard && error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error()) => {
                return Ok(());
            }
            Err(error) => return Err(error),
        }
    }
}

/// Waits for input, or for the command to want no more of it, as a connection says that nobody receives on any more.
fn wanted(from: &File, to: &UnixStream) -> io::Result<bool> {
    let mut fds = [PollFd::new(from, PollFlags::IN), PollFd::new(to, PollFlags::RDHUP)];
    loop {
        match poll(&mut fds, None) {
            Ok(_) => return Ok(fds[1].revents().is_empty()),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn ring(bell: &OwnedFd) {
    // An eventfd's counter cannot overflow from the two rings a run has.
    let _never_full = rustix::io::write(bell, &1u64.to_ne_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::event::{EventfdFlags, eventfd};

    fn bell() -> Bell {
        Arc::new(eventfd(0, EventfdFlags::CLOEXEC).unwrap())
    }

    fn wait(bell: &OwnedFd) {
        rustix::io::read(bell, &mut [0; 8]).unwrap();
    }

    #[test]
    fn output_arrives_whole() {
        let (mut guest, host) = UnixStream::pair().unwrap();
        let (mut reader, writer) = io::pipe().unwrap();
        let bell = bell();
        let progress = output("test", host, writer.into(), Budget::new(None), Arc::clone(&bell)).unwrap();
        let sender = thread::spawn(move || guest.write_all(&[7; 300_000]).unwrap());
        let mut received = Vec::new();
        reader.read_to_end(&mut received).unwrap();
        sender.join().unwrap();
        wait(&bell);
        assert_eq!(received, [7; 300_000]);
        assert_eq!((progress.state(), progress.bytes()), (State::Done, 300_000));
    }

    #[test]
    fn a_reader_that_left_closes_the_connection_without_failure() {
        let (mut guest, host) = UnixStream::pair().unwrap();
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let bell = bell();
        let progress = output("test", host, writer.into(), Budget::new(None), Arc::clone(&bell)).unwrap();
        guest.write_all(b"x").unwrap();
        wait(&bell);
        assert!(guest.write_all(b"y").is_err());
        assert!(progress.failure().is_none());
    }

    #[test]
    fn a_full_device_is_a_failure() {
        let (mut guest, host) = UnixStream::pair().unwrap();
        let full = File::options().write(true).open("/dev/full").unwrap();
        let bell = bell();
        let progress = output("test", host, full.into(), Budget::new(None), Arc::clone(&bell)).unwrap();
        guest.write_all(b"x").unwrap();
        wait(&bell);
        assert_eq!(progress.failure().unwrap().kind(), io::ErrorKind::StorageFull);
    }

    /// A broken disk is no end of the input, though something holds it back as it would a keyboard.
    #[test]
    fn input_that_breaks_is_a_failure() {
        let (mut guest, host) = UnixStream::pair().unwrap();
        let gate = Arc::<Gate>::default();
        gate.open();
        // Its first page is nobody's: reading it is EIO.
        let broken = File::open("/proc/self/mem").unwrap();
        let progress = input("test", broken.into(), host, Some(gate), false).unwrap();
        assert_eq!(guest.read_to_end(&mut Vec::new()).unwrap(), 0);
        assert_eq!(progress.failure().unwrap().raw_os_error(), Some(rustix::io::Errno::IO.raw_os_error()));
    }

    #[test]
    fn input_that_nobody_wants_stays_the_callers() {
        let (guest, host) = UnixStream::pair().unwrap();
        let (mut reader, mut writer) = io::pipe().unwrap();
        let progress = input("test", reader.try_clone().unwrap().into(), host, None, true).unwrap();
        drop(guest);
        while progress.state() != State::Done {
            thread::yield_now();
        }
        writer.write_all(b"mine").unwrap();
        drop(writer);
        let mut left = String::new();
        reader.read_to_string(&mut left).unwrap();
        assert_eq!(left, "mine");
    }

    #[test]
    fn the_budget_cuts_where_it_says() {
        let (mut guest, host) = UnixStream::pair().unwrap();
        let (mut reader, writer) = io::pipe().unwrap();
        let (bell, budget) = (bell(), Budget::new(Some(5)));
        output("test", host, writer.into(), Arc::clone(&budget), Arc::clone(&bell)).unwrap();
        guest.write_all(b"1234567").unwrap();
        let mut received = Vec::new();
        reader.read_to_end(&mut received).unwrap();
        wait(&bell);
        assert_eq!(received, b"12345");
        assert!(budget.exceeded());
    }
}
