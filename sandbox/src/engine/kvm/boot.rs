// SPDX-License-Identifier: Apache-2.0
//! What is in guest memory when the first processor starts: kernel, initramfs, command line, and the tables by which
//! the kernel learns of memory and processors.
//!
//! Not for registers, see [`super::state`]. Follows the 64-bit boot protocol of Linux
//! (Documentation/arch/x86/boot.rst, zero-page.rst).

mod mp_table;

use std::fs::File;
use std::io;
use std::ops::Range;

use linux_loader::loader::elf::Elf;
use linux_loader::loader::{self, KernelLoader};
use vm_memory::{Bytes, GuestAddress, GuestMemoryError, GuestMemoryMmap};

use super::layout;
use super::state;

/// Why there is nothing to start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The kernel.
    #[error("cannot load the kernel")]
    Kernel(#[source] loader::Error),
    /// The initramfs cannot be read.
    #[error("cannot read the initramfs")]
    Initramfs(#[source] io::Error),
    /// The initramfs does not fit.
    #[error("an initramfs of {size} bytes does not fit into memory beside a kernel that ends at {kernel_end:#x}")]
    Room {
        /// Of the initramfs.
        size: u64,
        /// Where the kernel ends.
        kernel_end: u64,
    },
    /// The command line does not fit.
    #[error("a kernel command line of {0} bytes is too long")]
    CommandLine(usize),
    /// Guest memory.
    #[error("cannot write {what} to guest memory")]
    Write {
        /// What.
        what: &'static str,
        /// Why not.
        #[source]
        source: GuestMemoryError,
    },
}

/// What is loaded, besides constants.
#[derive(Debug)]
pub(super) struct Image<'a> {
    pub(super) kernel: &'a mut File,
    pub(super) initramfs: &'a mut File,
    pub(super) command_line: &'a str,
    /// Devices whose interrupts the kernel must know.
    pub(super) devices: usize,
    pub(super) cpus: u32,
}

/// Fills memory, whose parts are `ranges`. Returns the kernel's entry point.
pub(super) fn load(memory: &GuestMemoryMmap, ranges: &[Range<u64>], image: Image<'_>) -> Result<u64, Error> {
    if image.command_line.len() as u64 >= layout::COMMAND_LINE_SIZE {
        return Err(Error::CommandLine(image.command_line.len()));
    }
    let kernel = Elf::load(memory, None, image.kernel, Some(GuestAddress(layout::HIGH))).map_err(Error::Kernel)?;

    let size = image.initramfs.metadata().map_err(Error::Initramfs)?.len();
    let low = ranges.first().map_or(0, |range| range.end);
    let place = place(size, kernel.kernel_end, low)?;
    let write = |what, result: Result<(), GuestMemoryError>| result.map_err(|source| Error::Write { what, source });
    write("the initramfs", memory.read_exact_volatile_from(GuestAddress(place.start), image.initramfs, size as usize))?;

    let put = |what, address, bytes: &[u8]| write(what, memory.write_slice(bytes, GuestAddress(address)));
    let line = [image.command_line.as_bytes(), &[0]].concat();
    put("the command line", layout::COMMAND_LINE, &line)?;
    put("the zero page", layout::ZERO_PAGE, &zero_page(&usable(ranges), &place))?;
    put("the segment table", layout::GDT, &bytes(&state::SEGMENTS))?;
    let (first, second, third) = page_tables();
    put("the page tables", layout::PML4, &bytes(&[first]))?;
    put("the page tables", layout::PDPT, &bytes(&[second]))?;
    put("the page tables", layout::PD, &bytes(&third))?;
    put("the MP table", layout::MP_POINTER, &mp_table::pointer())?;
    let irqs: Vec<u32> = [layout::SERIAL_IRQ].into_iter().chain((0..image.devices).map(layout::irq)).collect();
    put("the MP table", layout::MP_TABLE, &mp_table::table(image.cpus, &irqs))?;
    Ok(kernel.kernel_load.0)
}

/// At the end of low memory, out of the way of what the kernel takes first.
fn place(size: u64, kernel_end: u64, low: u64) -> Result<Range<u64>, Error> {
    let start = low.saturating_sub(size) / layout::PAGE * layout::PAGE;
    if size > low || start < kernel_end {
        return Err(Error::Room { size, kernel_end });
    }
    Ok(start..start + size)
}

/// What of the ranges Linux may use: all but the hole below 1 MiB.
fn usable(ranges: &[Range<u64>]) -> Vec<Range<u64>> {
    let hole = layout::HOLE;
    let parts =
        ranges.iter().flat_map(|range| [range.start..range.end.min(hole.start), range.start.max(hole.end)..range.end]);
    parts.filter(|part| part.start < part.end).collect()
}

/// `struct boot_params`, as far as a kernel that is entered at its 64-bit entry point reads it.
fn zero_page(memory: &[Range<u64>], initramfs: &Range<u64>) -> [u8; layout::PAGE as usize] {
    const RAM: u32 = 1;
    let mut page = [0; layout::PAGE as usize];
    let mut put = |offset: usize, bytes: &[u8]| page[offset..offset + bytes.len()].copy_from_slice(bytes);
    put(0x1e8, &[memory.len() as u8]);
    put(0x1fe, &0xaa55_u16.to_le_bytes());
    put(0x202, b"HdrS");
    // a loader without a number of its own
    put(0x210, &[0xff]);
    put(0x218, &(initramfs.start as u32).to_le_bytes());
    put(0x21c, &((initramfs.end - initramfs.start) as u32).to_le_bytes());
    put(0x228, &(layout::COMMAND_LINE as u32).to_le_bytes());
    for (number, range) in memory.iter().enumerate() {
        let entry = 0x2d0 + number * 20;
        put(entry, &range.start.to_le_bytes());
        put(entry + 8, &(range.end - range.start).to_le_bytes());
        put(entry + 16, &RAM.to_le_bytes());
    }
    page
}

/// One entry, one entry, and 512 pages of 2 MiB: the first GiB, each page where it is.
fn page_tables() -> (u64, u64, [u64; 512]) {
    const PRESENT_WRITABLE: u64 = 0b11;
    const LARGE: u64 = 1 << 7;
    let large = std::array::from_fn(|number| (number as u64) << 21 | PRESENT_WRITABLE | LARGE);
    (layout::PDPT | PRESENT_WRITABLE, layout::PD | PRESENT_WRITABLE, large)
}

fn bytes(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

#[cfg(test)]
mod tests;
