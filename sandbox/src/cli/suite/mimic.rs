// SPDX-License-Identifier: Apache-2.0
//! libtest-mimic, which runs what is chosen and prints how that goes; it panics where it cannot print.

use std::io::{self, Write};
use std::panic::{self, AssertUnwindSafe, Location};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use libtest_mimic::{Arguments, Trial};

/// Lists or runs these, and whether all that it had to say was written. Tests that run while it notices are run to their end.
pub(super) fn run(chosen: &Arguments, trials: Vec<Trial>) -> bool {
    let unwritten = Arc::new(AtomicBool::new(false));
    let (noticed, others) = (Arc::clone(&unwritten), panic::take_hook());
    panic::set_hook(Box::new(move |panic| {
        if panic.location().is_some_and(is_printers) {
            noticed.store(true, Ordering::Relaxed);
        } else {
            others(panic);
        }
    }));
    let ran = panic::catch_unwind(AssertUnwindSafe(|| libtest_mimic::run(chosen, trials)));
    // The standard library's: nobody has set another before.
    drop(panic::take_hook());
    match ran {
        Ok(_counted) => io::stdout().flush().is_ok(),
        Err(_) if unwritten.load(Ordering::Relaxed) => false,
        Err(panic) => panic::resume_unwind(panic),
    }
}

/// Whether a panic is from where libtest-mimic prints: all that can fail there is a write.
fn is_printers(place: &Location<'_>) -> bool {
    let file = place.file();
    file.contains("libtest-mimic") && file.ends_with("printer.rs")
}
