// SPDX-License-Identifier: Apache-2.0
//! The tiers in which the end-to-end cases run, the same cases with the same expectations (docs/testing.md).
//!
//! *Tier Q*: on the qemu engine, right on this host. *Tier N*: on the kvm engine, inside one machine whose processor is
//! emulated and has virtualization (`--nested`), where `/dev/kvm` is the real kvm_amd. The environment says which:
//! `SANDBOX_ENGINE` names the engine (the default is qemu), `SANDBOX_PATIENCE` by how much everything may take longer.

use std::env;
use std::path::PathBuf;
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

/// How much longer than on this host everything may take.
fn patience() -> u32 {
    let factor =
        env::var("SANDBOX_PATIENCE").ok().map(|text| text.parse().expect("SANDBOX_PATIENCE is a whole number"));
    factor.unwrap_or(1)
}

/// A limit for this tier: what is emulated as a whole takes some ten times as long. The one place that scales limits.
#[must_use]
pub fn patient(limit: Duration) -> Duration {
    limit * patience()
}

/// How much of something costly this tier takes, by the same number: the same case, of a size that takes as long.
#[must_use]
pub fn share(amount: u64) -> u64 {
    amount / u64::from(patience())
}

/// Whether this tier takes all of it.
#[must_use]
pub fn whole() -> bool {
    patience() == 1
}

/// How soon after what ended it a run is over: on KVM within 50 ms. Where QEMU has to be ended, or everything is
/// emulated, only that it is sooner than the two seconds for which a run waits for the rest of what it has lost.
#[must_use]
pub fn promptly() -> Duration {
    Duration::from_millis(if engine() == "kvm" && whole() { 50 } else { 1500 })
}

/// Where a volume is made whose every property counts. The temporary directory of a guest is an overlay over a share,
/// with the properties of neither an ext4 nor a tmpfs.
#[must_use]
pub fn volumes() -> PathBuf {
    if whole() { env::temp_dir() } else { PathBuf::from("/dev/shm") }
}

/// Whether the case of this number is for this process: with `SANDBOX_PART=1/2` half of the cases are, and with `2/2` the
/// others, so that two machines can share a tier.
#[must_use]
pub fn is_in_part(number: usize) -> bool {
    let Ok(text) = env::var("SANDBOX_PART") else { return true };
    let part =
        text.split_once('/').and_then(|(own, all)| Some((own.parse::<usize>().ok()?, all.parse::<usize>().ok()?)));
    let (own, all) = part.filter(|(_, all)| *all > 0).expect("SANDBOX_PART is two whole numbers");
    number % all + 1 == own
}

/// Cases that are for one engine's tier only, by the beginning of their names, and why not for the other. All others
/// run in both.
#[rustfmt::skip]
const LEFT_OUT: &[(&str, &str, &str)] = &[
    ("kvm", "completions::", "it runs make in the sources, which only a whole host has, and no machine"),
    ("kvm", "counts::", "it boots a host of its own"),
    ("kvm", "soak::sandbox_in_a_sandbox", "--nested is the qemu engine's"),
    ("kvm", "nested::", "--nested is the qemu engine's"),
    ("kvm", "probe::real_kvm_is_usable", "--nested is the qemu engine's"),
    ("kvm", "probe::each_obstacle_has_its_finding", "--nested is the qemu engine's"),
    ("kvm", "several::ten_cost", "inside an emulated machine times say little"),
    ("kvm", "runner::project::", "it compiles, which takes a guest's guest minutes"),
    ("kvm", "readme::examples_of_help_run", "its examples speak of places that only a whole host has"),
    ("kvm", "suite::examples_of_help_run", "its machines are like those of the other cases of suites"),
    ("kvm", "suite::the_example_of_the_documentation_runs", "its machines are like those of the other cases of suites"),
    ("kvm", "verdicts::what_is_for_a_machine", "its host is a machine of ours"),
    ("kvm", "verdicts::nextest_says_the_same", "it calls cargo, which needs a target directory that can be written"),
    ("qemu", "smp::two_cpus_share_the_work", "QEMU does not say which of its threads is whose"),
    ("qemu", "endings::reset_port", "QEMU's microvm has no keyboard controller"),
];

/// Why a case is not for this tier, if it is not.
#[must_use]
pub fn left_out(case: &str) -> Option<&'static str> {
    let own = engine();
    LEFT_OUT.iter().find(|(engine, begin, _)| *engine == own && case.starts_with(begin)).map(|(_, _, why)| *why)
}
