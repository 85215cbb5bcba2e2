// SPDX-License-Identifier: Apache-2.0
//! A tar of what has changed, in the form of a container image's layer: what is gone is an empty file `.wh.` and its name
//! (OCI image specification, "Image Layer Filesystem Changeset").

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::{File, remove_file};
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use guest_init::record::{Kind, State};
use tar::{Builder, EntryType, Header};

use super::{Change, Error, GoOn, Left, Spool, writing};

/// What the name of something begins with that is gone.
const WHITEOUT: &[u8] = b".wh.";

impl Spool {
    /// Writes the tar, over a file that is there. Devices, FIFOs, sockets and what an importer would take for something that is
    /// gone are left out.
    ///
    /// # Errors
    /// [`Error::Write`]; half a tar is removed, as it could be taken for a whole one.
    pub(crate) fn pack(&self, path: &Path, go_on: GoOn<'_>) -> Result<Vec<Left>, Error> {
        let mut left = Vec::new();
        let mut pack = |file: &File| {
            let mut tar = Builder::new(BufWriter::new(file));
            let mut first = HashMap::new();
            for change in self.changes() {
                go_on()?;
                match reserved(change) {
                    Some(why) => left.push(format!("{:?}: {why}", change.path)),
                    None => self.append(&mut tar, change, &mut first, go_on)?,
                }
            }
            tar.into_inner()?.flush()
        };
        let file = File::create(path).map_err(writing(path))?;
        pack(&file).map_err(writing(path)).inspect_err(|_| {
            // Not what the caller has there for other purposes: a device, a FIFO, a link.
            if path.symlink_metadata().is_ok_and(|there| there.is_file()) {
                // The first error says more than that it could not even be removed.
                let _ = remove_file(path);
            }
        })?;
        Ok(left)
    }

    fn append<'a>(
        &'a self,
        tar: &mut Builder<impl Write>,
        change: &'a Change,
        first: &mut HashMap<(u64, u64), &'a Path>,
        go_on: GoOn<'_>,
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
                tar.append_data(&mut header, &change.path, Asking { from: self.content(change), go_on })
            }
            _ => Ok(()),
        }
    }
}

/// Content that asks before each part whether to go on.
struct Asking<'a, R> {
    from: R,
    go_on: GoOn<'a>,
}

impl<R: Read> Read for Asking<'_, R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        (self.go_on)()?;
        self.from.read(out)
    }
}

/// Why there is no place in a layer for it.
fn reserved(change: &Change) -> Option<&'static str> {
    let taken = |part: &OsStr| part.as_bytes().starts_with(WHITEOUT);
    if change.path.iter().any(taken) {
        return Some("a name that says in a layer that something is gone");
    }
    (change.state != State::Removed && change.kind == Kind::Special).then_some("no file, directory or link")
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
    let mut name = OsStr::from_bytes(WHITEOUT).to_owned();
    name.push(path.file_name().unwrap_or_default());
    path.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::super::spool::tests::{file, record, spool};
    use super::*;
    use tar::Archive;

    #[test]
    fn names_of_a_layer_and_devices_are_left_out() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("tar");
        let told = [
            record(Kind::Special, State::Added, b"fifo", b""),
            record(Kind::Special, State::Removed, b"gone", b""),
            record(Kind::File, State::Removed, b".wh..opq", b""),
            file(".wh.x", ""),
            file(".wh.d/in", ""),
            file("a.wh.x", "text"),
        ];
        let left = spool(&told).unwrap().pack(&path, &|| Ok(())).unwrap();
        assert_eq!(left.len(), 4, "{left:?}");
        let mut tar = Archive::new(File::open(&path).unwrap());
        let names: Vec<_> = tar.entries().unwrap().map(|entry| entry.unwrap().path().unwrap().into_owned()).collect();
        assert_eq!(names, [Path::new("a.wh.x"), Path::new(".wh.gone")]);
    }

    #[test]
    fn half_a_tar_does_not_stay() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("tar");
        let error = spool(&[file("a", "text")]).unwrap().pack(&path, &|| Err(io::Error::other("enough"))).unwrap_err();
        assert!(matches!(error, Error::Write { .. }) && !path.exists(), "{error:?}");
    }
}
