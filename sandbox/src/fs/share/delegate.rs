// SPDX-License-Identifier: Apache-2.0
//! The FUSE operations (`linux/fuse.h`): those that mean something here, and those that pass through.
//!
//! What a read-only mount forbids is not forbidden again: the kernel does it, for this process as for any other.

use super::{Entries, Share, TYPE, component, permitted};
use crate::sys::StatVfs;
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

type Inode = <PassthroughFs as FileSystem>::Inode;
type Handle = <PassthroughFs as FileSystem>::Handle;

/// Operations that pass through as they are.
macro_rules! pass {
    ($(fn $name:ident$(<$generic:ident: $bound:path>)?(&self $(, $arg:ident: $type:ty)* $(,)?) $(-> $out:ty)?;)*) => {$(
        fn $name$(<$generic: $bound>)?(&self $(, $arg: $type)*) $(-> $out)? {
            self.inner.$name($($arg),*)
        }
    )*};
}

impl FileSystem for Share {
    type Inode = Inode;
    type Handle = Handle;
    type DirIter = Entries;

    pass! {
        fn init(&self, capable: FsOptions) -> io::Result<FsOptions>;
        fn destroy(&self);
        fn forget(&self, ctx: Context, inode: Inode, count: u64);
        fn batch_forget(&self, ctx: Context, requests: Vec<(Inode, u64)>);
        fn readlink(&self, ctx: Context, inode: Inode) -> io::Result<Vec<u8>>;
        fn read<W: ZeroCopyWriter>(&self, ctx: Context, inode: Inode, handle: Handle, w: W, size: u32, offset: u64,
            lock_owner: Option<u64>, flags: u32) -> io::Result<usize>;
        fn write<R: ZeroCopyReader>(&self, ctx: Context, inode: Inode, handle: Handle, r: R, size: u32, offset: u64,
            lock_owner: Option<u64>, delayed_write: bool, kill_priv: bool, flags: u32) -> io::Result<usize>;
        fn flush(&self, ctx: Context, inode: Inode, handle: Handle, lock_owner: u64) -> io::Result<()>;
        fn fsync(&self, ctx: Context, inode: Inode, datasync: bool, handle: Handle) -> io::Result<()>;
        fn fsyncdir(&self, ctx: Context, inode: Inode, datasync: bool, handle: Handle) -> io::Result<()>;
        fn fallocate(&self, ctx: Context, inode: Inode, handle: Handle, mode: u32, offset: u64, length: u64)
            -> io::Result<()>;
        fn release(&self, ctx: Context, inode: Inode, flags: u32, handle: Handle, flush: bool, flock_release: bool,
            lock_owner: Option<u64>) -> io::Result<()>;
        fn releasedir(&self, ctx: Context, inode: Inode, flags: u32, handle: Handle) -> io::Result<()>;
        fn getxattr(&self, ctx: Context, inode: Inode, name: &CStr, size: u32) -> io::Result<GetxattrReply>;
        fn listxattr(&self, ctx: Context, inode: Inode, size: u32) -> io::Result<ListxattrReply>;
        fn setxattr(&self, ctx: Context, inode: Inode, name: &CStr, value: &[u8], flags: u32,
            extra_flags: SetxattrFlags) -> io::Result<()>;
        fn removexattr(&self, ctx: Context, inode: Inode, name: &CStr) -> io::Result<()>;
        fn statfs(&self, ctx: Context, inode: Inode) -> io::Result<StatVfs>;
        fn lseek(&self, ctx: Context, inode: Inode, handle: Handle, offset: u64, whence: u32) -> io::Result<u64>;
        fn copyfilerange(&self, ctx: Context, inode_in: Inode, handle_in: Handle, offset_in: u64, inode_out: Inode,
            handle_out: Handle, offset_out: u64, len: u64, flags: u64) -> io::Result<usize>;
    }

    fn lookup(&self, ctx: Context, parent: Inode, name: &CStr) -> io::Result<Entry> {
        self.find(ctx, parent, name)
    }

    fn getattr(&self, ctx: Context, inode: Inode, handle: Option<Handle>) -> io::Result<(Attr, Duration)> {
        let (attr, _) = self.inner.getattr(ctx, inode, handle)?;
        self.attributes(ctx, inode, attr)
    }

    fn setattr(
        &self,
        ctx: Context,
        inode: Inode,
        mut attr: SetattrIn,
        handle: Option<Handle>,
        valid: SetattrValid,
    ) -> io::Result<(Attr, Duration)> {
        if valid.contains(SetattrValid::MODE) {
            let (present, _) = self.inner.getattr(ctx, inode, handle)?;
            attr.mode = permitted(attr.mode, present.mode)?;
        }
        let (attr, _) = self.inner.setattr(ctx, inode, attr, handle, valid)?;
        self.attributes(ctx, inode, attr)
    }

    fn symlink(&self, ctx: Context, link: &CStr, parent: Inode, name: &CStr, ext: Extensions) -> io::Result<Entry> {
        component(name)?;
        self.dressed(ctx, self.inner.symlink(ctx, link, parent, name, ext)?)
    }

    fn mknod(
        &self,
        ctx: Context,
        parent: Inode,
        name: &CStr,
        mode: u32,
        _rdev: u32,
        umask: u32,
        extensions: Extensions,
    ) -> io::Result<Entry> {
        component(name)?;
        self.dressed(ctx, self.inner.mknod(ctx, parent, name, permitted(mode, mode)?, 0, umask, extensions)?)
    }

    fn mkdir(
        &self,
        ctx: Context,
        parent: Inode,
        name: &CStr,
        mode: u32,
        umask: u32,
        extensions: Extensions,
    ) -> io::Result<Entry> {
        component(name)?;
        self.dressed(ctx, self.inner.mkdir(ctx, parent, name, mode, umask, extensions)?)
    }

    fn link(&self, ctx: Context, inode: Inode, newparent: Inode, newname: &CStr) -> io::Result<Entry> {
        component(newname)?;
        self.dressed(ctx, self.inner.link(ctx, inode, newparent, newname)?)
    }

    fn unlink(&self, ctx: Context, parent: Inode, name: &CStr) -> io::Result<()> {
        component(name)?;
        self.inner.unlink(ctx, parent, name)
    }

    fn rmdir(&self, ctx: Context, parent: Inode, name: &CStr) -> io::Result<()> {
        component(name)?;
        self.inner.rmdir(ctx, parent, name)
    }

    fn rename(
        &self,
        ctx: Context,
        olddir: Inode,
        oldname: &CStr,
        newdir: Inode,
        newname: &CStr,
        flags: u32,
    ) -> io::Result<()> {
        component(oldname)?;
        component(newname)?;
        self.inner.rename(ctx, olddir, oldname, newdir, newname, flags)
    }

    fn open(&self, ctx: Context, inode: Inode, kill_priv: bool, flags: u32) -> io::Result<(Option<Handle>, OpenOptions)> {
        self.opened(ctx, inode, 0o004, || self.inner.open(ctx, inode, kill_priv, flags))
    }

    fn create(
        &self,
        ctx: Context,
        parent: Inode,
        name: &CStr,
        mode: u32,
        kill_priv: bool,
        flags: u32,
        umask: u32,
        extensions: Extensions,
    ) -> io::Result<(Entry, Option<Handle>, OpenOptions)> {
        component(name)?;
        let place = self.place(ctx, parent)?;
        if !place.writable() {
            // The crate would open a file that exists already, past our own check.
            return Err(Errno::ROFS.into());
        }
        let mode = permitted(mode, mode & !TYPE)?;
        let (entry, handle, _) = self.inner.create(ctx, parent, name, mode, kill_priv, flags, umask, extensions)?;
        Ok((self.dressed(ctx, entry)?, handle, OpenOptions::empty()))
    }

    fn opendir(&self, ctx: Context, inode: Inode, flags: u32) -> io::Result<(Option<Handle>, OpenOptions)> {
        self.opened(ctx, inode, 0o005, || self.inner.opendir(ctx, inode, flags))
    }

    fn readdir(&self, ctx: Context, inode: Inode, handle: Handle, size: u32, offset: u64) -> io::Result<Entries> {
        let number = self.devices.number(self.place(ctx, inode)?.device);
        Ok(Entries { inner: self.inner.readdir(ctx, inode, handle, size, offset)?, number })
    }

    fn access(&self, ctx: Context, inode: Inode, mask: u32) -> io::Result<()> {
        let place = self.place(ctx, inode)?;
        if mask & 0o2 != 0 && !place.writable() {
            return Err(Errno::ROFS.into());
        }
        self.inner.access(ctx, inode, mask)
    }

    /// What the guest has written is in the host's page cache, as any program's is; the rest of the host's is not
    /// for a guest to write out (syncfs(2) waits for the whole file system).
    fn syncfs(&self, _ctx: Context, _inode: Inode) -> io::Result<()> {
        Ok(())
    }
}
