// SPDX-License-Identifier: Apache-2.0
//! Messages between the host's session and the guest's init, and their frames.
//!
//! One control connection, dialled by the guest, carries frames in both directions: an eight-byte header (magic,
//! protocol version, payload length), then one [`postcard`] value. The command's standard streams are connections of
//! their own and carry raw bytes, so they are not described here beyond their port numbers.
//!
//! The two directions have different limits because the two ends are not equals. What the guest sends is hostile and
//! small ([`FROM_GUEST_MAX`]); what the host sends may hold a whole argument list ([`TO_GUEST_MAX`]).

mod mount;
pub mod port;
mod tally;
mod tell;
mod terminal;

use alloc::vec::Vec;
pub use mount::{Mount, Tmpfs, Volume};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_bytes::ByteBuf;
pub use tally::{Met, Tally, Transfer, Usage, full};
pub use tell::Tell;
pub use terminal::{CODES, Modes, Size, TERMIOS, Terminal};

/// Version of this protocol. Both ends must be of the same: they are built together.
pub const VERSION: u16 = 7;

/// Length of a frame's header in bytes.
pub const HEADER_LEN: usize = 8;

/// Longest payload the guest may send. Its messages are a few dozen bytes.
pub const FROM_GUEST_MAX: usize = 1024;

/// Longest payload the host may send. Linux never lets arguments and environment exceed 6 MiB together
/// (three quarters of `_STK_LIM`, execve(2)), and everything else is small.
pub const TO_GUEST_MAX: usize = 8 << 20;

/// How much of its room a [`Decoder`] keeps between messages.
const KEPT: usize = 4 << 10;

const MAGIC: [u8; 2] = *b"sb";

/// Where the view appears: the virtio-fs tag of the share that holds it.
pub const VIEW_TAG: &str = "view";
/// Directory of the share that is the lower layer of the guest's root.
pub const VIEW_ROOT: &str = "root";
/// Directory of the share that holds one numbered entry for each volume (`-v`).
pub const VIEW_VOLUMES: &str = "volumes";

/// What the host says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToGuest {
    /// Assemble the root. Answered by [`FromGuest::Mounted`] or [`FromGuest::Failed`].
    Mount(Mount),
    /// Run the command. Answered by [`FromGuest::Ready`], then [`FromGuest::Started`] or
    /// [`FromGuest::NotStarted`]; or by [`FromGuest::Failed`].
    Exec(Exec),
    /// Send this signal to the command. Ignored before it has started and after it has ended.
    Signal {
        /// Linux's number.
        signal: i32,
        /// Whether the command's whole process group gets it, as from a key of a terminal.
        group: bool,
    },
    /// The terminal has this size now. Ignored without one.
    Resize(Size),
    /// Are you there? Answered by [`FromGuest::Pong`].
    Ping,
    /// Run a command beside others, the one of this number (at least 1): another process of init's dials its control
    /// port, says [`FromGuest::Hello`] and waits for its [`ToGuest::Exec`]. When that connection is closed, whatever is
    /// left of the command is killed. Only after [`ToGuest::Mount`]. What is left of a command of this conversation is
    /// killed first.
    Beside(u32),
    /// Tell of files, as [`crate::record`] says, over the control connection of a number that no command has. What is left
    /// of the command that this conversation is about is killed first. Only after [`ToGuest::Mount`].
    Tell(Tell),
    /// Tell what the kernel has logged, in its own words and to the end of the connection, as [`ToGuest::Tell`] does of files.
    Log(u32),
}

/// What the guest says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromGuest {
    /// First message on the control connection.
    Hello {
        /// [`VERSION`] the guest was built with.
        version: u16,
    },
    /// The root is assembled.
    Mounted,
    /// The random number generator is seeded and the clock is set; the kernel confirmed both.
    Ready,
    /// The command's program is running: its `execve` succeeded.
    Started,
    /// The command's program could not be run; nothing of it has run.
    NotStarted {
        /// The call that failed.
        step: Step,
        /// Linux error number.
        errno: i32,
    },
    /// Init could not do what it was told; the machine is of no further use.
    Failed {
        /// The call that failed.
        step: Step,
        /// Linux error number.
        errno: i32,
    },
    /// This signal has stopped the command, until a [`ToGuest::Signal`] lets it go on.
    Stopped(u8),
    /// The command has ended. Its output may still be on the way.
    Ended(Ended),
    /// All of the command's output is on its way: so many bytes of each stream. Without this message nobody knows
    /// whether a stream's end was its end, or that of the machine.
    Drained {
        /// Bytes of standard output.
        stdout: u64,
        /// Bytes of standard error.
        stderr: u64,
    },
    /// Answer to [`ToGuest::Ping`]: what the command has used so far.
    Pong(Tally),
}

/// The command and everything about it that differs between runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exec {
    /// How many of `strings` are arguments; at least one.
    pub argc: u32,
    /// How many of `strings`, after the arguments, are environment entries.
    pub envc: u32,
    /// Arguments, then environment entries (`K=V`), each ended by a NUL byte. One run of bytes, so that a hundred
    /// thousand arguments cost the guest one allocation.
    pub strings: ByteBuf,
    /// How many places of `PATH`, from the first, do not hold the program as far as the host can see. To look there
    /// first costs a request to the host for each directory on the way.
    pub absent: u32,
    /// Absolute working directory.
    pub cwd: ByteBuf,
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
    /// File mode creation mask.
    pub umask: u32,
    /// Resource limits to set, in Linux numbering (`RLIMIT_*`).
    pub rlimits: Vec<Rlimit>,
    /// Memory the command and its children may use, in bytes (cgroup v2 `memory.max`).
    pub memory_max: u64,
    /// Processes and threads the command may have, itself included (cgroup v2 `pids.max`), if that is limited.
    pub processes_max: Option<u64>,
    /// Host name.
    pub hostname: ByteBuf,
    /// The time now, once more: the machine may have been frozen since it was told.
    pub clock: Clock,
    /// Fresh random bytes for the kernel's generator.
    pub entropy: [u8; 32],
    /// The terminal that its streams are connected to, if they are to one.
    pub terminal: Option<Terminal>,
}

/// The wall clock, since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Clock {
    /// Seconds.
    pub seconds: i64,
    /// And nanoseconds.
    pub nanoseconds: u32,
}

/// One resource limit (setrlimit(2)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rlimit {
    /// Linux's `RLIMIT_*` number.
    pub resource: u32,
    /// Soft limit; `u64::MAX` is "unlimited".
    pub soft: u64,
    /// Hard limit; `u64::MAX` is "unlimited".
    pub hard: u64,
}

/// What init was doing when a call failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Step {
    /// Reading a message of the host.
    Protocol,
    /// Mounting the share of the view.
    MountView,
    /// Mounting the overlay or its private layer.
    MountRoot,
    /// Mounting `/proc`, `/sys`, `/dev`, `/tmp`, `/run` or one of their children.
    MountSystem,
    /// Mounting the volume of this number.
    MountVolume(u32),
    /// Mounting the tmpfs of this number.
    MountTmpfs(u32),
    /// Making the assembled tree the root.
    EnterRoot,
    /// Seeding the random number generator.
    Seed,
    /// Setting the clock.
    Clock,
    /// Setting the host name.
    Hostname,
    /// Bringing the loopback interface up.
    Loopback,
    /// Making the command's cgroup.
    Cgroup,
    /// Connecting a standard stream, or making its pipe.
    Stream,
    /// Making the command's terminal.
    Terminal,
    /// Making a process.
    Fork,
    /// Setting a resource limit.
    Rlimit,
    /// Becoming the user.
    User,
    /// Changing to the working directory.
    Cwd,
    /// Looking the program up, or executing it.
    Exec,
}

/// How the command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// The ending itself.
    pub end: End,
    /// What it used.
    pub tally: Tally,
}

/// The ending itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum End {
    /// It exited with this status.
    Exited(u8),
    /// This signal killed it.
    Signaled(u8),
    /// It asked the kernel to reboot or power off (reboot(2) in a PID namespace ends that namespace).
    Reset,
    /// The command's PID namespace ended without telling how the command did.
    Lost,
}

/// Why bytes are not a frame of this protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Error {
    /// The header does not start with the magic bytes.
    Magic([u8; 2]),
    /// The other end speaks another version.
    Version(u16),
    /// The payload is longer than this direction allows.
    TooLong(u32),
    /// The payload is not a message, or is followed by more bytes.
    Payload,
    /// A message of ours does not fit in a frame of this direction.
    Unsendable(usize),
}

impl core::fmt::Display for Error {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Magic(bytes) => write!(f, "frame starts with {bytes:02x?} instead of {MAGIC:02x?}"),
            Self::Version(version) => write!(f, "peer speaks protocol version {version}, not {VERSION}"),
            Self::TooLong(length) => write!(f, "frame of {length} bytes exceeds the limit"),
            Self::Payload => write!(f, "frame does not hold a message"),
            Self::Unsendable(length) => write!(f, "message of {length} bytes exceeds the frame limit"),
        }
    }
}

impl core::error::Error for Error {}

/// A direction of the control connection: what travels, and how long it may be.
pub trait Message: Serialize + DeserializeOwned {
    /// Longest payload in bytes.
    const MAX: usize;
}

impl Message for ToGuest {
    const MAX: usize = TO_GUEST_MAX;
}

impl Message for FromGuest {
    const MAX: usize = FROM_GUEST_MAX;
}

/// Frames one message.
///
/// # Errors
/// [`Error::Unsendable`] if it is longer than the direction allows.
pub fn encode<M: Message>(message: &M) -> Result<Vec<u8>, Error> {
    let Ok(mut frame) = postcard::to_extend(message, Vec::from([0; HEADER_LEN])) else {
        return Err(Error::Payload);
    };
    let length = frame.len() - HEADER_LEN;
    if length > M::MAX {
        return Err(Error::Unsendable(length));
    }
    frame[..2].copy_from_slice(&MAGIC);
    frame[2..4].copy_from_slice(&VERSION.to_le_bytes());
    frame[4..8].copy_from_slice(&(length as u32).to_le_bytes());
    Ok(frame)
}

/// Reads a header: the length of the payload that follows, already checked against the direction's limit.
///
/// # Errors
/// [`Error::Magic`], [`Error::Version`] or [`Error::TooLong`].
pub fn payload_length<M: Message>(header: [u8; HEADER_LEN]) -> Result<usize, Error> {
    let [m0, m1, v0, v1, length @ ..] = header;
    if [m0, m1] != MAGIC {
        return Err(Error::Magic([m0, m1]));
    }
    let version = u16::from_le_bytes([v0, v1]);
    if version != VERSION {
        return Err(Error::Version(version));
    }
    let length = u32::from_le_bytes(length);
    match usize::try_from(length) {
        Ok(length) if length <= M::MAX => Ok(length),
        _ => Err(Error::TooLong(length)),
    }
}

/// Reads a payload: exactly one message.
///
/// # Errors
/// [`Error::Payload`] if it is anything else.
pub fn decode<M: Message>(payload: &[u8]) -> Result<M, Error> {
    match postcard::take_from_bytes(payload) {
        Ok((message, [])) => Ok(message),
        Ok(_) | Err(_) => Err(Error::Payload),
    }
}

/// Cuts a byte stream into messages; holds at most one frame of its direction.
#[derive(Debug)]
pub struct Decoder<M> {
    buffer: Vec<u8>,
    message: core::marker::PhantomData<M>,
}

impl<M> Default for Decoder<M> {
    fn default() -> Self {
        Self { buffer: Vec::new(), message: core::marker::PhantomData }
    }
}

impl<M: Message> Decoder<M> {
    /// Takes bytes in the order they came; `deliver` gets each message that they complete.
    ///
    /// # Errors
    /// The first error ends the stream: what follows it has no frame.
    pub fn push(&mut self, mut bytes: &[u8], mut deliver: impl FnMut(M)) -> Result<(), Error> {
        loop {
            let header = self.buffer.first_chunk().copied();
            let payload = header.map(payload_length::<M>).transpose()?;
            let want = HEADER_LEN + payload.unwrap_or(0);
            if payload.is_some() && self.buffer.len() == want {
                deliver(decode(&self.buffer[HEADER_LEN..])?);
                self.buffer.clear();
                // A long message is rare, and its room would be lacking for as long as the connection lasts.
                self.buffer.shrink_to(KEPT);
                continue;
            }
            if bytes.is_empty() {
                return Ok(());
            }
            let (now, later) = bytes.split_at(bytes.len().min(want - self.buffer.len()));
            self.buffer.extend_from_slice(now);
            bytes = later;
        }
    }
}

#[cfg(test)]
mod tests;
