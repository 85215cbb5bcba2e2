// SPDX-License-Identifier: Apache-2.0
//! Numbers of the system calls that filters name (seccomp(2)). Tables only: what is allowed, not to whom.

#![cfg_attr(test, expect(unsafe_code, reason = "a filter can only be tested by calls it may refuse"))]

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

/// prlimit(2), whose first argument says whose limits; 0 is the caller.
pub(crate) const PRLIMIT: c_long = libc::SYS_prlimit64;

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

/// What a program that is not ours is refused: it was given every connection it needs, and everything here reaches
/// beyond itself.
#[rustfmt::skip]
pub(crate) const NOT_FOR_OTHERS: &[c_long] = &[
    // connections of its own
    libc::SYS_socket, libc::SYS_connect, libc::SYS_bind, libc::SYS_listen, libc::SYS_accept, libc::SYS_accept4,
    // other processes
    libc::SYS_fork, libc::SYS_vfork, libc::SYS_kill, libc::SYS_tkill, libc::SYS_ptrace, libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev, libc::SYS_process_madvise, libc::SYS_pidfd_open, libc::SYS_pidfd_getfd,
    libc::SYS_pidfd_send_signal, libc::SYS_kcmp, libc::SYS_setpriority,
    // other namespaces and mounts
    libc::SYS_unshare, libc::SYS_setns, libc::SYS_mount, libc::SYS_umount2, libc::SYS_pivot_root, libc::SYS_chroot,
    libc::SYS_fsopen, libc::SYS_fsmount, libc::SYS_move_mount, libc::SYS_open_tree, libc::SYS_mount_setattr,
    // wide doors into the kernel
    libc::SYS_bpf, libc::SYS_perf_event_open, libc::SYS_userfaultfd, libc::SYS_io_uring_setup, libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register, libc::SYS_add_key, libc::SYS_request_key, libc::SYS_keyctl, libc::SYS_init_module,
    libc::SYS_finit_module, libc::SYS_delete_module, libc::SYS_kexec_load, libc::SYS_kexec_file_load,
    libc::SYS_name_to_handle_at, libc::SYS_open_by_handle_at, libc::SYS_fanotify_init, libc::SYS_quotactl,
    libc::SYS_swapon, libc::SYS_swapoff, libc::SYS_reboot, libc::SYS_acct, libc::SYS_settimeofday,
    libc::SYS_clock_settime, libc::SYS_clock_adjtime, libc::SYS_adjtimex, libc::SYS_sethostname, libc::SYS_iopl,
    libc::SYS_ioperm, libc::SYS_modify_ldt, libc::SYS_syslog,
];

/// mmap(2) and mprotect(2), whose third argument says what the pages are for.
pub(crate) const MAP: [c_long; 2] = [libc::SYS_mmap, libc::SYS_mprotect];

/// `PROT_EXEC`, in the third argument of both.
pub(crate) const EXECUTABLE: u64 = libc::PROT_EXEC as u64;

/// tgkill(2), whose first argument is the process that the signal goes to.
pub(crate) const SIGNAL: c_long = libc::SYS_tgkill;

/// ioctl(2), whose second argument says what is asked.
pub(crate) const IOCTL: c_long = libc::SYS_ioctl;

/// `KVM_RUN`, the second argument of [`IOCTL`].
pub(crate) const RUN: u64 = 0xae80;

/// What else a virtual CPU's thread asks KVM, when it has ended: `KVM_GET_REGS` and `KVM_GET_SREGS`.
pub(crate) const REGISTERS: [u64; 2] = [0x8090_ae81, 0x8138_ae83];

/// What every thread of the monitor needs, to the end of a panic: memory, locks, signals, its own end.
#[rustfmt::skip]
pub(crate) const MONITOR: &[c_long] = &[
    libc::SYS_brk, libc::SYS_munmap, libc::SYS_mremap, libc::SYS_madvise, libc::SYS_futex, libc::SYS_write,
    libc::SYS_close, libc::SYS_clock_gettime, libc::SYS_sigaltstack, libc::SYS_rt_sigprocmask, libc::SYS_rt_sigreturn,
    libc::SYS_restart_syscall, libc::SYS_gettid, libc::SYS_getpid, libc::SYS_exit, libc::SYS_exit_group,
];

/// What a virtual CPU's thread does besides: the console, and the devices of other processes.
pub(crate) const VIRTUAL_CPU: &[c_long] = &[libc::SYS_sendto, libc::SYS_sendmsg, libc::SYS_recvfrom, libc::SYS_ppoll];

/// What a device's thread does besides: its streams, further ones that it is sent, entropy, and the disk.
#[rustfmt::skip]
pub(crate) const DEVICE: &[c_long] = &[
    libc::SYS_epoll_pwait, libc::SYS_epoll_ctl, libc::SYS_ppoll, libc::SYS_read, libc::SYS_recvfrom, libc::SYS_sendto,
    libc::SYS_shutdown, libc::SYS_getrandom, libc::SYS_recvmsg, libc::SYS_pread64, libc::SYS_pwrite64,
];

/// What the first thread does besides: the console's last line, which may have no end, and the last word.
pub(crate) const LAST_WORD: &[c_long] = &[libc::SYS_sendto, libc::SYS_sendmsg];

/// Makes a system call by its number, with these arguments. For tests of filters.
#[cfg(test)]
pub(crate) fn call(number: c_long, arguments: [u64; 3]) -> c_long {
    let [first, second, third] = arguments;
    // SAFETY: it is not known what the call does. It is made in a process that exists for this call alone and ends at
    // once, whatever became of its memory.
    unsafe { libc::syscall(number, first, second, third, 0, 0, 0) }
}
