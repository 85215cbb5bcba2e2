// SPDX-License-Identifier: Apache-2.0
//! What a virtual CPU starts with, as plain data: registers and model-specific registers. Nothing here calls KVM, and
//! what KVM's own reset state has right already is not repeated.
//!
//! Follows the 64-bit boot protocol of Linux (Documentation/arch/x86/boot.rst §"64-bit boot protocol") and the AMD and
//! Intel manuals' chapters on long mode.

pub(super) mod cpuid;

use kvm_bindings::{kvm_dtable, kvm_msr_entry, kvm_regs, kvm_segment, kvm_sregs};

use guest_init::frozen::THAW;

use super::layout;

/// CR0: protection and paging.
const PE: u64 = 1;
const PG: u64 = 1 << 31;
/// CR4: page table entries of 64 bits.
const PAE: u64 = 1 << 5;
/// EFER: long mode, asked for and in use.
const LME: u64 = 1 << 8;
const LMA: u64 = 1 << 10;
/// The local APIC is on, and its processor is the first.
const APIC_ENABLED: u64 = 1 << 11;
const FIRST_PROCESSOR: u64 = 1 << 8;
/// RFLAGS: the bit that is always set. Interrupts are off.
const RFLAGS: u64 = 1 << 1;

/// Selectors that the boot protocol names.
pub(super) const CODE: u16 = 0x10;
pub(super) const DATA: u16 = 0x18;
const TASK: u16 = 0x20;

/// Segment types: code that can be read, data that can be written, a busy 64-bit task.
const CODE_TYPE: u8 = 0b1011;
const DATA_TYPE: u8 = 0b0011;
const TASK_TYPE: u8 = 0b1011;

/// `IA32_MISC_ENABLE`: string instructions are fast. Without it Linux does not use them on Intel processors.
const MISC_ENABLE: u32 = 0x1a0;
const FAST_STRINGS: u64 = 1;
/// No branch trace store, no PEBS: there is no performance monitoring.
const NO_TRACES: u64 = 1 << 11 | 1 << 12;

/// All of these at the kernel's entry point.
pub(super) fn at_entry(entry: u64) -> (kvm_sregs, kvm_regs) {
    (system_registers(), registers(entry))
}

/// All of these where a clone comes back from, in flat 32-bit mode without paging ([`guest_init::frozen`]).
pub(super) fn at_thaw() -> (kvm_sregs, kvm_regs) {
    let system = system_registers();
    let flat = kvm_sregs {
        cs: segment(CODE, CODE_TYPE),
        gdt: kvm_dtable::default(),
        cr0: PE,
        cr3: 0,
        cr4: 0,
        efer: 0,
        ..system
    };
    (flat, kvm_regs { rip: THAW, rflags: RFLAGS, ..Default::default() })
}

/// Where the clock of a clone goes on, in nanoseconds: later than any machine's that is frozen, for it may take no longer
/// ([`crate::engine`]). Else the guest's account of time would run backwards.
pub(super) const THAW_CLOCK: u64 = 120_000_000_000;

/// General registers at the kernel's entry point: it looks for its parameters where RSI points.
pub(super) fn registers(entry: u64) -> kvm_regs {
    kvm_regs { rip: entry, rsi: layout::ZERO_PAGE, rflags: RFLAGS, ..Default::default() }
}

/// Segments and control registers of a processor in long mode, with the page tables and the segment table of
/// [`super::boot`].
pub(super) fn system_registers() -> kvm_sregs {
    let data = segment(DATA, DATA_TYPE);
    kvm_sregs {
        cs: kvm_segment { l: 1, db: 0, ..segment(CODE, CODE_TYPE) },
        ds: data,
        es: data,
        fs: data,
        gs: data,
        ss: data,
        tr: kvm_segment { s: 0, db: 0, g: 0, limit: 0x67, ..segment(TASK, TASK_TYPE) },
        ldt: kvm_segment { unusable: 1, present: 0, ..Default::default() },
        gdt: kvm_dtable { base: layout::GDT, limit: (size_of_val(&SEGMENTS) - 1) as u16, ..Default::default() },
        cr0: PE | PG,
        cr3: layout::PML4,
        cr4: PAE,
        efer: LME | LMA,
        apic_base: layout::LOCAL_APIC | APIC_ENABLED | FIRST_PROCESSOR,
        ..Default::default()
    }
}

/// The same segments as a table in memory (AMD64 APM vol. 2 §4.7): none, none, code, data.
pub(super) const SEGMENTS: [u64; 4] = [0, 0, 0x00af_9b00_0000_ffff, 0x00cf_9300_0000_ffff];

fn segment(selector: u16, type_: u8) -> kvm_segment {
    kvm_segment { limit: 0xffff_ffff, selector, type_, present: 1, db: 1, s: 1, g: 1, ..Default::default() }
}

/// Model-specific registers whose value after KVM's reset is not what a kernel expects, as far as this host has them.
pub(super) fn msrs(known: &[u32]) -> Vec<kvm_msr_entry> {
    let entry = |index, data| kvm_msr_entry { index, data, ..Default::default() };
    [entry(MISC_ENABLE, FAST_STRINGS | NO_TRACES)].into_iter().filter(|msr| known.contains(&msr.index)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_is_entered_in_long_mode_as_its_protocol_says() {
        let system = system_registers();
        assert_eq!(system.cr0 & (PE | PG), PE | PG);
        assert_eq!(system.efer, LME | LMA);
        assert_eq!((system.cs.selector, system.cs.l, system.cs.db), (0x10, 1, 0));
        assert_eq!((system.ds.selector, system.es.selector, system.ss.selector), (0x18, 0x18, 0x18));
        let general = registers(0x100_0000);
        assert_eq!((general.rip, general.rsi), (0x100_0000, layout::ZERO_PAGE));
        assert_eq!(general.rflags & (1 << 9), 0, "interrupts are off");
    }

    #[test]
    fn a_clone_begins_without_paging() {
        let (system, general) = at_thaw();
        assert_eq!((system.cr0, system.cr3, system.cr4, system.efer), (PE, 0, 0, 0));
        assert_eq!((system.cs.l, system.cs.db, system.cs.base, system.cs.limit), (0, 1, 0, u32::MAX));
        assert_eq!((general.rip, general.rflags & (1 << 9)), (THAW, 0));
    }

    #[test]
    fn the_table_says_what_the_registers_say() {
        for (selector, loaded) in [(CODE, system_registers().cs), (DATA, system_registers().ds)] {
            let entry = SEGMENTS[usize::from(selector) / 8];
            assert_eq!(entry >> 40 & 0xf, u64::from(loaded.type_));
            assert_eq!(entry >> 44 & 1, u64::from(loaded.s));
            assert_eq!(entry >> 47 & 1, u64::from(loaded.present));
            assert_eq!(entry >> 53 & 1, u64::from(loaded.l));
            assert_eq!(entry >> 54 & 1, u64::from(loaded.db));
        }
        assert_eq!(usize::from(system_registers().gdt.limit) + 1, 8 * SEGMENTS.len());
    }

    #[test]
    fn only_registers_that_the_host_has_are_set() {
        assert_eq!(msrs(&[0x10, 0x174]), []);
        let set = msrs(&[0x10, MISC_ENABLE]);
        assert_eq!(set.iter().map(|msr| (msr.index, msr.data)).collect::<Vec<_>>(), [(0x1a0, 0x1801)]);
    }
}
