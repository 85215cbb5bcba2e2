// SPDX-License-Identifier: Apache-2.0
//! A command that runs: as [`std::process::Child`].

use std::io::{self, PipeReader, PipeWriter, Read};
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Output};
use std::sync::mpsc::RecvTimeoutError;
use std::thread;
use std::time::Duration;

use super::Error;
use crate::outcome::Cause;
use crate::run::Outcome;
use crate::run::kept::{News, Sent};

/// A command that has started, in the manner of [`std::process::Child`]. Dropping it leaves the command running; it ends
/// with its [`Sandbox`](super::Sandbox) at the latest.
///
/// ```
/// use sandbox::{Sandbox, Stdio};
/// use std::io::{Read, Write};
/// use std::time::Duration;
///
/// let sandbox = Sandbox::boot()?;
/// // Two at the same time.
/// let mut sleeper = sandbox.command("sleep").arg("600").spawn()?;
/// let mut upper = sandbox.command("tr").args(["a-z", "A-Z"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
///
/// let mut text = String::new();
/// upper.stdin.take().expect("piped").write_all(b"quiet")?;
/// upper.stdout.take().expect("piped").read_to_string(&mut text)?;
/// assert_eq!(text, "QUIET");
/// assert!(upper.wait()?.success());
///
/// assert_eq!(sleeper.wait_with_timeout(Duration::from_millis(10))?, None);
/// sleeper.kill();
/// assert!(!sleeper.wait()?.success());
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Child {
    /// Where its standard input is written, if it is a pipe. [`Child::wait`] closes it.
    pub stdin: Option<PipeWriter>,
    /// Where its standard output is read, if it is a pipe.
    pub stdout: Option<PipeReader>,
    /// Where its standard error is read, if it is a pipe.
    pub stderr: Option<PipeReader>,
    sent: Sent,
    outcome: Option<Box<Outcome>>,
}

const SIGKILL: u8 = 9;

impl Child {
    /// Waits until it runs.
    pub(super) fn started(
        sent: Sent,
        stdin: Option<PipeWriter>,
        stdout: Option<PipeReader>,
        stderr: Option<PipeReader>,
    ) -> Result<Self, Error> {
        match sent.news.recv() {
            Ok(News::Started) => Ok(Self { stdin, stdout, stderr, sent, outcome: None }),
            Ok(News::Ended(outcome)) => Err(Error::Command(outcome)),
            Err(error) => Err(Error::Streams(io::Error::other(error))),
        }
    }

    /// Kills it, unless it has ended. Its end is still to be waited for.
    pub fn kill(&mut self) {
        self.sent.signals.send(SIGKILL);
    }

    /// Sends it a signal, by Linux's number, unless it has ended.
    pub fn signal(&mut self, signal: u8) {
        self.sent.signals.send(signal);
    }

    /// Closes its standard input, if that is a pipe, and waits for its end: until its output has been taken, too, so read
    /// what is piped first.
    ///
    /// # Errors
    /// Why its end was not its own.
    pub fn wait(&mut self) -> Result<ExitStatus, Error> {
        drop(self.stdin.take());
        loop {
            if let Some(outcome) = &self.outcome {
                return status(outcome);
            }
            match self.sent.news.recv() {
                Ok(news) => self.hear(news),
                Err(error) => return Err(Error::Streams(io::Error::other(error))),
            }
        }
    }

    /// Its status, if it has ended.
    ///
    /// # Errors
    /// Why its end was not its own.
    pub fn try_wait(&mut self) -> Result<Option<ExitStatus>, Error> {
        self.wait_with_timeout(Duration::ZERO)
    }

    /// Waits for its end, but only so long; it goes on running then. Does not close its standard input.
    ///
    /// # Errors
    /// Why its end was not its own.
    pub fn wait_with_timeout(&mut self, limit: Duration) -> Result<Option<ExitStatus>, Error> {
        if self.outcome.is_none() {
            match self.sent.news.recv_timeout(limit) {
                Ok(news) => self.hear(news),
                Err(RecvTimeoutError::Timeout) => return Ok(None),
                Err(error) => return Err(Error::Streams(io::Error::other(error))),
            }
        }
        self.outcome.as_ref().map(|outcome| status(outcome)).transpose()
    }

    /// Closes its standard input, collects what its other streams have if they are pipes, and waits for its end.
    ///
    /// # Errors
    /// As for [`Child::wait`], and those of reading.
    pub fn wait_with_output(mut self) -> Result<Output, Error> {
        drop(self.stdin.take());
        let (output, error) = (self.stdout.take(), self.stderr.take());
        let (stdout, stderr) = thread::scope(|scope| {
            let error = scope.spawn(|| collect(error));
            (collect(output), error.join().unwrap_or_else(|_| Err(io::Error::other("a reading thread panicked"))))
        });
        let status = self.wait()?;
        Ok(Output { status, stdout: stdout.map_err(Error::Streams)?, stderr: stderr.map_err(Error::Streams)? })
    }

    /// All that is known of its end, when it has been waited for: what it used, how long its stages took.
    #[must_use]
    pub fn outcome(&self) -> Option<&Outcome> {
        self.outcome.as_deref()
    }

    fn hear(&mut self, news: News) {
        if let News::Ended(outcome) = news {
            self.outcome = Some(outcome);
        }
    }
}

fn collect(pipe: Option<PipeReader>) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if let Some(mut pipe) = pipe {
        pipe.read_to_end(&mut bytes)?;
    }
    Ok(bytes)
}

/// Only the command's own ending is a status.
fn status(outcome: &Outcome) -> Result<ExitStatus, Error> {
    match outcome.cause {
        Cause::Exited(code) => Ok(ExitStatus::from_raw(i32::from(code) << 8)),
        Cause::Signaled(signal) => Ok(ExitStatus::from_raw(i32::from(signal))),
        _ => Err(Error::Command(Box::new(outcome.clone()))),
    }
}
