// SPDX-License-Identifier: Apache-2.0
use super::*;

fn leaf(function: u32, index: u32, [eax, ebx, ecx, edx]: [u32; 4]) -> Leaf {
    Leaf { function, index, eax, ebx, ecx, edx, ..Default::default() }
}

/// A host that supports everything everywhere.
fn boastful() -> Vec<Leaf> {
    let all = [ALL; 4];
    let mut leaves: Vec<Leaf> = (1..=0x20).map(|function| leaf(function, 0, all)).collect();
    leaves.push(leaf(0, 0, [0x20, 0, 0, 0]));
    leaves.push(leaf(0x4000_0000, 0, [0x4000_0001, 0x4b4d_564b, 0x564b_4d56, 0x4d]));
    leaves.push(leaf(0x4000_0001, 0, [0x0100_7efb, 0, 0, 0]));
    leaves.extend((0..=0x26).map(|number| leaf(0x8000_0000 + number, 0, all)));
    leaves
}

fn find(leaves: &[Leaf], function: u32, index: u32) -> Leaf {
    *leaves.iter().find(|leaf| leaf.function == function && leaf.index == index).expect("the leaf is there")
}

const FIRST: Place = Place { id: 0, count: 1 };

#[test]
fn virtualization_is_seen_only_by_a_nested_host() {
    for (nested, bit) in [(false, 0), (true, 1)] {
        let leaves = answers(&boastful(), FIRST, nested);
        assert_eq!(find(&leaves, 0x1, 0).ecx >> 5 & 1, bit, "VMX, nested: {nested}");
        assert_eq!(find(&leaves, 0x8000_0001, 0).ecx >> 2 & 1, bit, "SVM, nested: {nested}");
        assert_eq!(find(&leaves, 0x8000_000a, 0).edx, bit * ALL, "SVM's leaf, nested: {nested}");
    }
}

#[test]
fn no_performance_counter_is_seen() {
    for nested in [false, true] {
        let leaves = answers(&boastful(), FIRST, nested);
        let ten = find(&leaves, 0xa, 0);
        assert_eq!((ten.eax, ten.ebx, ten.ecx, ten.edx), (0, 0, 0, 0));
        assert_eq!(find(&leaves, 0x8000_0001, 0).ecx & (1 << 10 | 1 << 23 | 1 << 24 | 1 << 27 | 1 << 28), 0);
        assert_eq!(find(&leaves, 0x8000_0022, 0).eax, 0);
        assert_eq!(find(&leaves, 0x1, 0).ecx & 1 << 15, 0);
    }
}

#[test]
fn a_modest_host_still_shows_what_kvm_provides() {
    let modest = [leaf(0, 0, [0xd, 0, 0, 0]), leaf(1, 0, [0; 4]), leaf(6, 0, [0; 4])];
    let leaves = answers(&modest, FIRST, false);
    let one = find(&leaves, 1, 0);
    assert_eq!((one.ecx >> 31 & 1, one.ecx >> 24 & 1, one.ecx >> 21 & 1), (1, 1, 1));
    assert_eq!(find(&leaves, 6, 0).eax & 4, 4);
}

#[test]
fn kvms_own_leaves_pass_unchanged() {
    let leaves = answers(&boastful(), FIRST, false);
    assert_eq!(find(&leaves, 0x4000_0000, 0).ebx.to_le_bytes(), *b"KVMK");
    assert_eq!(find(&leaves, 0x4000_0001, 0).eax, 0x0100_7efb);
}

#[test]
fn each_processor_knows_its_own_number_wherever_it_is_asked() {
    for id in [0, 1, 3, 63] {
        let leaves = answers(&boastful(), Place { id, count: 64 }, false);
        assert_eq!(find(&leaves, 0x1, 0).ebx >> 24, id);
        assert_eq!((0..3).map(|level| find(&leaves, 0xb, level).edx).collect::<Vec<_>>(), [id; 3]);
        assert_eq!(find(&leaves, 0x8000_001e, 0).eax, id);
        assert!(leaves.iter().all(|leaf| leaf.function != 0x1f && leaf.function != 0x8000_0026));
    }
}

#[test]
fn cores_are_counted_and_threads_are_one_each() {
    for (count, shift) in [(1, 0), (2, 1), (3, 2), (4, 2), (64, 6)] {
        let leaves = answers(&boastful(), Place { id: 0, count }, false);
        let one = find(&leaves, 0x1, 0);
        assert_eq!((one.ebx >> 16 & 0xff, one.edx >> 28 & 1), (count, u32::from(count > 1)));
        let [threads, cores, end] = [0, 1, 2].map(|level| find(&leaves, 0xb, level));
        assert_eq!((threads.eax, threads.ebx, threads.ecx), (0, 1, 0x100));
        assert_eq!((cores.eax, cores.ebx, cores.ecx), (shift, count, 0x201));
        assert_eq!((end.eax, end.ebx, end.ecx), (0, 0, 2));
        let sizes = find(&leaves, 0x8000_0008, 0).ecx;
        assert_eq!((sizes & 0xff, sizes >> 12 & 0xf), (count - 1, shift));
    }
}
