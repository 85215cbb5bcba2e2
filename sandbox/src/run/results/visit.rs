// SPDX-License-Identifier: Apache-2.0
//! A shell in the machine of a command that has failed, on the caller's terminal, before the machine ends.
//!
//! It is a command beside the first, of which nothing is left but its files. What becomes of it is no verdict.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::time::Instant;

use guest_init::wire::ToGuest;

use super::{Keeping, is_there};
use crate::cli::tell;
use crate::outcome::{Cause, Verdict};
use crate::run::ground::Ground;
use crate::run::watch::{Furnished, Real, Watch};
use crate::run::{Error, FLUSH_LIMIT, Lines, Outcome, Relays, Streams};
use crate::session::Session;
use crate::spec::Spec;
use crate::stages::Stages;
use crate::terminal::Terminal;
use crate::virtio::vsock::supply;

/// A shell that is to be opened if the command fails.
pub(crate) struct Visit {
    /// The first of these that can be run.
    pub(crate) shells: Vec<Spec>,
    /// The terminal that it is on.
    pub(crate) terminal: File,
}

impl Visit {
    /// Whether there is something to look at, and somewhere.
    pub(super) fn is_due(cause: &Cause) -> bool {
        cause.verdict() == Verdict::Fail && is_there(cause)
    }
}

impl Keeping<'_> {
    /// Opens the shell in the machine of a command that ended so, and waits for its end.
    pub(super) fn receive(&mut self, visit: &Visit, ground: &mut Ground<'_>, relays: &Relays, outcome: &Outcome) {
        tell(format_args!("sandbox: {}; this is a shell in its machine, which ends with it", outcome.cause));
        for shell in &visit.shells {
            let ended = self.open(shell, &visit.terminal, ground, relays, outcome);
            let why = match ended {
                Ok(cause @ (Cause::NotFound(_) | Cause::NotExecutable(_))) => cause,
                Ok(cause) if cause.needs_words() => return tell(format_args!("sandbox: the shell has ended: {cause}")),
                Ok(_) => return,
                Err(error) => return tell(format_args!("sandbox: there is no shell: {}", crate::explain(&error))),
            };
            tell(format_args!("sandbox: {why}"));
        }
    }

    fn open(
        &mut self,
        shell: &Spec,
        terminal: &File,
        ground: &mut Ground<'_>,
        before: &Relays,
        outcome: &Outcome,
    ) -> Result<Cause, Error> {
        let number = self.next();
        let (lines, ports) = Lines::new(number)?;
        supply::send(self.supply, &ports).map_err(io::Error::other)?;
        // Ours again: what ends them is the device.
        drop(ports);
        self.say(&ToGuest::Beside(number))?;
        // With that nothing is left of the command, also of one that a limit has ended; its last words come first.
        before.flush(Instant::now() + FLUSH_LIMIT)?;
        let mut own = Terminal::look(terminal.as_fd(), [terminal.as_fd(); 2], true)?;
        let stream = || terminal.try_clone().map(Into::into);
        let streams = Streams { stdin: stream()?, stdout: stream()?, stderr: stream()? };
        let (control, relays) = lines.connect(streams, None, own.gate(), false)?;
        let session = Session::new(control)?;
        let mut visited = Outcome::refused(Cause::SetupError(String::new()), Stages::begin());
        visited.engine.clone_from(&outcome.engine);
        let world = Real { session, relays: &relays, signals: self.signals, ground };
        let mut watch = Watch::new(shell, world, Furnished::Already, &mut own);
        watch.until_the_end(&mut visited)
    }
}
