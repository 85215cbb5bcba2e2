// SPDX-License-Identifier: Apache-2.0
//! Link flags of a program that runs on a machine without an operating system; those of guest init's build.rs, for the
//! same reasons: our boot code is the loader, and nothing relocates.

const LINK: [&str; 8] = [
    "-nostartfiles",
    "-nostdlib",
    "-static",
    "-no-pie",
    "-Wl,--build-id=none",
    "-Wl,--no-eh-frame-hdr",
    "-Wl,-z,norelro",
    "-Wl,-z,noseparate-code",
];

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if std::env::var_os("CARGO_FEATURE_BARE").is_some() {
        for flag in LINK {
            println!("cargo::rustc-link-arg-bin=hostile={flag}");
        }
    }
}
