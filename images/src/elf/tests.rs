// SPDX-License-Identifier: Apache-2.0
//! Hand-made ELF files, also for the tests of the modules above.

use super::*;
use std::io::Write as _;

/// A whole ELF file with one segment of the given kind, holding `body`.
pub(crate) fn elf(segment: u32, body: &[u8]) -> Vec<u8> {
    let mut file = vec![0; HEADER_LEN + usize::from(PROGRAM_HEADER_LEN)];
    let body_offset = file.len() as u64;
    let mut put = |offset: usize, bytes: &[u8]| file[offset..offset + bytes.len()].copy_from_slice(bytes);
    put(0, b"\x7fELF\x02\x01\x01");
    put(16, &EXECUTABLE.to_le_bytes());
    put(18, &X86_64.to_le_bytes());
    put(32, &(HEADER_LEN as u64).to_le_bytes());
    put(54, &PROGRAM_HEADER_LEN.to_le_bytes());
    put(56, &1_u16.to_le_bytes());
    put(HEADER_LEN, &segment.to_le_bytes());
    put(HEADER_LEN + 8, &body_offset.to_le_bytes());
    put(HEADER_LEN + 32, &(body.len() as u64).to_le_bytes());
    file.extend(body);
    file
}

/// A note as the linker writes it.
fn note(kind: u32) -> Vec<u8> {
    let mut note = [4_u32, 8, kind].map(u32::to_le_bytes).concat();
    note.extend(b"Xen\0");
    note.extend(0x100_0000_u64.to_le_bytes());
    note
}

/// The smallest kernel that passes.
pub(crate) fn kernel() -> Vec<u8> {
    elf(NOTE, &[note(6), note(PHYS32_ENTRY)].concat())
}

/// The smallest init that passes.
pub(crate) fn init() -> Vec<u8> {
    elf(1, b"code")
}

fn file(bytes: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file
}

fn patched(mut bytes: Vec<u8>, offset: usize, value: u8) -> File {
    bytes[offset] = value;
    file(&bytes)
}

#[test]
fn whole_kernel_and_init_pass() {
    check_kernel(&file(&kernel())).unwrap();
    check_init(&file(&init())).unwrap();
}

#[test]
fn kernel_without_an_entry_note_is_refused() {
    assert!(matches!(check_kernel(&file(&elf(NOTE, &note(6)))), Err(Error::NoEntryNote)));
    assert!(matches!(check_kernel(&file(&elf(1, &note(PHYS32_ENTRY)))), Err(Error::NoEntryNote)));
}

#[test]
fn notes_with_impossible_lengths_end_the_search() {
    let mut bad = note(6);
    bad[..4].copy_from_slice(&u32::MAX.to_le_bytes());
    bad.extend(note(PHYS32_ENTRY));

    assert!(matches!(check_kernel(&file(&elf(NOTE, &bad))), Err(Error::NoEntryNote)));
}

#[test]
fn dynamic_init_is_refused() {
    assert!(matches!(check_init(&file(&elf(INTERPRETER, b"/lib64/ld.so\0"))), Err(Error::Dynamic)));
}

#[test]
fn other_processors_and_kinds_are_refused_by_name() {
    assert!(matches!(check_init(&file(b"#!/bin/sh\n")), Err(Error::NotElf)));
    assert!(matches!(check_init(&patched(init(), 0, b'X')), Err(Error::NotElf)));
    assert!(matches!(check_init(&patched(init(), 4, 1)), Err(Error::Class)));
    assert!(matches!(check_init(&patched(init(), 18, 183)), Err(Error::Machine(183))));
    assert!(matches!(check_init(&patched(init(), 16, 1)), Err(Error::Type(1))));
    assert!(matches!(check_init(&patched(init(), 54, 3)), Err(Error::ProgramHeaders)));
}

#[test]
fn headers_beyond_the_end_are_refused() {
    assert!(matches!(check_init(&patched(init(), 34, 1)), Err(Error::Read(_))));
}
