// SPDX-License-Identifier: Apache-2.0
//! A command's connections: the host's ends of them, and how its streams go.

use std::io;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Instant;

use guest_init::wire::port;
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd};

use super::{FLUSH_LIMIT, Outcome, Streams};
use crate::outcome::Cause;
use crate::relay::{self, Budget, Progress, State};
use crate::terminal::Gate;

/// The host's ends of the connections that the guest dials.
pub(super) struct Lines {
    pub(super) control: UnixStream,
    pub(super) stdin: UnixStream,
    pub(super) stdout: UnixStream,
    pub(super) stderr: UnixStream,
}

impl Lines {
    /// Makes the connections of the command of this number: our ends, and the device's by port.
    pub(super) fn new(number: u32) -> io::Result<(Self, Vec<(u32, UnixStream)>)> {
        let mut ports = Vec::new();
        let mut line = |first: u32| -> io::Result<UnixStream> {
            let (ours, theirs) = UnixStream::pair()?;
            ports.push((port::of(first, number), theirs));
            Ok(ours)
        };
        let lines = Self {
            control: line(port::CONTROL)?,
            stdin: line(port::STDIN)?,
            stdout: line(port::STDOUT)?,
            stderr: line(port::STDERR)?,
        };
        Ok((lines, ports))
    }

    /// Connects the streams: the control connection, and what tells of the streams' progress. If the caller goes on
    /// `using` its input itself, none of it is taken once the command wants no more.
    pub(super) fn connect(
        self,
        streams: Streams,
        output_limit: Option<u64>,
        gate: Option<Arc<Gate>>,
        using: bool,
    ) -> io::Result<(UnixStream, Relays)> {
        let bell = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let budget = Budget::new(output_limit);
        let relays = Relays {
            stdin: relay::input("stdin", streams.stdin, self.stdin, gate, using)?,
            stdout: relay::output("stdout", self.stdout, streams.stdout, Arc::clone(&budget), Arc::clone(&bell))?,
            stderr: relay::output("stderr", self.stderr, streams.stderr, Arc::clone(&budget), Arc::clone(&bell))?,
            budget,
            bell,
        };
        Ok((self.control, relays))
    }
}

/// The three streams' progress, and what tells of it.
pub(super) struct Relays {
    pub(super) stdin: Arc<Progress>,
    pub(super) stdout: Arc<Progress>,
    pub(super) stderr: Arc<Progress>,
    pub(super) budget: Arc<Budget>,
    pub(super) bell: relay::Bell,
}

impl Relays {
    /// Whether all output has reached its reader.
    pub(super) fn drained(&self) -> bool {
        self.stdout.state() == State::Done && self.stderr.state() == State::Done
    }

    /// Whether a reader of ours holds the output up.
    pub(super) fn writing(&self) -> bool {
        self.stdout.state() == State::Writing || self.stderr.state() == State::Writing
    }

    pub(super) fn bytes_out(&self) -> u64 {
        self.stdout.bytes() + self.stderr.bytes()
    }

    /// Takes the bell's pending rings, so that it can be waited for again.
    pub(super) fn hear(&self) {
        // "Would block" is the only error, and means that there were none.
        let _none = rustix::io::read(&*self.bell, &mut [0; 8]);
    }

    /// Lets output that was on its way arrive, and settles the verdict.
    pub(super) fn settle(&self, outcome: &mut Outcome, cause: &mut Cause) -> io::Result<()> {
        self.flush(Instant::now() + FLUSH_LIMIT)?;
        outcome.stdin_bytes = self.stdin.bytes();
        outcome.stdout_bytes = self.stdout.bytes();
        outcome.stderr_bytes = self.stderr.bytes();
        let streams = [
            ("read the command's standard input", &self.stdin),
            ("write the command's standard output", &self.stdout),
            ("write the command's standard error", &self.stderr),
        ];
        for (what, progress) in streams {
            if let Some(error) = progress.failure() {
                // The command's own ending says nothing about bytes that we lost.
                *cause = Cause::SetupError(format!("cannot {what}: {error}"));
            }
        }
        Ok(())
    }

    pub(super) fn flush(&self, deadline: Instant) -> io::Result<()> {
        while !self.drained() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            let timeout = rustix::event::Timespec::try_from(left).map_err(io::Error::other)?;
            match rustix::event::poll(&mut [PollFd::new(&*self.bell, PollFlags::IN)], Some(&timeout)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => self.hear(),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}
