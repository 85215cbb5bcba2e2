// SPDX-License-Identifier: Apache-2.0
//! Templates: the memory of a machine that was frozen when it had booted, and copies of it for machines that begin where
//! it ended. See [`guest_init::frozen`] for how a guest comes to be frozen and how it comes back.
//!
//! Not for where templates are kept ([`images::Store`]), nor for when one is used ([`crate::run`]).

use guest_init::frozen::{FILLED, READY};
use rustix::fs::{SeekFrom, seek, sendfile};
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, Cursor, Read};
use std::ops::Range;
use std::os::unix::fs::FileExt;

use crate::memory::{self, Memory};

/// What is zero or not is asked of pieces of this many bytes.
const PAGE: usize = 4096;

/// How much is looked at at a time; it stays in the processor's cache.
const CHUNK: usize = 256 << 10;

/// Parts so close to each other are one: to read some pages of zeros takes no longer than another call.
const NEAR: u64 = 2 * PAGE as u64;

/// Most parts. A guest's memory has some hundred.
const MOST: u64 = 1 << 16;

/// A part of memory that is not zero, or that is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Part {
    /// Where in the file of guest memory, and how long, in bytes.
    offset: u64,
    length: u64,
    /// Whether the guest's kernel keeps it, so that no device is ever told of it.
    kept: bool,
}

/// What the table has for a part.
const ENTRY: u64 = 24;

/// Where the bytes begin, behind a table for so many parts: on a page of their own, so that they can be mapped.
fn bytes_after(count: u64) -> u64 {
    (8 + ENTRY * count).next_multiple_of(PAGE as u64)
}

/// A template that is ready to be copied.
///
/// Its file is, in 64-bit little-endian words, the number of parts, each part's offset, its length, and whether it is kept, and
/// then, from the next page on, the parts' bytes, one after the other; so that one digest speaks for where they go, too.
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
        let mut table = vec![0; PAGE];
        if size < table.len() as u64 {
            return Ok(None);
        }
        file.read_exact_at(&mut table, 0)?;
        let words =
            |table: &[u8]| table.as_chunks().0.iter().map(|word| u64::from_le_bytes(*word)).collect::<Vec<u64>>();
        let count = words(&table[..8])[0];
        if count > MOST || size < bytes_after(count) {
            return Ok(None);
        }
        let bytes = bytes_after(count);
        table.resize(bytes as usize, 0);
        // Few have more than one page of it.
        file.read_exact_at(&mut table[PAGE..], PAGE as u64)?;
        let parts: Vec<Part> = words(&table[8..8 + (ENTRY * count) as usize])
            .as_chunks()
            .0
            .iter()
            .map(|[offset, length, kept]| Part { offset: *offset, length: *length, kept: *kept != 0 })
            .collect();
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
    pub(super) fn fill(&self, memory: &File) -> io::Result<()> {
        self.copy(memory, |_| false)?;
        memory.write_all_at(&FILLED.to_le_bytes(), READY)
    }

    /// The same, but that what the guest's kernel keeps is mapped from the template, over `mapping` of that memory: nobody pays for
    /// what is never looked at, and all clones share what none of them changes. Other processes with the memory's file do not see
    /// these parts, of which they must not be told: where they are in it.
    ///
    /// # Errors
    /// Those of reading the template, writing memory and mapping.
    pub(crate) fn lay(&self, memory: &File, mapping: &Memory) -> io::Result<Vec<Range<u64>>> {
        self.copy(memory, |part| part.kept)?;
        let mut from = self.bytes;
        let mut laid = Vec::new();
        for part in &self.parts {
            if part.kept {
                let place = part.offset..part.offset + part.length;
                memory::cover(mapping, &place, &self.file, from)?;
                laid.push(place);
            }
            from += part.length;
        }
        Ok(laid)
    }

    /// Copies all parts but those to skip: from file to file, without a copy of our own (sendfile(2)), and without a fault for each
    /// page, as one in a mapping takes.
    fn copy(&self, memory: &File, skip: impl Fn(&Part) -> bool) -> io::Result<()> {
        let mut from = self.bytes;
        for part in &self.parts {
            let end = from + part.length;
            if skip(part) {
                from = end;
                continue;
            }
            seek(memory, SeekFrom::Start(part.offset))?;
            while from < end {
                // A part fits in memory.
                let left = (end - from) as usize;
                if sendfile(memory, &self.file, Some(&mut from), left)? == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
            }
        }
        Ok(())
    }
}

/// How many bytes the parts have, if they are in order, apart from each other and within memory.
fn fits(parts: &[Part], memory: u64) -> Option<u64> {
    let (mut end, mut bytes) = (0, 0_u64);
    for part in parts {
        if part.offset < end {
            return None;
        }
        end = part.offset.checked_add(part.length).filter(|end| *end <= memory)?;
        bytes = bytes.checked_add(part.length)?;
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
    /// Looks for the parts of memory that are not zero, beside those that are `kept`, which are in order.
    ///
    /// # Errors
    /// Those of reading it.
    pub(super) fn new(memory: File, kept: Vec<Range<u64>>) -> io::Result<Self> {
        let mut parts = Vec::new();
        let mut at = 0;
        for kept in kept {
            find(&memory, at..kept.start, &mut parts)?;
            parts.push(Part { offset: kept.start, length: kept.end - kept.start, kept: true });
            at = kept.end;
        }
        find(&memory, at..memory.metadata()?.len(), &mut parts)?;
        Ok(Self { memory, parts })
    }

    /// Bytes of the file.
    pub(crate) fn size(&self) -> u64 {
        bytes_after(self.parts.len() as u64) + self.parts.iter().map(|part| part.length).sum::<u64>()
    }

    /// The file.
    pub(crate) fn contents(&self) -> impl Read {
        let entries = self.parts.iter().flat_map(|part| [part.offset, part.length, u64::from(part.kept)]);
        let words = [self.parts.len() as u64].into_iter().chain(entries);
        let mut table: Vec<u8> = words.flat_map(u64::to_le_bytes).collect();
        table.resize(bytes_after(self.parts.len() as u64) as usize, 0);
        Cursor::new(table).chain(Contents { memory: &self.memory, parts: self.parts.iter(), at: 0, left: 0 })
    }
}

/// Finds the parts of this stretch of memory that are not zero.
fn find(memory: &File, within: Range<u64>, parts: &mut Vec<Part>) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK];
    let mut at = within.start;
    while let Some((mut begin, end)) = data(memory, at)?.filter(|(begin, _)| *begin < within.end) {
        let end = end.min(within.end);
        while begin < end {
            // No further than the stretch: what comes after a hole is the next one's.
            let most = usize::try_from(end - begin).map_or(CHUNK, |left| left.min(CHUNK));
            let count = memory.read_at(&mut chunk[..most], begin)?;
            for page in chunk[..count].chunks(PAGE) {
                let length = page.len() as u64;
                match parts.last_mut() {
                    _ if page.iter().all(|byte| *byte == 0) => {}
                    Some(last) if !last.kept && begin - (last.offset + last.length) <= NEAR => {
                        last.length = begin + length - last.offset;
                    }
                    _ => parts.push(Part { offset: begin, length, kept: false }),
                }
                begin += length;
            }
        }
        at = end;
    }
    Ok(())
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
            let Some(part) = self.parts.next() else { return Ok(0) };
            (self.at, self.left) = (part.offset, part.length);
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
    use std::io::Write;
    use vm_memory::{Bytes, GuestAddress, GuestAddressSpace};

    fn frozen() -> File {
        let memory = memory::file(64 << 20).expect("memory");
        memory.write_all_at(b"low", 0x8000).expect("write");
        memory.write_all_at(&[7; 3 * PAGE], 0x10_0000).expect("write");
        memory.write_all_at(b"behind a hole", 0x10_8000).expect("write");
        memory.write_all_at(b"behind a small one", 0x10_a000).expect("write");
        memory.write_all_at(&[0; PAGE], 0x20_0000).expect("write");
        memory.write_all_at(b"top", (64 << 20) - 3).expect("write");
        memory
    }

    /// A template of that memory with some of it kept, zeros and all.
    fn template() -> (File, Template) {
        let memory = frozen();
        let kept = vec![0x10_0000..0x10_9000, 0x30_0000..0x30_2000];
        let frozen = Frozen::new(memory.try_clone().expect("a second descriptor"), kept).expect("parts");
        let mut file = tempfile::tempfile().expect("file");
        assert_eq!(io::copy(&mut frozen.contents(), &mut file).expect("copy"), frozen.size());
        (memory, Template::open(file, 64 << 20).expect("readable").expect("whole"))
    }

    fn parts(kept: Vec<Range<u64>>) -> Vec<(u64, u64, bool)> {
        let frozen = Frozen::new(frozen(), kept).expect("parts");
        frozen.parts.iter().map(|part| (part.offset, part.length, part.kept)).collect()
    }

    #[test]
    fn what_is_zero_is_no_part_unless_it_is_kept() {
        let page = PAGE as u64;
        let (low, top) = ((0x8000, page, false), ((64 << 20) - page, page, false));
        let expected = [low, (0x10_0000, 3 * page, false), (0x10_8000, 3 * page, false), top];
        assert_eq!(parts(Vec::new()), expected);
        let (one, other) = ((0x10_0000, 2 * page, true), (0x20_0000, page, true));
        let expected = [low, one, (0x10_2000, page, false), (0x10_8000, 3 * page, false), other, top];
        assert_eq!(parts(vec![0x10_0000..0x10_2000, 0x20_0000..0x20_1000]), expected);
    }

    #[test]
    fn a_copy_is_the_same_but_for_the_word_that_lets_it_begin() {
        let (memory, template) = template();
        let copy = memory::file(64 << 20).expect("memory");
        template.fill(&copy).expect("filled");

        let [mut one, mut other] = [vec![0; 64 << 20], vec![0; 64 << 20]];
        memory.read_exact_at(&mut one, 0).expect("read");
        copy.read_exact_at(&mut other, 0).expect("read");
        let ready = READY as usize..READY as usize + 4;
        assert_eq!(other[ready.clone()], FILLED.to_le_bytes());
        other[ready].fill(0);
        assert!(one == other);
    }

    #[test]
    fn what_is_kept_is_seen_where_it_is_mapped_and_nowhere_else() {
        let (memory, template) = template();
        let copy = memory::file(64 << 20).expect("memory");
        let mapping = memory::map(&copy, std::slice::from_ref(&(0..64 << 20))).expect("mapping");
        let kept = template.lay(&copy, &mapping).expect("laid");

        assert_eq!(kept, [0x10_0000..0x10_9000, 0x30_0000..0x30_2000]);
        let [mut one, mut other, mut shared] = [vec![0; 64 << 20], vec![0; 64 << 20], vec![0; 64 << 20]];
        memory.read_exact_at(&mut one, 0).expect("read");
        mapping.memory().read_slice(&mut other, GuestAddress(0)).expect("read");
        copy.read_exact_at(&mut shared, 0).expect("read");
        assert!(one == other);
        one[0x10_0000..0x10_9000].fill(0);
        assert!(one == shared);
    }

    fn file(words: &[u64], bytes: usize) -> File {
        let mut file = tempfile::tempfile().expect("file");
        words.iter().for_each(|word| file.write_all(&word.to_le_bytes()).expect("write"));
        let begin = words.first().map_or(0, |count| bytes_after((*count).min(100)));
        file.write_all_at(&vec![1; bytes], begin).expect("write");
        file
    }

    #[test]
    fn parts_that_make_no_sense_are_no_template() {
        let opens = |words: &[u64], bytes| Template::open(file(words, bytes), 0x10_0000).expect("readable").is_some();
        assert!(opens(&[2, 0, 4096, 0, 0x2000, 4096, 1], 8192));
        assert!(!opens(&[], 0) && !opens(&[1], 0) && !opens(&[u64::MAX, 0, 4096, 0], 4096), "no room for the table");
        assert!(!opens(&[1, 0, 4096, 0], 4095) && !opens(&[1, 0, 4096, 0], 4097), "more or less than the table says");
        assert!(!opens(&[2, 0x2000, 4096, 0, 0, 4096, 0], 8192), "out of order");
        assert!(!opens(&[2, 0, 4096, 0, 4095, 4096, 0], 8192), "one over another");
        assert!(!opens(&[1, 0xf_f001, 4096, 0], 4096) && !opens(&[1, u64::MAX, 4096, 0], 4096), "outside of memory");
    }

    #[test]
    fn a_template_that_cannot_be_read_lets_nothing_begin() {
        let memory = memory::file(1 << 20).expect("memory");
        let file = file(&[1, 0, 4096, 0], 4096);
        let template =
            Template::open(file.try_clone().expect("a second one"), 1 << 20).expect("readable").expect("whole");
        file.set_len(1000).expect("cut short");
        assert!(template.fill(&memory).is_err());
        let mut word = [1; 4];
        memory.read_exact_at(&mut word, READY).expect("read");
        assert_eq!(word, [0; 4]);
    }
}
