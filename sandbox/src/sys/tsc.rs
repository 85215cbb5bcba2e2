// SPDX-License-Identifier: Apache-2.0
//! The rate of the processor's time stamp counter.
//!
//! An emulated guest reads the host's counter and has no good way to learn its rate: calibrating goes wrong when the
//! host is busy. The kernel does not tell the rate either, so it is measured between two moments that a run passes
//! anyway.
#![expect(unsafe_code, reason = "reading the counter is an intrinsic")]

use std::time::{Duration, Instant};

/// Shortest time between the two moments that gives a rate good to a MHz; it is waited for if need be.
const SHORTEST: Duration = Duration::from_millis(5);

/// A moment by both clocks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment {
    ticks: u64,
    time: Instant,
}

fn ticks() -> u64 {
    // SAFETY: every x86-64 processor has the instruction, and Linux lets every process use it unless the process
    // itself asks otherwise (prctl(2), PR_SET_TSC), which this one does not.
    unsafe { std::arch::x86_64::_rdtsc() }
}

impl Moment {
    /// The closest of a few pairs of readings: something may come between the two clocks.
    pub(crate) fn now() -> Self {
        let pair = || {
            let (before, time, after) = (ticks(), Instant::now(), ticks());
            (after.wrapping_sub(before), Self { ticks: before, time })
        };
        let pairs = [pair(), pair(), pair(), pair()];
        let [first, ..] = pairs;
        pairs.into_iter().fold(first, |best, pair| if pair.0 < best.0 { pair } else { best }).1
    }

    /// Ticks in a millisecond, measured from this moment until now and rounded to a MHz, so that every run of a host
    /// gets the same.
    pub(crate) fn khz(self) -> u32 {
        while self.time.elapsed() < SHORTEST {
            std::hint::spin_loop();
        }
        let now = Self::now();
        let (ticks, time) = (now.ticks.wrapping_sub(self.ticks), now.time - self.time);
        (ticks as f64 / time.as_secs_f64() / 1e6).round() as u32 * 1000
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_that_of_a_processor() {
        let khz = Moment::now().khz();
        assert!((100_000..10_000_000).contains(&khz), "{khz} kHz");
    }
}
