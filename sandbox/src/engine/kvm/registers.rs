// SPDX-License-Identifier: Apache-2.0
//! Where a processor was when its machine ended, in words for the report. Not for what it starts with: see
//! [`super::state`].

use std::fmt;

use crate::sys::kvm::Cpu;

/// The registers that tell most about a crash. All are zero as long as nobody has asked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Registers {
    rip: u64,
    rsp: u64,
    rflags: u64,
    cr0: u64,
    cr2: u64,
    cr3: u64,
    cr4: u64,
    efer: u64,
}

impl Registers {
    /// Of this processor now; zeros if KVM does not tell.
    pub(super) fn of(cpu: &Cpu) -> Self {
        let general = cpu.fd().get_regs().unwrap_or_default();
        let system = cpu.fd().get_sregs().unwrap_or_default();
        Self {
            rip: general.rip,
            rsp: general.rsp,
            rflags: general.rflags,
            cr0: system.cr0,
            cr2: system.cr2,
            cr3: system.cr3,
            cr4: system.cr4,
            efer: system.efer,
        }
    }

    /// Whether they are those of a processor that has just been reset. KVM does so on AMD after a triple fault that the
    /// processor itself found (`shutdown_interception`), and what it was at is lost.
    fn lost(&self) -> bool {
        const RESET_VECTOR: u64 = 0xfff0;
        const PROTECTION: u64 = 1;
        self.rip == RESET_VECTOR && self.cr0 & PROTECTION == 0
    }
}

impl fmt::Display for Registers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.lost() {
            return write!(f, "KVM has reset the processor since, its registers are lost");
        }
        let Self { rip, rsp, rflags, cr0, cr2, cr3, cr4, efer } = self;
        write!(f, "rip {rip:#x}, rsp {rsp:#x}, rflags {rflags:#x}, ")?;
        write!(f, "cr0 {cr0:#x}, cr2 {cr2:#x}, cr3 {cr3:#x}, cr4 {cr4:#x}, efer {efer:#x}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registers_are_told_unless_a_reset_has_lost_them() {
        let kernel = Registers { rip: 0xffff_ffff_8100_0000, cr0: 0x8000_0011, cr2: 0x10, ..Default::default() };
        let text = kernel.to_string();
        assert!(text.starts_with("rip 0xffffffff81000000, rsp 0x0, ") && text.contains("cr2 0x10"), "{text}");
        let reset = Registers { rip: 0xfff0, cr0: 0x6000_0010, ..Default::default() };
        assert!(reset.to_string().contains("lost"), "{reset}");
    }
}
