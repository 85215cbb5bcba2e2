// SPDX-License-Identifier: Apache-2.0
use super::*;

const MIB: u64 = 1 << 20;

fn word(page: &[u8], offset: usize) -> u64 {
    u64::from_le_bytes(page[offset..offset + 8].try_into().unwrap())
}

#[test]
fn the_hole_is_nobodys_memory() {
    assert_eq!(usable(&layout::memory(64 * MIB)), [0..0x9_fc00, MIB..64 * MIB]);
    assert_eq!(usable(&layout::memory(4 << 30)), [0..0x9_fc00, MIB..3 << 30, 4 << 30..5 << 30]);
}

#[test]
fn the_initramfs_is_at_the_end_of_low_memory_or_nowhere() {
    assert_eq!(place(0x1801, 32 * MIB, 64 * MIB).unwrap(), 64 * MIB - 0x2000..64 * MIB - 0x7ff);
    assert!(matches!(place(33 * MIB, 32 * MIB, 64 * MIB), Err(Error::Room { .. })));
    assert!(matches!(place(65 * MIB, 32 * MIB, 64 * MIB), Err(Error::Room { .. })));
    assert!(place(32 * MIB, 32 * MIB, 64 * MIB).is_ok());
}

#[test]
fn the_zero_page_says_what_there_is() {
    let page = zero_page(&[0..0x9_fc00, MIB..64 * MIB], &(0x100_0000..0x100_1234));
    assert_eq!(page[0x1e8], 2);
    assert_eq!(page[0x1fe..0x200], [0x55, 0xaa]);
    assert_eq!(word(&page, 0x218), 0x1234 << 32 | 0x100_0000);
    assert_eq!(word(&page, 0x228) as u32, layout::COMMAND_LINE as u32);
    assert_eq!((word(&page, 0x2d0), word(&page, 0x2d8)), (0, 0x9_fc00));
    assert_eq!((word(&page, 0x2e4), word(&page, 0x2ec)), (MIB, 63 * MIB));
    assert_eq!(page[0x2e0], 1);
}

#[test]
fn page_tables_map_each_page_to_itself() {
    let (first, second, third) = page_tables();
    assert_eq!((first & !0xfff, second & !0xfff), (layout::PDPT, layout::PD));
    assert!(third.iter().enumerate().all(|(number, entry)| entry & !0x1f_ffff == number as u64 * 2 * MIB));
    assert!(third.iter().all(|entry| entry & 0x83 == 0x83));
}

#[test]
fn what_is_no_kernel_and_what_is_too_long_is_refused() {
    let ranges = layout::memory(64 * MIB);
    let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 64 << 20)]).unwrap();
    let attempt = |command_line: &str| {
        let (mut kernel, mut initramfs) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        let image = Image { kernel: &mut kernel, initramfs: &mut initramfs, command_line, devices: 0, cpus: 1 };
        load(&memory, &ranges, image)
    };
    assert!(matches!(attempt("quiet"), Err(Error::Kernel(_))));
    assert!(matches!(attempt(&"x".repeat(2048)), Err(Error::CommandLine(2048))));
}
