// SPDX-License-Identifier: Apache-2.0
//! The file that says what runs: a line of slots, one for each machine, and a lock for each slot.
//!
//! A slot is [`SLOT`] bytes: memory (8), processors (4), process (4), whether it is kept (4), and nothing. A slot without memory
//! is free. Its lock is that of its first byte, held by whoever wrote it until the machine has ended; what is in a slot
//! without a lock is a dead run's. Only who holds the lock of the turn ([`TURN`]) writes to a slot that is not its own.
//!
//! Nothing in it is trusted to be whole: what does not make sense takes room, and nothing else.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use rustix::process::getuid;

use super::{Error, Need};
use crate::sys::locks;

const SLOT: usize = 32;

/// Where in a slot it says whether the machine is kept, and where nothing more is said.
const KEPT: usize = 16;
const LAST: usize = 20;

/// Slots at most: what is not written down is not counted. A machine has 128 MiB and more, so this is enough for 512 GiB.
const SLOTS: usize = 4096;

/// Bytes that are read at a time.
const PIECE: usize = 4096;

/// The byte whose lock says whose turn it is.
const TURN: u64 = 1 << 40;

/// Where everybody may make files that are gone with the host's boot.
const SHARED: &str = "/dev/shm";

/// A machine that is written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) slot: usize,
    pub(super) memory: u64,
    pub(super) cpus: u32,
    pub(super) pid: u32,
    pub(super) kept: bool,
}

impl Entry {
    fn read(slot: usize, bytes: &[u8]) -> Option<Self> {
        let (memory, rest) = bytes.split_first_chunk::<8>()?;
        let (cpus, rest) = rest.split_first_chunk::<4>()?;
        let (pid, rest) = rest.split_first_chunk::<4>()?;
        let (kept, _) = rest.split_first_chunk::<4>()?;
        let memory = u64::from_ne_bytes(*memory);
        (memory > 0).then_some(Self {
            slot,
            memory,
            cpus: u32::from_ne_bytes(*cpus),
            pid: u32::from_ne_bytes(*pid),
            kept: u32::from_ne_bytes(*kept) != 0,
        })
    }

    fn bytes(need: Need) -> [u8; SLOT] {
        let mut bytes = [0; SLOT];
        bytes[..8].copy_from_slice(&need.memory.to_ne_bytes());
        bytes[8..12].copy_from_slice(&need.cpus.to_ne_bytes());
        bytes[12..16].copy_from_slice(&std::process::id().to_ne_bytes());
        bytes[KEPT..LAST].copy_from_slice(&u32::from(need.kept).to_ne_bytes());
        bytes
    }

    fn lock(slot: usize) -> u64 {
        (slot * SLOT) as u64
    }
}

/// The file, opened once for each machine: locks belong to an open file.
#[derive(Debug)]
pub(super) struct Ledger {
    file: File,
    path: PathBuf,
}

impl Ledger {
    /// The user's, or a chosen one.
    pub(super) fn of_user(chosen: Option<PathBuf>) -> Result<Self, Error> {
        if let Some(path) = chosen {
            let ledger = Self::open(path)?;
            return match ledger.is_one() {
                Ok(()) => Ok(ledger),
                Err(source) => Err(Error::Ledger { path: ledger.path, source }),
            };
        }
        let uid = getuid().as_raw();
        // By the user's number and not by anything in the environment, which a login, cron and sudo set differently.
        let shared = Path::new(SHARED).join(format!("sandbox-ledger-{uid}"));
        let own = Self::open(shared).and_then(|ledger| match ledger.is_ours() {
            Ok(()) => Ok(ledger),
            Err(source) => Err(Error::Ledger { path: ledger.path, source }),
        });
        own.or_else(|error| match images::Store::of_user() {
            Ok(store) => Self::open(store.root().join("ledger")),
            Err(_homeless) => Err(error),
        })
    }

    pub(super) fn open(path: PathBuf) -> Result<Self, Error> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).mode(0o600).custom_flags(OFlags::NOFOLLOW.bits() as i32);
        match options.open(&path) {
            Ok(file) => Ok(Self { file, path }),
            Err(source) => Err(Error::Ledger { path, source }),
        }
    }

    /// Whether it makes sense to wait: others may put a file there first, and hold its locks for ever. All that they can do
    /// besides is to write nonsense.
    pub(super) fn is_ours(&self) -> io::Result<()> {
        let metadata = self.file.metadata()?;
        let (owner, own) = (metadata.uid(), getuid().as_raw());
        if owner != own {
            return Err(io::Error::other(format!("its ledger belongs to user {owner}, not {own}")));
        }
        // By a second name it could be any file of the user's, which would be written to.
        match metadata.is_file() && metadata.nlink() == 1 {
            true => Ok(()),
            false => Err(io::Error::other("its ledger is no file, or has another name besides")),
        }
    }

    /// Whether it is a ledger, or empty: any other file would be written to.
    fn is_one(&self) -> io::Result<()> {
        let bytes = self.bytes()?;
        let slot = |bytes: &[u8]| bytes[LAST..].iter().all(|byte| *byte == 0) && bytes[KEPT] <= 1;
        match self.file.metadata()?.is_file() && bytes.len().is_multiple_of(SLOT) && bytes.chunks_exact(SLOT).all(slot)
        {
            true => Ok(()),
            false => Err(io::Error::other("it is no ledger; name a file that is one, or is empty, or is not there")),
        }
    }

    /// The same file, opened once more.
    pub(super) fn again(&self) -> Result<Self, Error> {
        Self::open(self.path.clone())
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Takes the turn, if nobody has it.
    pub(super) fn try_turn(&self) -> io::Result<bool> {
        locks::try_lock(&self.file, TURN)
    }

    /// Takes the turn, when it comes.
    pub(super) fn wait_for_turn(&self) -> io::Result<()> {
        locks::lock(&self.file, TURN)
    }

    pub(super) fn end_turn(&self) -> io::Result<()> {
        locks::unlock(&self.file, TURN)
    }

    /// What is written down, dead runs' too.
    pub(super) fn entries(&self) -> io::Result<Vec<Entry>> {
        let bytes = self.bytes()?;
        let slots = bytes.chunks_exact(SLOT).enumerate();
        Ok(slots.filter_map(|(slot, bytes)| Entry::read(slot, bytes)).collect())
    }

    fn bytes(&self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let mut piece = [0; PIECE];
        while bytes.len() < SLOT * SLOTS {
            let count = self.file.read_at(&mut piece, bytes.len() as u64)?;
            bytes.extend_from_slice(&piece[..count]);
            if count < PIECE {
                break;
            }
        }
        Ok(bytes)
    }

    /// What runs. The dead are struck out.
    pub(super) fn living(&self) -> io::Result<Vec<Entry>> {
        let mut living = self.entries()?;
        let mut failed = None;
        living.retain(|entry| match locks::is_locked(&self.file, Entry::lock(entry.slot)) {
            Ok(true) => true,
            Ok(false) => {
                failed = self.file.write_all_at(&[0; SLOT], Entry::lock(entry.slot)).err().or(failed.take());
                false
            }
            Err(error) => {
                failed = Some(error);
                true
            }
        });
        failed.map_or(Ok(living), Err)
    }

    /// Writes a machine down beside these, and ends the turn.
    pub(super) fn enter(self, need: Need, others: &[Entry]) -> io::Result<Lease> {
        let taken = |slot: &usize| others.iter().all(|other| other.slot != *slot);
        for slot in (0..SLOTS).filter(taken) {
            // Whoever is just leaving has struck out its entry, and still has the lock.
            if locks::try_lock(&self.file, Entry::lock(slot))? {
                self.file.write_all_at(&Entry::bytes(need), Entry::lock(slot))?;
                self.end_turn()?;
                return Ok(Lease { file: self.file, slot });
            }
        }
        Err(io::Error::other("it is full"))
    }
}

/// What a machine has taken, until this is dropped.
#[derive(Debug)]
pub(crate) struct Lease {
    file: File,
    slot: usize,
}

impl Drop for Lease {
    fn drop(&mut self) {
        // Who waits hears of the write. Without it the entry is dead when the file is closed, and somebody will find that.
        drop(self.file.write_all_at(&[0; SLOT], Entry::lock(self.slot)));
    }
}

/// The processes that this one was started by, and itself.
pub(super) fn ancestors() -> Vec<u32> {
    let mut found = vec![std::process::id()];
    while let Some(parent) = found.last().and_then(|pid| parent(*pid)).filter(|parent| !found.contains(parent)) {
        found.push(parent);
    }
    found
}

fn parent(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // Behind the name, which may hold anything: state, then the parent.
    let (_, rest) = stat.rsplit_once(") ")?;
    rest.split(' ').nth(1)?.parse().ok().filter(|parent| *parent > 0)
}
