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
    let translation = Translation {
        named: actions.named.clone().into(),
        missing: actions.missing.clone().into(),
        other: actions.other.clone().into(),
    };
    let intervals = translation.intervals(rules);
    // An end and a jump for most.
    let mut program = Vec::with_capacity(4 + 4 * intervals.len());
    program.extend([
        plain(LOAD, ARCHITECTURE),
        condition(JUMP_IF_EQUAL, X86_64, 1, 0),
        plain(RETURN, kill),
        plain(LOAD, NUMBER),
    ]);
    translation.search(&intervals, &mut program);
    program
}

/// What is done with all numbers from the first one up to the next interval's.
type Interval<'a> = (u32, Deed<'a>);

/// What is done with a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Deed<'a> {
    /// This, at once.
    End(u32),
    /// It is named if one of these holds.
    Look(&'a [Check]),
}

/// Actions as the kernel knows them.
struct Translation {
    named: u32,
    missing: u32,
    other: u32,
}

impl Translation {
    /// All numbers in order. Neighbours that are treated alike are one interval.
    fn intervals<'a>(&self, rules: &'a Rules) -> Vec<Interval<'a>> {
        let mut intervals: Vec<Interval<'_>> = Vec::with_capacity(2 * rules.len() + 2);
        let mut push = |start, deed| {
            if intervals.last().is_none_or(|(_, last)| *last != deed) {
                intervals.push((start, deed));
            }
        };
        let mut next = 0;
        for (number, rule) in rules {
            let number = *number as u32;
            if next < number {
                push(next, Deed::End(self.other));
            }
            push(number, self.deed(rule));
            next = number + 1;
        }
        push(next, Deed::End(self.other));
        push(X32, Deed::End(SeccompAction::KillProcess.into()));
        intervals
    }

    fn deed<'a>(&self, rule: &'a Rule) -> Deed<'a> {
        match rule {
            Rule::Always => Deed::End(self.named),
            Rule::Missing => Deed::End(self.missing),
            Rule::Where(checks) => Deed::Look(checks),
        }
    }

    fn search(&self, intervals: &[Interval<'_>], program: &mut BpfProgram) {
        let (low, high) = intervals.split_at(intervals.len() / 2);
        let Some((first, deed)) = high.first() else { return };
        if low.is_empty() {
            return self.carry_out(*deed, program);
        }
        // How far it jumps shows when what lies between is there. What is inserted moves that as a whole.
        let jump = program.len();
        program.push(condition(JUMP_IF_AT_LEAST, *first, 0, 0));
        self.search(low, program);
        let below = program.len() - jump - 1;
        match u8::try_from(below) {
            Ok(length) => program[jump].jt = length,
            Err(_) => {
                program[jump].jf = 1;
                program.insert(jump + 1, plain(JUMP, below as u32));
            }
        }
        self.search(high, program);
    }

    fn carry_out(&self, deed: Deed<'_>, program: &mut BpfProgram) {
        match deed {
            Deed::End(action) => program.push(plain(RETURN, action)),
            Deed::Look(checks) => {
                program.extend(checks.iter().flat_map(|check| self.check(check)));
                program.push(plain(RETURN, self.other));
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
            plain(RETURN, self.named),
        ]
    }
}

fn plain(code: u16, k: u32) -> sock_filter {
    sock_filter { code, jt: 0, jf: 0, k }
}

fn condition(code: u16, k: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter { code, jt, jf, k }
}

#[cfg(test)]
mod tests;
