// SPDX-License-Identifier: Apache-2.0
//! What tells of a failure, gathered while its machine is there. Not for where it goes.
//!
//! All of it is a guest's word, which is bounded here and made fit to be shown. What a guest does not tell in time is left out,
//! and no verdict changes for that.

use std::ffi::OsStr;
use std::io::Read;
use std::time::Duration;

use guest_init::wire::ToGuest;

use super::{Keeping, is_there};
use crate::engine::legible;
use crate::outcome::{Cause, Verdict};
use crate::spec::{Keep, Spec};

/// Most bytes of the kernel's log, and of the list of changes. The kernel keeps less than this of its log.
const LOG_MAX: u64 = 1 << 20;
const LIST_MAX: usize = 1 << 20;

/// How long the guest may take for each: nobody has asked for all of it, come what may.
const PATIENCE: Duration = Duration::from_secs(60);

/// What tells of a failure.
#[derive(Debug, Clone, Default)]
pub struct Evidence {
    /// What is left of the guest's console.
    pub console: Vec<String>,
    /// What its kernel has logged, if it could still be asked.
    pub log: Option<Vec<String>>,
    /// What the command has changed, as `--diff` lists it, if that could still be asked.
    pub list: Option<String>,
    /// What could not be had, and why.
    pub missing: Vec<String>,
}

impl Keep {
    /// Whether evidence of a run is wanted that ended so. Who had it stopped, or asked for what makes no sense, knows why it failed.
    #[must_use]
    pub fn wants(self, cause: &Cause) -> bool {
        let failed = cause.verdict() != Verdict::Pass && !matches!(cause, Cause::Cancelled(_) | Cause::UsageError(_));
        match self {
            Self::Never => false,
            Self::OnFailure => failed,
            Self::Always => true,
        }
    }
}

impl Keeping<'_> {
    /// Asks the guest for what it can tell of a run that ended so; `known` is the list of changes, if there is one already.
    pub(super) fn gather(&mut self, spec: &Spec, cause: &Cause, known: Option<&str>) -> Evidence {
        let mut evidence = Evidence::default();
        if !is_there(cause) {
            let gone = "the machine could not be asked for the kernel's log and for what has changed";
            evidence.missing.push(gone.to_owned());
            return evidence;
        }
        let usual = std::mem::replace(&mut self.patience, PATIENCE);
        let list = match known {
            Some(list) => Ok(list.to_owned()),
            None => self.changes(spec, OsStr::new(""), false).map(|spool| spool.list()),
        };
        match list {
            Ok(list) => evidence.list = Some(cut(list, LIST_MAX)),
            Err(error) => evidence.missing.push(format!("what has changed: {}", crate::explain(&error))),
        }
        match self.log() {
            Ok(log) => evidence.log = Some(log),
            Err(error) => evidence.missing.push(format!("the kernel's log: {error}")),
        }
        self.patience = usual;
        evidence
    }

    fn log(&mut self) -> std::io::Result<Vec<String>> {
        let mut bytes = Vec::new();
        self.answer(ToGuest::Log)?.take(LOG_MAX).read_to_end(&mut bytes)?;
        Ok(legible(&bytes).into_iter().map(without_level).collect())
    }
}

/// A line of the log as the console would print it.
fn without_level(line: String) -> String {
    let rest = line.strip_prefix('<').and_then(|line| line.split_once('>'));
    match rest {
        Some((level, text)) if level.bytes().all(|byte| byte.is_ascii_digit()) => text.to_owned(),
        _ => line,
    }
}

/// As many whole lines as fit.
fn cut(text: String, most: usize) -> String {
    if text.len() <= most {
        return text;
    }
    let end = text.as_bytes().iter().take(most).rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    let (kept, left) = text.split_at(end);
    format!("{kept}... and {} more\n", left.lines().count())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_list_is_cut_between_lines() {
        assert_eq!(cut("a\nb\n".to_owned(), 4), "a\nb\n");
        assert_eq!(cut("aa\nbb\ncc\n".to_owned(), 7), "aa\nbb\n... and 1 more\n");
        assert_eq!(cut("\u{e4}\u{e4}\u{e4}".to_owned(), 3), "... and 1 more\n");
    }

    #[test]
    fn levels_are_for_the_kernel() {
        for (line, shown) in [("<6>[  1.0] x", "[  1.0] x"), ("<x> y", "<x> y"), ("plain", "plain"), ("<", "<")] {
            assert_eq!(without_level(line.to_owned()), shown);
        }
    }

    #[test]
    fn a_failure_is_no_success_and_no_interrupt() {
        let wanted = |keep: Keep| {
            let ends = [Cause::Exited(0), Cause::Exited(1), Cause::GuestPanic, Cause::Timeout, Cause::Cancelled(2)];
            ends.map(|cause| keep.wants(&cause))
        };
        assert_eq!(wanted(Keep::Never), [false; 5]);
        assert_eq!(wanted(Keep::OnFailure), [false, true, true, true, false]);
        assert_eq!(wanted(Keep::Always), [true; 5]);
    }
}
