// SPDX-License-Identifier: Apache-2.0
//! What the guest's CPUID instruction answers: what KVM supports on this host, less what a table takes away, plus what
//! differs between the processors of a machine. Data only.
//!
//! Follows the AMD64 APM vol. 3 appendix E, the Intel SDM vol. 2 "CPUID", and Documentation/virt/kvm/x86/cpuid.rst.

use kvm_bindings::{KVM_CPUID_FLAG_SIGNIFCANT_INDEX, kvm_cpuid_entry2 as Leaf};

/// One of the four registers of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Register {
    Eax,
    Ebx,
    Ecx,
    Edx,
}
use Register::{Eax, Ebx, Ecx, Edx};

/// Why something is taken away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unless {
    Never,
    Nested,
}
use Unless::{Nested, Never};

const ALL: u32 = u32::MAX;

/// Bits that the guest must not see. Performance counters are the host's: they are a clock for side channels, and KVM
/// programs them at each exit. Virtualization, because its guests' bugs are where KVM's worst are.
#[rustfmt::skip]
const HIDDEN: [(u32, Register, u32, Unless); 22] = [
    (0x1, Ecx, 1 << 2, Never),             // debug store, 64 bits
    (0x1, Ecx, 1 << 5, Nested),            // VMX
    (0x1, Ecx, 1 << 15, Never),            // performance capabilities register
    (0x1, Edx, 1 << 21, Never),            // debug store
    (0x7, Ebx, 1 << 2 | 1 << 25, Never),   // SGX, processor trace
    (0xa, Eax, ALL, Never),                // Intel's performance counters
    (0xa, Ebx, ALL, Never),
    (0xa, Ecx, ALL, Never),
    (0xa, Edx, ALL, Never),
    (0x12, Eax, ALL, Never),               // SGX
    (0x14, Eax, ALL, Never),               // processor trace
    (0x8000_0001, Ecx, 1 << 2, Nested),    // SVM
    (0x8000_0001, Ecx, 1 << 10 | 1 << 12 | 1 << 13, Never), // sampling, secure start, watchdog
    (0x8000_0001, Ecx, 1 << 23 | 1 << 24 | 1 << 27 | 1 << 28, Never), // AMD's performance counters
    (0x8000_000a, Eax, ALL, Nested),       // SVM's own leaf
    (0x8000_000a, Ebx, ALL, Nested),
    (0x8000_000a, Edx, ALL, Nested),
    (0x8000_001b, Eax, ALL, Never),        // sampling
    (0x8000_001f, Eax, ALL, Never),        // encrypted memory
    (0x8000_0022, Eax, ALL, Never),        // AMD's performance counters, second version
    (0x8000_0022, Ebx, ALL, Never),
    (0x8000_0022, Ecx, ALL, Never),
];

/// Leaves that describe the host's processors by other numbers than ours; Linux does with [`TOPOLOGY`] alone.
const DROPPED: [u32; 3] = [TOPOLOGY, 0x1f, 0x8000_0026];

/// Threads, cores and their APIC's number.
const TOPOLOGY: u32 = 0xb;

/// Bits that the guest must see: an x2APIC and a timer that takes a deadline, both of which KVM's own local APIC has
/// whatever the processor, and that there is a hypervisor.
const SHOWN: [(u32, Register, u32); 2] = [(0x1, Ecx, 1 << 21 | 1 << 24 | 1 << 31), (0x6, Eax, 1 << 2)];

/// A processor's place in its machine: one package of `count` cores with one thread each.
#[derive(Debug, Clone, Copy)]
pub(in crate::engine::kvm) struct Place {
    pub(in crate::engine::kvm) id: u32,
    pub(in crate::engine::kvm) count: u32,
}

/// The answers of one processor.
pub(in crate::engine::kvm) fn answers(supported: &[Leaf], place: Place, nested: bool) -> Vec<Leaf> {
    let mut leaves: Vec<Leaf> = supported.iter().filter(|leaf| !DROPPED.contains(&leaf.function)).copied().collect();
    for leaf in &mut leaves {
        for (_, register, bits, unless) in of(leaf.function, &HIDDEN, |entry| entry.0) {
            if *unless == Never || !nested {
                *value(leaf, *register) &= !bits;
            }
        }
        for (_, register, bits) in of(leaf.function, &SHOWN, |entry| entry.0) {
            *value(leaf, *register) |= bits;
        }
        place_in(leaf, place);
    }
    if supported.iter().any(|leaf| leaf.function == 0 && leaf.eax >= TOPOLOGY) {
        leaves.extend(topology(place));
    }
    leaves
}

/// The entries of a table that are about this leaf.
fn of<T>(function: u32, table: &[T], key: impl Fn(&T) -> u32) -> impl Iterator<Item = &T> {
    table.iter().filter(move |entry| key(entry) == function)
}

fn value(leaf: &mut Leaf, register: Register) -> &mut u32 {
    match register {
        Eax => &mut leaf.eax,
        Ebx => &mut leaf.ebx,
        Ecx => &mut leaf.ecx,
        Edx => &mut leaf.edx,
    }
}

/// Bits of an APIC's number that tell one core from another.
fn width(count: u32) -> u32 {
    count.max(1).next_power_of_two().trailing_zeros()
}

/// Replaces bits `low..low + bits` of a register.
fn put(register: &mut u32, low: u32, bits: u32, value: u32) {
    let mask = (1 << bits) - 1;
    *register = *register & !(mask << low) | (value & mask) << low;
}

/// What KVM reports here is the host processor that it was asked on.
fn place_in(leaf: &mut Leaf, place: Place) {
    let Place { id, count } = place;
    let several = u32::from(count > 1);
    match leaf.function {
        0x1 => {
            put(&mut leaf.ebx, 24, 8, id);
            put(&mut leaf.ebx, 16, 8, count);
            put(&mut leaf.edx, 28, 1, several);
        }
        // Intel's caches: the third level is shared by all cores, the others by none.
        0x4 if leaf.eax & 0x1f != 0 => {
            let sharing = if leaf.eax >> 5 & 7 == 3 { (1 << width(count)) - 1 } else { 0 };
            put(&mut leaf.eax, 14, 12, sharing);
            put(&mut leaf.eax, 26, 6, (1 << width(count)) - 1);
        }
        0x8000_0001 => put(&mut leaf.ecx, 1, 1, several),
        0x8000_0008 => {
            put(&mut leaf.ecx, 0, 8, count.saturating_sub(1));
            put(&mut leaf.ecx, 12, 4, width(count));
        }
        // AMD's caches, likewise.
        0x8000_001d if leaf.eax & 0x1f != 0 => {
            let sharing = if leaf.eax >> 5 & 7 == 3 { count.saturating_sub(1) } else { 0 };
            put(&mut leaf.eax, 14, 12, sharing);
        }
        0x8000_001e => (leaf.eax, leaf.ebx, leaf.ecx) = (id, id & 0xff, 0),
        _ => {}
    }
}

/// The levels of the topology leaf: one thread in a core, `count` cores, no more.
fn topology(place: Place) -> [Leaf; 3] {
    const THREADS: u32 = 1;
    const CORES: u32 = 2;
    let level = |index, kind, shift, below| Leaf {
        function: TOPOLOGY,
        index,
        flags: KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
        eax: shift,
        ebx: below,
        ecx: kind << 8 | index,
        edx: place.id,
        ..Default::default()
    };
    [level(0, THREADS, 0, 1), level(1, CORES, width(place.count), place.count), level(2, 0, 0, 0)]
}

#[cfg(test)]
mod tests;
