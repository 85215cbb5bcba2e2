// SPDX-License-Identifier: Apache-2.0
//! What was measured last, and how good it is meant to be: the lines of recorded.txt.

use std::collections::BTreeMap;

use anyhow::{Context, Result};

/// One line.
#[derive(Debug)]
pub struct Bar {
    /// What is counted: one value, or the sum of several, as they are printed.
    pub name: String,
    /// What it was when it was recorded.
    pub recorded: f64,
    /// What it should be at most.
    pub bar: String,
    parts: Vec<String>,
}

impl Bar {
    /// Its value now: the sum of the medians of its parts.
    #[must_use]
    pub fn of(&self, values: &BTreeMap<String, Vec<f64>>) -> Option<f64> {
        self.parts.iter().map(|part| median(values, part)).sum()
    }
}

/// The middle one of a value's samples.
#[must_use]
pub fn median(values: &BTreeMap<String, Vec<f64>>, name: &str) -> Option<f64> {
    let mut sorted = values.get(name)?.clone();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied()
}

/// All lines: `name | recorded | bar | part + part …`.
///
/// # Errors
/// If a line has another form.
pub fn bars() -> Result<Vec<Bar>> {
    let lines = include_str!("recorded.txt").lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    lines.map(|line| bar(line).with_context(|| format!("recorded.txt: {line}"))).collect()
}

fn bar(line: &str) -> Result<Bar> {
    let mut cells = line.split('|').map(str::trim);
    let mut next = || cells.next().context("four cells");
    Ok(Bar {
        name: next()?.to_owned(),
        recorded: next()?.parse()?,
        bar: next()?.to_owned(),
        parts: next()?.split('+').map(|part| part.trim().to_owned()).collect(),
    })
}
