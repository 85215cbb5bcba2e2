// SPDX-License-Identifier: Apache-2.0
//! End to end: every case boots a machine of its own and looks at what comes out of it.
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
mod terminal;

use std::collections::HashSet;
use std::process::ExitCode;

use harness::Case;
use libtest_mimic::{Arguments, Failed, Trial};
use tests::tier;

fn main() -> ExitCode {
    if tests::clocked::is_inside() {
        tests::clocked::inside();
    }
    let arguments = Arguments::from_args();
    let cases = [
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
        terminal::CASES,
    ];
    let cases: Vec<&'static Case> = cases.into_iter().flatten().collect();
    let names: HashSet<&str> = cases.iter().map(|case| case.name).collect();
    assert_eq!(names.len(), cases.len(), "two cases share a name");
    let own =
        cases.into_iter().enumerate().filter(|(number, _)| tier::is_in_part(*number)).map(|(_, case)| trial(case));
    libtest_mimic::run(&arguments, own.collect()).exit_code()
}

/// The engine's name stands before each case's, so that the two tiers' results are told apart.
fn kind(why: Option<&str>) -> String {
    why.map_or_else(tier::engine, |why| format!("{}, left out: {why}", tier::engine()))
}

fn set(name: &str) -> bool {
    std::env::var_os(name).is_some_and(|value| value != "0")
}

fn trial(case: &'static Case) -> Trial {
    let strict = set("SANDBOX_STRICT");
    let obstacle = case.obstacle();
    let soak = (case.name.starts_with("soak::") && !set("SANDBOX_SOAK")).then_some("SANDBOX_SOAK=1 runs it");
    // Named in a table, with the reason: no skip.
    let left_out = soak.or_else(|| tier::left_out(case.name));
    let skipped = left_out.is_some() || (obstacle.is_some() && !strict);
    let why = left_out.or(obstacle.as_deref().filter(|_| skipped));
    let kind = kind(why);
    Trial::test(case.name, move || match obstacle {
        Some(reason) => Err(Failed::from(format!("cannot run here: {reason}"))),
        None => (case.body)().map_err(Failed::from),
    })
    .with_kind(kind)
    .with_ignored_flag(skipped)
}
