// SPDX-License-Identifier: Apache-2.0
//! A guest without an operating system that does to its devices what no driver may do.
//!
//! Boot code takes it for a kernel. It runs its cases in the order of their numbers ([`cases`]), one line on the serial
//! port for each: what it is, and a verdict. PASS: the device did what virtio 1.2 says. REJECT: it refused cleanly. FAIL:
//! it did neither. After each case every device is reset and must serve a good driver; if it does not, the verdict is
//! WEDGED. The host's side, which starts the machine and judges, is `sandbox/src/engine/kvm/hostile.rs`; how to build this
//! is in its build.rs and the Makefile.
//!
//! Interrupts stay off, and nothing here is ever interrupted: rings are polled.
#![no_std]
#![no_main]

mod bare;
mod cases;
mod console;
mod device;
mod fs;
mod machine;
mod ring;
mod rng;
mod verdict;
mod vsock;
mod window;

use console::say;
use machine::Machine;
use verdict::{Case, Held};

fn main(zero_page: u64) -> ! {
    match Machine::find(zero_page) {
        Ok(machine) => run(machine),
        Err(device) => say(format_args!("hostile: no {device} device\n")),
    }
    bare::reset()
}

/// Runs cases from the first that is asked for, until all are done or one needs a stream that is used up.
fn run(mut machine: Machine) {
    let count: usize = cases::ALL.iter().map(|table| table.len()).sum();
    say(format_args!("hostile: {count} cases\n"));
    if let Err(device) = machine.works() {
        return say(format_args!("hostile: {device} does not work to begin with\n"));
    }
    let first = machine.first;
    for case in cases::ALL.into_iter().flatten().filter(|case| case.number >= first) {
        say(format_args!("{} {} {}: {} ... ", case.number, case.tests, case.section, case.name));
        judge(case, &mut machine);
        if machine.wants_stream {
            return say(format_args!("hostile: next {}\n", case.number));
        }
    }
    say(format_args!("hostile: done\n"));
}

fn judge(case: &Case, machine: &mut Machine) {
    let verdict = (case.run)(machine);
    if machine.wants_stream {
        return say(format_args!("later\n"));
    }
    match (machine.works(), verdict) {
        (Err(device), _) => say(format_args!("WEDGED ({device})\n")),
        (Ok(()), Err(why)) => say(format_args!("FAIL ({why})\n")),
        (Ok(()), Ok(Held::Pass)) => say(format_args!("PASS\n")),
        (Ok(()), Ok(Held::Reject)) => say(format_args!("REJECT\n")),
    }
}
