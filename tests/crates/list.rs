// SPDX-License-Identifier: Apache-2.0
//! Which crates, and what is known of them.

/// A crate of the public registry whose package has its tests.
pub(crate) struct Crate {
    pub(crate) name: &'static str,
    pub(crate) version: &'static str,
    pub(crate) about: &'static str,
    pub(crate) features: &'static [&'static str],
    /// Words that leave out what cannot be built of the package, for all but doctests.
    pub(crate) targets: &'static [&'static str],
    /// Whether its tests are in each other's way on the host, and so run one at a time there.
    pub(crate) alone: bool,
}

const fn of(name: &'static str, version: &'static str, about: &'static str) -> Crate {
    Crate { name, version, about, features: &[], targets: &[], alone: false }
}

/// All of them.
pub(crate) const CRATES: &[Crate] = &[
    of("tempfile", "3.27.0", "files"),
    // Each process of its tests begins to count at the same name in /tmp.
    Crate { alone: true, ..of("walkdir", "2.5.1", "files") },
    of("memmap2", "0.9.12", "files, memory"),
    of("duct", "1.1.2", "processes"),
    of("wait-timeout", "0.2.1", "processes"),
    of("crossbeam-utils", "0.8.23", "threads"),
    of("crossbeam-deque", "0.8.8", "threads"),
    // Another of its tests needs a crate that the package does not name.
    Crate { targets: &["--lib", "--test", "default", "--test", "shutdown"], ..of("signal-hook", "0.4.6", "signals") },
    of("humantime", "2.4.0", "time"),
    Crate { features: &["--features", "all"], ..of("socket2", "0.6.5", "network") },
    Crate { features: &["--features", "os-poll,net,os-ext"], ..of("mio", "1.2.5", "network") },
    of("either", "1.19.0", "doctests"),
    Crate { alone: true, ..of("same-file", "1.0.6", "files, doctests") },
    of("trybuild", "1.0.122", "calls cargo"),
];
