// SPDX-License-Identifier: Apache-2.0
//! What `images list` and `images gc` print. Pure text.

use images::{Entry, Gc, Kind, Origin};
use serde_json::json;
use std::fmt::Write as _;

const TITLES: [&str; 6] = ["KIND", "FLAVOUR", "DIGEST", "SIZE", "CREATED", "CURRENT"];

/// A table for people.
pub(crate) fn text(entries: &[Entry]) -> String {
    let mut rows = vec![TITLES.map(str::to_owned)];
    rows.extend(entries.iter().map(row));
    let mut widths = [0; TITLES.len()];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.len().max(*width);
        }
    }
    let lines = rows.iter().map(|row| {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        format!("{}\n", cells.collect::<Vec<_>>().join("  ").trim_end())
    });
    lines.collect()
}

fn row(entry: &Entry) -> [String; TITLES.len()] {
    let (kind, digest) = entry.name.split_once('-').unwrap_or((&entry.name, ""));
    let current = if entry.current { "yes" } else { "" };
    let [flavour, size, created] = match &entry.image {
        Ok(image) => {
            let manifest = image.manifest();
            [flavour(image.kind()), mebibytes(manifest.size), date(manifest.created)]
        }
        Err(_) => ["damaged", "", ""].map(str::to_owned),
    };
    [kind.to_owned(), flavour, digest.to_owned(), size, created, current.to_owned()]
}

fn flavour(kind: Kind) -> String {
    match kind {
        Kind::Kernel(flavour) => flavour.to_string(),
        Kind::Initramfs | Kind::Template => String::new(),
    }
}

/// The same for programs, with all a manifest holds.
pub(crate) fn json(entries: &[Entry]) -> serde_json::Result<String> {
    let values = entries.iter().map(|entry| match &entry.image {
        Ok(image) => {
            let made_from = match &image.manifest().origin {
                Origin::Kernel { flavour, version, source, compiler, .. } => {
                    json!({ "flavour": flavour, "version": version, "source": source, "compiler": compiler })
                }
                Origin::Initramfs { protocol, .. } => json!({ "protocol": protocol }),
                Origin::Template { boot_sha256 } => json!({ "boot_sha256": boot_sha256 }),
            };
            json!({
                "name": entry.name, "current": entry.current, "path": image.path(), "made_from": made_from,
                "kind": entry.name.split('-').next(), "sha256": image.manifest().sha256,
                "size": image.manifest().size, "created": image.manifest().created,
            })
        }
        Err(error) => json!({ "name": entry.name, "current": entry.current, "error": error.to_string() }),
    });
    let mut text = serde_json::to_string_pretty(&values.collect::<Vec<_>>())?;
    text.push('\n');
    Ok(text)
}

/// What was removed, and how much that was.
pub(crate) fn removed(gc: &Gc, dry_run: bool) -> String {
    let verb = if dry_run { "would remove" } else { "removed" };
    let mut text = String::new();
    for (path, bytes) in &gc.removed {
        // writing to a string cannot fail
        let _ = writeln!(text, "{verb} {} ({})", path.display(), mebibytes(*bytes));
    }
    let _ = writeln!(text, "{verb} {} bytes in all", gc.bytes());
    text
}

fn mebibytes(bytes: u64) -> String {
    let tenths = bytes.saturating_mul(10).div_ceil(1 << 20);
    format!("{}.{} MiB", tenths / 10, tenths % 10)
}

/// Day and time in UTC, from seconds since 1970.
fn date(seconds: u64) -> String {
    let (days, time) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    format!("{year}-{month:02}-{day:02} {:02}:{:02}", time / 3600, time / 60 % 60)
}

/// Year, month and day of a day counted from 1970-01-01 (Howard Hinnant, "chrono-compatible low-level date
/// algorithms"). Years begin in March there, so that leap days come last.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        assert_eq!(date(0), "1970-01-01 00:00");
        assert_eq!(date(951_782_399), "2000-02-28 23:59");
        assert_eq!(date(951_782_400), "2000-02-29 00:00");
        assert_eq!(date(1_764_000_000), "2025-11-24 16:00");
    }

    #[test]
    fn sizes_are_rounded_up() {
        assert_eq!(mebibytes(0), "0.0 MiB");
        assert_eq!(mebibytes(1), "0.1 MiB");
        assert_eq!(mebibytes(16 << 20), "16.0 MiB");
    }

    #[test]
    fn empty_list_has_titles_only() {
        assert_eq!(text(&[]), "KIND  FLAVOUR  DIGEST  SIZE  CREATED  CURRENT\n");
    }
}
