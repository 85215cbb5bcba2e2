// SPDX-License-Identifier: Apache-2.0
//! Single requests in chains of any cut, as the tests of the share behind the server make them too.

use super::*;
use crate::fs::share::Entries;
use virtio_queue_fs::{Queue, QueueT};
use virtiofsd::fuse::{InitInCompat, KERNEL_MINOR_VERSION, KERNEL_VERSION};

/// Flags of a descriptor (§2.7.5).
pub(in crate::fs) const NEXT: u16 = 1;
pub(in crate::fs) const WRITE: u16 = 2;

/// Where the ring is; the table of descriptors is at 0.
const RING: u64 = 0x8000;

/// Guest memory of a test.
pub(in crate::fs) fn memory(size: usize) -> Loaded {
    SharedMemory::new(Memory::from_ranges(&[(GuestAddress(0), size)]).unwrap()).memory()
}

/// Writes a descriptor that the one behind it may continue.
pub(in crate::fs) fn descriptor(memory: &Memory, index: u16, (address, length): (u64, u32), flags: u16) {
    let at = u64::from(index) * 16;
    memory.write_obj(address, GuestAddress(at)).unwrap();
    memory.write_obj(length, GuestAddress(at + 8)).unwrap();
    memory.write_obj(flags, GuestAddress(at + 12)).unwrap();
    memory.write_obj(index + 1, GuestAddress(at + 14)).unwrap();
}

/// The chain that begins with descriptor 0, taken from a ring.
pub(in crate::fs) fn chain(memory: &Loaded) -> DescriptorChain<Loaded> {
    memory.write_obj([0u16, 1, 0], GuestAddress(RING)).unwrap();
    let mut queue = Queue::new(8).unwrap();
    queue.try_set_desc_table_address(GuestAddress(0)).unwrap();
    queue.try_set_avail_ring_address(GuestAddress(RING)).unwrap();
    queue.try_set_used_ring_address(GuestAddress(RING + 0x1000)).unwrap();
    queue.set_ready(true);
    queue.iter(memory.clone()).unwrap().next().unwrap()
}

/// A file system that can nothing.
struct Nothing;

impl FileSystem for Nothing {
    type Inode = u64;
    type Handle = u64;
    type DirIter = Entries;
}

const REQUEST: u64 = 0x10000;
const ANSWER: u64 = 0x20000;
const LENGTH: usize = size_of::<OutHeader>() + size_of::<InitOut>();

/// The answer to an INIT that offers everything, with the room for it in two parts; no byte of that was zero before.
fn agree(version: u32, cut: usize) -> (u32, Vec<u8>) {
    const REQUEST_LENGTH: usize = size_of::<InHeader>() + 64;
    let memory = memory(1 << 18);
    let header = InHeader { len: REQUEST_LENGTH as u32, opcode: Opcode::Init as u32, ..InHeader::default() };
    let offer = InitInCompat { major: version, minor: KERNEL_MINOR_VERSION, max_readahead: 0, flags: u32::MAX };
    memory.write_obj(header, GuestAddress(REQUEST)).unwrap();
    memory.write_obj(offer, GuestAddress(REQUEST + size_of::<InHeader>() as u64)).unwrap();
    memory.write_slice(&[0xff; LENGTH], GuestAddress(ANSWER)).unwrap();
    descriptor(&memory, 0, (REQUEST, REQUEST_LENGTH as u32), NEXT);
    descriptor(&memory, 1, (ANSWER, cut as u32), NEXT | WRITE);
    descriptor(&memory, 2, (ANSWER + cut as u64, (LENGTH - cut) as u32), WRITE);

    let length = Backend::new(Nothing).answer(&memory, chain(&memory));

    let mut answer = vec![0; LENGTH];
    memory.read_slice(&mut answer, GuestAddress(ANSWER)).unwrap();
    (length, answer)
}

#[test]
fn truncating_is_never_left_to_the_request_that_opens() {
    for cut in 1..LENGTH {
        let (length, answer) = agree(KERNEL_VERSION, cut);
        assert_eq!(length as usize, LENGTH, "cut at {cut}");
        let flags = u32::from_le_bytes(answer[AGREED..AGREED + 4].try_into().unwrap());
        let agreed = FsOptions::from_bits_truncate(flags.into());
        assert!(!agreed.contains(FsOptions::ATOMIC_O_TRUNC), "cut at {cut}: {agreed:?}");
        assert!(agreed.contains(FsOptions::ASYNC_READ | FsOptions::BIG_WRITES), "cut at {cut}: {agreed:?}");
    }
}

#[test]
fn refused_init_is_left_as_it_is() {
    let (length, answer) = agree(KERNEL_VERSION - 1, size_of::<OutHeader>());
    assert_eq!(length as usize, size_of::<OutHeader>());
    assert!(answer[size_of::<OutHeader>()..].iter().all(|byte| *byte == 0xff));
}
