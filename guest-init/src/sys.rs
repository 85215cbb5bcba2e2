// SPDX-License-Identifier: Apache-2.0
//! System calls that rustix does not offer, made safe.
//!
//! Every unsafe block of PID 1 is here or with its allocator ([`heap`]). Not for calls rustix has, nor for sequences of
//! calls. Numbers and structures are those of x86-64 (`arch/x86/entry/syscalls/syscall_64.tbl`, `include/uapi/linux`).
#![expect(unsafe_code, reason = "raw system calls")]

pub mod heap;
mod poll;
mod strings;

pub use poll::{Watch, poll};
pub use strings::Strings;

use crate::wire::TERMIOS;
use core::{arch::asm, ffi::CStr, ptr};
use rustix::{
    fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
    io::{Errno, Result},
    process::Pid,
};

mod number {
    pub(super) const POLL: usize = 7;
    pub(super) const RT_SIGPROCMASK: usize = 14;
    pub(super) const IOCTL: usize = 16;
    pub(super) const CONNECT: usize = 42;
    pub(super) const SETSOCKOPT: usize = 54;
    pub(super) const EXECVE: usize = 59;
    pub(super) const CLOCK_GETTIME: usize = 228;
    pub(super) const EXIT_GROUP: usize = 231;
    pub(super) const KEXEC_LOAD: usize = 246;
    pub(super) const UNSHARE: usize = 272;
    pub(super) const PRLIMIT64: usize = 302;
    pub(super) const PIDFD_SEND_SIGNAL: usize = 424;
    pub(super) const CLONE3: usize = 435;
    pub(super) const CLOSE_RANGE: usize = 436;
}

/// # Safety
/// As the call itself: its arguments must be what the kernel will take them for.
unsafe fn call<const N: usize>(number: usize, arguments: [usize; N]) -> Result<usize> {
    let mut a = [0; 6];
    a[..N].copy_from_slice(&arguments);
    let value: isize;
    // SAFETY: the registers are those of the kernel's calling convention; the caller answers for their content.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number => value,
            in("rdi") a[0], in("rsi") a[1], in("rdx") a[2], in("r10") a[3], in("r8") a[4], in("r9") a[5],
            lateout("rcx") _, lateout("r11") _,
            options(nostack),
        );
    }
    match value {
        -4095..=-1 => Err(Errno::from_raw_os_error(-value as i32)),
        _ => Ok(value as usize),
    }
}

/// Calls that write to no memory of this process, each with what the kernel reads.
enum Quiet<'a> {
    Exit {
        status: i32,
    },
    /// Into a cgroup namespace, which changes nothing about memory or descriptors.
    UnshareCgroup,
    SetBlockedSignals(&'a u64),
    /// As kill(2) does.
    SendSignal {
        process: BorrowedFd<'a>,
        signal: i32,
        flags: usize,
    },
    /// Of this process: a struct rlimit64.
    SetLimit {
        resource: u32,
        limit: &'a [u64; 2],
    },
    CloseRange {
        first: u32,
        flags: usize,
    },
    /// To a struct sockaddr_vm.
    Connect {
        socket: BorrowedFd<'a>,
        address: &'a [u32; 4],
    },
    /// A struct timeval.
    SetVsockPatience {
        socket: BorrowedFd<'a>,
        time: &'a [u64; 2],
    },
    /// A struct rand_pool_info with 32 bytes behind it.
    AddEntropy {
        random: BorrowedFd<'a>,
        pool: &'a [u8; 40],
    },
    Reseed {
        random: BorrowedFd<'a>,
    },
    /// A struct ifreq.
    SetInterfaceFlags {
        socket: BorrowedFd<'a>,
        request: &'a [u8; 40],
    },
    /// A struct termios.
    SetModes {
        terminal: BorrowedFd<'a>,
        modes: &'a [u8; TERMIOS],
    },
    UnloadPage,
    /// In a struct kexec_segment; the kernel copies the bytes now.
    LoadPage {
        bytes: &'a [u8],
        address: u64,
        size: u64,
    },
}

impl Quiet<'_> {
    #[rustfmt::skip]
    fn make(self) -> Result<()> {
        const NEWCGROUP: usize = 0x0200_0000;
        const SIG_SETMASK: usize = 2;
        const AF_VSOCK: usize = 40;
        const CONNECT_TIMEOUT: usize = 8;
        const RNDADDENTROPY: usize = 0x4008_5203;
        const RNDRESEEDCRNG: usize = 0x5207;
        const SIOCSIFFLAGS: usize = 0x8914;
        const TCSETS: usize = 0x5402;
        const PRESERVE_CONTEXT: usize = 2;
        const X86_64: usize = 62 << 16;
        use number::*;
        let segment: [usize; 4];
        let (number, arguments) = match self {
            Self::Exit { status } => (EXIT_GROUP, [status as usize, 0, 0, 0, 0]),
            Self::UnshareCgroup => (UNSHARE, [NEWCGROUP, 0, 0, 0, 0]),
            Self::SetBlockedSignals(set) => (RT_SIGPROCMASK, [SIG_SETMASK, place(set), 0, size_of_val(set), 0]),
            Self::SendSignal { process, signal, flags } =>
                (PIDFD_SEND_SIGNAL, [raw(process), signal as usize, 0, flags, 0]),
            Self::SetLimit { resource, limit } => (PRLIMIT64, [0, resource as usize, place(limit), 0, 0]),
            Self::CloseRange { first, flags } => (CLOSE_RANGE, [first as usize, u32::MAX as usize, flags, 0, 0]),
            Self::Connect { socket, address } => (CONNECT, [raw(socket), place(address), size_of_val(address), 0, 0]),
            Self::SetVsockPatience { socket, time } =>
                (SETSOCKOPT, [raw(socket), AF_VSOCK, CONNECT_TIMEOUT, place(time), size_of_val(time)]),
            Self::AddEntropy { random, pool } => (IOCTL, [raw(random), RNDADDENTROPY, place(pool), 0, 0]),
            Self::Reseed { random } => (IOCTL, [raw(random), RNDRESEEDCRNG, 0, 0, 0]),
            Self::SetInterfaceFlags { socket, request } => (IOCTL, [raw(socket), SIOCSIFFLAGS, place(request), 0, 0]),
            Self::SetModes { terminal, modes } => (IOCTL, [raw(terminal), TCSETS, place(modes), 0, 0]),
            Self::UnloadPage => (KEXEC_LOAD, [0, 0, 0, X86_64, 0]),
            Self::LoadPage { bytes, address, size } => {
                segment = [bytes.as_ptr() as usize, bytes.len(), address as usize, size as usize];
                (KEXEC_LOAD, [address as usize, 1, place(&segment), PRESERVE_CONTEXT | X86_64, 0])
            }
        };
        // SAFETY: the kernel writes to none of these arguments and reads no more than a structure that is borrowed here
        // and has the size that goes with the call. Who owns descriptors of a range is for `close_from` to say.
        unsafe { call(number, arguments) }.map(drop)
    }
}

/// Where a structure is.
fn place<T>(structure: &T) -> usize {
    ptr::from_ref(structure) as usize
}

fn raw(fd: BorrowedFd<'_>) -> usize {
    fd.as_raw_fd() as usize
}

/// Replaces the program; returns only if that failed (execve(2)).
pub fn execve(path: &CStr, arguments: &Strings<'_>, environment: &Strings<'_>) -> Errno {
    let lists = [path.as_ptr() as usize, arguments.pointers.as_ptr() as usize, environment.pointers.as_ptr() as usize];
    // SAFETY: the path and, by construction of `Strings`, every string end in NUL and every list in a null pointer.
    match unsafe { call(number::EXECVE, lists) } {
        Err(errno) => errno,
        Ok(_) => Errno::INVAL,
    }
}

/// Which of the two processes returned from [`clone`].
#[derive(Debug)]
pub enum Clone {
    /// The new one.
    Child,
    /// The old one, which has this child now.
    Parent {
        /// Its number in the namespace of the caller.
        pid: Pid,
        /// Its descriptor, closed on exec.
        pidfd: OwnedFd,
    },
}

/// `CLONE_NEWNS | CLONE_NEWPID`.
pub const NEW_MOUNT_AND_PID: u64 = 0x0002_0000 | 0x2000_0000;

/// Makes a process with a copy of all memory, in the cgroup if one is given (clone3(2)). Every process of this program
/// has one thread, so nothing can be copied half-way through a change.
pub fn clone(namespaces: u64, cgroup: Option<BorrowedFd<'_>>) -> Result<Clone> {
    const PIDFD: u64 = 0x1000;
    const INTO_CGROUP: u64 = 0x2_0000_0000;
    const SIGCHLD: u64 = 17;
    let mut pidfd: RawFd = -1;
    let flags = namespaces | PIDFD | if cgroup.is_some() { INTO_CGROUP } else { 0 };
    // struct clone_args: flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid,
    // set_tid_size, cgroup.
    let group = cgroup.map_or(0, |fd| fd.as_raw_fd() as u64);
    let arguments: [u64; 11] = [flags, &raw mut pidfd as u64, 0, 0, SIGCHLD, 0, 0, 0, 0, 0, group];
    // SAFETY: the structure has the size given; without CLONE_VM the child runs on a copy of this stack.
    let child = unsafe { call(number::CLONE3, [arguments.as_ptr() as usize, size_of_val(&arguments)]) }?;
    match Pid::from_raw(child as i32) {
        None => Ok(Clone::Child),
        // SAFETY: the kernel has just made this descriptor, for us alone.
        Some(pid) => Ok(Clone::Parent { pid, pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) } }),
    }
}

/// Ends this process (exit_group(2)).
pub fn exit(status: i32) -> ! {
    loop {
        // Does not return.
        _ = Quiet::Exit { status }.make();
    }
}

/// Gives this process a cgroup namespace whose root is its cgroup (unshare(2)).
pub fn unshare_cgroup() -> Result<()> {
    Quiet::UnshareCgroup.make()
}

/// Holds every signal back (rt_sigprocmask(2)).
pub fn block_signals() -> Result<()> {
    Quiet::SetBlockedSignals(&u64::MAX).make()
}

/// Lets every signal through (rt_sigprocmask(2)).
pub fn unblock_signals() -> Result<()> {
    Quiet::SetBlockedSignals(&0).make()
}

/// Sends a signal of any number to the process, or to the `group` that it leads (pidfd_send_signal(2)).
pub fn send_signal(pidfd: impl AsFd, signal: i32, group: bool) -> Result<()> {
    const PROCESS_GROUP: usize = 4;
    Quiet::SendSignal { process: pidfd.as_fd(), signal, flags: if group { PROCESS_GROUP } else { 0 } }.make()
}

/// Sets a resource limit of this process (prlimit(2)).
pub fn set_limit(resource: u32, soft: u64, hard: u64) -> Result<()> {
    Quiet::SetLimit { resource, limit: &[soft, hard] }.make()
}

/// Descriptors that this program borrows by their number.
#[derive(Debug, Clone, Copy)]
pub enum Standard {
    /// Where the namespace's first process, which has put it there, reports.
    Input = 0,
    /// The console, if there is one.
    Error = 2,
}

/// A standard descriptor, whatever it is.
pub fn standard(which: Standard) -> BorrowedFd<'static> {
    // SAFETY: nothing in this program owns one of them, so none is closed behind an owner's back, nor is a file that
    // somebody owns found there. If nothing is open there, writing fails.
    unsafe { BorrowedFd::borrow_raw(which as RawFd) }
}

/// Ends this process by a fault, which the kernel lets kill even PID 1, and then panics; the host sees that.
pub fn abort() -> ! {
    // SAFETY: does nothing but fault.
    unsafe { asm!("ud2", options(noreturn, nomem, nostack)) }
}

/// What becomes of the descriptors of [`close_from`].
#[derive(Debug, Clone, Copy)]
pub enum Closing {
    /// They are closed.
    Now,
    /// They are closed when the program is replaced.
    OnExec,
}

/// Closes every descriptor from `first` on (close_range(2)). Whoever owns one of them must never use it again: both
/// callers are processes that end, or become another program, without returning to their owners.
pub fn close_from(first: u32, when: Closing) -> Result<()> {
    let flags = match when {
        Closing::Now => 0,
        Closing::OnExec => 4,
    };
    Quiet::CloseRange { first, flags }.make()
}

/// Milliseconds of `CLOCK_MONOTONIC` (clock_gettime(2)).
pub fn monotonic_ms() -> u64 {
    const MONOTONIC: usize = 1;
    let mut time = [0u64; 2];
    // SAFETY: the kernel writes a struct timespec, two 64-bit words.
    match unsafe { call(number::CLOCK_GETTIME, [MONOTONIC, time.as_mut_ptr() as usize]) } {
        Ok(_) => time[0] * 1000 + time[1] / 1_000_000,
        Err(_) => 0,
    }
}

/// Connects a vsock socket (vsock(7)).
pub fn connect_vsock(socket: impl AsFd, cid: u32, port: u32) -> Result<()> {
    const AF_VSOCK: u32 = 40;
    // struct sockaddr_vm: family and reserved, port, cid, flags and zeroes.
    Quiet::Connect { socket: socket.as_fd(), address: &[AF_VSOCK, port, cid, 0] }.make()
}

/// Sets how long connecting a vsock socket may take (`SO_VM_SOCKETS_CONNECT_TIMEOUT`).
pub fn set_vsock_patience(socket: impl AsFd, seconds: u64) -> Result<()> {
    Quiet::SetVsockPatience { socket: socket.as_fd(), time: &[seconds, 0] }.make()
}

/// Gives the kernel's generator bytes and credits all of their bits (`RNDADDENTROPY`, random(4)).
pub fn add_entropy(random: impl AsFd, bytes: &[u8; 32]) -> Result<()> {
    // struct rand_pool_info: bits to credit, length of the bytes, the bytes.
    let mut pool = [0u8; 40];
    pool[..4].copy_from_slice(&256u32.to_ne_bytes());
    pool[4..8].copy_from_slice(&32u32.to_ne_bytes());
    pool[8..].copy_from_slice(bytes);
    Quiet::AddEntropy { random: random.as_fd(), pool: &pool }.make()
}

/// Makes the kernel's generator take what it was given into use at once (`RNDRESEEDCRNG`, random(4)).
pub fn reseed(random: impl AsFd) -> Result<()> {
    Quiet::Reseed { random: random.as_fd() }.make()
}

/// Brings the loopback interface up, through any Internet socket (netdevice(7)).
pub fn raise_loopback(socket: impl AsFd) -> Result<()> {
    const IFF_UP: u8 = 1;
    // struct ifreq: a name of 16 bytes, then here the flags as a 16-bit word.
    let mut request = [0u8; 40];
    request[..2].copy_from_slice(b"lo");
    request[16] = IFF_UP;
    Quiet::SetInterfaceFlags { socket: socket.as_fd(), request: &request }.make()
}

/// Sets what a terminal does with what is typed and printed (ioctl_tty(2)).
pub fn set_modes(terminal: impl AsFd, termios: &[u8; TERMIOS]) -> Result<()> {
    Quiet::SetModes { terminal: terminal.as_fd(), modes: termios }.make()
}

/// Has the kernel keep bytes that `reboot(RebootCommand::Kexec)` enters at their first, at this physical address, to come
/// back from there with all it has (kexec_load(2)).
pub fn load_page(bytes: &[u8], address: u64, size: u64) -> Result<()> {
    Quiet::LoadPage { bytes, address, size }.make()
}

/// Has the kernel forget them.
pub fn unload_page() -> Result<()> {
    Quiet::UnloadPage.make()
}
