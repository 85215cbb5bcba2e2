// SPDX-License-Identifier: Apache-2.0
//! What a guest has told, whole: the records checked and in memory, what files hold in a file without a name.

use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use guest_init::record::{HEADER_LEN, Kind, PATH_MAX, Record, State};

use super::{Change, Error, Left, names};

/// Most files, and bytes of their paths together: what this process keeps in memory of them.
const FILES_MAX: usize = 1 << 20;
const PATHS_MAX: usize = 128 << 20;

/// Most bytes of content. More than that is a disk image, or an attack on the disk for temporary files.
pub(crate) const CONTENT_MAX: u64 = 32 << 30;

/// What a guest has told.
#[derive(Debug)]
pub(crate) struct Spool {
    changes: Vec<Change>,
    unread: Vec<(PathBuf, io::Error)>,
    content: File,
}

impl Spool {
    /// Receives all of it. `content` says whether files' content was asked for.
    ///
    /// # Errors
    /// Why none of it is taken.
    pub(crate) fn receive(stream: impl Read, content: bool) -> Result<Self, Error> {
        let file = tempfile::tempfile().map_err(Error::Spool)?;
        let mut intake = Intake {
            stream: io::BufReader::with_capacity(1 << 16, stream),
            file: BufWriter::new(file),
            content,
            at: 0,
            paths: 0,
        };
        let (mut changes, mut unread) = (Vec::<Change>::new(), Vec::new());
        while let Some(told) = intake.next()? {
            if changes.len() + unread.len() >= FILES_MAX {
                return Err(Error::TooMuch("a million files"));
            }
            match told {
                Told::Change(change) => changes.push(change),
                Told::Unread(path, source) if path.as_os_str().is_empty() => return Err(Error::Guest { path, source }),
                Told::Unread(path, source) => {
                    // What a file holds that could be read only in part is not what was asked for.
                    changes.pop_if(|last| last.kind == Kind::File && last.path == path);
                    unread.push((path, source));
                }
            }
        }
        let content = intake.file.into_inner().map_err(|error| Error::Spool(error.into_error()))?;
        changes.sort_by(|one, other| one.path.cmp(&other.path));
        agree(&changes)?;
        Ok(Self { changes, unread, content })
    }

    /// By their paths: what is in a directory behind it.
    pub(crate) fn changes(&self) -> &[Change] {
        &self.changes
    }

    /// What the guest could not tell of, at a place where the walk began.
    pub(crate) fn unread(&self, place: &Path) -> impl Iterator<Item = Left> {
        self.unread.iter().map(move |(path, why)| {
            let path: PathBuf = place.join(path).components().collect();
            format!("{}: {why}", names::shown(&path))
        })
    }

    /// Forgets those that are not wanted.
    pub(crate) fn retain(&mut self, wanted: impl FnMut(&Change) -> bool) {
        self.changes.retain(wanted);
    }

    /// What a file holds.
    pub(super) fn content(&self, change: &Change) -> impl Read {
        Content { file: &self.content, at: change.at, left: change.size }
    }

    /// Where a link leads. It is short: that was checked.
    pub(super) fn target(&self, change: &Change) -> io::Result<Vec<u8>> {
        let mut target = Vec::new();
        self.content(change).read_to_end(&mut target)?;
        Ok(target)
    }
}

struct Content<'a> {
    file: &'a File,
    at: u64,
    left: u64,
}

impl Read for Content<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(out.len());
        let Some(out) = out.get_mut(..most).filter(|out| !out.is_empty()) else { return Ok(0) };
        let count = self.file.read_at(out, self.at)?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.at += count as u64;
        self.left -= count as u64;
        Ok(count)
    }
}

/// The stream as it comes in.
struct Intake<R> {
    stream: io::BufReader<R>,
    file: BufWriter<File>,
    content: bool,
    at: u64,
    paths: usize,
}

/// What a record says.
enum Told {
    Change(Change),
    /// This could not be told of, and why.
    Unread(PathBuf, io::Error),
}

/// Nothing is told twice, nor is anything below what is no directory or is not there any more, in whichever order that was
/// told. Sorted, what is below something follows it at once.
fn agree(changes: &[Change]) -> Result<(), Error> {
    let mut last: Option<&Change> = None;
    for change in changes {
        let broken = last.is_some_and(|last| {
            let directory = last.kind == Kind::Directory && last.state != State::Removed;
            if directory { change.path == last.path } else { change.path.starts_with(&last.path) }
        });
        if broken {
            return Err(Error::Contradiction(change.path.clone()));
        }
        last = Some(change);
    }
    Ok(())
}

impl<R: Read> Intake<R> {
    /// The next one; nothing at the end.
    fn next(&mut self) -> Result<Option<Told>, Error> {
        let mut header = [0; HEADER_LEN];
        self.stream.read_exact(&mut header).map_err(Error::Stream)?;
        let record = Record::parse(&header).ok_or(Error::Record)?;
        let length = usize::from(record.path_len);
        if length > PATH_MAX {
            return Err(Error::Record);
        }
        let mut path = vec![0; length];
        self.stream.read_exact(&mut path).map_err(Error::Stream)?;
        self.paths = self.paths.saturating_add(length);
        if self.paths > PATHS_MAX {
            return Err(Error::TooMuch("128 MiB of names"));
        }
        match record.kind {
            Kind::End => return Ok(None),
            Kind::Failed => return Ok(Some(unread(path, record.size))),
            _ => {}
        }
        let Some(path) = names::downward(&path) else {
            return Err(Error::Name(std::ffi::OsString::from_vec(path)));
        };
        let at = self.at;
        self.take_content(&record)?;
        Ok(Some(Told::Change(Change {
            path,
            state: record.state,
            kind: record.kind,
            mode: u32::from(record.mode & 0o777),
            uid: record.uid,
            gid: record.gid,
            seconds: record.seconds,
            nanoseconds: record.nanoseconds.min(999_999_999),
            inode: (record.links > 1 && record.kind == Kind::File).then_some(record.inode),
            size: record.size,
            at,
        })))
    }

    fn take_content(&mut self, record: &Record) -> Result<(), Error> {
        let follows = match (record.state, record.kind) {
            (State::Removed, _) => false,
            (_, Kind::Link) => true,
            (_, Kind::File) => self.content,
            _ => false,
        };
        if !follows {
            return Ok(());
        }
        if record.kind == Kind::Link && record.size > PATH_MAX as u64 {
            return Err(Error::Record);
        }
        self.at = self.at.saturating_add(record.size);
        if self.at > CONTENT_MAX {
            return Err(Error::TooMuch("32 GiB of content"));
        }
        copy(&mut self.stream, &mut self.file, record.size)
    }
}

/// Copies so many bytes; tells which of both sides failed.
fn copy(from: &mut impl Read, to: &mut impl Write, mut left: u64) -> Result<(), Error> {
    let mut buffer = vec![0; usize::try_from(left).unwrap_or(usize::MAX).min(1 << 16)];
    while left > 0 {
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        let Some(part) = buffer.get_mut(..most) else { return Err(Error::Record) };
        from.read_exact(part).map_err(Error::Stream)?;
        to.write_all(part).map_err(Error::Spool)?;
        left -= most as u64;
    }
    Ok(())
}

/// Its path is shown and no more, and may have been cut short.
fn unread(path: Vec<u8>, errno: u64) -> Told {
    let errno = i32::try_from(errno).unwrap_or(i32::MAX);
    Told::Unread(std::ffi::OsString::from_vec(path).into(), io::Error::from_raw_os_error(errno))
}

#[cfg(test)]
pub(super) mod tests;
