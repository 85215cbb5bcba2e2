// SPDX-License-Identifier: Apache-2.0
//! The firmware of a clone: from the processor's reset to flat 32-bit mode, and from there, as soon as memory is in its
//! place, into the page that the guest was frozen in ([`guest_init::frozen`]).
//!
//! It takes the place of a BIOS, which would look for hardware, write to memory and load a kernel. It writes nothing:
//! what it needs is in itself. Reset state and modes after Intel SDM vol. 3 §10.1.4 and §10.9.1, encodings after vol. 2.

use guest_init::frozen::{FILLED, READY, THAW};
use rustix::fs::{MemfdFlags, memfd_create};
use std::fs::File;
use std::io::{self, Write as _};

/// QEMU takes firmware in pieces of 64 KiB and puts its end at the end of the first 4 GiB.
const SIZE: usize = 64 << 10;

/// Where it begins there.
const BASE: u32 = 0u32.wrapping_sub(SIZE as u32);

/// Entered by a jump in real mode, with a code segment that begins at [`BASE`].
const REAL: u16 = 0xff00;
/// What comes after it, in 32-bit mode.
const FLAT: u16 = 0xff40;
/// Segments: none, code, data (SDM vol. 3 §3.4.5), and what tells of them.
const GDT: u16 = 0xff80;
const SEGMENTS: [u64; 3] = [0, 0x00cf_9b00_0000_ffff, 0x00cf_9300_0000_ffff];
const GDTR: u16 = 0xffa0;
/// Where a processor begins.
const RESET: u16 = 0xfff0;

/// The firmware as a file in memory.
pub(super) fn file() -> io::Result<File> {
    let mut file = File::from(memfd_create("firmware", MemfdFlags::CLOEXEC)?);
    file.write_all(&image())?;
    Ok(file)
}

fn image() -> Vec<u8> {
    let mut image = vec![0; SIZE];
    let mut put = |at: u16, bytes: &[u8]| image[usize::from(at)..][..bytes.len()].copy_from_slice(bytes);
    let address = |at: u16| (BASE + u32::from(at)).to_le_bytes();
    put(
        REAL,
        &[
            &[0xfa][..],                     // cli
            &[0x66, 0x2e, 0x0f, 0x01, 0x16], // lgdt cs:[GDTR]
            &GDTR.to_le_bytes(),
            &[0x0f, 0x20, 0xc0], // mov eax, cr0
            &[0x0c, 0x01],       // or al, PE
            &[0x0f, 0x22, 0xc0], // mov cr0, eax
            &[0x66, 0xea],       // jmp 8:FLAT
            &address(FLAT),
            &[8, 0],
        ]
        .concat(),
    );
    put(
        FLAT,
        &[
            &[0xb8, 0x10, 0, 0, 0][..], // mov eax, 0x10
            &[0x8e, 0xd8],              // mov ds, ax
            &[0x8e, 0xc0],              // mov es, ax
            &[0x8e, 0xd0],              // mov ss, ax
            // while memory is not filled
            &[0xf3, 0x90], // pause
            &[0x81, 0x3d], // cmp dword [READY], FILLED
            &(READY as u32).to_le_bytes(),
            &FILLED.to_le_bytes(),
            &[0x75, 0xf2], // jne, to the pause
            &[0xb8],       // mov eax, THAW
            &(THAW as u32).to_le_bytes(),
            &[0xff, 0xe0], // jmp eax
        ]
        .concat(),
    );
    for (number, segment) in SEGMENTS.iter().enumerate() {
        put(GDT + 8 * number as u16, &segment.to_le_bytes());
    }
    put(GDTR, &(size_of_val(&SEGMENTS) as u16 - 1).to_le_bytes());
    put(GDTR + 2, &address(GDT));
    put(RESET, &[0xe9]); // jmp REAL
    put(RESET + 1, &REAL.wrapping_sub(RESET + 3).to_le_bytes());
    image
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reset_leads_to_the_code_and_the_code_to_its_data() {
        let image = image();
        let word = |at: u16| u16::from_le_bytes([image[usize::from(at)], image[usize::from(at) + 1]]);
        assert_eq!(image.len(), SIZE);
        assert_eq!(image[usize::from(RESET)], 0xe9);
        assert_eq!(RESET.wrapping_add(3).wrapping_add(word(RESET + 1)), REAL);
        assert_eq!(word(REAL + 6), GDTR);
        assert_eq!(u64::from(word(GDTR)), size_of_val(&SEGMENTS) as u64 - 1);
    }

    #[test]
    fn parts_do_not_overlap() {
        let image = image();
        let used =
            |from: u16, to: u16| (from..to).rev().find(|at| image[usize::from(*at)] != 0).map_or(0, |at| at - from + 1);
        assert!(image[..usize::from(REAL)].iter().all(|byte| *byte == 0));
        // What is there ends before the next begins.
        assert!(used(REAL, FLAT) < FLAT - REAL && used(FLAT, GDT) < GDT - FLAT && used(GDT, GDTR) <= 24);
    }
}
