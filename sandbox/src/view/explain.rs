// SPDX-License-Identifier: Apache-2.0
//! A view for people (`--explain`): each path, what is there and why, and what is not there.
//!
//! `/etc` has a hundred entries and one reason, so it takes a paragraph rather than a hundred lines. Not for
//! programs: the text may change with every version.

use super::{Entry, Kind, View};
use std::fmt::Write;
use std::path::Path;

const ETC: &str = "/etc";

/// Width of the column of paths, beyond which a reason follows after a single space.
const COLUMN: usize = 36;

pub(super) fn text(view: &View) -> String {
    let mut out = String::from("Shown, read-only; what the command writes is gone when it ends:\n");
    for entry in view.entries.iter().filter(|entry| !in_etc(entry)) {
        line(&mut out, &path(entry), &entry.why);
    }
    let etc: Vec<String> = view.entries.iter().filter(|entry| in_etc(entry)).map(name).collect();
    paragraph(&mut out, "\nShown of /etc, what every user may read:", &etc);
    if !view.volumes.is_empty() {
        out.push_str("\nVolumes:\n");
    }
    for volume in &view.volumes {
        let rights = if volume.read_only { "read-only" } else { "WRITABLE: changes stay on the host" };
        line(&mut out, &format!("{} <- {}", plain(&volume.target), plain(&volume.source)), rights);
    }
    let hidden: Vec<String> = view.hidden.iter().map(|(path, why)| format!("{} ({why})", base(path))).collect();
    paragraph(&mut out, "\nNot shown of /etc:", &hidden);
    out.push_str(
        "\nNot shown: everything else, among it the rest of home directories, /root, /var, /run, /srv,\n\
         sockets and devices of the host.\n",
    );
    for notice in view.notices.iter().chain(&view.unfound) {
        let _ = write!(out, "\nNote: {notice}\n");
    }
    out
}

fn in_etc(entry: &Entry) -> bool {
    entry.path.parent() == Some(Path::new(ETC))
}

fn path(entry: &Entry) -> String {
    match &entry.kind {
        Kind::Shown { source, .. } if *source != entry.path => format!("{} <- {}", plain(&entry.path), plain(source)),
        Kind::Link { target } => format!("{} -> {}", plain(&entry.path), plain(target)),
        Kind::Covered => format!("{} (covered)", plain(&entry.path)),
        _ => plain(&entry.path),
    }
}

fn name(entry: &Entry) -> String {
    base(&entry.path)
}

fn base(path: &Path) -> String {
    path.file_name().map(|name| plain(Path::new(name))).unwrap_or_default()
}

/// A path that cannot move the cursor of the terminal it is printed on.
fn plain(path: &Path) -> String {
    let text = path.to_string_lossy();
    if text.chars().any(char::is_control) { format!("{path:?}") } else { text.into_owned() }
}

fn line(out: &mut String, path: &str, why: &str) {
    let _ = writeln!(out, "  {path:COLUMN$} {why}");
}

fn paragraph(out: &mut String, title: &str, words: &[String]) {
    const WIDTH: usize = 100;
    if words.is_empty() {
        return;
    }
    out.push_str(title);
    out.push('\n');
    let mut row = String::from(" ");
    for (index, word) in words.iter().enumerate() {
        if row.chars().count() + word.chars().count() + 2 > WIDTH {
            out.push_str(&row);
            out.push('\n');
            row = String::from(" ");
        }
        row.push(' ');
        row.push_str(word);
        row.push_str(if index + 1 < words.len() { "," } else { "\n" });
    }
    out.push_str(&row);
}
