// SPDX-License-Identifier: Apache-2.0
//! What no option offers: single lines of the kernel's source that are replaced in the tree we unpacked ourselves.
//!
//! A last resort, and for speed only: a kernel without these edits works, so a tree the user names is left alone.
//! Options that only the edits make possible are in `edited.config`.

use super::{Error, failed};
use std::fs;
use std::path::Path;

struct Edit {
    file: &'static str,
    from: &'static str,
    to: &'static str,
}

const EDITS: [Edit; 7] = [
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

/// All edits as text, for the digest.
pub(super) fn text() -> String {
    EDITS.iter().map(|edit| format!("{}\n{}\n{}\n", edit.file, edit.from, edit.to)).collect()
}

/// Makes them. A source in which a line is not found exactly once is refused.
pub(super) fn apply(tree: &Path) -> Result<(), Error> {
    for edit in &EDITS {
        let path = tree.join(edit.file);
        let text = fs::read_to_string(&path).map_err(failed("read", &path))?;
        if text.lines().filter(|line| *line == edit.from).count() != 1 {
            return Err(Error::Edit { file: path, line: edit.from });
        }
        fs::write(&path, text.replace(edit.from, edit.to)).map_err(failed("write", &path))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::TempDir;

    fn tree(prefix: &str) -> TempDir {
        let tree = TempDir::new().unwrap();
        for edit in &EDITS {
            let path = tree.path().join(edit.file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, format!("before\n{prefix}{}\nafter\n", edit.from)).unwrap();
        }
        tree
    }

    #[test]
    fn lines_are_replaced() {
        let tree = tree("");

        apply(tree.path()).unwrap();

        for edit in &EDITS {
            let text = fs::read_to_string(tree.path().join(edit.file)).unwrap();
            assert_eq!(text, format!("before\n{}\nafter\n", edit.to));
        }
    }

    #[test]
    fn source_without_the_line_is_refused() {
        assert!(matches!(apply(tree("static ").path()), Err(Error::Edit { .. })));
    }
}
