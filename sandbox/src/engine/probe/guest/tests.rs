// SPDX-License-Identifier: Apache-2.0
use super::*;

const ALL: Features = Features { xsave: true, avx: true, bmi: true };

/// The memory that a processor which does everything right leaves.
fn perfect(guest: &Guest) -> Vec<u8> {
    let mut memory = guest.memory.clone();
    for (_, place, expected) in &guest.results {
        memory[place.clone()].copy_from_slice(expected);
    }
    memory[STEP as usize] = guest.results.len() as u8 + 1;
    memory
}

#[test]
fn a_right_result_has_no_flaw() {
    let guest = Guest::new(ALL);
    assert_eq!(guest.flaw(&perfect(&guest)), None);
}

#[test]
fn each_wrong_result_is_named() {
    let guest = Guest::new(ALL);
    for (name, place, _) in &guest.results {
        let mut memory = perfect(&guest);
        memory[place.end - 1] ^= 1;
        assert_eq!(guest.flaw(&memory), Some(format!("a wrong result of {name}")));
    }
}

#[test]
fn a_guest_that_did_nothing_has_a_flaw_in_every_result() {
    let guest = Guest::new(ALL);
    for (name, place, expected) in &guest.results {
        assert_ne!(guest.memory[place.clone()], **expected, "{name} would pass without being done");
    }
    assert_eq!(guest.flaw(&guest.memory), Some("a halt at the first instruction".to_owned()));
}

#[test]
fn an_exception_is_told_with_its_step() {
    let guest = Guest::new(ALL);
    let mut memory = guest.memory.clone();
    memory[STEP as usize] = 3;
    memory[VECTOR as usize] = 6;
    assert_eq!(guest.flaw(&memory), Some("exception 6 at lock cmpxchg16b".to_owned()));
}

#[test]
fn steps_need_what_the_processor_has() {
    let names = |features| Guest::new(features).results.iter().map(|(name, ..)| *name).collect::<Vec<_>>();
    assert_eq!(names(ALL).len(), STEPS.len());
    let without = |name: &str, features| !names(features).iter().any(|step| step.starts_with(name));
    let (no_xsave, no_avx) = (Features { xsave: false, ..ALL }, Features { avx: false, ..ALL });
    assert!(without("xrstor", no_xsave) && without("vpxor", no_xsave) && !without("andn", no_xsave));
    assert!(without("vpxor", no_avx) && !without("xrstor", no_avx));
    assert!(without("andn", Features { bmi: false, ..ALL }));
    assert_eq!([ALL, no_avx, no_xsave].map(Features::xcr0), [Some(7), Some(3), None]);
}

#[test]
fn nothing_lies_upon_anything_else() {
    let guest = Guest::new(ALL);
    let code = guest.memory[CODE as usize..].iter().rposition(|byte| *byte == HLT);
    assert!(code.is_some());
    let used = guest.memory[CODE as usize..STACK as usize].iter().rposition(|byte| *byte != 0).unwrap_or_default();
    assert!(used < 0x1000, "the stack needs the page below {STACK:#x}");
    assert!((X_IN as usize + PRESENT + 64) < SIZE && X_IN.is_multiple_of(64) && PAIR.is_multiple_of(16));
}
