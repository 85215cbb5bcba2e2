// SPDX-License-Identifier: Apache-2.0
//! What is asked of a kernel, as text: options of its configuration, and lines of its source to replace. The build script reads
//! it, too, and so this names nothing else of the crate.

pub(crate) const BASE: &str = include_str!("../../kernel/base.config");
pub(crate) const NESTED: &str = include_str!("../../kernel/nested.config");
pub(crate) const EDITED: &str = include_str!("../../kernel/edited.config");

/// All options, of a source with our edits or without.
pub(crate) fn fragment(nested: bool, edited: bool) -> String {
    let parts = [Some(BASE), edited.then_some(EDITED), nested.then_some(NESTED)];
    parts.into_iter().flatten().collect::<Vec<_>>().join("\n")
}

/// The options that some text asks for, without the reasons, which may be reworded.
pub(crate) fn requests(fragment: &str) -> impl Iterator<Item = (&str, &str)> {
    fragment.lines().filter(|line| line.starts_with("CONFIG_")).filter_map(|line| line.split_once('='))
}

/// A line of the source, and what is put in its place.
pub(crate) struct Edit {
    pub(crate) file: &'static str,
    pub(crate) from: &'static str,
    pub(crate) to: &'static str,
}

pub(crate) const EDITS: [Edit; 7] = [
    // The local APIC's timer runs at 1 GHz in both our machines (KVM: APIC_BUS_CYCLE_NS; QEMU: hw/intc/apic.c).
    // Without this line the kernel finds that out by waiting 220 ms, nearly half of an emulated boot; and on a loaded
    // host the measurement fails, which leaves the guest without precise timers.
    Edit {
        file: "arch/x86/kernel/apic/apic.c",
        from: "unsigned int lapic_timer_period = 0;",
        to: "unsigned int lapic_timer_period = 1000000000 / HZ;",
    },
    // The kernel overwrites its initialisation code before it gives the memory back. Under emulation every store to
    // what was code is slow: 25 ms.
    Edit {
        file: "include/linux/poison.h",
        from: "#define POISON_FREE_INITMEM\t0xcc",
        to: "#define POISON_FREE_INITMEM\t(-1)",
    },
    // An interrupt or a fault in user mode leaves SS empty, a system call leaves it flat. Nothing cares, except QEMU's
    // translator: it keeps code that runs with the one apart from the same code with the other, and so translated 3,000
    // of a run's 51,000 blocks a second time. Loading SS costs a processor nothing that shows.
    Edit {
        file: "arch/x86/entry/entry_64.S",
        from: "\t/* Put us onto the real thread stack. */",
        to: "\tmovl $__KERNEL_DS, %ecx; movl %ecx, %ss",
    },
    // Whatever page a file's contents are read into has been cleared by the guest itself: what `init_on_alloc=1` does
    // for all memory, where only this is needed (see the qemu engine's arguments).
    Edit {
        file: "fs/fuse/file.c",
        from: "\tinode->i_data.a_ops = &fuse_file_aops;",
        to: "\tinode->i_data.a_ops = &fuse_file_aops; \
             mapping_set_gfp_mask(&inode->i_data, GFP_HIGHUSER_MOVABLE | __GFP_ZERO);",
    },
    // Whether the upper layer knows white-outs matters for a remote one alone (else it is only a line in the log), and
    // to find out takes creating, renaming and removing files: 350 blocks of code to translate.
    Edit {
        file: "fs/overlayfs/super.c",
        from: "\terr = ovl_check_rename_whiteout(ofs);",
        to: "\terr = ovl_dentry_remote(ofs->workdir) ? ovl_check_rename_whiteout(ofs) : 1;",
    },
    // Leaving the kernel and coming back needs what suspending needs, and nothing of writing memory to a disk.
    Edit {
        file: "kernel/Kconfig.kexec",
        from: "\tdepends on KEXEC && HIBERNATION",
        to: "\tdepends on KEXEC && PM_SLEEP",
    },
    // A clone has not slept since its template was made, so its clocks must not be told how long ago that was. KVM's
    // account of the time of day is the one clock that both could read; guest init sets the time that programs see.
    Edit {
        file: "arch/x86/kernel/kvmclock.c",
        from: "\tpvclock_read_wallclock(&wall_clock, this_cpu_pvti(), now);",
        to: "\t*now = (struct timespec64) {};",
    },
];
