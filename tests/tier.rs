// SPDX-License-Identifier: Apache-2.0
//! The tiers in which the end-to-end cases run, the same cases with the same expectations (docs/testing.md).
//!
//! *Tier Q*: on the qemu engine, right on this host. *Tier N*: on the kvm engine, inside one machine whose processor is
//! emulated and has virtualization (`--nested`), where `/dev/kvm` is the real kvm_amd. The environment says which:
//! `SANDBOX_ENGINE` names the engine (the default is qemu), `SANDBOX_PATIENCE` by how much everything may take longer.

use std::env;
use std::time::Duration;

/// The engine of this tier, which every call of [`crate::Bench::run`] asks for.
#[must_use]
pub fn engine() -> String {
    env::var("SANDBOX_ENGINE").unwrap_or_else(|_| "qemu".to_owned())
}

/// What a report calls the isolation that this tier's engine gives.
#[must_use]
pub fn isolation() -> &'static str {
    if engine() == "kvm" { "hardware" } else { "emulated" }
}

/// A limit for this tier: what is emulated as a whole takes some ten times as long. The one place that scales.
#[must_use]
pub fn patient(limit: Duration) -> Duration {
    let factor =
        env::var("SANDBOX_PATIENCE").ok().map(|text| text.parse().expect("SANDBOX_PATIENCE is a whole number"));
    limit * factor.unwrap_or(1)
}

/// Cases that are not for the kvm engine's tier, by the beginning of their names, and why. All others run in both.
#[rustfmt::skip]
const NOT_ON_KVM: [(&str, &str); 5] = [
    ("counts::", "it boots a host of its own"),
    ("nested::", "--nested is the qemu engine's"),
    ("probe::real_kvm_is_usable", "--nested is the qemu engine's"),
    ("probe::each_obstacle_has_its_finding", "--nested is the qemu engine's"),
    ("templates::", "the kvm engine has none yet"),
];

/// Why a case is not for this tier, if it is not.
#[must_use]
pub fn left_out(case: &str) -> Option<&'static str> {
    let on_kvm = engine() == "kvm";
    NOT_ON_KVM.iter().find(|(begin, _)| on_kvm && case.starts_with(begin)).map(|(_, why)| *why)
}
