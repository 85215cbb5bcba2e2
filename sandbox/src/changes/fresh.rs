// SPDX-License-Identifier: Apache-2.0
//! Files and links that are whole before they have their name (open(2), `O_TMPFILE`). Not for what may be in their place.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, linkat, openat, renameat, unlinkat};
use rustix::io::Errno;

/// Names tried for something that has not its own yet.
const TRIES: u32 = 1000;

/// How much is copied at a time, and how long a run of zeros is that a file has no room for: a block of most file systems.
const CHUNK: u64 = 1 << 16;
const BLOCK: usize = 4096;

/// What makes way for something that could not be renamed into its place.
type MakeWay<'a> = &'a dyn Fn() -> io::Result<()>;

/// Fills a file that has no name, so that nothing is left of it if we are killed, then gives it its own, over what has that.
pub(super) fn file(
    parent: &OwnedFd,
    name: &OsStr,
    make_way: MakeWay<'_>,
    fill: &dyn Fn(&File) -> io::Result<()>,
) -> io::Result<()> {
    let private = Mode::from_raw_mode(0o600);
    match openat(parent, ".", OFlags::WRONLY | OFlags::TMPFILE | OFlags::CLOEXEC, private) {
        Ok(file) => {
            let file = File::from(file);
            fill(&file)?;
            let itself = format!("/proc/self/fd/{}", file.as_raw_fd());
            let link =
                |name: &OsStr| linkat(CWD, &*itself, parent, name, AtFlags::SYMLINK_FOLLOW).map_err(io::Error::from);
            match link(name) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => put(parent, name, make_way, &link),
                linked => linked,
            }
        }
        // Not every file system has files without a name.
        Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::NOENT) => put(parent, name, make_way, &|temporary| {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let filled = fill(&File::from(openat(parent, temporary, flags, private)?));
            if filled.is_err() {
                // It is of no use. That it cannot even be removed would say less than the first error.
                let _ = unlinkat(parent, temporary, AtFlags::empty());
            }
            filled
        }),
        Err(error) => Err(error.into()),
    }
}

/// Makes something under a name that nobody has, then gives it its own, over what has that.
pub(super) fn put(
    parent: &OwnedFd,
    name: &OsStr,
    make_way: MakeWay<'_>,
    make: &dyn Fn(&OsStr) -> io::Result<()>,
) -> io::Result<()> {
    for number in 0..TRIES {
        let temporary = OsString::from(format!(".sandbox-{}-{number}", std::process::id()));
        match make(&temporary) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
            made => made?,
        }
        let rename = || Ok(renameat(parent, &*temporary, parent, name)?);
        let renamed = match renameat(parent, &*temporary, parent, name) {
            Err(Errno::ISDIR | Errno::NOTEMPTY | Errno::EXIST) => make_way().and_then(|()| rename()),
            renamed => renamed.map_err(io::Error::from),
        };
        if renamed.is_err() {
            let _ = unlinkat(parent, &*temporary, AtFlags::empty());
        }
        return renamed;
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

/// Copies all of it, with holes where whole blocks are zeros; asks between the parts whether to go on.
pub(super) fn copy(mut from: impl Read, to: &File, go_on: &dyn Fn() -> io::Result<()>) -> io::Result<()> {
    let (mut buffer, mut at) = (Vec::new(), 0);
    loop {
        go_on()?;
        buffer.clear();
        if from.by_ref().take(CHUNK).read_to_end(&mut buffer)? == 0 {
            return to.set_len(at);
        }
        let mut rest = &buffer[..];
        while !rest.is_empty() {
            let hole = leading(rest, true);
            let data = leading(rest.split_at(hole).1, false);
            let (part, behind) = rest.split_at(hole + data);
            to.write_all_at(part.split_at(hole).1, at + hole as u64)?;
            at += part.len() as u64;
            rest = behind;
        }
    }
}

/// How long the blocks at the beginning are together that are all zeros, or that are not.
fn leading(bytes: &[u8], zeros: bool) -> usize {
    let blocks = bytes.chunks(BLOCK).take_while(|block| block.iter().all(|byte| *byte == 0) == zeros);
    blocks.map(<[u8]>::len).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn zeros_take_no_room() {
        let mut bytes = vec![0; 1_000_000];
        for at in [5000, 65_535, 65_536, 700_000] {
            bytes[at] = 1;
        }
        let file = tempfile::NamedTempFile::new().unwrap();
        copy(&bytes[..], file.as_file(), &|| Ok(())).unwrap();
        assert_eq!(std::fs::read(file.path()).unwrap(), bytes);
        assert!(file.as_file().metadata().unwrap().blocks() * 512 < 200_000);
        copy(&[][..], file.as_file(), &|| Ok(())).unwrap();
        assert_eq!(file.as_file().metadata().unwrap().len(), 0);
    }

    #[test]
    fn nothing_is_left_of_what_ends_half_way() {
        let place = tempfile::tempdir().unwrap();
        let parent = OwnedFd::from(File::open(place.path()).unwrap());
        let count = || std::fs::read_dir(place.path()).unwrap().count();
        let (parts, seen) = (Cell::new(0), Cell::new(0));
        let fill = |to: &File| {
            copy(&[1; 1 << 20][..], to, &|| {
                parts.set(parts.get() + 1);
                seen.set(seen.get().max(count()));
                if parts.get() == 3 { Err(io::Error::other("enough")) } else { Ok(()) }
            })
        };
        file(&parent, OsStr::new("x"), &|| Ok(()), &fill).unwrap_err();
        assert_eq!((parts.get(), seen.get(), count()), (3, 0, 0));
    }
}
