// SPDX-License-Identifier: Apache-2.0
//! What a run asks its kernel for: system calls by process, ioctls of KVM, threads. Counted by strace(1), which changes
//! the clock but not the counts.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use super::inside::{Begin, in_step, sandbox, say};

/// What strace's files begin with; the thread's number follows.
const FILES: &str = "/tmp/trace/of";

/// The processes of a run, by what they are executed as.
const ROLES: [(&str, &str); 3] =
    [("\"vmm\"", "monitor"), ("\"fs-worker\"", "file server"), ("\"sandbox\"", "command line")];

/// One thread, as strace saw it.
struct Thread {
    lines: Vec<String>,
    /// The thread that made it, and whether it is one of the same process.
    parent: Option<(u32, bool)>,
}

/// Counts a run of `true`.
pub(super) fn counts(begin: Begin) -> Result<()> {
    fs::create_dir("/tmp/trace")?;
    in_step();
    let run = sandbox(begin, &["true"]);
    let mut strace = Command::new("strace");
    strace.args(["-ff", "-qq", "-s", "64", "-o", FILES]).arg(run.get_program()).args(run.get_args());
    // A terminal there, and the command line looks twice at what runs the machine.
    strace.stderr(Stdio::null());
    strace.env_clear().env("PATH", "/usr/bin").env("HOME", "/root").current_dir("/tmp");
    ensure!(strace.status().context("strace is not installed")?.success(), "the traced run failed");
    let threads = threads()?;
    fs::remove_dir_all("/tmp/trace")?;
    let mut processes: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for id in threads.keys() {
        processes.entry(leader(&threads, *id)).or_default().push(*id);
    }
    for (process, members) in processes {
        let first = &threads[&process].lines;
        let executed = first.iter().rposition(|line| line.starts_with("execve(") && line.ends_with("= 0"));
        let Some(executed) = executed else { continue };
        let Some((_, role)) = ROLES.iter().find(|(word, _)| first[executed].contains(word)) else { continue };
        let others = members.iter().filter(|id| **id != process).flat_map(|id| &threads[id].lines);
        let calls: Vec<&String> = first[executed..].iter().chain(others).collect();
        let count = |what: &dyn Fn(&str) -> bool| calls.iter().filter(|line| what(line)).count() as f64;
        let role = format!("{}{role}", begin.prefix());
        let runs = count(&|line| line.contains(", KVM_RUN"));
        say(&format!("{role}/system calls without KVM_RUN"), count(&|_| true) - runs);
        say(&format!("{role}/threads"), members.len() as f64);
        if runs > 0.0 {
            say(&format!("{role}/KVM_RUN"), runs);
            say(&format!("{role}/other KVM ioctls"), count(&|line| line.contains(", KVM_")) - runs);
        }
    }
    Ok(())
}

fn threads() -> Result<BTreeMap<u32, Thread>> {
    let directory = Path::new(FILES).parent().context("a file is in a directory")?;
    let mut threads = BTreeMap::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let id: u32 = path.extension().and_then(|id| id.to_str()).context("strace names threads")?.parse()?;
        let text = String::from_utf8_lossy(&fs::read(&path)?).into_owned();
        // What is not a call: signals (`---`) and ends (`+++`).
        let lines =
            text.lines().filter(|line| line.starts_with(|c: char| c.is_ascii_lowercase()) && line.contains('('));
        threads.insert(id, Thread { lines: lines.map(str::to_owned).collect(), parent: None });
    }
    let mut parents = Vec::new();
    for (id, thread) in &threads {
        for line in thread.lines.iter().filter(|line| line.starts_with("clone") || line.starts_with("vfork")) {
            if let Some(child) = line.rsplit("= ").next().and_then(|text| text.trim().parse::<u32>().ok()) {
                parents.push((child, (*id, line.contains("CLONE_THREAD"))));
            }
        }
    }
    for (child, parent) in parents {
        if let Some(thread) = threads.get_mut(&child) {
            thread.parent = Some(parent);
        }
    }
    Ok(threads)
}

/// The first thread of the process that a thread belongs to.
fn leader(threads: &BTreeMap<u32, Thread>, mut id: u32) -> u32 {
    while let Some((parent, true)) = threads.get(&id).and_then(|thread| thread.parent) {
        id = parent;
    }
    id
}
