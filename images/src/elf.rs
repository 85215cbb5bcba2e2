// SPDX-License-Identifier: Apache-2.0
//! Is this file what our machine boots or runs? Just enough of ELF-64 to tell, and to say why not.
//!
//! Format: System V ABI, "Object Files"; the kernel's entry note: Linux, include/xen/interface/elfnote.h. Not a
//! loader: nothing here is mapped or followed beyond the program headers and the notes they name.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

const HEADER_LEN: usize = 64;
const PROGRAM_HEADER_LEN: u16 = 56;
/// Linux refuses programs with more than 64 KiB of program headers; so do we.
const PROGRAM_HEADERS_MAX: u16 = 1024;
/// The kernel's notes are a few hundred bytes.
const NOTES_MAX: u64 = 64 << 10;

const EXECUTABLE: u16 = 2;
const SHARED: u16 = 3;
const X86_64: u16 = 62;
const INTERPRETER: u32 = 3;
const NOTE: u32 = 4;
/// `XEN_ELFNOTE_PHYS32_ENTRY`: where a PVH boot enters the kernel.
const PHYS32_ENTRY: u32 = 18;

/// Why a file is not what it should be.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file could not be read.
    #[error("cannot read its headers")]
    Read(#[source] io::Error),
    /// Not ELF at all.
    #[error("it is not an ELF file")]
    NotElf,
    /// 32-bit or big-endian.
    #[error("it is not of the 64-bit little-endian kind")]
    Class,
    /// For another processor.
    #[error("it is for another processor (ELF machine {0}, not x86-64)")]
    Machine(u16),
    /// An object file or a core dump.
    #[error("it is not a program (ELF type {0})")]
    Type(u16),
    /// Headers that cannot be.
    #[error("its program headers make no sense")]
    ProgramHeaders,
    /// A kernel nobody can enter.
    #[error("it has no PVH entry note (is CONFIG_PVH set, and was the note kept by strip?)")]
    NoEntryNote,
    /// A program that needs a loader the guest does not have.
    #[error("it is dynamically linked; link it statically")]
    Dynamic,
}

/// Checks that a file is a kernel both engines can enter.
pub(crate) fn check_kernel(file: &File) -> Result<(), Error> {
    for segment in segments(file)? {
        if segment.kind == NOTE && segment.size <= NOTES_MAX {
            let notes = read(file, segment.offset, usize::try_from(segment.size).unwrap_or(usize::MAX))?;
            if note_kinds(&notes).any(|kind| kind == PHYS32_ENTRY) {
                return Ok(());
            }
        }
    }
    Err(Error::NoEntryNote)
}

/// Checks that a file is a program that runs as PID 1 with nothing else in the file system.
pub(crate) fn check_init(file: &File) -> Result<(), Error> {
    if segments(file)?.iter().any(|segment| segment.kind == INTERPRETER) {
        return Err(Error::Dynamic);
    }
    Ok(())
}

struct Segment {
    kind: u32,
    offset: u64,
    size: u64,
}

fn segments(file: &File) -> Result<Vec<Segment>, Error> {
    let header = match read(file, 0, HEADER_LEN) {
        Err(Error::Read(error)) if error.kind() == io::ErrorKind::UnexpectedEof => return Err(Error::NotElf),
        other => other?,
    };
    if !header.starts_with(b"\x7fELF") {
        return Err(Error::NotElf);
    }
    if header.get(4..6) != Some(&[2, 1]) {
        return Err(Error::Class);
    }
    let machine = u16_at(&header, 18)?;
    if machine != X86_64 {
        return Err(Error::Machine(machine));
    }
    let kind = u16_at(&header, 16)?;
    if kind != EXECUTABLE && kind != SHARED {
        return Err(Error::Type(kind));
    }
    let (offset, entry_len, count) = (u64_at(&header, 32)?, u16_at(&header, 54)?, u16_at(&header, 56)?);
    if entry_len != PROGRAM_HEADER_LEN || count == 0 || count > PROGRAM_HEADERS_MAX {
        return Err(Error::ProgramHeaders);
    }
    let table = read(file, offset, usize::from(entry_len) * usize::from(count))?;
    table
        .chunks_exact(usize::from(entry_len))
        .map(|entry| Ok(Segment { kind: u32_at(entry, 0)?, offset: u64_at(entry, 8)?, size: u64_at(entry, 32)? }))
        .collect()
}

/// The types of the notes in a note segment, up to the first that is cut short.
fn note_kinds(mut notes: &[u8]) -> impl Iterator<Item = u32> {
    std::iter::from_fn(move || {
        let name_len = usize::try_from(u32_at(notes, 0).ok()?).ok()?;
        let value_len = usize::try_from(u32_at(notes, 4).ok()?).ok()?;
        let kind = u32_at(notes, 8).ok()?;
        let end = 12_usize.checked_add(name_len.checked_next_multiple_of(4)?)?;
        notes = notes.get(end.checked_add(value_len.checked_next_multiple_of(4)?)?..).unwrap_or(&[]);
        Some(kind)
    })
}

fn read(file: &File, offset: u64, len: usize) -> Result<Vec<u8>, Error> {
    let mut bytes = vec![0; len];
    file.read_exact_at(&mut bytes, offset).map_err(Error::Read)?;
    Ok(bytes)
}

fn field<const N: usize>(bytes: &[u8], offset: usize) -> Result<[u8; N], Error> {
    bytes.get(offset..).and_then(|rest| rest.first_chunk()).copied().ok_or(Error::ProgramHeaders)
}

fn u16_at(bytes: &[u8], offset: usize) -> Result<u16, Error> {
    field(bytes, offset).map(u16::from_le_bytes)
}

fn u32_at(bytes: &[u8], offset: usize) -> Result<u32, Error> {
    field(bytes, offset).map(u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], offset: usize) -> Result<u64, Error> {
    field(bytes, offset).map(u64::from_le_bytes)
}

#[cfg(test)]
pub(crate) mod tests;
