// SPDX-License-Identifier: Apache-2.0
//! The tables of docs/benchmarks.md that count: peers by instruction clock, and a cold run's counts beside their bars.

use std::collections::BTreeMap;
use std::env;
use std::path::Path;

use anyhow::Result;
use tests::clocked::{self, Request, bars};

/// Measures, and prints both tables.
pub(crate) fn print(place: &Path) -> Result<()> {
    let rounds = super::setting("BENCH_CLOCKED_ROUNDS", 3)?.try_into()?;
    let firecracker = env::var_os("FIRECRACKER").filter(|path| !path.is_empty()).map(Into::into);
    let values = clocked::measure(place, &Request { rounds, firecracker })?;
    peers(&values);
    println!("\n## A cold run on kvm\n\n| what | measured | recorded | bar |\n| --- | --- | --- | --- |");
    for bar in bars()? {
        let measured = bar.of(&values).map_or_else(|| "missing".to_owned(), |value| format!("{value:.1}"));
        println!("| {} | {measured} | {} | {} |", bar.name, bar.recorded, bar.bar);
    }
    println!("\n## Everything\n");
    for (name, samples) in &values {
        println!("{name}: {samples:.2?}");
    }
    Ok(())
}

/// Millions of instructions, median of the rounds.
fn peers(values: &BTreeMap<String, Vec<f64>>) {
    println!("## Peers by instruction clock, Mi\n\n| contender | to first output | to its end | of init |");
    println!("| --- | --- | --- | --- |");
    for name in values.keys().filter_map(|name| name.strip_suffix("/first")) {
        let cell = |what: &str| {
            let value = clocked::median(values, &format!("{name}/{what}"));
            value.map_or_else(String::new, |value| format!("{value:.1}"))
        };
        println!("| {name} | {} | {} | {} |", cell("first"), cell("end"), cell("init"));
    }
}
