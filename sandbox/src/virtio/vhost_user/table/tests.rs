// SPDX-License-Identifier: Apache-2.0
use super::*;
use rustix::fs::{MemfdFlags, fcntl_add_seals, ftruncate, memfd_create};
use vm_memory::{GuestAddressSpace, GuestMemoryBackend};

const PAGE: u64 = 4096;

fn memfd(pages: u64, seals: SealFlags) -> File {
    let file = memfd_create("test", MemfdFlags::ALLOW_SEALING | MemfdFlags::CLOEXEC).expect("memfd");
    ftruncate(&file, pages * PAGE).expect("size");
    fcntl_add_seals(&file, seals).expect("seal");
    File::from(file)
}

fn entry(guest: u64, peer: u64, size: u64, offset: u64) -> VhostUserMemoryRegion {
    VhostUserMemoryRegion { guest_phys_addr: guest, memory_size: size, user_addr: peer, mmap_offset: offset }
}

fn install(entries: &[VhostUserMemoryRegion], files: Vec<File>) -> Result<(Table, Memory), Error> {
    let memory = Memory::new(GuestMemoryMmap::new());
    Table::install(entries, files, &memory).map(|table| (table, memory))
}

fn sealed(entries: &[VhostUserMemoryRegion]) -> Result<(Table, Memory), Error> {
    let files = entries.iter().map(|_| memfd(16, SealFlags::SHRINK)).collect();
    install(entries, files)
}

#[test]
fn addresses_of_the_peer_become_those_of_the_guest() {
    let (table, memory) =
        sealed(&[entry(0x10_0000, 0x7000_0000, PAGE, 0), entry(0, 0x8000_0000, 2 * PAGE, PAGE)]).expect("table");
    assert_eq!(memory.memory().num_regions(), 2);
    assert_eq!(table.guest_address(0x7000_0000).expect("first"), 0x10_0000);
    assert_eq!(table.guest_address(0x7000_0fff).expect("last"), 0x10_0fff);
    assert_eq!(table.guest_address(0x8000_1000).expect("second"), 0x1000);
    for outside in [0, 0x6fff_ffff, 0x7000_1000, 0x8000_2000, u64::MAX] {
        assert!(matches!(table.guest_address(outside), Err(Error::Address(_))), "{outside:#x}");
    }
}

#[test]
fn file_that_could_shrink_is_refused() {
    let one = [entry(0, 0x7000_0000, PAGE, 0)];
    assert!(matches!(install(&one, vec![memfd(16, SealFlags::GROW)]), Err(Error::Unsealed(0))));
    let on_disk = File::open("/proc/self/exe").expect("file");
    assert!(matches!(install(&one, vec![on_disk]), Err(Error::Unsealed(0))));
    let (reader, _writer) = io::pipe().expect("pipe");
    let pipe = File::from(std::os::fd::OwnedFd::from(reader));
    assert!(matches!(install(&one, vec![pipe]), Err(Error::Unsealed(0))));
}

#[test]
fn region_beyond_its_file_or_address_space_is_refused() {
    let last = u64::MAX - PAGE + 2;
    for (what, bad) in [
        ("longer than the file", entry(0, 0x7000_0000, 17 * PAGE, 0)),
        ("beyond the file's end", entry(0, 0x7000_0000, 16 * PAGE, PAGE)),
        ("offset overflows", entry(0, 0x7000_0000, PAGE, u64::MAX)),
        ("guest address overflows", entry(last, 0x7000_0000, PAGE, 0)),
        ("peer address overflows", entry(0, last, PAGE, 0)),
        ("empty", entry(0, 0x7000_0000, 0, 0)),
        ("size overflows", entry(0, 0x7000_0000, u64::MAX, 0)),
    ] {
        assert!(matches!(sealed(&[bad]), Err(Error::Range(0))), "{what}");
    }
}

#[test]
fn overlapping_regions_are_refused() {
    let overlap = sealed(&[entry(0, 0x7000_0000, 2 * PAGE, 0), entry(0x10_0000, 0x7000_1000, PAGE, 0)]);
    assert!(matches!(overlap, Err(Error::Overlap(0, 1))));
    let overlap = sealed(&[entry(0, 0x7000_0000, 2 * PAGE, 0), entry(PAGE, 0x8000_0000, PAGE, 0)]);
    assert!(matches!(overlap, Err(Error::Map(_))));
}

#[test]
fn bad_table_leaves_the_memory_as_it_was() {
    let memory = Memory::new(GuestMemoryMmap::new());
    let good = [entry(0, 0x7000_0000, PAGE, 0)];
    Table::install(&good, vec![memfd(16, SealFlags::SHRINK)], &memory).expect("table");
    let bad = [entry(0, 0x7000_0000, 17 * PAGE, 0)];
    Table::install(&bad, vec![memfd(16, SealFlags::SHRINK)], &memory).expect_err("too long");
    assert_eq!(memory.memory().num_regions(), 1);
}

#[test]
fn offset_that_is_no_whole_page_is_refused() {
    assert!(matches!(sealed(&[entry(0, 0x7000_0000, PAGE, 1)]), Err(Error::Map(_))));
}
