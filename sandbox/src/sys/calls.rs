// SPDX-License-Identifier: Apache-2.0
//! Numbers of the system calls that filters name (seccomp(2)). Tables only: what is allowed, not to whom.

use libc::c_long;

/// clone(2), whose first argument says what the child shares; to be allowed for threads only.
pub(crate) const CLONE: c_long = libc::SYS_clone;

/// Its successor, whose arguments a filter cannot see. The C library falls back to [`CLONE`] where it is missing.
pub(crate) const CLONE3: c_long = libc::SYS_clone3;

/// `CLONE_THREAD`, in the first argument of [`CLONE`].
pub(crate) const THREAD: u64 = libc::CLONE_THREAD as u64;

/// prctl(2), of which only naming a thread is harmless.
pub(crate) const PRCTL: c_long = libc::SYS_prctl;

/// `PR_SET_NAME`, the first argument of [`PRCTL`].
pub(crate) const SET_NAME: u64 = libc::PR_SET_NAME as u64;

/// What serving files takes: after virtiofsd 1.14's own list (`src/seccomp.rs`), without what it needs for file
/// handles, logging and its start. `openat2` is the way to every name, `openat` to `/proc/self/fd`.
#[rustfmt::skip]
pub(crate) const SERVE_FILES: &[c_long] = &[
    // files
    libc::SYS_openat, libc::SYS_openat2, libc::SYS_close, libc::SYS_dup, libc::SYS_fcntl, libc::SYS_lseek,
    libc::SYS_preadv, libc::SYS_preadv2, libc::SYS_pread64, libc::SYS_read, libc::SYS_readv,
    libc::SYS_pwritev, libc::SYS_pwritev2, libc::SYS_pwrite64, libc::SYS_write, libc::SYS_writev,
    libc::SYS_copy_file_range, libc::SYS_fallocate, libc::SYS_ftruncate, libc::SYS_fsync, libc::SYS_fdatasync,
    // names and attributes
    libc::SYS_statx, libc::SYS_newfstatat, libc::SYS_fstat, libc::SYS_fstatfs, libc::SYS_getdents64, libc::SYS_readlinkat,
    libc::SYS_mkdirat, libc::SYS_mknodat, libc::SYS_linkat, libc::SYS_symlinkat, libc::SYS_unlinkat, libc::SYS_renameat2,
    libc::SYS_fchmod, libc::SYS_fchmodat, libc::SYS_fchownat, libc::SYS_utimensat, libc::SYS_fchdir,
    // acting as the guest's user
    libc::SYS_setresuid, libc::SYS_setresgid, libc::SYS_setgroups, libc::SYS_capget, libc::SYS_capset, libc::SYS_geteuid,
    libc::SYS_getegid,
    // vhost-user and rings
    libc::SYS_accept4, libc::SYS_recvmsg, libc::SYS_sendmsg, libc::SYS_epoll_create1, libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait, libc::SYS_epoll_wait, libc::SYS_eventfd2, libc::SYS_poll, libc::SYS_ppoll,
    // memory and threads
    libc::SYS_brk, libc::SYS_mmap, libc::SYS_munmap, libc::SYS_mremap, libc::SYS_mprotect, libc::SYS_madvise,
    libc::SYS_futex, libc::SYS_rseq, libc::SYS_set_robust_list, libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity, libc::SYS_sigaltstack, libc::SYS_rt_sigaction, libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn, libc::SYS_restart_syscall, libc::SYS_membarrier, libc::SYS_gettid,
    libc::SYS_getpid, libc::SYS_tgkill, libc::SYS_exit, libc::SYS_exit_group, libc::SYS_clock_gettime,
    libc::SYS_getrandom,
];
