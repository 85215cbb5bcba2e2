// SPDX-License-Identifier: Apache-2.0
//! A tar of what has changed, in the form of a container image's layer: what is gone is an empty file `.wh.` and its name
//! (OCI image specification, "Image Layer Filesystem Changeset").

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use guest_init::record::{Kind, State};
use tar::{Builder, EntryType, Header};

use super::{Change, Error, Spool, writing};

impl Spool {
    /// Writes the tar, whose place was opened by whoever asked for it. Devices, FIFOs and sockets are left out.
    ///
    /// # Errors
    /// [`Error::Write`].
    pub(crate) fn pack(&self, path: &Path, file: File) -> Result<(), Error> {
        let pack = || {
            let mut tar = Builder::new(BufWriter::new(file));
            let mut first = HashMap::new();
            for change in self.changes() {
                self.append(&mut tar, change, &mut first)?;
            }
            tar.into_inner()?.flush()
        };
        pack().map_err(writing(path))
    }

    fn append<'a>(
        &'a self,
        tar: &mut Builder<impl Write>,
        change: &'a Change,
        first: &mut HashMap<(u64, u64), &'a Path>,
    ) -> io::Result<()> {
        let mut header = header(change);
        if change.state == State::Removed {
            header.set_entry_type(EntryType::Regular);
            return tar.append_data(&mut header, whiteout(&change.path), io::empty());
        }
        match change.kind {
            Kind::Directory => {
                header.set_entry_type(EntryType::Directory);
                tar.append_data(&mut header, &change.path, io::empty())
            }
            Kind::Link => {
                header.set_entry_type(EntryType::Symlink);
                let target = PathBuf::from(OsString::from_vec(self.target(change)?));
                tar.append_link(&mut header, &change.path, target)
            }
            Kind::File => {
                // Of two that are said to be one, the second is a name for the first.
                let other = change.inode.and_then(|inode| first.get(&(inode, change.size)));
                if let Some(other) = other {
                    header.set_entry_type(EntryType::Link);
                    return tar.append_link(&mut header, &change.path, other);
                }
                first.extend(change.inode.map(|inode| ((inode, change.size), change.path.as_path())));
                header.set_entry_type(EntryType::Regular);
                header.set_size(change.size);
                tar.append_data(&mut header, &change.path, self.content(change))
            }
            _ => Ok(()),
        }
    }
}

fn header(change: &Change) -> Header {
    let mut header = Header::new_gnu();
    header.set_mode(change.mode);
    header.set_uid(change.uid.into());
    header.set_gid(change.gid.into());
    header.set_mtime(u64::try_from(change.seconds).unwrap_or(0));
    header.set_size(0);
    header
}

fn whiteout(path: &Path) -> PathBuf {
    let mut name = OsString::from(".wh.");
    name.push(path.file_name().unwrap_or_default());
    path.with_file_name(OsString::from_vec(name.as_bytes().to_vec()))
}
