// SPDX-License-Identifier: Apache-2.0
//! Linux calls behind safe functions.
//!
//! Not for policy: what is called when belongs to the callers. Where [`rustix`] has a safe call, it is used here or
//! by the caller directly; only what it lacks needs `unsafe`, and only here.

pub(crate) mod epoll;
pub(crate) mod eventfd;
