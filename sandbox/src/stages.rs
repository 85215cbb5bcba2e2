// SPDX-License-Identifier: Apache-2.0
//! Where a run's time goes: a list of stages, each ending where the next begins.

use std::fmt;
use std::time::{Duration, Instant};

/// Stages so far.
#[derive(Debug, Clone)]
pub struct Stages {
    begun: Instant,
    last: Instant,
    list: Vec<(&'static str, Duration)>,
}

impl Stages {
    /// Starts the clock.
    #[must_use]
    pub fn begin() -> Self {
        let now = Instant::now();
        Self { begun: now, last: now, list: Vec::new() }
    }

    /// Ends the current stage, whose name this is.
    pub(crate) fn end(&mut self, name: &'static str) {
        let now = Instant::now();
        self.list.push((name, now - self.last));
        self.last = now;
    }

    /// Takes so much time out of the current stage, for another of this name.
    pub(crate) fn set_aside(&mut self, name: &'static str, duration: Duration) {
        self.list.push((name, duration));
        self.last += duration;
    }

    /// The stages, in order, in milliseconds.
    pub fn milliseconds(&self) -> impl Iterator<Item = (&'static str, f64)> + '_ {
        self.list.iter().map(|(name, duration)| (*name, duration.as_secs_f64() * 1e3))
    }

    /// How long a stage took; no time if it has not been.
    #[must_use]
    pub fn of(&self, name: &str) -> Duration {
        self.list.iter().find(|(own, _)| *own == name).map_or(Duration::ZERO, |(_, duration)| *duration)
    }

    /// From the first stage's beginning to the last one's end, in milliseconds.
    #[must_use]
    pub fn total(&self) -> f64 {
        (self.last - self.begun).as_secs_f64() * 1e3
    }
}

impl fmt::Display for Stages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<10} {:>10}", "stage", "ms")?;
        for (name, milliseconds) in self.milliseconds() {
            writeln!(f, "{name:<10} {milliseconds:>10.1}")?;
        }
        write!(f, "{:<10} {:>10.1}", "total", self.total())
    }
}
