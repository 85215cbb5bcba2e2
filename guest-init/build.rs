// SPDX-License-Identifier: Apache-2.0
//! Link flags of the freestanding binary.
//!
//! Not for the library, which links like any other. The whole build command, used by the Makefile:
//!
//! ```text
//! cargo build -p guest-init --features init --profile init --target x86_64-unknown-linux-gnu
//! ```
//!
//! Alone (`-p`) and with `--target`, so that no other package's features turn `std` on in a shared dependency.
//! RUSTFLAGS are neither needed nor wanted: all that is special is below or in the profile.

/// No C runtime and no C library; a fixed address, because the kernel is the loader and nothing relocates; none of the
/// sections that only a dynamic loader, a debugger or an unwinder would read.
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
    if std::env::var_os("CARGO_FEATURE_INIT").is_some() {
        for flag in LINK {
            println!("cargo::rustc-link-arg-bin=guest-init={flag}");
        }
        let place = std::env::var("CARGO_MANIFEST_DIR").expect("cargo names the package's directory");
        println!("cargo::rustc-link-arg-bin=guest-init=-Wl,-T,{place}/discard.ld");
        println!("cargo::rerun-if-changed=discard.ld");
    }
}
