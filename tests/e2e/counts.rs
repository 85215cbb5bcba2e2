// SPDX-License-Identifier: Apache-2.0
//! What a cold run on KVM costs, in counts that do not depend on the machine's mood: each within 5 % of what was recorded
//! (tests/clocked/recorded.txt), measured in a host of its own.

use std::fmt::Write as _;

use harness::{Case, Need};
use tests::clocked::{self, Request, bars};

pub(crate) const CASES: &[Case] = &[Case {
    name: "counts::a_cold_run_costs_no_more_than_recorded",
    needs: &[Need::Program("strace"), Need::Program("gcc"), Need::Program("qemu-system-x86_64")],
    body: no_more_than_recorded,
}];

/// What a change that nobody thinks of may add.
const MARGIN: f64 = 1.05;

fn no_more_than_recorded() -> Result<(), String> {
    let place = tempfile::tempdir().map_err(|error| error.to_string())?;
    let request = Request { rounds: 3, firecracker: None };
    let values = clocked::measure(place.path(), &request).map_err(|error| format!("{error:?}"))?;
    let mut breaches = String::new();
    for bar in bars().map_err(|error| format!("{error:?}"))? {
        let breach = match bar.of(&values) {
            None => "was not measured".to_owned(),
            Some(value) if value > bar.recorded * MARGIN => format!("is {value:.1}, recorded {}", bar.recorded),
            Some(_) => continue,
        };
        writeln!(breaches, "{} {breach}", bar.name).map_err(|error| error.to_string())?;
    }
    if breaches.is_empty() { Ok(()) } else { Err(breaches) }
}
