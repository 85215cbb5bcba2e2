// SPDX-License-Identifier: Apache-2.0
//! The FUSE operations (`linux/fuse.h`): those that mean something here, and those that pass through.
//!
//! What a read-only mount forbids is not forbidden again: the kernel does it, for this process as for any other.

use super::nodes::Guest;
use super::{Entries, Share, TYPE, component, permitted};
use crate::sys::StatVfs;
use rustix::fs::OFlags;
use rustix::io::Errno;
use std::ffi::CStr;
use std::io;
use std::time::Duration;
use virtiofsd::filesystem::{
    Context, Entry, Extensions, FileSystem, FsOptions, GetxattrReply, ListxattrReply, OpenOptions, SetattrValid,
    SetxattrFlags, ZeroCopyReader, ZeroCopyWriter,
};
use virtiofsd::fuse::{Attr, SetattrIn};
use virtiofsd::passthrough::PassthroughFs;

type Handle = <PassthroughFs as FileSystem>::Handle;

/// How a file is opened whose size is to change. The library would open it for reading too, and the caller may have
/// no right to that. It does not wait for whoever has a lease on the file.
const TO_RESIZE: u32 = OFlags::WRONLY.union(OFlags::NONBLOCK).bits();

/// Operations that pass through, but for the file's number.
macro_rules! pass {
    ($(fn $name:ident$(<$generic:ident: $bound:path>)?(&self, ctx, inode $(, $arg:ident: $type:ty)* $(,)?) -> $out:ty;)*) => {$(
        fn $name$(<$generic: $bound>)?(&self, ctx: Context, inode: Guest $(, $arg: $type)*) -> io::Result<$out> {
            self.inner.$name(ctx, self.real(ctx, inode)? $(, $arg)*)
        }
    )*};
}

/// An offset that a file can have: the library panics at others.
fn possible(offset: u64) -> io::Result<u64> {
    if i64::try_from(offset).is_ok() { Ok(offset) } else { Err(Errno::INVAL.into()) }
}

impl FileSystem for Share {
    type Inode = Guest;
    type Handle = Handle;
    type DirIter = Entries;

    pass! {
        fn readlink(&self, ctx, inode) -> Vec<u8>;
        fn flush(&self, ctx, inode, handle: Handle, lock_owner: u64) -> ();
        fn fsync(&self, ctx, inode, datasync: bool, handle: Handle) -> ();
        fn fsyncdir(&self, ctx, inode, datasync: bool, handle: Handle) -> ();
        fn fallocate(&self, ctx, inode, handle: Handle, mode: u32, offset: u64, length: u64) -> ();
        fn getxattr(&self, ctx, inode, name: &CStr, size: u32) -> GetxattrReply;
        fn listxattr(&self, ctx, inode, size: u32) -> ListxattrReply;
        fn setxattr(&self, ctx, inode, name: &CStr, value: &[u8], flags: u32, extra_flags: SetxattrFlags) -> ();
        fn removexattr(&self, ctx, inode, name: &CStr) -> ();
        fn statfs(&self, ctx, inode) -> StatVfs;
        fn lseek(&self, ctx, inode, handle: Handle, offset: u64, whence: u32) -> u64;
    }

    fn read<W: ZeroCopyWriter>(
        &self,
        ctx: Context,
        inode: Guest,
        handle: Handle,
        w: W,
        size: u32,
        offset: u64,
        lock_owner: Option<u64>,
        flags: u32,
    ) -> io::Result<usize> {
        self.inner.read(ctx, self.real(ctx, inode)?, handle, w, size, possible(offset)?, lock_owner, flags)
    }

    fn write<R: ZeroCopyReader>(
        &self,
        ctx: Context,
        inode: Guest,
        handle: Handle,
        r: R,
        size: u32,
        offset: u64,
        lock_owner: Option<u64>,
        delayed_write: bool,
        kill_priv: bool,
        flags: u32,
    ) -> io::Result<usize> {
        let (inode, offset) = (self.real(ctx, inode)?, possible(offset)?);
        self.inner.write(ctx, inode, handle, r, size, offset, lock_owner, delayed_write, kill_priv, flags)
    }

    fn init(&self, capable: FsOptions) -> io::Result<FsOptions> {
        self.nodes().clear();
        self.inner.init(capable)
    }

    fn destroy(&self) {
        self.nodes().clear();
        self.inner.destroy();
    }

    fn forget(&self, ctx: Context, inode: Guest, count: u64) {
        let dropped = self.nodes().forget(inode, count);
        self.give_back(ctx, dropped);
    }

    fn batch_forget(&self, ctx: Context, requests: Vec<(Guest, u64)>) {
        for (inode, count) in requests {
            self.forget(ctx, inode, count);
        }
    }

    fn release(
        &self,
        ctx: Context,
        inode: Guest,
        flags: u32,
        handle: Handle,
        flush: bool,
        flock_release: bool,
        lock_owner: Option<u64>,
    ) -> io::Result<()> {
        self.inner.release(ctx, self.real(ctx, inode)?, flags, handle, flush, flock_release, lock_owner)?;
        let dropped = self.nodes().closed(inode);
        self.give_back(ctx, dropped);
        Ok(())
    }

    fn releasedir(&self, ctx: Context, inode: Guest, flags: u32, handle: Handle) -> io::Result<()> {
        self.inner.releasedir(ctx, self.real(ctx, inode)?, flags, handle)?;
        let dropped = self.nodes().closed(inode);
        self.give_back(ctx, dropped);
        Ok(())
    }

    fn copyfilerange(
        &self,
        ctx: Context,
        inode_in: Guest,
        handle_in: Handle,
        offset_in: u64,
        inode_out: Guest,
        handle_out: Handle,
        offset_out: u64,
        len: u64,
        flags: u64,
    ) -> io::Result<usize> {
        let (from, to) = (self.real(ctx, inode_in)?, self.real(ctx, inode_out)?);
        self.inner.copyfilerange(ctx, from, handle_in, offset_in, to, handle_out, offset_out, len, flags)
    }

    fn lookup(&self, ctx: Context, parent: Guest, name: &CStr) -> io::Result<Entry> {
        self.find(ctx, parent, name)
    }

    fn getattr(&self, ctx: Context, inode: Guest, handle: Option<Handle>) -> io::Result<(Attr, Duration)> {
        let inode = self.real(ctx, inode)?;
        let (attr, _) = self.inner.getattr(ctx, inode, handle)?;
        self.attributes(ctx, inode, attr)
    }

    fn setattr(
        &self,
        ctx: Context,
        inode: Guest,
        mut attr: SetattrIn,
        handle: Option<Handle>,
        valid: SetattrValid,
    ) -> io::Result<(Attr, Duration)> {
        let inode = self.real(ctx, inode)?;
        if valid.contains(SetattrValid::MODE) {
            let (present, _) = self.inner.getattr(ctx, inode, handle)?;
            attr.mode = permitted(attr.mode, present.mode)?;
        }
        let lent = if handle.is_none() && valid.contains(SetattrValid::SIZE) {
            self.inner.open(ctx, inode, false, TO_RESIZE)?.0
        } else {
            None
        };
        let changed = self.inner.setattr(ctx, inode, attr, handle.or(lent), valid);
        if let Some(lent) = lent {
            self.inner.release(ctx, inode, TO_RESIZE, lent, false, false, None)?;
        }
        let (attr, _) = changed?;
        self.attributes(ctx, inode, attr)
    }

    fn symlink(&self, ctx: Context, link: &CStr, parent: Guest, name: &CStr, ext: Extensions) -> io::Result<Entry> {
        component(name)?;
        let made = self.inner.symlink(ctx, link, self.real(ctx, parent)?, name, ext)?;
        self.dressed(ctx, parent, name, made)
    }

    fn mknod(
        &self,
        ctx: Context,
        parent: Guest,
        name: &CStr,
        mode: u32,
        _rdev: u32,
        umask: u32,
        extensions: Extensions,
    ) -> io::Result<Entry> {
        component(name)?;
        let mode = permitted(mode, mode)?;
        let made = self.inner.mknod(ctx, self.real(ctx, parent)?, name, mode, 0, umask, extensions)?;
        self.dressed(ctx, parent, name, made)
    }

    fn mkdir(
        &self,
        ctx: Context,
        parent: Guest,
        name: &CStr,
        mode: u32,
        umask: u32,
        extensions: Extensions,
    ) -> io::Result<Entry> {
        component(name)?;
        let made = self.inner.mkdir(ctx, self.real(ctx, parent)?, name, mode, umask, extensions)?;
        self.dressed(ctx, parent, name, made)
    }

    fn link(&self, ctx: Context, inode: Guest, newparent: Guest, newname: &CStr) -> io::Result<Entry> {
        component(newname)?;
        let made = self.inner.link(ctx, self.real(ctx, inode)?, self.real(ctx, newparent)?, newname)?;
        self.dressed(ctx, newparent, newname, made)
    }

    fn unlink(&self, ctx: Context, parent: Guest, name: &CStr) -> io::Result<()> {
        component(name)?;
        self.inner.unlink(ctx, self.real(ctx, parent)?, name)
    }

    fn rmdir(&self, ctx: Context, parent: Guest, name: &CStr) -> io::Result<()> {
        component(name)?;
        self.inner.rmdir(ctx, self.real(ctx, parent)?, name)
    }

    fn rename(
        &self,
        ctx: Context,
        olddir: Guest,
        oldname: &CStr,
        newdir: Guest,
        newname: &CStr,
        flags: u32,
    ) -> io::Result<()> {
        component(oldname)?;
        component(newname)?;
        self.inner.rename(ctx, self.real(ctx, olddir)?, oldname, self.real(ctx, newdir)?, newname, flags)
    }

    fn open(
        &self,
        ctx: Context,
        inode: Guest,
        kill_priv: bool,
        flags: u32,
    ) -> io::Result<(Option<Handle>, OpenOptions)> {
        self.opened(ctx, inode, 0o004, |inner| self.inner.open(ctx, inner, kill_priv, flags))
    }

    fn create(
        &self,
        ctx: Context,
        parent: Guest,
        name: &CStr,
        mode: u32,
        kill_priv: bool,
        flags: u32,
        umask: u32,
        extensions: Extensions,
    ) -> io::Result<(Entry, Option<Handle>, OpenOptions)> {
        component(name)?;
        let inner = self.real(ctx, parent)?;
        if !self.place(ctx, inner)?.writable() {
            // The crate would open a file that exists already, past our own check.
            return Err(Errno::ROFS.into());
        }
        let mode = permitted(mode, mode & !TYPE)?;
        let (entry, handle, _) = self.inner.create(ctx, inner, name, mode, kill_priv, flags, umask, extensions)?;
        let entry = self.dressed(ctx, parent, name, entry)?;
        self.nodes().opened(entry.inode);
        Ok((entry, handle, OpenOptions::empty()))
    }

    fn opendir(&self, ctx: Context, inode: Guest, flags: u32) -> io::Result<(Option<Handle>, OpenOptions)> {
        self.opened(ctx, inode, 0o005, |inner| self.inner.opendir(ctx, inner, flags))
    }

    fn readdir(&self, ctx: Context, inode: Guest, handle: Handle, size: u32, offset: u64) -> io::Result<Entries> {
        let inode = self.real(ctx, inode)?;
        let number = self.devices.number(self.place(ctx, inode)?.device);
        Ok(Entries { inner: self.inner.readdir(ctx, inode, handle, size, offset)?, number })
    }

    fn access(&self, ctx: Context, inode: Guest, mask: u32) -> io::Result<()> {
        let inode = self.real(ctx, inode)?;
        let place = self.place(ctx, inode)?;
        if mask & 0o2 != 0 && !place.writable() {
            return Err(Errno::ROFS.into());
        }
        self.inner.access(ctx, inode, mask)
    }

    /// What the guest has written is in the host's page cache, as any program's is; the rest of the host's is not
    /// for a guest to write out (syncfs(2) waits for the whole file system).
    fn syncfs(&self, _ctx: Context, _inode: Guest) -> io::Result<()> {
        Ok(())
    }
}
