// SPDX-License-Identifier: Apache-2.0
//! Programs are run here, on a machine of six instructions, for every number and around every value.

use super::*;
use crate::confine::{allow, argument, argument_without};

const ALLOW: u32 = 0x7fff_0000;
const KILL: u32 = 0x8000_0000;
const NO_CALL: u32 = 0x0005_0026;

fn actions() -> Actions {
    Actions { named: SeccompAction::Allow, missing: SeccompAction::Errno(0x26), other: SeccompAction::KillProcess }
}

/// What a program says, and how many instructions it took.
fn run(program: &[sock_filter], architecture: u32, number: u32, arguments: [u64; 6]) -> (u32, usize) {
    let mut words = vec![number, architecture, 0, 0];
    words.extend(arguments.iter().flat_map(|word| [*word as u32, (*word >> 32) as u32]));
    let (mut at, mut accumulator, mut steps) = (0, 0, 0);
    loop {
        let step = &program[at];
        (at, steps) = (at + 1, steps + 1);
        let taken = |yes: bool| usize::from(if yes { step.jt } else { step.jf });
        match step.code {
            LOAD => accumulator = words[step.k as usize / 4],
            AND => accumulator &= step.k,
            JUMP => at += step.k as usize,
            JUMP_IF_EQUAL => at += taken(accumulator == step.k),
            JUMP_IF_AT_LEAST => at += taken(accumulator >= step.k),
            RETURN => return (step.k, steps),
            other => panic!("no instruction: {other:#x}"),
        }
    }
}

fn says(rules: &Rules, number: u32, arguments: [u64; 6]) -> u32 {
    run(&compile(rules, &actions()), X86_64, number, arguments).0
}

#[test]
fn exactly_the_calls_with_a_rule_are_named() {
    let lists: [&[i64]; 4] = [&[], &[0], &[1, 2, 3, 7, 9, 10, 231, 436], &[5, 0x3fff_ffff]];
    for list in lists {
        let program = compile(&allow(list), &actions());
        for number in (0..1000).chain([0x3fff_fffe, 0x3fff_ffff, 0x4000_0000, 0x4000_0001, u32::MAX]) {
            let expected = if list.contains(&i64::from(number)) { ALLOW } else { KILL };
            assert_eq!(run(&program, X86_64, number, [0; 6]).0, expected, "{number} of {list:?}");
        }
    }
}

#[test]
fn a_long_list_is_searched_in_few_steps() {
    // No two neighbours, so nothing can be taken together, and jumps are as far as they get.
    let list: Vec<i64> = (0..450).map(|number| number * 2).collect();
    let program = compile(&allow(&list), &actions());
    for number in 0..1000 {
        let (action, steps) = run(&program, X86_64, number, [0; 6]);
        assert_eq!(action, if number % 2 == 0 && number < 900 { ALLOW } else { KILL }, "{number}");
        assert!(steps < 30, "{steps} steps for {number}");
    }
}

#[test]
fn another_architecture_ends_the_process() {
    assert_eq!(run(&compile(&allow(&[3]), &actions()), 0x4000_0003, 3, [0; 6]).0, KILL);
}

/// A list of what is refused would else be got round by adding a bit to a call's number.
#[test]
fn calls_with_the_x32_bit_end_the_process_where_others_are_allowed() {
    let refused = SeccompAction::Errno(1);
    let actions = Actions { named: refused.clone(), missing: SeccompAction::Errno(0x26), other: SeccompAction::Allow };
    let program = compile(&allow(&[41, 59]), &actions);
    let says = |number| run(&program, X86_64, number, [0; 6]).0;
    assert_eq!([41, 59].map(says), [u32::from(refused); 2]);
    assert_eq!([0, 40, 42, 0x3fff_ffff].map(says), [ALLOW; 4]);
    assert_eq!([X32, X32 | 41, X32 | 59, X32 | 512, u32::MAX].map(says), [KILL; 5]);
}

#[test]
fn a_call_can_be_said_to_be_missing() {
    let rules = Rules::from([(3, Rule::Always), (4, Rule::Missing)]);
    assert_eq!((says(&rules, 3, [0; 6]), says(&rules, 4, [0; 6]), says(&rules, 5, [0; 6])), (ALLOW, NO_CALL, KILL));
}

#[test]
fn arguments_are_checked_in_all_their_bits() {
    let value = 0x1234_5678_9abc_def0;
    let checked = |check| Rules::from([(7, Rule::Where(vec![check]))]);
    let with = |word| [0, 0, word, 0, 0, 0];
    let equal = checked(argument(2, value));
    assert_eq!(says(&equal, 7, with(value)), ALLOW);
    for bit in 0..64 {
        assert_eq!(says(&equal, 7, with(value ^ (1 << bit))), KILL, "bit {bit}");
    }
    let bits = 0x8000_0001_0000_0004;
    let without = checked(argument_without(2, bits));
    for bit in 0..64 {
        let expected = if bits & (1 << bit) == 0 { ALLOW } else { KILL };
        assert_eq!(says(&without, 7, with(1 << bit)), expected, "bit {bit}");
    }
    let differs = checked(Check { argument: 2, mask: u64::MAX, value, equal: false });
    assert_eq!(says(&differs, 7, with(value)), KILL);
    for bit in 0..64 {
        assert_eq!(says(&differs, 7, with(value ^ (1 << bit))), ALLOW, "bit {bit}");
    }
}

#[test]
fn one_of_several_checks_is_enough() {
    let rules = Rules::from([(7, Rule::Where(vec![argument(0, 1), argument(1, 2)]))]);
    let of = |first, second| says(&rules, 7, [first, second, 0, 0, 0, 0]);
    assert_eq!([of(1, 0), of(0, 2), of(1, 2), of(0, 0), of(2, 1)], [ALLOW, ALLOW, ALLOW, KILL, KILL]);
}
