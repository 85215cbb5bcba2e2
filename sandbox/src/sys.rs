// SPDX-License-Identifier: Apache-2.0
//! System calls that neither std nor rustix offers safely, behind safe functions: all `unsafe` of the crate is below.
//!
//! Not for policy: what to call, when and with which flags is decided by the callers.

pub(crate) mod calls;
pub(crate) mod child;
pub(crate) mod epoll;
pub(crate) mod eventfd;
pub(crate) mod namespace;
pub(crate) mod pages;
pub(crate) mod signals;
pub(crate) mod tsc;

/// statvfs(3)'s answer in the form the virtiofsd crate has it.
pub(crate) type StatVfs = libc::statvfs64;
