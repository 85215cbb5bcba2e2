// SPDX-License-Identifier: Apache-2.0
//! Every guest address of our machine, each with its reason. Numbers only: nothing here touches memory.
//!
//! The map depends on the size of memory alone, so that a machine frozen after its boot fits any run.

use std::ops::Range;

pub(super) const PAGE: u64 = 0x1000;

/// The floating pointer of the MP table. Linux looks for it first in the first KiB, from address 0 on in steps of 16
/// bytes; at address 0 it could not be told from none.
pub(super) const MP_POINTER: u64 = 0x10;

/// The segment table we enter the kernel with. It loads its own at once.
pub(super) const GDT: u64 = 0x500;

/// The MP table: 64 processors of 20 bytes, and some entries. Like everything up to here and the next four, it is in
/// the first 64 KiB, which Linux keeps from its allocator.
pub(super) const MP_TABLE: u64 = 0x1000;
pub(super) const MP_TABLE_SIZE: u64 = PAGE;

/// `struct boot_params`.
pub(super) const ZERO_PAGE: u64 = 0x2000;

/// Three levels of page tables, which map the first GiB to itself.
pub(super) const PML4: u64 = 0x3000;
pub(super) const PDPT: u64 = 0x4000;
pub(super) const PD: u64 = 0x5000;

/// The kernel's command line, of which Linux takes 2048 bytes.
pub(super) const COMMAND_LINE: u64 = 0x6000;
pub(super) const COMMAND_LINE_SIZE: u64 = 2048;

/// End of what Linux never gives out.
const KEPT_BY_LINUX: u64 = 0x1_0000;

/// From the classic place of the BIOS' data up to 1 MiB there is no memory on any PC, and Linux would not use it.
pub(super) const HOLE: Range<u64> = 0x9_fc00..0x10_0000;

/// Where a kernel may begin. Ours is linked to 16 MiB.
pub(super) const HIGH: u64 = 0x10_0000;

/// End of low memory and start of the device area: memory beyond continues at 4 GiB.
pub(super) const GAP: Range<u64> = 0xc000_0000..0x1_0000_0000;

/// Register windows of virtio devices, a page each, because the guest maps pages.
pub(super) const WINDOWS: u64 = 0xd000_0000;
pub(super) const WINDOW_SIZE: u64 = PAGE;

/// The I/O APIC, where KVM has it.
pub(super) const IO_APIC: u64 = 0xfec0_0000;

/// The local APICs, where processors have them.
pub(super) const LOCAL_APIC: u64 = 0xfee0_0000;

/// Three pages that KVM needs on Intel processors which cannot run real mode in a guest (KVM_SET_TSS_ADDR), after one
/// page that it takes by itself; where QEMU has them too.
pub(super) const TSS: u64 = 0xfffb_d000;
const IDENTITY_MAP: u64 = 0xfffb_c000;

/// The serial port's classic place and interrupt.
pub(super) const SERIAL: Range<u64> = 0x3f8..0x400;
pub(super) const SERIAL_IRQ: u32 = 4;

/// The keyboard controller's command port, and the chipset's reset register: the ways of resetting a PC.
pub(super) const KEYBOARD_COMMAND: u64 = 0x64;
pub(super) const RESET_CONTROL: u64 = 0xcf9;

/// Interrupts of virtio devices: inputs of the I/O APIC that the old PIC, which Linux masks, does not have.
const FIRST_DEVICE_IRQ: u32 = 16;
const IO_APIC_INPUTS: u32 = 24;

/// Most devices, one interrupt each.
pub(super) const DEVICES: usize = (IO_APIC_INPUTS - FIRST_DEVICE_IRQ) as usize;

/// Most virtual CPUs: what the kernel is built for, and what the MP table has room for.
pub(super) const CPUS: u32 = 64;

const _: () = {
    assert!(MP_POINTER + 16 <= GDT && GDT + 32 <= MP_TABLE);
    assert!(44 + CPUS as u64 * 20 + 8 + 8 + (DEVICES as u64 + 1) * 8 + 2 * 8 <= MP_TABLE_SIZE);
    assert!(MP_TABLE + MP_TABLE_SIZE <= ZERO_PAGE && ZERO_PAGE + PAGE <= PML4);
    assert!(PML4 + PAGE <= PDPT && PDPT + PAGE <= PD && PD + PAGE <= COMMAND_LINE);
    assert!(COMMAND_LINE + COMMAND_LINE_SIZE <= KEPT_BY_LINUX && KEPT_BY_LINUX <= HOLE.start && HOLE.end <= HIGH);
    assert!(GAP.start <= WINDOWS && WINDOWS + WINDOW_SIZE * DEVICES as u64 <= IO_APIC);
    assert!(IO_APIC + PAGE <= LOCAL_APIC && LOCAL_APIC + PAGE <= IDENTITY_MAP);
    assert!(IDENTITY_MAP + PAGE <= TSS && TSS + 3 * PAGE <= GAP.end);
    assert!(SERIAL_IRQ < FIRST_DEVICE_IRQ);
};

/// The register window of a device, by its place in the list.
pub(super) fn window(device: usize) -> Range<u64> {
    let start = WINDOWS + WINDOW_SIZE * device as u64;
    start..start + WINDOW_SIZE
}

/// The interrupt of a device, by its place in the list.
pub(super) fn irq(device: usize) -> u32 {
    FIRST_DEVICE_IRQ + device as u32
}

/// Where `bytes` of memory are, in the order of the file behind them.
pub(crate) fn memory(bytes: u64) -> Vec<Range<u64>> {
    let above = bytes.saturating_sub(GAP.start);
    let parts = [0..bytes.min(GAP.start), GAP.end..GAP.end.saturating_add(above)];
    parts.into_iter().filter(|part| part.start < part.end).collect()
}

/// The largest of these ranges of addresses, in order, by where they are in the file behind `bytes` of memory. What is no range
/// of whole pages in one part of memory, or in the way of one before, is none.
pub(super) fn large(mut ranges: Vec<Range<u64>>, bytes: u64) -> Vec<Range<u64>> {
    // Each cuts memory in two, and a device elsewhere takes eight parts.
    const MOST: usize = 4;
    ranges.retain(|range| range.start < range.end && range.start % PAGE == 0 && range.end % PAGE == 0);
    ranges.sort_by_key(|range| std::cmp::Reverse(range.end - range.start));
    ranges.truncate(MOST);
    let mut before = 0;
    let mut found: Vec<Range<u64>> = Vec::new();
    for part in memory(bytes) {
        found.extend(ranges.iter().filter(|range| part.start <= range.start && range.end <= part.end).map(|range| {
            let offset = |address| address - part.start + before;
            offset(range.start)..offset(range.end)
        }));
        before += part.end - part.start;
    }
    found.sort_by_key(|range| range.start);
    found.dedup_by(|next, last| next.start < last.end);
    found
}

/// Where a boot of `bytes` of memory writes nearly everywhere: the kernel from where it is linked to on, and the top.
pub(crate) fn busy(bytes: u64) -> [Range<u64>; 2] {
    const KERNEL: Range<u64> = 16 << 20..30 << 20;
    let top = crate::memory::top(bytes);
    [KERNEL.start..KERNEL.end.min(bytes), top.start.max(KERNEL.end)..top.end]
}

/// What the kernel's command line needs besides the constant part: the windows, which it cannot find by itself.
pub(crate) fn device_words(devices: usize) -> String {
    (0..devices).map(|device| format!(" virtio_mmio.device=4K@{:#x}:{}", window(device).start, irq(device))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    #[test]
    fn memory_goes_around_the_device_area() {
        let parts = |bytes| memory(bytes).into_iter().map(|part| (part.start, part.end)).collect::<Vec<_>>();
        assert_eq!(parts(GIB), [(0, GIB)]);
        assert_eq!(parts(3 * GIB), [(0, 3 * GIB)]);
        assert_eq!(parts(3 * GIB + PAGE), [(0, 3 * GIB), (4 * GIB, 4 * GIB + PAGE)]);
        let lengths: u64 = memory(17 * GIB).iter().map(|part| part.end - part.start).sum();
        assert_eq!(lengths, 17 * GIB);
    }

    #[test]
    fn large_ranges_are_found_in_the_file() {
        let ranges = vec![GAP.end..GAP.end + GIB, 0..PAGE, GIB..3 * GIB, 7..PAGE, 2 * GIB..4 * GIB, PAGE..2 * PAGE];
        assert_eq!(large(ranges, 5 * GIB), [0..PAGE, GIB..3 * GIB, 3 * GIB..4 * GIB]);
        assert_eq!(large(vec![GIB..3 * GIB, 2 * GIB..3 * GIB, 0..PAGE], 3 * GIB), [0..PAGE, GIB..3 * GIB]);
        assert_eq!(large((0..9).map(|at| at * GIB..at * GIB + PAGE).collect(), GIB).len(), 1);
    }

    #[test]
    fn windows_are_announced_where_they_are() {
        assert_eq!(device_words(0), "");
        assert_eq!(device_words(2), " virtio_mmio.device=4K@0xd0000000:16 virtio_mmio.device=4K@0xd0001000:17");
        assert_eq!(irq(DEVICES - 1), IO_APIC_INPUTS - 1);
    }
}
