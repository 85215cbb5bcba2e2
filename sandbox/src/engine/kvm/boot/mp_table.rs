// SPDX-License-Identifier: Apache-2.0
//! The MP table: how a kernel without ACPI learns of processors and of the I/O APIC's inputs. Bytes only.
//!
//! Follows the Intel MultiProcessor Specification 1.4, chapter 4.

use super::layout;

const SPECIFICATION: u8 = 4;
const HEADER: usize = 44;

/// What KVM's APICs call themselves.
const LOCAL_APIC_VERSION: u8 = 0x14;
const IO_APIC_VERSION: u8 = 0x11;

/// Kinds of entries.
const PROCESSOR: u8 = 0;
const BUS: u8 = 1;
const IO_APIC: u8 = 2;
const INPUT: u8 = 3;
const LOCAL_INPUT: u8 = 4;

/// Kinds of interrupts.
const VECTORED: u8 = 0;
const NMI: u8 = 1;
const EXTERNAL: u8 = 3;

/// Active high, edge triggered: an irqfd without resampling is a pulse.
const EDGE: u16 = 0b0101;

/// Flags of an entry.
const ENABLED: u8 = 1;
const FIRST: u8 = 2;
const ALL_PROCESSORS: u8 = 0xff;

/// The floating pointer (§4.1): 16 bytes that lead to the table.
pub(super) fn pointer() -> [u8; 16] {
    let mut pointer = [0; 16];
    pointer[..4].copy_from_slice(b"_MP_");
    pointer[4..8].copy_from_slice(&(layout::MP_TABLE as u32).to_le_bytes());
    // its length in units of 16 bytes
    pointer[8] = 1;
    pointer[9] = SPECIFICATION;
    pointer[10] = checksum(&pointer);
    pointer
}

/// The table (§4.2, §4.3): processors numbered from 0, one ISA bus, the I/O APIC, and those of its inputs that are in
/// use, because each one declared is set up at every boot.
pub(super) fn table(cpus: u32, irqs: &[u32]) -> Vec<u8> {
    let io_apic = cpus as u8;
    let mut entries = Vec::new();
    for id in 0..cpus as u8 {
        let flags = if id == 0 { ENABLED | FIRST } else { ENABLED };
        let mut entry = [0; 20];
        entry[..4].copy_from_slice(&[PROCESSOR, id, LOCAL_APIC_VERSION, flags]);
        entries.push(entry.to_vec());
    }
    entries.push([&[BUS, 0][..], b"ISA   "].concat());
    let place = (layout::IO_APIC as u32).to_le_bytes();
    entries.push([&[IO_APIC, io_apic, IO_APIC_VERSION, ENABLED][..], &place].concat());
    let [low, high] = EDGE.to_le_bytes();
    for irq in irqs.iter().map(|&irq| irq as u8) {
        entries.push(vec![INPUT, VECTORED, low, high, 0, irq, io_apic, irq]);
    }
    // the two inputs of each local APIC, as on every PC
    entries.push(vec![LOCAL_INPUT, EXTERNAL, 0, 0, 0, 0, ALL_PROCESSORS, 0]);
    entries.push(vec![LOCAL_INPUT, NMI, 0, 0, 0, 0, ALL_PROCESSORS, 1]);

    let mut table = header(entries.len() as u16, entries.iter().map(Vec::len).sum());
    table.extend(entries.concat());
    table[7] = checksum(&table);
    table
}

fn header(entries: u16, length: usize) -> Vec<u8> {
    let mut header = vec![0; HEADER];
    header[..4].copy_from_slice(b"PCMP");
    header[4..6].copy_from_slice(&((HEADER + length) as u16).to_le_bytes());
    header[6] = SPECIFICATION;
    header[8..28].copy_from_slice(b"SANDBOX MICROVM     ");
    header[34..36].copy_from_slice(&entries.to_le_bytes());
    header[36..40].copy_from_slice(&(layout::LOCAL_APIC as u32).to_le_bytes());
    header
}

/// What makes all bytes sum up to zero.
fn checksum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0_u8, |sum, byte| sum.wrapping_sub(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(bytes: &[u8]) -> u8 {
        bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
    }

    #[test]
    fn pointer_leads_to_the_table() {
        let pointer = pointer();
        assert_eq!(&pointer[..4], b"_MP_");
        assert_eq!(u32::from_le_bytes(pointer[4..8].try_into().unwrap()), 0x1000);
        assert_eq!(sum(&pointer), 0);
    }

    #[test]
    fn table_is_as_long_as_it_says_and_sums_to_zero() {
        for cpus in [1, 2, 4, layout::CPUS] {
            let irqs: Vec<u32> = (0..=layout::DEVICES as u32).collect();
            let table = table(cpus, &irqs);
            assert_eq!(usize::from(u16::from_le_bytes([table[4], table[5]])), table.len());
            assert!(table.len() as u64 <= layout::MP_TABLE_SIZE);
            assert_eq!(sum(&table), 0);
        }
    }

    #[test]
    fn entries_can_be_walked_and_name_every_processor_and_input() {
        let table = table(3, &[4, 16, 17]);
        let mut rest = &table[HEADER..];
        let (mut processors, mut inputs, mut count) = (Vec::new(), Vec::new(), 0);
        while let Some(kind) = rest.first() {
            match *kind {
                PROCESSOR => processors.push((rest[1], rest[3])),
                INPUT => inputs.push((rest[5], rest[7])),
                BUS | IO_APIC | LOCAL_INPUT => {}
                other => panic!("entry of kind {other}"),
            }
            rest = &rest[if *kind == PROCESSOR { 20 } else { 8 }..];
            count += 1;
        }
        assert_eq!(processors, [(0, ENABLED | FIRST), (1, ENABLED), (2, ENABLED)]);
        assert_eq!(inputs, [(4, 4), (16, 16), (17, 17)]);
        assert_eq!(u16::from_le_bytes([table[34], table[35]]), count);
    }
}
