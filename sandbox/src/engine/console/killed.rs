// SPDX-License-Identifier: Apache-2.0
//! What the guest's kernel says of a process that it kills for want of memory (mm/oom_kill.c).

use crate::outcome::Killed;

/// Most deaths that are remembered, the last ones.
const REMEMBERED: usize = 16;

const BEFORE: &[u8] = b" of memory: Killed process ";
const BEHIND: &[u8] = b") total-vm:";

/// Reads a whole line of the console; who was killed, if it says that somebody was.
fn read(line: &[u8]) -> Option<Killed> {
    let at = line.windows(BEFORE.len()).position(|part| part == BEFORE)?;
    let text = line.get(at + BEFORE.len()..)?;
    let digits = text.iter().position(|byte| !byte.is_ascii_digit())?;
    let (number, name) = text.split_at_checked(digits)?;
    let name = name.strip_prefix(b" (")?;
    let end = name.windows(BEHIND.len()).position(|part| part == BEHIND)?;
    let pid = str::from_utf8(number).ok()?.parse().ok()?;
    let name = String::from_utf8_lossy(name.get(..end)?);
    let printable = name.chars().map(|letter| if letter.is_control() { '\u{fffd}' } else { letter });
    Some(Killed { name: printable.collect(), pid })
}

/// Remembers who was killed, if this line says so.
pub(super) fn note(line: &[u8], killed: &mut Vec<Killed>) {
    if let Some(victim) = read(line) {
        if killed.len() == REMEMBERED {
            killed.remove(0);
        }
        killed.push(victim);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_victim_has_a_name_and_a_number() {
        let line =
            b"[    1.234567] Memory cgroup out of memory: Killed process 57 (a) (b\x1b) total-vm:1kB, anon-rss:2kB\r";
        assert_eq!(read(line), Some(Killed { name: "a) (b\u{fffd}".to_owned(), pid: 57 }));
        let line = b"Out of memory: Killed process 8 (x) total-vm:1kB";
        assert_eq!(read(line).map(|killed| killed.pid), Some(8));
    }

    #[test]
    fn any_other_line_names_nobody() {
        for line in [
            &b"Out of memory: Killed process "[..],
            b"Out of memory: Killed process 8",
            b"Out of memory: Killed process 8 (x)",
            b"Out of memory: Killed process 99999999999 (x) total-vm:1kB",
            b"Out of memory: Killed process x (x) total-vm:1kB",
            b"",
        ] {
            assert_eq!(read(line), None, "{line:?}");
        }
    }

    #[test]
    fn only_the_last_are_remembered() {
        let mut killed = Vec::new();
        for pid in 0..100 {
            note(format!("Out of memory: Killed process {pid} (x) total-vm:1kB").as_bytes(), &mut killed);
        }
        assert_eq!((killed.len(), killed[REMEMBERED - 1].pid), (REMEMBERED, 99));
    }
}
