// SPDX-License-Identifier: Apache-2.0
//! What a run of pjdfstest found, against what docs/conformance.md says.

use std::collections::BTreeMap;

const DOCUMENT: &str = include_str!("../../../docs/conformance.md");

/// Cases by name, with a verdict: `ok`, `FAILED` or `skipped`.
type Verdicts<'a> = BTreeMap<&'a str, &'a str>;

/// Compares what pjdfstest printed with the document's two tables: the row of scores of this name, and the column of
/// this name in the table of cases.
pub(super) fn check(printed: &str, place: &str) -> Result<(), String> {
    let found = verdicts(printed);
    let count = |verdict| found.values().filter(|found| **found == verdict).count();
    let score = format!("| {place} | {} | {} | {} |", count("ok"), count("FAILED"), count("skipped"));
    let mut wrong = Vec::new();
    if !DOCUMENT.lines().any(|line| line == score) {
        wrong.push(format!("the score is {score}"));
    }
    let mut told = told(place);
    for (name, verdict) in &found {
        let expected = told.remove(name).unwrap_or("ok");
        if *verdict != expected {
            wrong.push(format!("{name} is {verdict}, not {expected}: {}", detail(printed, name)));
        }
    }
    wrong.extend(told.keys().map(|name| format!("{name} is no case")));
    if wrong.is_empty() { Ok(()) } else { Err(format!("not as docs/conformance.md says:\n{}", wrong.join("\n"))) }
}

/// Of a case that was printed twice the last verdict counts.
fn verdicts(printed: &str) -> Verdicts<'_> {
    let verdict = |line| {
        let (name, verdict) = str::split_once(line, ' ')?;
        let verdict = verdict.trim_start();
        ["ok", "FAILED", "skipped"].contains(&verdict).then_some((name, verdict))
    };
    printed.lines().filter_map(verdict).collect()
}

/// What was printed below a case's last line.
fn detail<'a>(printed: &'a str, name: &str) -> &'a str {
    let own = format!("{name} ");
    let mut lines = printed.rsplit(&own).next().unwrap_or_default().lines().skip(1);
    lines.next().filter(|line| line.starts_with('\t')).unwrap_or_default().trim_start()
}

/// What the document's table of cases says of a place.
fn told(place: &str) -> Verdicts<'static> {
    let cells = |line: &'static str| line.split('|').map(str::trim).collect::<Vec<_>>();
    let table = DOCUMENT.lines().skip_while(|line| !line.starts_with("| case |"));
    let mut rows = table.take_while(|line| line.starts_with('|')).map(cells);
    let column = rows.next().and_then(|titles| titles.iter().position(|title| *title == place));
    let column = column.expect("the document has a table of cases with a column of this name");
    // The second row is a ruler.
    rows.skip(1).map(|row| (row[1].trim_matches('`'), row[column])).collect()
}
