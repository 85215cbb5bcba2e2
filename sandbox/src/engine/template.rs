// SPDX-License-Identifier: Apache-2.0
//! Templates: the memory of a machine that was frozen when it had booted, and copies of it for machines that begin where
//! it ended. See [`guest_init::frozen`] for how a guest comes to be frozen and how it comes back.
//!
//! Not for where templates are kept ([`images::Store`]), nor for when one is used ([`crate::run`]).

use guest_init::frozen::{FILLED, READY};
use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, Cursor, Read};
use std::os::unix::fs::FileExt;

/// What is zero or not is asked of pieces of this many bytes.
const PAGE: usize = 4096;

/// How much is copied at a time; it stays in the processor's cache.
const CHUNK: usize = 256 << 10;

/// Most parts. A guest's memory has some hundred.
const MOST: u64 = 1 << 16;

/// A part of memory that is not zero: offset and length in bytes.
type Part = (u64, u64);

/// A template that is ready to be copied.
///
/// Its file is, in 64-bit little-endian words, the number of parts, each part's offset and length, and then the parts'
/// bytes, one after the other; so that one digest speaks for where they go, too.
#[derive(Debug)]
pub struct Template {
    file: File,
    parts: Vec<Part>,
    /// Where in the file the bytes begin.
    bytes: u64,
}

impl Template {
    /// Reads where the parts lie. None if that makes no sense for memory of this size: then it is damaged.
    ///
    /// # Errors
    /// Those of reading.
    pub(crate) fn open(file: File, memory: u64) -> io::Result<Option<Self>> {
        let size = file.metadata()?.len();
        let mut word = [0; 8];
        if size < 8 {
            return Ok(None);
        }
        file.read_exact_at(&mut word, 0)?;
        let count = u64::from_le_bytes(word);
        if count > MOST || size < 8 + 16 * count {
            return Ok(None);
        }
        let mut table = vec![0; 16 * count as usize];
        file.read_exact_at(&mut table, 8)?;
        let parts: Vec<Part> = table
            .as_chunks::<16>()
            .0
            .iter()
            .map(|entry| u128::from_le_bytes(*entry))
            .map(|entry| (entry as u64, (entry >> 64) as u64))
            .collect();
        let bytes = 8 + 16 * count;
        Ok((fits(&parts, memory) == Some(size - bytes)).then_some(Self { file, parts, bytes }))
    }

    /// The file.
    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// Copies it into the memory of a new machine, and then lets that machine's processor begin.
    ///
    /// # Errors
    /// Those of reading the template and writing memory.
    pub(crate) fn fill(&self, memory: &File) -> io::Result<()> {
        let mut chunk = vec![0; CHUNK];
        let mut from = self.bytes;
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

/// How many bytes the parts have, if they are in order, apart from each other and within memory.
fn fits(parts: &[Part], memory: u64) -> Option<u64> {
    let (mut end, mut bytes) = (0, 0_u64);
    for (offset, length) in parts {
        if *offset < end {
            return None;
        }
        end = offset.checked_add(*length).filter(|end| *end <= memory)?;
        bytes = bytes.checked_add(*length)?;
    }
    Some(bytes)
}

/// A frozen machine's memory, to be read as a template's file.
#[derive(Debug)]
pub(crate) struct Frozen {
    memory: File,
    parts: Vec<Part>,
}

impl Frozen {
    /// Looks for the parts of memory that are not zero.
    ///
    /// # Errors
    /// Those of reading it.
    pub(super) fn new(memory: File) -> io::Result<Self> {
        let parts = parts(&memory)?;
        Ok(Self { memory, parts })
    }

    /// Bytes of the file.
    pub(crate) fn size(&self) -> u64 {
        8 + self.parts.iter().map(|(_, length)| 16 + length).sum::<u64>()
    }

    /// The file.
    pub(crate) fn contents(&self) -> impl Read {
        let words = [self.parts.len() as u64].into_iter().chain(self.parts.iter().flat_map(|part| [part.0, part.1]));
        let table: Vec<u8> = words.flat_map(u64::to_le_bytes).collect();
        Cursor::new(table).chain(Contents { memory: &self.memory, parts: self.parts.iter(), at: 0, left: 0 })
    }
}

/// The parts of memory that are not zero, in order.
fn parts(memory: &File) -> io::Result<Vec<Part>> {
    let mut parts: Vec<Part> = Vec::new();
    let mut chunk = vec![0; CHUNK];
    let mut at = 0;
    while let Some((mut begin, end)) = data(memory, at)? {
        while begin < end {
            // No further than the stretch: what comes after a hole is the next one's.
            let most = usize::try_from(end - begin).map_or(CHUNK, |left| left.min(CHUNK));
            let count = memory.read_at(&mut chunk[..most], begin)?;
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
struct Contents<'a> {
    memory: &'a File,
    parts: std::slice::Iter<'a, Part>,
    at: u64,
    left: u64,
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
    use std::io::Write;

    fn frozen() -> File {
        let memory = memory::file(64 << 20).expect("memory");
        memory.write_all_at(b"low", 0x8000).expect("write");
        memory.write_all_at(&[7; 3 * PAGE], 0x10_0000).expect("write");
        memory.write_all_at(b"behind a hole", 0x10_8000).expect("write");
        memory.write_all_at(&[0; PAGE], 0x20_0000).expect("write");
        memory.write_all_at(b"top", (64 << 20) - 3).expect("write");
        memory
    }

    #[test]
    fn what_is_zero_is_no_part() {
        let page = PAGE as u64;
        let expected = [(0x8000, page), (0x10_0000, 3 * page), (0x10_8000, page), ((64 << 20) - page, page)];
        assert_eq!(parts(&frozen()).expect("parts"), expected);
    }

    #[test]
    fn a_copy_is_the_same_but_for_the_word_that_lets_it_begin() {
        let memory = frozen();
        let frozen = Frozen::new(memory.try_clone().expect("a second descriptor")).expect("parts");
        let mut file = tempfile::tempfile().expect("file");
        assert_eq!(io::copy(&mut frozen.contents(), &mut file).expect("copy"), frozen.size());

        let copy = memory::file(64 << 20).expect("memory");
        let template = Template::open(file, 64 << 20).expect("readable").expect("whole");
        template.fill(&copy).expect("filled");

        let [mut one, mut other] = [vec![0; 64 << 20], vec![0; 64 << 20]];
        memory.read_exact_at(&mut one, 0).expect("read");
        copy.read_exact_at(&mut other, 0).expect("read");
        let ready = READY as usize..READY as usize + 4;
        assert_eq!(other[ready.clone()], FILLED.to_le_bytes());
        other[ready].fill(0);
        assert!(one == other);
    }

    fn file(words: &[u64], bytes: usize) -> File {
        let mut file = tempfile::tempfile().expect("file");
        words.iter().for_each(|word| file.write_all(&word.to_le_bytes()).expect("write"));
        file.write_all(&vec![1; bytes]).expect("write");
        file
    }

    #[test]
    fn parts_that_make_no_sense_are_no_template() {
        let opens = |words: &[u64], bytes| Template::open(file(words, bytes), 0x10_0000).expect("readable").is_some();
        assert!(opens(&[2, 0, 4096, 0x2000, 4096], 8192));
        assert!(!opens(&[], 0) && !opens(&[1], 0) && !opens(&[u64::MAX, 0, 4096], 4096), "no room for the table");
        assert!(!opens(&[1, 0, 4096], 4095) && !opens(&[1, 0, 4096], 4097), "more or less than the table says");
        assert!(!opens(&[2, 0x2000, 4096, 0, 4096], 8192), "out of order");
        assert!(!opens(&[2, 0, 4096, 4095, 4096], 8192), "one over another");
        assert!(!opens(&[1, 0xf_f001, 4096], 4096) && !opens(&[1, u64::MAX, 4096], 4096), "outside of memory");
    }

    #[test]
    fn a_template_that_cannot_be_read_lets_nothing_begin() {
        let memory = memory::file(1 << 20).expect("memory");
        let file = file(&[1, 0, 4096], 4096);
        let template =
            Template::open(file.try_clone().expect("a second one"), 1 << 20).expect("readable").expect("whole");
        file.set_len(1000).expect("cut short");
        assert!(template.fill(&memory).is_err());
        let mut word = [1; 4];
        memory.read_exact_at(&mut word, READY).expect("read");
        assert_eq!(word, [0; 4]);
    }
}
