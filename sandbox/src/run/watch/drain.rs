// SPDX-License-Identifier: Apache-2.0
//! When the rest of the output is given up, after the command has ended. Its reader may take any time; what the guest
//! owes may not. Pure: times go in, a cause comes out.

use std::time::{Duration, Instant};

use crate::outcome::Cause;
use crate::run::limits::{DRAIN_LIMIT, LATE_LIMIT};

/// How the drain goes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Drain {
    /// When it last moved, and how far it was then.
    moved: Instant,
    bytes: u64,
    /// When it was last looked at, and for how long by then the guest, and not its reader, had held it up since the time
    /// limit. One look does not count: between two writes a relay waits for the guest for a moment, however much has
    /// come and however slow its reader is.
    looked: Instant,
    late: Duration,
}

impl Drain {
    /// The command has ended.
    pub(super) fn begin(now: Instant, bytes: u64) -> Self {
        Self { moved: now, bytes, looked: now, late: Duration::ZERO }
    }

    /// Looks at the output: how much has reached its reader, whether the reader holds it up, and when the command's time
    /// is over.
    pub(super) fn look(&mut self, now: Instant, bytes: u64, writing: bool, limit: Option<Instant>) -> Option<Cause> {
        if let Some(limit) = limit.filter(|_| !writing) {
            self.late += now.saturating_duration_since(self.looked.max(limit));
        }
        self.looked = now;
        if self.late >= LATE_LIMIT {
            return Some(Cause::Timeout);
        }
        if bytes != self.bytes || writing {
            (self.moved, self.bytes) = (now, bytes);
        }
        (now - self.moved >= DRAIN_LIMIT)
            .then(|| Cause::LostContact("the rest of the command's output never came".to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Looks at a drain every second from its beginning, at which its time is over; when it is given up, and why.
    fn given_up(limit: bool, look: impl Fn(u64) -> (u64, bool)) -> Option<(u64, Cause)> {
        let begun = Instant::now();
        let mut drain = Drain::begin(begun, 0);
        (1..100).find_map(|second| {
            let (bytes, writing) = look(second);
            let cause = drain.look(begun + Duration::from_secs(second), bytes, writing, limit.then_some(begun))?;
            Some((second, cause))
        })
    }

    #[test]
    fn a_slow_reader_has_all_the_time_it_needs() {
        assert_eq!(given_up(true, |_| (0, true)), None);
        // At one look it is just between two writes.
        assert_eq!(given_up(true, |second| (second, second != 50)), None);
    }

    #[test]
    fn a_guest_that_goes_on_beyond_its_time_is_stopped() {
        let late = Some((LATE_LIMIT.as_secs(), Cause::Timeout));
        assert_eq!(given_up(true, |second| (second, false)), late);
        // Its reader takes half of the time.
        let (second, cause) = given_up(true, |second| (second, second % 2 == 0)).expect("it is stopped");
        assert_eq!((second, cause), (2 * LATE_LIMIT.as_secs() - 1, Cause::Timeout));
    }

    #[test]
    fn output_that_never_comes_is_a_lost_guest() {
        let (second, cause) = given_up(false, |_| (0, false)).expect("it is given up");
        assert_eq!(second, DRAIN_LIMIT.as_secs());
        assert!(matches!(cause, Cause::LostContact(_)), "{cause:?}");
    }
}
