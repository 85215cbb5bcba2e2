// SPDX-License-Identifier: Apache-2.0
//! End to end: every case boots a machine of its own and looks at what comes out of it; those of [`inside`] are in one.
//!
//! The list of modules is explicit. A case that cannot run here says why and is skipped; with `SANDBOX_STRICT=1` it
//! fails instead. Cases named `soak::` take longer than CI may and run with `SANDBOX_SOAK=1`. The same cases run on each
//! engine, in the tiers of [`tests::tier`].

mod admission;
mod arguments;
mod caller;
mod completions;
mod conformance;
mod counts;
mod disk;
mod endings;
mod faults;
mod files;
mod inside;
mod isolation;
mod jobs;
mod keep;
mod kill;
mod limits;
mod machines;
mod neighbours;
mod nested;
mod probe;
mod readme;
mod results;
mod runner;
mod several;
mod signals;
mod smp;
mod status;
mod stdio;
mod suite;
mod terminal;
mod verdicts;

use std::process::ExitCode;

use harness::{Case, Suite};
use tests::tier;

fn main() -> ExitCode {
    if tests::clocked::is_inside() {
        tests::clocked::inside();
    }
    // The engine's name stands before each case's, so that the two tiers' results are told apart.
    Suite::new().cases(cases()).kind(tier::engine()).left_out(left_out).part(tier::is_in_part).run()
}

fn cases() -> impl Iterator<Item = &'static Case> {
    [
        admission::CASES,
        arguments::CASES,
        caller::CASES,
        completions::CASES,
        conformance::CASES,
        counts::CASES,
        disk::CASES,
        endings::CASES,
        faults::CASES,
        files::CASES,
        isolation::CASES,
        jobs::CASES,
        keep::CASES,
        kill::CASES,
        limits::CASES,
        machines::CASES,
        neighbours::CASES,
        nested::CASES,
        probe::CASES,
        readme::CASES,
        results::CASES,
        runner::CASES,
        several::CASES,
        signals::CASES,
        smp::CASES,
        status::CASES,
        stdio::CASES,
        suite::CASES,
        terminal::CASES,
        verdicts::CASES,
    ]
    .into_iter()
    .flatten()
}

/// Why a case is not run unless asked for, if it is not: named in a table, with the reason, which is no skip.
fn left_out(case: &str) -> Option<&'static str> {
    let set = std::env::var_os("SANDBOX_SOAK").is_some_and(|value| value != "0");
    let soak = (case.starts_with("soak::") && !set).then_some("SANDBOX_SOAK=1 runs it");
    soak.or_else(|| tier::left_out(case))
}
