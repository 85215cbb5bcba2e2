// SPDX-License-Identifier: Apache-2.0
//! How long each wait of a run may take: every wait has a deadline, and each deadline its reason.
//!
//! Not for limits that a user sets: those are in the [`crate::Spec`].

use std::time::Duration;

/// How long a machine may take until its command has started. Under emulation on a crowded host a boot takes many
/// times its usual second.
pub(super) const BOOT_LIMIT: Duration = Duration::from_secs(120);

/// How often init is asked whether it is there, and how long it may take to answer while the command starves it.
pub(super) const PING_INTERVAL: Duration = Duration::from_secs(5);
pub(super) const PONG_LIMIT: Duration = Duration::from_secs(60);

/// How long a command may take to end after a signal that ends the run, unless its user says otherwise: as long as
/// `docker stop` gives it.
pub(super) const GRACE: Duration = Duration::from_secs(10);

/// How long we wait for a command to stop before we do. One that ignores the signal never will.
pub(super) const STOP_LIMIT: Duration = Duration::from_secs(1);

/// How often we look whether we have come to the foreground.
pub(super) const LOOK_INTERVAL: Duration = Duration::from_millis(200);

/// How long to wait for the machine's own end after its control connection or its file server has ended.
pub(super) const LOST_LIMIT: Duration = Duration::from_secs(2);

/// How long the rest of the output may stand still, through no fault of its reader, after the command has ended.
pub(super) const DRAIN_LIMIT: Duration = Duration::from_secs(20);

/// A time limit beyond this is none; it keeps sums of times within what a clock can tell.
pub(super) const LONGEST_LIMIT: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// How long after the time limit the rest of the output may come, but for the time its reader takes: a guest that has
/// forged its command's end does not get more.
pub(super) const LATE_LIMIT: Duration = Duration::from_secs(5);

/// How often a drain is looked at.
pub(super) const DRAIN_INTERVAL: Duration = Duration::from_secs(1);
