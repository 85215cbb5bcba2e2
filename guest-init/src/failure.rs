// SPDX-License-Identifier: Apache-2.0
//! A call that failed, and what init was doing when it did.
//!
//! The one error type of PID 1: there is no one to read prose, so a [`Step`] and an error number travel to the host,
//! which words them.

use crate::wire::Step;
use rustix::io::Errno;

/// What failed, as the host will hear of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failure {
    /// What init was doing.
    pub step: Step,
    /// The kernel's answer.
    pub errno: Errno,
}

impl Failure {
    /// A message that cannot be acted on.
    pub const PROTOCOL: Self = Self { step: Step::Protocol, errno: Errno::PROTO };
}

/// Names the step at which an error happened, for `map_err`.
pub fn at(step: Step) -> impl FnOnce(Errno) -> Failure {
    move |errno| Failure { step, errno }
}
