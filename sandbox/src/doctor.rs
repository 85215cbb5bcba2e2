// SPDX-License-Identifier: Apache-2.0
//! `sandbox doctor`: what this machine has of what a run needs, each finding with its remedy.

use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use images::{Image, Store, StoreError};

use crate::engine::{self, Finding};
use crate::spec::{MEMORY_DEFAULT, OURSELVES};

/// How much a finding matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Grade {
    Good,
    /// Runs work, but not as well as they could.
    Note,
    /// No run works.
    Bad,
}

/// One thing that was looked at.
#[derive(Debug)]
struct Item {
    grade: Grade,
    what: &'static str,
    found: String,
    remedy: Option<String>,
}

impl Item {
    fn good(what: &'static str, found: impl Into<String>) -> Self {
        Self { grade: Grade::Good, what, found: found.into(), remedy: None }
    }

    fn with(grade: Grade, what: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { grade, what, found: found.into(), remedy: Some(remedy.into()) }
    }
}

/// Carries out `sandbox doctor`: success if a run would work.
#[must_use]
pub fn run() -> ExitCode {
    let items = [kvm(), qemu(), kernel(), initramfs(), nested_kernel(), user_namespaces(), memory()];
    let mut text = String::new();
    for item in &items {
        let mark = match item.grade {
            Grade::Good => "ok  ",
            Grade::Note => "note",
            Grade::Bad => "BAD ",
        };
        text.push_str(&format!("{mark}  {:<16} {}\n", item.what, item.found));
        if let Some(remedy) = &item.remedy {
            text.push_str(&format!("      {:<16} -> {remedy}\n", ""));
        }
    }
    if let Err(error) = io::stdout().write_all(text.as_bytes())
        && error.kind() != io::ErrorKind::BrokenPipe
    {
        return ExitCode::FAILURE;
    }
    if items.iter().any(|item| item.grade == Grade::Bad) { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn kvm() -> Item {
    match engine::survey() {
        finding @ Finding::Usable => Item::good("kvm", finding.to_string()),
        finding => Item::with(Grade::Note, "kvm", finding.to_string(), finding.remedy()),
    }
}

fn qemu() -> Item {
    let program = match engine::find_qemu() {
        Ok(program) => program,
        // Nobody needs it where KVM serves.
        Err(error) => {
            let grade = if engine::kvm(Path::new(OURSELVES)) == Finding::Usable { Grade::Note } else { Grade::Bad };
            return Item::with(grade, "qemu", "not found", error.to_string());
        }
    };
    let bad = |how: String| Item::with(Grade::Bad, "qemu", format!("{}: {how}", program.display()), "reinstall it");
    match Command::new(&program).arg("--version").stdin(Stdio::null()).output() {
        Ok(output) if output.status.success() => {
            let text = String::from_utf8_lossy(&output.stdout);
            Item::good("qemu", format!("{} ({})", program.display(), text.lines().next().unwrap_or("?")))
        }
        Ok(output) => bad(output.status.to_string()),
        Err(error) => bad(error.to_string()),
    }
}

fn kernel() -> Item {
    let flavour = images::Flavour::Base;
    image("guest kernel", |store| store.kernel(flavour), "build it: make build, or images build kernel")
}

fn initramfs() -> Item {
    image("guest initramfs", Store::initramfs, "build it: make build, or images build initramfs")
}

/// Only `--nested` needs it.
fn nested_kernel() -> Item {
    let flavour = images::Flavour::Nested;
    let remedy = "for --nested, build it: make build, or images build kernel --flavour nested";
    let item = image("nested kernel", |store| store.kernel(flavour), remedy);
    Item { grade: if item.grade == Grade::Bad { Grade::Note } else { item.grade }, ..item }
}

fn image(what: &'static str, find: impl FnOnce(&Store) -> Result<Image, StoreError>, remedy: &str) -> Item {
    let found = Store::of_user().and_then(|store| find(&store));
    let bad = |error: &dyn std::error::Error| Item::with(Grade::Bad, what, crate::explain(error), remedy);
    match found.map(|image| image.open()) {
        Ok(Ok(_)) => Item::good(what, "present and intact"),
        Ok(Err(error)) => bad(&error),
        Err(error) => bad(&error),
    }
}

fn user_namespaces() -> Item {
    const WHAT: &str = "user namespaces";
    let read = |name: &str| fs::read_to_string(format!("/proc/sys/{name}")).map(|text| text.trim().to_owned());
    if rustix::process::geteuid().is_root() {
        return Item::good(WHAT, "not needed by root");
    }
    if read("user/max_user_namespaces").is_ok_and(|most| most == "0") {
        return Item::with(Grade::Bad, WHAT, "forbidden", "sysctl user.max_user_namespaces=10000, as root");
    }
    for name in ["kernel/unprivileged_userns_clone", "kernel/apparmor_restrict_unprivileged_userns"] {
        let forbids = if name.ends_with("clone") { "0" } else { "1" };
        if read(name).is_ok_and(|value| value == forbids) {
            let allow = if forbids == "0" { "1" } else { "0" };
            let remedy = format!("sysctl {}={allow}, as root", name.replace('/', "."));
            return Item::with(Grade::Bad, WHAT, "forbidden to unprivileged users", remedy);
        }
    }
    Item::good(WHAT, "allowed")
}

fn memory() -> Item {
    let available = fs::read_to_string("/proc/meminfo").ok().as_deref().and_then(available);
    let words = |bytes: u64| format!("{} MiB available", bytes >> 20);
    match available {
        Some(bytes) if bytes >= MEMORY_DEFAULT => Item::good("memory", words(bytes)),
        Some(bytes) => Item::with(Grade::Note, "memory", words(bytes), "give guests less than the usual 1G with -m"),
        None => Item::with(Grade::Note, "memory", "unknown", "is /proc mounted?"),
    }
}

fn available(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn available_memory_is_read() {
        assert_eq!(available("MemTotal: 9 kB\nMemAvailable:    2048 kB\n"), Some(2 << 20));
        assert_eq!(available("MemTotal: 9 kB\n"), None);
    }
}
