// SPDX-License-Identifier: Apache-2.0
//! The view as one file system: what virtiofsd's passthrough does not do by itself.
//!
//! - **Inode numbers.** The view is many file systems, the share is one to the guest, and an inode number is unique in
//!   one file system only: unchanged, two files could look like links to one, and `tar` would leave one of them out.
//! - **Descriptors.** The passthrough holds one for each file the guest has seen; [`nodes`] keeps them few.
//! - **Audience.** On mounts marked as shown to everyone, only what everyone may read is opened, though this process
//!   may be root's. Symbolic links and attributes can always be seen.
//! - **Time.** What is read-only is cached by the guest for long, also that a name does not exist; what is writable
//!   (a volume) for a second, and no data is kept there across opens.
//! - **Names.** A name is one component. `..` means nothing here.
//! - **Modes.** Nothing set-user-id is made on the host by a guest, and no device.
//! - **Owners.** Directories of the view's own belong to whom the host's belong to; see [`super::identity`].
//!
//! Which mount a file is on is asked of the kernel each time (statvfs(3)): no table of ours can be out of date.
//! Extended attributes are off: overlayfs in the guest asks for several on every lookup, and one refusal settles it.

mod delegate;
mod devices;
mod nodes;

use super::assemble::Tree;
use super::identity::Mapping;
use super::plan::Plan;
use devices::Devices;
use nodes::{File, Found, Guest, Inner, Key, Nodes, Way};
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::ffi::CStr;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use virtiofsd::filesystem::{Context, DirEntry, DirectoryIterator, Entry, FileSystem, OpenOptions};
use virtiofsd::fuse::Attr;
use virtiofsd::passthrough::{CachePolicy, Config, PassthroughFs};
use virtiofsd::read_dir::ReadDir;
use virtiofsd::soft_idmap::{GuestGid, GuestUid};

/// How long the guest may believe what it has seen of something read-only: longer than any run.
const LONG: Duration = Duration::from_secs(86_400);

/// How long it may believe what it has seen of a volume, which the host changes too.
const SHORT: Duration = Duration::from_secs(1);

/// Files held at most, however many may be open: each costs the host a kilobyte of memory.
const MOST_HELD: usize = 1 << 18;

/// Flags of statvfs(3), as the kernel has them (`ST_*` in `linux/statfs.h`).
const READ_ONLY: u64 = 0x0001;
const NO_FOLLOW: u64 = 0x2000;

/// Bits of a mode (inode(7)).
const TYPE: u32 = 0o170_000;
const DIRECTORY: u32 = 0o040_000;
const CHARACTER_DEVICE: u32 = 0o020_000;
const BLOCK_DEVICE: u32 = 0o060_000;
const SET_ID: u32 = 0o6000;

/// The view, served.
pub(super) struct Share {
    inner: PassthroughFs,
    nodes: Mutex<Nodes>,
    devices: Devices,
    owners: BTreeMap<u64, (u32, u32)>,
}

/// Where a file is.
#[derive(Debug, Clone, Copy)]
struct Place {
    device: u64,
    flags: u64,
}

impl Place {
    fn writable(self) -> bool {
        self.flags & READ_ONLY == 0
    }

    fn for_everyone(self) -> bool {
        self.flags & NO_FOLLOW != 0
    }

    fn patience(self) -> Duration {
        if self.writable() { SHORT } else { LONG }
    }
}

impl Share {
    /// Serves what is below `root`; the worker's own root, but for tests.
    pub(super) fn new(
        root: &str,
        tree: Tree,
        plan: &Plan,
        mapping: Mapping,
        guest_descriptors: u64,
    ) -> io::Result<Share> {
        let config = Config {
            entry_timeout: LONG,
            attr_timeout: LONG,
            cache_policy: CachePolicy::Always,
            root_dir: root.into(),
            proc_sfd_rawfd: Some(tree.descriptors.into()),
            // Overlayfs in the guest does not cross announced mounts (EREMOTE), and the view is nothing but mounts.
            announce_submounts: false,
            readdirplus: true,
            uid_map: mapping.translation(plan.uid),
            gid_map: mapping.translation(plan.gid),
            guest_fd_limit: guest_descriptors,
            ..Config::default()
        };
        let skeleton = rustix::fs::statvfs(root)?.f_fsid;
        // Half for the files that are held, half for those the guest opens.
        let capacity = usize::try_from(guest_descriptors / 2).unwrap_or(MOST_HELD).min(MOST_HELD);
        Ok(Share {
            inner: PassthroughFs::new(config)?,
            nodes: Mutex::new(Nodes::new(capacity)),
            devices: Devices::new(skeleton, tree.devices),
            owners: tree.owners,
        })
    }

    fn nodes(&self) -> MutexGuard<'_, Nodes> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The passthrough's number for the guest's, after finding the file again if it was let go.
    fn real(&self, ctx: Context, guest: Guest) -> io::Result<Inner> {
        let way = self.nodes().way(guest)?;
        let (parent, name, file) = match way {
            Way::Here(inner) => return Ok(inner),
            Way::Back { parent, name, file } => (parent, name, file),
        };
        // As deep as the path, which the host has made: nothing in a volume is ever let go.
        let parent = self.real(ctx, parent)?;
        let entry = self.inner.lookup(ctx, parent, &name)?;
        match self.place(ctx, entry.inode) {
            Ok(place) if (File { device: place.device, inode: entry.attr.ino }) == file => {
                let extra = self.nodes().back(guest, entry.inode);
                self.give_back(ctx, extra);
                self.let_go(ctx);
                Ok(entry.inode)
            }
            // The host has put something else there; the guest's kernel looks the name up anew.
            other => {
                self.give_back(ctx, [entry.inode]);
                Err(other.err().unwrap_or_else(|| Errno::STALE.into()))
            }
        }
    }

    fn give_back(&self, ctx: Context, references: impl IntoIterator<Item = Inner>) {
        for inner in references {
            self.inner.forget(ctx, inner, 1);
        }
    }

    fn let_go(&self, ctx: Context) {
        let excess = self.nodes().excess();
        self.give_back(ctx, excess);
    }

    fn place(&self, ctx: Context, inode: Inner) -> io::Result<Place> {
        let found = self.inner.statfs(ctx, inode)?;
        Ok(Place { device: found.f_fsid, flags: found.f_flag })
    }

    /// Attributes as the guest is to see them.
    fn dress(&self, place: Place, attr: &mut Attr) {
        if self.devices.is_skeleton(place.device) {
            let (uid, gid) = self.owners.get(&attr.ino).copied().unwrap_or((0, 0));
            attr.uid = GuestUid::from(uid);
            attr.gid = GuestGid::from(gid);
        }
        attr.ino = self.devices.unique(place.device, attr.ino);
    }

    /// A file found by the passthrough, as the guest is to see it.
    fn dressed(&self, ctx: Context, parent: Guest, name: &CStr, mut entry: Entry) -> io::Result<Entry> {
        let place = match self.place(ctx, entry.inode) {
            Ok(place) => place,
            Err(error) => {
                // The guest will not learn of this reference, so it cannot give it back.
                self.give_back(ctx, [entry.inode]);
                return Err(error);
            }
        };
        let (inner, file, name) = (entry.inode, File { device: place.device, inode: entry.attr.ino }, name.into());
        let key = if place.writable() {
            Key::Pinned(inner)
        } else if entry.attr.nlink > 1 && entry.attr.mode & TYPE != DIRECTORY {
            Key::Link(file, place.flags)
        } else {
            Key::Name(parent, std::sync::Arc::clone(&name))
        };
        let (guest, extra) = self.nodes().found(Found { parent, name, inner, file, key });
        self.give_back(ctx, extra);
        self.let_go(ctx);
        entry.inode = guest;
        self.dress(place, &mut entry.attr);
        entry.attr_timeout = place.patience();
        entry.entry_timeout = place.patience();
        Ok(entry)
    }

    fn find(&self, ctx: Context, parent: Guest, name: &CStr) -> io::Result<Entry> {
        component(name)?;
        let inner = self.real(ctx, parent)?;
        let place = self.place(ctx, inner)?;
        if place.for_everyone() {
            self.check_everyone(ctx, inner, 0o001)?;
        }
        match self.inner.lookup(ctx, inner, name) {
            Ok(entry) => self.dressed(ctx, parent, name, entry),
            Err(error) if error.kind() == io::ErrorKind::NotFound && !place.writable() => Ok(absent()),
            Err(error) => Err(error),
        }
    }

    /// What may be opened, and how its data may be cached.
    fn opened<H>(
        &self,
        ctx: Context,
        guest: Guest,
        needed: u32,
        open: impl FnOnce(Inner) -> io::Result<(Option<H>, OpenOptions)>,
    ) -> io::Result<(Option<H>, OpenOptions)> {
        let inode = self.real(ctx, guest)?;
        let place = self.place(ctx, inode)?;
        if place.for_everyone() {
            self.check_everyone(ctx, inode, needed)?;
        }
        let (handle, mut options) = open(inode)?;
        self.nodes().opened(guest);
        if place.writable() {
            options.remove(OpenOptions::KEEP_CACHE | OpenOptions::CACHE_DIR);
        } else {
            // Nothing was written, so a close(2) has nothing to hear from the host.
            options.insert(OpenOptions::NOFLUSH);
        }
        Ok((handle, options))
    }

    /// Refuses what not everyone may do with a file.
    fn check_everyone(&self, ctx: Context, inode: Inner, needed: u32) -> io::Result<()> {
        let (attr, _) = self.inner.getattr(ctx, inode, None)?;
        if attr.mode & needed == needed { Ok(()) } else { Err(Errno::ACCESS.into()) }
    }

    fn attributes(&self, ctx: Context, inode: Inner, mut attr: Attr) -> io::Result<(Attr, Duration)> {
        let place = self.place(ctx, inode)?;
        self.dress(place, &mut attr);
        Ok((attr, place.patience()))
    }
}

/// The answer to a name that does not exist and will not: no inode, to be remembered.
fn absent() -> Entry {
    Entry { inode: 0, generation: 0, attr: Attr::default(), attr_timeout: LONG, entry_timeout: LONG }
}

/// Refuses a name that is not one component of a path.
fn component(name: &CStr) -> io::Result<()> {
    match name.to_bytes() {
        b"" | b"." | b".." => Err(Errno::INVAL.into()),
        bytes if bytes.contains(&b'/') => Err(Errno::INVAL.into()),
        _ => Ok(()),
    }
}

/// The mode with which the guest may make or change a file on the host.
fn permitted(mode: u32, kind: u32) -> io::Result<u32> {
    match kind & TYPE {
        CHARACTER_DEVICE | BLOCK_DEVICE => Err(Errno::PERM.into()),
        // Set-group-id on a directory is about the group of new files, not about rights.
        DIRECTORY => Ok(mode),
        _ => Ok(mode & !SET_ID),
    }
}

/// The entries of a directory, with unique inode numbers.
pub(super) struct Entries {
    inner: ReadDir<Vec<u8>>,
    number: devices::Number,
}

impl DirectoryIterator for Entries {
    fn next(&mut self) -> Option<DirEntry<'_>> {
        let number = self.number;
        self.inner.next().map(|entry| DirEntry { ino: number.unique(entry.ino), ..entry })
    }
}

#[cfg(test)]
mod tests;
