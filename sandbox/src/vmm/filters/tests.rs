// SPDX-License-Identifier: Apache-2.0
//! Each rule by itself: the call works, and its neighbours end the process. This test program starts itself again for
//! every call, since most answers are the end of whoever asked.

use super::*;
use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::time::{Duration, Instant};

const ROLES: [(&str, Role); 3] = [("first", Role::First), ("device", Role::Device), ("cpu", Role::Cpu)];

/// What the program started again is to do: role, call and three arguments.
const ORDER: &str = "SANDBOX_TEST_CALL";

const BAD_SYSTEM_CALL: i32 = 31;

/// rt_sigreturn(2), gettid(2), and the signal that has a handler in the monitor.
const RETURN_FROM_SIGNAL: i64 = 15;
const THREAD_ID: i64 = 186;

/// exit(2), which ends a thread.
const END_OF_THREAD: i64 = 60;
const KICK: u64 = 34;

/// ppoll(2).
const WAIT_FOR_DESCRIPTORS: i64 = 271;

/// Whether a filter of this role ends the process for this call.
fn killed(role: &str, call: i64, arguments: [u64; 3]) -> bool {
    let [first, second, third] = arguments;
    let order = format!("{role} {call} {first} {second} {third}");
    let program = std::env::current_exe().unwrap();
    let arguments = ["--exact", "vmm::filters::tests::order", "--ignored", "--nocapture", "--test-threads=1"];
    let output = Command::new(program).args(arguments).env(ORDER, &order).output().unwrap();
    match output.status.signal() {
        Some(BAD_SYSTEM_CALL) => true,
        // A call may have ended the process in its own way, or let it go on to its end.
        _ => {
            let said = String::from_utf8_lossy(&output.stdout);
            assert!(said.contains("confined"), "{order}: {}: {said}", output.status);
            false
        }
    }
}

#[test]
#[ignore = "started by the other tests"]
fn order() {
    let order = std::env::var(ORDER).expect("started by another test");
    let mut words = order.split(' ');
    let name = words.next().unwrap();
    let mut number = || words.next().unwrap().parse::<u64>().unwrap();
    let (call, mut arguments) = (number() as i64, [number(), number(), number()]);
    if call == calls::SIGNAL && arguments[0] == 0 {
        arguments[0] = std::process::id().into();
    }
    crate::sys::kick::install().unwrap();
    if call == END_OF_THREAD {
        end_with(calls::call(THREAD_ID, [0; 3]));
    }
    println!("confined");
    let (_, role) = ROLES.into_iter().find(|(own, _)| *own == name).unwrap();
    role.enter().unwrap();
    if call == RETURN_FROM_SIGNAL {
        // It is only sound as the end of a handler.
        let thread = calls::call(THREAD_ID, [0; 3]);
        calls::call(calls::SIGNAL, [std::process::id().into(), thread as u64, KICK]);
    } else {
        calls::call(call, arguments);
    }
    // Nothing but the end is sure to be allowed now.
    std::process::exit(0);
}

/// Ends this program when the thread has ended, whom nobody else would miss.
fn end_with(thread: i64) {
    let place = format!("/proc/self/task/{thread}");
    std::thread::spawn(move || {
        let begun = Instant::now();
        while std::fs::exists(&place).unwrap() && begun.elapsed() < Duration::from_secs(10) {
            std::thread::yield_now();
        }
        std::process::exit(0);
    });
}

/// Arguments with which a call that has rules is allowed.
fn fitting(call: i64) -> [u64; 3] {
    match call {
        calls::IOCTL => [u64::MAX, calls::RUN, 0],
        // No descriptor, or no such address.
        _ if call == calls::SIGNAL => [0, u64::MAX, 0],
        _ if calls::MAP.contains(&call) => [0, 0, 0],
        // More descriptors than there can be, or it would wait for ever.
        WAIT_FOR_DESCRIPTORS => [0, u64::MAX, 0],
        _ => [u64::MAX, 0, 0],
    }
}

#[test]
fn each_allowed_call_works_and_each_neighbour_is_the_end() {
    for (name, role) in ROLES {
        let allowed: BTreeSet<i64> = role.rules().into_keys().collect();
        let neighbours: BTreeSet<i64> = allowed.iter().flat_map(|call| [call - 1, call + 1]).collect();
        for call in &allowed {
            assert!(!killed(name, *call, fitting(*call)), "{name}: call {call} is allowed");
        }
        for call in neighbours.difference(&allowed).filter(|call| **call >= 0) {
            assert!(killed(name, *call, [u64::MAX, 0, 0]), "{name}: call {call} is not allowed");
        }
    }
}

#[test]
fn no_role_makes_a_socket() {
    for (name, role) in ROLES {
        for call in confine::SOCKETS {
            assert!(!role.rules().contains_key(&call) && killed(name, call, [1, 1, 0]), "{name}: call {call}");
        }
    }
}

#[test]
fn arguments_matter() {
    let [map, protect] = calls::MAP;
    for (name, _) in ROLES {
        assert!(killed(name, map, [0, 4096, calls::EXECUTABLE]), "{name}: executable memory");
        assert!(killed(name, protect, [0, 0, calls::EXECUTABLE | 1]), "{name}: memory made executable");
        assert!(killed(name, calls::SIGNAL, [1, 1, 0]), "{name}: a signal to another process");
    }
    for request in [calls::RUN].into_iter().chain(calls::REGISTERS) {
        assert!(!killed("cpu", calls::IOCTL, [u64::MAX, request, 0]), "request {request:#x}");
        for neighbour in [request - 1, request + 1] {
            assert!(killed("cpu", calls::IOCTL, [u64::MAX, neighbour, 0]), "request {neighbour:#x}");
        }
    }
    for request in [0, 0x5412] {
        assert!(killed("cpu", calls::IOCTL, [u64::MAX, request, 0]), "request {request:#x}");
    }
    assert!(killed("first", calls::IOCTL, [u64::MAX, calls::RUN, 0]));
    assert!(killed("device", calls::IOCTL, [u64::MAX, calls::RUN, 0]));
}

#[test]
fn a_virtual_cpu_has_at_most_25_calls() {
    assert!(Role::Cpu.rules().len() <= 25, "{}", Role::Cpu.rules().len());
}
