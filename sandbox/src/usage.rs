// SPDX-License-Identifier: Apache-2.0
//! What a run used, for people (`--usage`); the report has the same for machines.

use std::fmt;

use crate::run::Outcome;

/// A table of what a run used.
#[derive(Debug)]
pub struct Table<'a>(pub &'a Outcome);

impl fmt::Display for Table<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(outcome) = self;
        let usage = &outcome.tally.usage;
        let seconds = |microseconds: u64| microseconds as f64 / 1e6;
        writeln!(
            f,
            "{:<14} {:.3} s user, {:.3} s system",
            "cpu time",
            seconds(usage.user_us),
            seconds(usage.system_us)
        )?;
        writeln!(f, "{:<14} {} at most", "memory", size(usage.memory_peak))?;
        writeln!(f, "{:<14} {} at most", "processes", usage.processes_peak)?;
        writeln!(f, "{:<14} {}, of which {} read a file", "page faults", usage.faults, usage.major_faults)?;
        match usage.transfer {
            Some(transfer) => {
                writeln!(f, "{:<14} {}", "read", size(transfer.read))?;
                writeln!(
                    f,
                    "{:<14} {}, of which the private layer holds {}",
                    "written",
                    size(transfer.written),
                    size(usage.private_bytes)
                )?;
            }
            None => {
                writeln!(f, "{:<14} not known; the private layer holds {}", "read, written", size(usage.private_bytes))?
            }
        }
        let [input, output, error] = [outcome.stdin_bytes, outcome.stdout_bytes, outcome.stderr_bytes].map(size);
        writeln!(f, "{:<14} {input} in, {output} out, {error} of errors", "streamed")?;
        let stage = |name| outcome.stages.of(name).as_secs_f64() * 1e3;
        let (boot, run) = (stage("boot"), stage("run"));
        write!(f, "{:<14} {boot:.1} ms to boot, {run:.1} ms to run, {:.1} ms in all", "time", outcome.stages.total())?;
        if !outcome.tallied {
            write!(f, "\n{:<14} figures of the guest are not its last", "")?;
        }
        Ok(())
    }
}

/// A size in the largest unit that leaves a number of at least one, as `-m` would take it if it is a whole one.
#[must_use]
pub fn size(bytes: u64) -> String {
    let Some((unit, shift)) =
        [("T", 40), ("G", 30), ("M", 20), ("K", 10)].into_iter().find(|(_, shift)| bytes >> shift > 0)
    else {
        return format!("{bytes}");
    };
    let whole = 1u64 << shift;
    if bytes.is_multiple_of(whole) {
        format!("{}{unit}", bytes >> shift)
    } else {
        format!("{:.1}{unit}", bytes as f64 / whole as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_short() {
        for (bytes, text) in
            [(0, "0"), (1023, "1023"), (1024, "1K"), (1536, "1.5K"), (224 << 20, "224M"), (5 << 30, "5G")]
        {
            assert_eq!(size(bytes), text);
        }
        assert_eq!(size(u64::MAX), "16777216.0T");
    }
}
