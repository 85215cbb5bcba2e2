// SPDX-License-Identifier: Apache-2.0
//! From rules to the program that the kernel runs on each system call (seccomp(2)).
//!
//! A binary search by the call's number. When a filter is installed the kernel runs it once for every call there is, so
//! that calls which are always allowed cost nothing later; with a list to go through that takes half a million
//! instructions for each thread, with a search a tenth. Not for what is allowed, nor for installing.

use super::{Check, Rule, Rules};
use seccompiler::{BpfProgram, SeccompAction, sock_filter};

/// Offsets in `struct seccomp_data`.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const ARGUMENTS: u32 = 16;

/// `AUDIT_ARCH_X86_64`.
const X86_64: u32 = 0xc000_003e;

/// Numbers from here on are the same calls once more, with 32-bit pointers (`__X32_SYSCALL_BIT`): whoever makes one wants
/// to get round the rules.
const X32: u32 = 0x4000_0000;

/// Instructions: `BPF_LD | BPF_W | BPF_ABS` and so on, each with a constant.
const LOAD: u16 = 0x20;
const AND: u16 = 0x54;
const JUMP: u16 = 0x05;
const JUMP_IF_EQUAL: u16 = 0x15;
const JUMP_IF_AT_LEAST: u16 = 0x35;
const RETURN: u16 = 0x06;

/// What rules come to.
#[derive(Debug, Clone)]
pub(super) struct Actions {
    /// For calls that have a rule, if their arguments are as it says.
    pub(super) named: SeccompAction,
    /// For calls that are said to be missing.
    pub(super) missing: SeccompAction,
    /// For all others.
    pub(super) other: SeccompAction,
}

/// Translates rules. A call of another architecture's kind ends the process, also where calls without a rule are allowed.
pub(super) fn compile(rules: &Rules, actions: &Actions) -> BpfProgram {
    let kill = u32::from(SeccompAction::KillProcess);
    let mut program = vec![
        plain(LOAD, ARCHITECTURE),
        condition(JUMP_IF_EQUAL, X86_64, 1, 0),
        plain(RETURN, kill),
        plain(LOAD, NUMBER),
    ];
    program.extend(search(&Translation { actions }.intervals(rules)));
    program
}

/// Numbers from this one up to the next interval's, and what is to be done with them.
type Interval = (u32, BpfProgram);

struct Translation<'a> {
    actions: &'a Actions,
}

impl Translation<'_> {
    /// All numbers in order. Neighbours that are treated alike are one interval.
    fn intervals(&self, rules: &Rules) -> Vec<Interval> {
        let other = vec![end(&self.actions.other)];
        let mut intervals: Vec<Interval> = Vec::new();
        let mut push = |start, code: BpfProgram| {
            if intervals.last().is_none_or(|(_, last)| *last != code) {
                intervals.push((start, code));
            }
        };
        let mut next = 0;
        for (number, rule) in rules {
            let number = *number as u32;
            if next < number {
                push(next, other.clone());
            }
            push(number, self.rule(rule));
            next = number + 1;
        }
        push(next, other);
        push(X32, vec![end(&SeccompAction::KillProcess)]);
        intervals
    }

    fn rule(&self, rule: &Rule) -> BpfProgram {
        match rule {
            Rule::Always => vec![end(&self.actions.named)],
            Rule::Missing => vec![end(&self.actions.missing)],
            Rule::Where(checks) => {
                let mut code: BpfProgram = checks.iter().flat_map(|check| self.check(check)).collect();
                code.push(end(&self.actions.other));
                code
            }
        }
    }

    /// Ends if the argument is as it should be, and goes on otherwise.
    fn check(&self, check: &Check) -> [sock_filter; 7] {
        let place = ARGUMENTS + 8 * u32::from(check.argument);
        let halves = |word: u64| (word as u32, (word >> 32) as u32);
        let ((low_mask, high_mask), (low, high)) = (halves(check.mask), halves(check.value));
        // Over the second half and the end; or, if a difference is asked for, to the end.
        let (first, second) = if check.equal { ((0, 4), (0, 1)) } else { ((0, 3), (1, 0)) };
        [
            plain(LOAD, place),
            plain(AND, low_mask),
            condition(JUMP_IF_EQUAL, low, first.0, first.1),
            plain(LOAD, place + 4),
            plain(AND, high_mask),
            condition(JUMP_IF_EQUAL, high, second.0, second.1),
            end(&self.actions.named),
        ]
    }
}

fn search(intervals: &[Interval]) -> BpfProgram {
    let (low, high) = intervals.split_at(intervals.len() / 2);
    let Some((first, code)) = high.first() else { return BpfProgram::new() };
    if low.is_empty() {
        return code.clone();
    }
    let below = search(low);
    let mut program = match u8::try_from(below.len()) {
        Ok(length) => vec![condition(JUMP_IF_AT_LEAST, *first, length, 0)],
        Err(_) => vec![condition(JUMP_IF_AT_LEAST, *first, 0, 1), plain(JUMP, below.len() as u32)],
    };
    program.extend(below);
    program.extend(search(high));
    program
}

fn plain(code: u16, k: u32) -> sock_filter {
    sock_filter { code, jt: 0, jf: 0, k }
}

fn condition(code: u16, k: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter { code, jt, jf, k }
}

fn end(action: &SeccompAction) -> sock_filter {
    plain(RETURN, action.clone().into())
}

#[cfg(test)]
mod tests;
