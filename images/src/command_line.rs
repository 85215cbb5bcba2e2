// SPDX-License-Identifier: Apache-2.0
//! The part of the kernel command line every guest shares: constants only, so that a frozen guest serves any run.
//!
//! Engines add what follows from the machine they make: `virtio_mmio.device=…`, and [`clock_words`] where the processor
//! does not tell its rate (QEMU's TCG). Without those the guest has no clock finer than its tick.

/// Words every guest is booted with, each for its reason.
pub const COMMAND_LINE: &str = concat!(
    // the one port both machines have; what the kernel says last is the evidence when a guest dies
    "console=ttyS0",
    // errors only: each character is an exit, and the whole log costs more than the rest of the boot
    " quiet",
    // reset at once after a panic: nobody is there to read the screen
    " panic=-1",
    // a fault in the kernel is the guest's end, not that of the process which happened to run
    " oops=panic",
    // reset by triple fault: the one way that needs no keyboard controller, ACPI or firmware
    " reboot=t",
    // the host's TSC is good; watching it and calibrating it again goes wrong under load
    " tsc=reliable",
    // waiting ten ticks to see whether the timer interrupts arrive goes wrong under load
    " no_timer_check",
    // one CPU does not make it worth to rewrite 6,000 locked instructions at boot (100 ms under emulation),
    // and kernel text that stays as it was loaded can be shared between clones
    " noreplace-smp",
    // no bounce buffers: our devices reach all of memory, and guests above 4 GiB would lose 64 MiB to them
    " swiotlb=noforce",
    // entering a cgroup and leaving a namespace wait for a grace period: 3 ms instead of 14
    " rcupdate.rcu_expedited=1",
    // everything in a guest belongs to one command; the wall is the VM, which the host kernel guards
    " mitigations=off",
);

/// Ticks per second, as the configuration says.
const HZ: u64 = 250;

/// What an emulated guest must be told of the host's time stamp counter, given its rate in kHz.
///
/// `lpj`, the same rate in counts per tick, spares each further CPU a tenth of a second of counting for itself.
pub fn clock_words(tsc_khz: u32) -> String {
    format!("tsc_early_khz={tsc_khz} lpj={}", u64::from(tsc_khz) * 1000 / HZ)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clock_words_hold_the_rate_twice() {
        assert!(include_str!("../kernel/base.config").contains(&format!("\nCONFIG_HZ_{HZ}=y\n")));
        assert_eq!(clock_words(2_600_000), "tsc_early_khz=2600000 lpj=10400000");
    }

    #[test]
    fn words_are_separate_unique_and_short() {
        let mut words: Vec<&str> = COMMAND_LINE.split(' ').collect();
        let count = words.len();
        words.sort_unstable();
        words.dedup();

        assert_eq!(words.len(), count);
        assert!(words.iter().all(|word| !word.is_empty() && word.is_ascii()));
        // Linux cuts at 2048 bytes, and the engines' own words must fit too
        assert!(COMMAND_LINE.len() < 512);
    }
}
