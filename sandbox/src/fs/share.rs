// SPDX-License-Identifier: Apache-2.0
//! The view as one file system: what virtiofsd's passthrough does not do by itself.
//!
//! - **Inode numbers.** The view is many file systems, the share is one to the guest, and an inode number is unique in
//!   one file system only: unchanged, two files could look like links to one, and `tar` would leave one of them out.
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

use super::assemble::Tree;
use super::identity::Mapping;
use super::plan::Plan;
use devices::Devices;
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::ffi::CStr;
use std::io;
use std::time::Duration;
use virtiofsd::filesystem::{Context, DirEntry, DirectoryIterator, Entry, FileSystem, OpenOptions, SerializableFileSystem};
use virtiofsd::fuse::Attr;
use virtiofsd::passthrough::{CachePolicy, Config, PassthroughFs};
use virtiofsd::read_dir::ReadDir;
use virtiofsd::soft_idmap::{GuestGid, GuestUid};

/// How long the guest may believe what it has seen of something read-only: longer than any run.
const LONG: Duration = Duration::from_secs(86_400);

/// How long it may believe what it has seen of a volume, which the host changes too.
const SHORT: Duration = Duration::from_secs(1);

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
    pub(super) fn new(tree: Tree, plan: &Plan, mapping: Mapping, guest_descriptors: u64) -> io::Result<Share> {
        let config = Config {
            entry_timeout: LONG,
            attr_timeout: LONG,
            cache_policy: CachePolicy::Always,
            root_dir: "/".into(),
            proc_sfd_rawfd: Some(tree.descriptors.into()),
            // Overlayfs in the guest does not cross announced mounts (EREMOTE), and the view is nothing but mounts.
            announce_submounts: false,
            readdirplus: true,
            killpriv_v2: true,
            uid_map: mapping.translation(plan.uid),
            gid_map: mapping.translation(plan.gid),
            guest_fd_limit: guest_descriptors,
            ..Config::default()
        };
        let skeleton = rustix::fs::statvfs("/")?.f_fsid;
        Ok(Share { inner: PassthroughFs::new(config)?, devices: Devices::new(skeleton, tree.devices), owners: tree.owners })
    }

    fn place(&self, ctx: Context, inode: u64) -> io::Result<Place> {
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

    fn dressed(&self, ctx: Context, mut entry: Entry) -> io::Result<Entry> {
        let place = match self.place(ctx, entry.inode) {
            Ok(place) => place,
            Err(error) => {
                // The guest will not learn of this reference, so it cannot give it back.
                self.inner.forget(ctx, entry.inode, 1);
                return Err(error);
            }
        };
        self.dress(place, &mut entry.attr);
        entry.attr_timeout = place.patience();
        entry.entry_timeout = place.patience();
        Ok(entry)
    }

    fn find(&self, ctx: Context, parent: u64, name: &CStr) -> io::Result<Entry> {
        component(name)?;
        let place = self.place(ctx, parent)?;
        if place.for_everyone() {
            self.check_everyone(ctx, parent, 0o001)?;
        }
        match self.inner.lookup(ctx, parent, name) {
            Ok(entry) => self.dressed(ctx, entry),
            Err(error) if error.kind() == io::ErrorKind::NotFound && !place.writable() => Ok(absent()),
            Err(error) => Err(error),
        }
    }

    /// What may be opened, and how its data may be cached.
    fn opened<H>(
        &self,
        ctx: Context,
        inode: u64,
        needed: u32,
        open: impl FnOnce() -> io::Result<(Option<H>, OpenOptions)>,
    ) -> io::Result<(Option<H>, OpenOptions)> {
        let place = self.place(ctx, inode)?;
        if place.for_everyone() {
            self.check_everyone(ctx, inode, needed)?;
        }
        let (handle, mut options) = open()?;
        if place.writable() {
            options.remove(OpenOptions::KEEP_CACHE | OpenOptions::CACHE_DIR);
        }
        Ok((handle, options))
    }

    /// Refuses what not everyone may do with a file.
    fn check_everyone(&self, ctx: Context, inode: u64, needed: u32) -> io::Result<()> {
        let (attr, _) = self.inner.getattr(ctx, inode, None)?;
        if attr.mode & needed == needed { Ok(()) } else { Err(Errno::ACCESS.into()) }
    }

    fn attributes(&self, ctx: Context, inode: u64, mut attr: Attr) -> io::Result<(Attr, Duration)> {
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

impl SerializableFileSystem for Share {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_component() {
        for bad in [c"", c".", c"..", c"a/b", c"/etc", c"../etc"] {
            assert!(component(bad).is_err(), "{bad:?}");
        }
        for good in [c"a", c"...", c".ssh", c"a b\n\xff"] {
            assert!(component(good).is_ok(), "{good:?}");
        }
    }

    #[test]
    fn no_set_id_file_and_no_device_is_made() {
        assert_eq!(permitted(0o104_755, 0o104_755).unwrap(), 0o100_755);
        assert_eq!(permitted(0o2755, DIRECTORY).unwrap(), 0o2755);
        assert!(permitted(0o020_666, 0o020_666).is_err());
        assert!(permitted(0o060_666, 0o060_666).is_err());
    }
}
