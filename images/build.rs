// SPDX-License-Identifier: Apache-2.0
//! Digests of the kernels' configurations: constants of the program, which each run would else compute anew.

#[path = "src/kernel/asked.rs"]
mod asked;

use sha2::{Digest as _, Sha256};

fn main() {
    println!("cargo::rerun-if-changed=src/kernel/asked.rs");
    println!("cargo::rerun-if-changed=kernel");
    for (name, nested) in [("BASE", false), ("NESTED", true)] {
        let digest = Sha256::digest(text(nested));
        let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        println!("cargo::rustc-env={name}_CONFIG_SHA256={hex}");
    }
}

/// All that tells one kernel's configuration from another's.
fn text(nested: bool) -> String {
    let edits = asked::EDITS.iter().map(|edit| format!("{}\n{}\n{}\n", edit.file, edit.from, edit.to));
    let fragment = asked::fragment(nested, true);
    edits.chain(asked::requests(&fragment).map(|(name, value)| format!("{name}={value}\n"))).collect()
}
