// SPDX-License-Identifier: Apache-2.0
//! System calls that neither std nor rustix offers safely, behind safe functions: all `unsafe` of the crate is below.
//!
//! Not for policy: what to call, when and with which flags is decided by the callers.

pub(crate) mod calls;
pub(crate) mod child;
mod descriptor;
pub(crate) mod epoll;
pub(crate) mod eventfd;
pub(crate) mod heap;
pub(crate) mod kick;
pub(crate) mod kvm;
pub(crate) mod locks;
pub(crate) mod namespace;
pub(crate) mod pages;
pub(crate) mod signals;
pub(crate) mod tsc;

/// A copy of one of the process's own descriptors, by its number.
pub(crate) fn descriptor(number: u32) -> std::io::Result<std::fs::File> {
    descriptor::duplicate(number)
}

/// statvfs(3)'s answer in the form the virtiofsd crate has it.
pub(crate) type StatVfs = libc::statvfs64;
