// SPDX-License-Identifier: Apache-2.0
//! Templates: the memory of a machine that was frozen when it had booted, and copies of it for machines that begin where
//! it ended. See [`guest_init::frozen`] for how a guest comes to be frozen and how it comes back.
//!
//! Not for where templates are kept ([`images::Store`]), nor for when one is used ([`crate::run`]).

use guest_init::frozen::{FILLED, READY};
use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;

/// What is zero or not is asked of pieces of this many bytes.
const PAGE: usize = 4096;

/// How much is copied at a time; it stays in the processor's cache.
const CHUNK: usize = 256 << 10;

/// A part of memory that is not zero: offset and length in bytes.
pub type Part = (u64, u64);

/// A template that is ready to be copied.
#[derive(Debug)]
pub struct Template {
    /// The parts' bytes, one after the other.
    pub file: File,
    /// Where they lie in memory.
    pub parts: Vec<Part>,
}

impl Template {
    /// Copies it into the memory of a new machine, and then lets that machine's processor begin.
    ///
    /// # Errors
    /// Those of reading the template and writing memory.
    pub(super) fn fill(&self, memory: &File) -> io::Result<()> {
        let mut chunk = vec![0; CHUNK];
        let mut from = 0;
        for (offset, length) in &self.parts {
            let mut done = 0;
            while done < *length {
                let piece = usize::try_from(length - done).map_or(CHUNK, |left| left.min(CHUNK));
                let piece = chunk.get_mut(..piece).unwrap_or_default();
                self.file.read_exact_at(piece, from)?;
                memory.write_all_at(piece, offset + done)?;
                done += piece.len() as u64;
                from += piece.len() as u64;
            }
        }
        memory.write_all_at(&FILLED.to_le_bytes(), READY)
    }
}

/// The parts of a frozen machine's memory that are not zero, in order.
///
/// # Errors
/// Those of reading it.
pub(crate) fn parts(memory: &File) -> io::Result<Vec<Part>> {
    let mut parts: Vec<Part> = Vec::new();
    let mut chunk = vec![0; CHUNK];
    let mut at = 0;
    while let Some((mut begin, end)) = data(memory, at)? {
        while begin < end {
            let count = memory.read_at(&mut chunk, begin)?;
            for page in chunk[..count].chunks(PAGE) {
                let length = page.len() as u64;
                match parts.last_mut() {
                    _ if page.iter().all(|byte| *byte == 0) => {}
                    Some((offset, before)) if *offset + *before == begin => *before += length,
                    _ => parts.push((begin, length)),
                }
                begin += length;
            }
        }
        at = end;
    }
    Ok(parts)
}

/// The next stretch of a file from `at` on that is not a hole (lseek(2), `SEEK_DATA`).
fn data(file: &File, at: u64) -> io::Result<Option<(u64, u64)>> {
    let begin = match seek(file, SeekFrom::Data(at)) {
        Err(Errno::NXIO) => return Ok(None),
        begin => begin?,
    };
    Ok(Some((begin, seek(file, SeekFrom::Hole(begin))?)))
}

/// The bytes of the parts, one after the other.
#[derive(Debug)]
pub(crate) struct Contents<'a> {
    memory: &'a File,
    parts: std::slice::Iter<'a, Part>,
    at: u64,
    left: u64,
}

impl<'a> Contents<'a> {
    pub(crate) fn new(memory: &'a File, parts: &'a [Part]) -> Self {
        Self { memory, parts: parts.iter(), at: 0, left: 0 }
    }
}

impl Read for Contents<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.left == 0 {
            let Some((offset, length)) = self.parts.next() else { return Ok(0) };
            (self.at, self.left) = (*offset, *length);
        }
        let most = usize::try_from(self.left).map_or(buffer.len(), |left| left.min(buffer.len()));
        let count = self.memory.read_at(&mut buffer[..most], self.at)?;
        self.at += count as u64;
        self.left -= count as u64;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory;
    use std::io::{Seek, Write};

    fn frozen() -> File {
        let memory = memory::file(64 << 20).expect("memory");
        memory.write_all_at(b"low", 0x8000).expect("write");
        memory.write_all_at(&[7; 3 * PAGE], 0x10_0000).expect("write");
        memory.write_all_at(&[0; PAGE], 0x20_0000).expect("write");
        memory.write_all_at(b"top", (64 << 20) - 3).expect("write");
        memory
    }

    #[test]
    fn what_is_zero_is_no_part() {
        let page = PAGE as u64;
        let expected = [(0x8000, page), (0x10_0000, 3 * page), ((64 << 20) - page, page)];
        assert_eq!(parts(&frozen()).expect("parts"), expected);
    }

    #[test]
    fn a_copy_is_the_same_but_for_the_word_that_lets_it_begin() {
        let memory = frozen();
        let parts = parts(&memory).expect("parts");
        let mut file = tempfile::tempfile().expect("file");
        let copied = io::copy(&mut Contents::new(&memory, &parts), &mut file).expect("copy");
        assert_eq!(copied, parts.iter().map(|(_, length)| length).sum::<u64>());

        let copy = memory::file(64 << 20).expect("memory");
        Template { file, parts: parts.clone() }.fill(&copy).expect("filled");

        let [mut one, mut other] = [vec![0; 64 << 20], vec![0; 64 << 20]];
        memory.read_exact_at(&mut one, 0).expect("read");
        copy.read_exact_at(&mut other, 0).expect("read");
        let ready = READY as usize..READY as usize + 4;
        assert_eq!(other[ready.clone()], FILLED.to_le_bytes());
        other[ready].fill(0);
        assert!(one == other);
    }

    #[test]
    fn a_template_cut_short_lets_nothing_begin() {
        let memory = memory::file(1 << 20).expect("memory");
        let mut file = tempfile::tempfile().expect("file");
        file.write_all(&[1; 100]).expect("write");
        file.rewind().expect("rewind");
        assert!(Template { file, parts: vec![(0, 4096)] }.fill(&memory).is_err());
        let mut word = [1; 4];
        memory.read_exact_at(&mut word, READY).expect("read");
        assert_eq!(word, [0; 4]);
    }
}
