// SPDX-License-Identifier: Apache-2.0
//! Several commands in one virtual machine, for programs: [`Sandbox`] boots it, [`Command`] feels like
//! [`std::process::Command`].
//!
//! Not for how a command is run: [`crate::run::kept`]. The command line has doors of its own.

mod child;
mod command;
mod program;

pub use child::Child;
pub use command::{Command, Stdio};
pub(crate) use program::find as program;

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::caller::Caller;
use crate::engine::{Engine, Isolation};
use crate::outcome::Cause;
use crate::run::Outcome;
use crate::run::kept::Kept;
use crate::spec::{self, Choice, Keep, Limits, MEMORY_DEFAULT, MEMORY_STEP, Results, Sight, Spec, Volume};

/// A virtual machine that runs commands, as many as are asked of it, one after the other or at the same time.
///
/// It sees what `sandbox run` shows: the host's system directories and the current directory at the same paths, read-only
/// underneath, with a private layer above that takes the writes. What one command writes, the next one sees; all of it is
/// gone when the `Sandbox` is dropped, which also kills what still runs. Each command has process numbers of its own, and
/// when it has ended and its output has been taken, whatever it left running is killed. Commands of one machine are not
/// walled off from each other as those of two machines are: use one `Sandbox` for what may know of each other.
///
/// ```
/// let sandbox = sandbox::Sandbox::boot()?;
/// let output = sandbox.command("echo").arg("hello").output()?;
/// assert_eq!(output.stdout, b"hello\n");
///
/// sandbox.command("sh").args(["-c", "echo kept > /tmp/note"]).status()?;
/// assert_eq!(sandbox.command("cat").arg("/tmp/note").output()?.stdout, b"kept\n");
/// assert!(!std::path::Path::new("/tmp/note").exists());
/// # Ok::<_, sandbox::Error>(())
/// ```
///
/// # The program
///
/// Files are served and the machine is run by processes of their own, which are the `sandbox` program with an argument
/// that nobody types. A program that uses this library has to say where it is: [`Builder::program`], or the variable
/// `SANDBOX_BIN`, or else `PATH` has it. It must be of the same version as the library.
///
/// The guest's kernel and initramfs are those of the command line, in the user's cache (`make build`, or `images build`).
#[derive(Debug)]
pub struct Sandbox {
    kept: Kept,
    base: Arc<Spec>,
    engine: Option<Engine>,
}

impl Sandbox {
    /// Boots a machine as `sandbox run` would. See [`Sandbox::builder`] for other sorts.
    ///
    /// # Errors
    /// Why there is none.
    pub fn boot() -> Result<Self, Error> {
        Self::builder().boot()
    }

    /// Describes a machine before it boots.
    #[must_use]
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Describes a command. A name without a slash is searched for in the `PATH` of its environment, in the machine.
    #[must_use]
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command<'_> {
        Command::new(self, program.as_ref())
    }

    /// What keeps the commands in their place.
    #[must_use]
    pub fn isolation(&self) -> Isolation {
        self.engine.as_ref().map_or(Isolation::Emulated, Engine::isolation)
    }

    /// Why the machine has ended, if it has. Then nothing runs in it any more.
    #[must_use]
    pub fn ended(&self) -> Option<Cause> {
        self.kept.ended()
    }
}

/// What sort of machine a [`Sandbox`] is, and what it sees.
///
/// ```
/// use std::fs;
///
/// # let place = std::env::temp_dir().join(format!("sbx-doc-{}", std::process::id()));
/// # fs::create_dir(&place)?;
/// let sandbox = sandbox::Sandbox::builder().memory(256 << 20).cpus(2).volume(&place, "/out").boot()?;
/// sandbox.command("sh").args(["-c", "nproc > /out/count"]).status()?;
/// assert_eq!(fs::read_to_string(place.join("count"))?, "2\n");
/// # fs::remove_dir_all(&place)?;
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct Builder {
    program: Option<PathBuf>,
    directory: Option<PathBuf>,
    shown: Vec<PathBuf>,
    volumes: Vec<Volume>,
    memory: u64,
    private: Option<u64>,
    cpus: u32,
    engine: Choice,
    require_kvm: bool,
    home_tools: bool,
    boot: bool,
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            program: None,
            directory: None,
            shown: Vec::new(),
            volumes: Vec::new(),
            memory: MEMORY_DEFAULT,
            private: None,
            cpus: 1,
            engine: Choice::Auto,
            require_kvm: false,
            home_tools: true,
            boot: false,
        }
    }
}

impl Builder {
    /// Where the `sandbox` program is, instead of `SANDBOX_BIN` or `PATH`.
    #[must_use]
    pub fn program(mut self, program: impl Into<PathBuf>) -> Self {
        self.program = Some(program.into());
        self
    }

    /// The directory that is shown at its own path, and where commands start, instead of the current one.
    #[must_use]
    pub fn directory(mut self, directory: impl Into<PathBuf>) -> Self {
        self.directory = Some(directory.into());
        self
    }

    /// Shows a file or directory of the host at its own path, as the current one is shown: what commands write there goes to
    /// the private layer. One that does not exist is left out, and so are home directories and places of credentials.
    #[must_use]
    pub fn shown(mut self, path: impl Into<PathBuf>) -> Self {
        self.shown.push(path.into());
        self
    }

    /// Shows a file or directory of the host at another path. What commands write there is written on the host.
    #[must_use]
    pub fn volume(self, source: impl AsRef<Path>, target: impl Into<PathBuf>) -> Self {
        self.show(source.as_ref(), target.into(), false)
    }

    /// The same, read-only.
    #[must_use]
    pub fn read_only_volume(self, source: impl AsRef<Path>, target: impl Into<PathBuf>) -> Self {
        self.show(source.as_ref(), target.into(), true)
    }

    fn show(mut self, source: &Path, target: PathBuf, read_only: bool) -> Self {
        self.volumes.push(Volume { source: source.to_owned(), target, read_only });
        self
    }

    /// Memory of the machine in bytes, 1 GiB unless said. Only what the machine touches is taken from the host.
    #[must_use]
    pub fn memory(mut self, bytes: u64) -> Self {
        self.memory = bytes.checked_next_multiple_of(MEMORY_STEP).unwrap_or(bytes);
        self
    }

    /// Bytes that commands may write to the private layer, half of the memory unless said. What is more than that lies on a
    /// disk of the machine, a file of the host without a name.
    #[must_use]
    pub fn disk_size(mut self, bytes: u64) -> Self {
        self.private = Some(bytes);
        self
    }

    /// Virtual CPUs of the machine, one unless said.
    #[must_use]
    pub fn cpus(mut self, count: u32) -> Self {
        self.cpus = count;
        self
    }

    /// What runs the machine, instead of KVM where it works and QEMU elsewhere.
    #[must_use]
    pub fn engine(mut self, choice: Choice) -> Self {
        self.engine = choice;
        self
    }

    /// Whether anything but hardware virtualization is refused.
    #[must_use]
    pub fn require_kvm(mut self, required: bool) -> Self {
        self.require_kvm = required;
        self
    }

    /// Whether tools are shown that `PATH` finds in the home directory, as they are unless said.
    #[must_use]
    pub fn home_tools(mut self, shown: bool) -> Self {
        self.home_tools = shown;
        self
    }

    /// Boots the machine, and waits until it can run commands.
    ///
    /// # Errors
    /// Why there is none.
    pub fn boot(self) -> Result<Sandbox, Error> {
        let program = program::find(self.program.as_deref())?;
        let caller = Caller::look_on().map_err(Error::Caller)?;
        let directory = match self.directory {
            Some(directory) => std::path::absolute(&directory).map_err(Error::Caller)?,
            None => caller.directory.clone(),
        };
        let mut environment = caller.passed();
        set(&mut environment, "PWD".into(), directory.clone().into());
        let base = Spec {
            // Something has to stand here for the checks; each command puts its own there.
            command: vec![OsString::from("true")],
            environment,
            workdir: directory.clone(),
            user: caller.user.clone(),
            sight: Sight {
                volumes: self
                    .volumes
                    .into_iter()
                    .map(|volume| Volume { source: caller.directory.join(&volume.source), ..volume })
                    .collect(),
                current: directory,
                home: caller.variable(OsStr::new("HOME")).map(PathBuf::from),
                shown: self.shown,
                home_tools: self.home_tools,
            },
            memory: self.memory,
            cpus: self.cpus,
            timeout: None,
            kill_after: None,
            terminal: None,
            output_limit: None,
            limits: Limits { private: self.private, ..Limits::default() },
            engine: self.engine,
            require_kvm: self.require_kvm,
            nested: None,
            retries: 0,
            boot: self.boot,
            process: caller.process,
            program,
            results: Results::default(),
            keep: Keep::Never,
        };
        base.check()?;
        let (kept, outcome) = Kept::boot(&base).map_err(Error::Machine)?;
        Ok(Sandbox { kept, base: Arc::new(base), engine: outcome.engine })
    }
}

fn set(environment: &mut Vec<(OsString, OsString)>, name: OsString, value: OsString) {
    environment.retain(|(own, _)| *own != name);
    environment.push((name, value));
}

/// Why there is no machine, no command, or no status of one.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The program that serves files and runs the machine is not where it was said to be.
    #[error("cannot use {program:?} as the sandbox program: {found}; name it with Builder::program or SANDBOX_BIN")]
    Program {
        /// Where it was looked for.
        program: PathBuf,
        /// What is there.
        found: String,
    },
    /// Nobody said where that program is.
    #[error("no sandbox program found in PATH; name it with Builder::program or SANDBOX_BIN")]
    NoProgram,
    /// The calling process could not be looked at.
    #[error("cannot look at the calling process")]
    Caller(#[source] io::Error),
    /// What was asked for makes no sense.
    #[error(transparent)]
    Spec(#[from] spec::Error),
    /// There is no machine; the outcome says why, and what its console said.
    #[error("cannot boot a virtual machine: {}", .0.cause)]
    Machine(Box<Outcome>),
    /// A stream could not be made.
    #[error("cannot connect the command's standard streams")]
    Streams(#[source] io::Error),
    /// The command could not be run, or ended in a way that is not its own: by a limit, for want of memory, or with its
    /// machine. The outcome says which.
    #[error("{}", .0.cause)]
    Command(Box<Outcome>),
}

impl Error {
    /// Why the command ended or could not be run, or why there is no machine, if it came that far.
    #[must_use]
    pub fn cause(&self) -> Option<&Cause> {
        match self {
            Self::Machine(outcome) | Self::Command(outcome) => Some(&outcome.cause),
            _ => None,
        }
    }
}
