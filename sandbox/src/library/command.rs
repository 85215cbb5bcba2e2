// SPDX-License-Identifier: Apache-2.0
//! A command, described: as [`std::process::Command`], and run in a machine.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, PipeReader, PipeWriter};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Output};
use std::time::Duration;

use super::{Child, Error, Sandbox, set};
use crate::run::{Outcome, Streams};
use crate::spec::{Limits, Spec};
use crate::stages::Stages;

/// What a standard stream of a command is connected to: [`std::process::Stdio`] does not say what it holds.
#[derive(Debug)]
pub struct Stdio(Source);

#[derive(Debug)]
enum Source {
    Piped,
    Inherit,
    Null,
    Descriptor(OwnedFd),
}

impl Stdio {
    /// A pipe to or from the caller: a field of [`Child`].
    #[must_use]
    pub fn piped() -> Self {
        Self(Source::Piped)
    }

    /// The caller's own stream.
    #[must_use]
    pub fn inherit() -> Self {
        Self(Source::Inherit)
    }

    /// Nothing: `/dev/null`.
    #[must_use]
    pub fn null() -> Self {
        Self(Source::Null)
    }

    fn readable(self) -> io::Result<(OwnedFd, Option<PipeWriter>)> {
        match self.0 {
            Source::Piped => io::pipe().map(|(reader, writer)| (reader.into(), Some(writer))),
            Source::Inherit => Ok((io::stdin().as_fd().try_clone_to_owned()?, None)),
            Source::Null => Ok((File::open("/dev/null")?.into(), None)),
            Source::Descriptor(descriptor) => Ok((descriptor, None)),
        }
    }

    fn writable(self, own: impl AsFd) -> io::Result<(OwnedFd, Option<PipeReader>)> {
        match self.0 {
            Source::Piped => io::pipe().map(|(reader, writer)| (writer.into(), Some(reader))),
            Source::Inherit => Ok((own.as_fd().try_clone_to_owned()?, None)),
            Source::Null => Ok((File::options().write(true).open("/dev/null")?.into(), None)),
            Source::Descriptor(descriptor) => Ok((descriptor, None)),
        }
    }
}

/// A file, a pipe's end, a socket: whatever has a descriptor.
impl<T: Into<OwnedFd>> From<T> for Stdio {
    fn from(stream: T) -> Self {
        Self(Source::Descriptor(stream.into()))
    }
}

/// A command for a [`Sandbox`], in the manner of [`std::process::Command`].
///
/// It starts in the sandbox's directory, as the calling user, with the few variables that `sandbox run` passes.
///
/// ```
/// # let sandbox = sandbox::Sandbox::boot()?;
/// let mut command = sandbox.command("sh");
/// command.args(["-c", "echo $GREETING from $(pwd); exit 7"]).env("GREETING", "hello").current_dir("/usr");
/// let output = command.output()?;
/// assert_eq!(output.status.code(), Some(7));
/// assert_eq!(output.stdout, b"hello from /usr\n");
/// # Ok::<_, sandbox::Error>(())
/// ```
#[derive(Debug)]
pub struct Command<'a> {
    sandbox: &'a Sandbox,
    words: Vec<OsString>,
    clear: bool,
    changes: Vec<(OsString, Option<OsString>)>,
    directory: Option<PathBuf>,
    streams: [Option<Stdio>; 3],
    timeout: Option<Duration>,
    output_limit: Option<u64>,
    processes: Option<u64>,
}

impl<'a> Command<'a> {
    pub(super) fn new(sandbox: &'a Sandbox, program: &OsStr) -> Self {
        Self {
            sandbox,
            words: vec![program.to_owned()],
            clear: false,
            changes: Vec::new(),
            directory: None,
            streams: [None, None, None],
            timeout: None,
            output_limit: None,
            processes: None,
        }
    }

    /// Adds an argument.
    pub fn arg(&mut self, argument: impl AsRef<OsStr>) -> &mut Self {
        self.words.push(argument.as_ref().to_owned());
        self
    }

    /// Adds arguments.
    pub fn args<S: AsRef<OsStr>>(&mut self, arguments: impl IntoIterator<Item = S>) -> &mut Self {
        self.words.extend(arguments.into_iter().map(|argument| argument.as_ref().to_owned()));
        self
    }

    /// Sets a variable.
    pub fn env(&mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> &mut Self {
        self.changes.push((name.as_ref().to_owned(), Some(value.as_ref().to_owned())));
        self
    }

    /// Sets variables.
    pub fn envs<K: AsRef<OsStr>, V: AsRef<OsStr>>(&mut self, variables: impl IntoIterator<Item = (K, V)>) -> &mut Self {
        for (name, value) in variables {
            self.env(name, value);
        }
        self
    }

    /// Removes a variable.
    pub fn env_remove(&mut self, name: impl AsRef<OsStr>) -> &mut Self {
        self.changes.push((name.as_ref().to_owned(), None));
        self
    }

    /// Removes every variable, those set before included.
    pub fn env_clear(&mut self) -> &mut Self {
        self.clear = true;
        self.changes.clear();
        self
    }

    /// Starts it in this directory of the machine. A relative one is below the sandbox's.
    pub fn current_dir(&mut self, directory: impl AsRef<Path>) -> &mut Self {
        self.directory = Some(directory.as_ref().to_owned());
        self
    }

    /// What its standard input is: the caller's unless said, and for [`Command::output`] nothing.
    pub fn stdin(&mut self, stream: impl Into<Stdio>) -> &mut Self {
        self.streams[0] = Some(stream.into());
        self
    }

    /// Where its standard output goes: to the caller's unless said, and for [`Command::output`] into a pipe.
    pub fn stdout(&mut self, stream: impl Into<Stdio>) -> &mut Self {
        self.streams[1] = Some(stream.into());
        self
    }

    /// Where its standard error goes: to the caller's unless said, and for [`Command::output`] into a pipe.
    pub fn stderr(&mut self, stream: impl Into<Stdio>) -> &mut Self {
        self.streams[2] = Some(stream.into());
        self
    }

    /// Kills it when it has run for this long, which is then an error and not a status.
    pub fn timeout(&mut self, limit: Duration) -> &mut Self {
        self.timeout = Some(limit);
        self
    }

    /// Kills it when it has written more than this many bytes, which is then an error and not a status.
    pub fn output_limit(&mut self, bytes: u64) -> &mut Self {
        self.output_limit = Some(bytes);
        self
    }

    /// Lets it have this many processes and threads, itself included; it cannot make more.
    pub fn pids_limit(&mut self, count: u64) -> &mut Self {
        self.processes = Some(count);
        self
    }

    /// Runs it and waits for its end.
    ///
    /// # Errors
    /// That it could not be run, or why its end was not its own.
    pub fn status(&mut self) -> Result<ExitStatus, Error> {
        self.spawn()?.wait()
    }

    /// Runs it to its end and collects its output.
    ///
    /// # Errors
    /// As for [`Command::status`].
    pub fn output(&mut self) -> Result<Output, Error> {
        self.start([Stdio::null, Stdio::piped, Stdio::piped])?.wait_with_output()
    }

    /// Starts it, and returns when its program runs.
    ///
    /// # Errors
    /// That it could not be run.
    pub fn spawn(&mut self) -> Result<Child, Error> {
        self.start([Stdio::inherit; 3])
    }

    /// A stream that is given as a descriptor serves one start; the next has its default again.
    fn start(&mut self, defaults: [fn() -> Stdio; 3]) -> Result<Child, Error> {
        let spec = self.spec();
        spec.check()?;
        let [input, output, error] = [0, 1, 2].map(|number| self.stream(number, defaults));
        let using = matches!(input.0, Source::Inherit);
        let (stdin, input) = input.readable().map_err(Error::Streams)?;
        let (stdout, output) = output.writable(io::stdout()).map_err(Error::Streams)?;
        let (stderr, error) = error.writable(io::stderr()).map_err(Error::Streams)?;
        let streams = Streams { stdin, stdout, stderr };
        match self.sandbox.kept.start(spec, streams, using) {
            Ok(sent) => Child::started(sent, input, output, error),
            // What cannot be handed to a machine that has ended says less than why it has.
            Err(error) => Err(self.sandbox.ended().map_or(Error::Streams(error), |cause| {
                Error::Command(Box::new(Outcome::refused(cause, Stages::begin())))
            })),
        }
    }

    fn stream(&mut self, number: usize, defaults: [fn() -> Stdio; 3]) -> Stdio {
        match &self.streams[number] {
            None => defaults[number](),
            Some(Stdio(Source::Piped)) => Stdio::piped(),
            Some(Stdio(Source::Inherit)) => Stdio::inherit(),
            Some(Stdio(Source::Null)) => Stdio::null(),
            Some(Stdio(Source::Descriptor(_))) => self.streams[number].take().unwrap_or_else(defaults[number]),
        }
    }

    fn spec(&self) -> Spec {
        let base = &self.sandbox.base;
        let workdir = match &self.directory {
            Some(directory) => base.workdir.join(directory),
            None => base.workdir.clone(),
        };
        let mut environment = if self.clear { Vec::new() } else { base.environment.clone() };
        if !self.clear {
            set(&mut environment, "PWD".into(), workdir.clone().into());
        }
        for (name, value) in &self.changes {
            match value {
                Some(value) => set(&mut environment, name.clone(), value.clone()),
                None => environment.retain(|(own, _)| own != name),
            }
        }
        Spec {
            command: self.words.clone(),
            environment,
            workdir,
            timeout: self.timeout,
            output_limit: self.output_limit,
            limits: Limits { processes: self.processes, ..base.limits.clone() },
            ..Spec::clone(base)
        }
    }
}
