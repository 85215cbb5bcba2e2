// SPDX-License-Identifier: Apache-2.0
//! The configuration: our fragments, and whether the kernel's own tools made of them what was asked.

use super::asked::{self, requests};
use crate::Flavour;

/// All that is asked for, of a source with our edits or without.
pub(super) fn fragment(flavour: Flavour, edited: bool) -> String {
    asked::fragment(flavour == Flavour::Nested, edited)
}

/// What tells one configuration from another: the options asked for and our edits to the source. Reasons may be
/// reworded without building every kernel again. The build script has computed it.
pub(crate) const fn digest(flavour: Flavour) -> &'static str {
    match flavour {
        Flavour::Base => env!("BASE_CONFIG_SHA256"),
        Flavour::Nested => env!("NESTED_CONFIG_SHA256"),
    }
}

/// How many steps make announces on the way to a vmlinux. Only for the progress bar; measured with 6.12.
pub(super) const fn files_expected(flavour: Flavour) -> u64 {
    match flavour {
        Flavour::Base => 1500,
        Flavour::Nested => 1600,
    }
}

/// Compares what was asked for with what came out; the difference is the error.
pub(super) fn check(fragment: &str, result: &str) -> Result<(), Vec<String>> {
    let missing = requests(fragment).filter(|request| !is_met(request, result));
    let missing: Vec<String> = missing.map(|(name, value)| format!("{name}={value}")).collect();
    if missing.is_empty() { Ok(()) } else { Err(missing) }
}

/// An option that cannot be chosen at all is as good as one that is off.
fn is_met(&(name, wanted): &(&str, &str), result: &str) -> bool {
    let found = requests(result).find(|(other, _)| *other == name).map(|(_, value)| value);
    found.unwrap_or("n") == wanted
}

#[cfg(test)]
mod tests {
    use super::asked::{BASE, EDITED, NESTED};
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_option_has_its_reason_above_it() {
        for text in [BASE, NESTED, EDITED] {
            let lines: Vec<&str> = text.lines().collect();
            for pair in lines.windows(2).filter(|pair| pair[1].starts_with("CONFIG_")) {
                let reason = pair[0].strip_prefix("# ").unwrap_or_default();
                assert!(reason.len() > 2, "{} has no reason", pair[1]);
            }
            for line in lines {
                assert!(line.is_empty() || line.starts_with('#') || line.starts_with("CONFIG_"), "{line}");
            }
        }
    }

    #[test]
    fn no_option_is_asked_for_twice() {
        let fragment = fragment(Flavour::Nested, true);
        let mut seen = HashSet::new();

        for (name, _) in requests(&fragment) {
            assert!(seen.insert(name), "{name} is there twice");
        }
    }

    /// The way back from a template enters the kernel's page tables with CR4.PAE alone (`guest_init::frozen`).
    #[test]
    fn page_tables_have_four_levels() {
        assert!(requests(&fragment(Flavour::Nested, true)).all(|(name, _)| name != "CONFIG_X86_5LEVEL"));
    }

    #[test]
    fn options_that_did_not_stick_are_named() {
        let asked = "# reason\nCONFIG_A=y\nCONFIG_B=64\nCONFIG_C=n\nCONFIG_D=n\nCONFIG_E=y\n";
        let got = "CONFIG_A=y\nCONFIG_B=32\n# CONFIG_C is not set\nCONFIG_D=y\n";

        assert_eq!(check(asked, got), Err(vec!["CONFIG_B=64".into(), "CONFIG_D=n".into(), "CONFIG_E=y".into()]));
        assert_eq!(check(asked, "CONFIG_A=y\nCONFIG_B=64\nCONFIG_E=y\n"), Ok(()));
    }

    #[test]
    fn flavours_have_digests_of_their_own() {
        assert_ne!(digest(Flavour::Base), digest(Flavour::Nested));
    }
}
