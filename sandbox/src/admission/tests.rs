// SPDX-License-Identifier: Apache-2.0
//! Machines that are only written down, by threads: locks belong to open files, so these are as strange to each other as
//! processes are. (What needs real ones, such as a death, is in tests/e2e/admission.rs.)

use std::ffi::OsStr;
use std::fs::File;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

use super::ledger::Ledger;
use super::turn::Queue;
use super::{Error, Need, Policy};
use crate::sys::locks;
use crate::sys::signals::Signals;

/// More than any of this takes.
const LIMIT: Duration = Duration::from_secs(60);

fn need(memory: u64) -> Need {
    Need { memory, cpus: 0, kept: false }
}

fn ledger(place: &Path) -> Ledger {
    Ledger::open(place.join("ledger")).expect("a ledger can be made")
}

#[test]
fn the_environment_says_whether_to_wait() {
    let policy = |text: &str| Policy::of(Some(OsStr::new(text)));
    assert_eq!(Policy::of(None).expect("nothing is fine"), Policy::Host);
    assert_eq!(policy("").expect("nothing is fine"), Policy::Host);
    assert_eq!(policy("off").expect("makes sense"), Policy::Off);
    assert_eq!(policy("8G").expect("makes sense"), Policy::Within(8 << 30));
    assert!(policy("lots").expect_err("refused").to_string().contains("SANDBOX_ADMIT is \"lots\""));
}

#[test]
fn all_together_never_take_more_than_there_is() {
    const ROOM: u64 = 10;
    let place = tempfile::tempdir().expect("a directory can be made");
    let (taken, most) = (AtomicU64::new(0), AtomicU64::new(0));
    thread::scope(|scope| {
        for worker in 0..16_u64 {
            let (taken, most, place) = (&taken, &most, place.path());
            scope.spawn(move || {
                for round in 0..20 {
                    let own = 1 + (worker * 7 + round * 3) % ROOM;
                    let lease = Queue::new(need(own), Some(ROOM), None).enter(ledger(place)).expect("comes in");
                    let all = taken.fetch_add(own, Ordering::SeqCst) + own;
                    most.fetch_max(all, Ordering::SeqCst);
                    thread::yield_now();
                    taken.fetch_sub(own, Ordering::SeqCst);
                    drop(lease);
                }
            });
        }
    });
    let most = most.load(Ordering::SeqCst);
    assert!((ROOM / 2..=ROOM).contains(&most), "{most} of {ROOM} were taken at a time");
    assert_eq!(ledger(place.path()).entries().expect("it can be read"), []);
}

#[test]
fn who_is_too_large_comes_in_alone() {
    let place = tempfile::tempdir().expect("a directory can be made");
    let lease = Queue::new(need(1000), Some(10), None).enter(ledger(place.path())).expect("comes in");
    let (told, tells) = mpsc::channel();
    thread::scope(|scope| {
        let place = place.path();
        scope.spawn(move || {
            let lease = Queue::new(need(1), Some(10), None).enter(ledger(place)).expect("comes in");
            told.send(()).expect("somebody listens");
            drop(lease);
        });
        assert!(tells.recv_timeout(Duration::from_millis(200)).is_err(), "nobody comes in beside it");
        drop(lease);
        tells.recv_timeout(LIMIT).expect("and then somebody does");
    });
}

#[test]
fn a_small_one_does_not_overtake_a_large_one() {
    let place = tempfile::tempdir().expect("a directory can be made");
    let first = Queue::new(need(6), Some(10), None).enter(ledger(place.path())).expect("comes in");
    let (told, tells) = mpsc::channel();
    thread::scope(|scope| {
        let enter = |own: u64| {
            let (told, place) = (told.clone(), place.path());
            scope.spawn(move || {
                let _lease = Queue::new(need(own), Some(10), None).enter(ledger(place)).expect("comes in");
                told.send(own).expect("somebody listens");
            })
        };
        let (probe, begun) = (ledger(place.path()), Instant::now());
        enter(9);
        // It has the turn, and there is room for another but not for it.
        while probe.try_turn().expect("can be asked") {
            probe.end_turn().expect("and given back");
            assert!(begun.elapsed() < LIMIT, "it never came to have the turn");
            thread::yield_now();
        }
        enter(2);
        assert!(tells.recv_timeout(Duration::from_millis(200)).is_err(), "nobody comes in before it");
        drop(first);
        assert_eq!([(); 2].map(|()| tells.recv_timeout(LIMIT)), [Ok(9), Ok(2)]);
    });
}

#[test]
fn a_dead_runs_machine_takes_no_room() {
    let place = tempfile::tempdir().expect("a directory can be made");
    // Written down, and its lock given back without a word, as the kernel does for the dead.
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&10_u64.to_ne_bytes());
    std::fs::write(place.path().join("ledger"), bytes).expect("can be written");
    assert_eq!(ledger(place.path()).entries().expect("can be read").len(), 1);
    let lease = Queue::new(need(1), Some(10), None).enter(ledger(place.path())).expect("comes in");
    let entries = ledger(place.path()).entries().expect("can be read");
    assert_eq!(entries.iter().map(|entry| entry.memory).collect::<Vec<_>>(), [1]);
    drop(lease);
}

/// A process that has ended and whose lock somebody else holds.
#[test]
fn an_end_without_an_effect_is_news_but_once() {
    let place = tempfile::tempdir().expect("a directory can be made");
    let mut ended = Command::new("true").spawn().expect("it can be started");
    let holder = ledger(place.path());
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&10_u64.to_ne_bytes());
    bytes[12..16].copy_from_slice(&ended.id().to_ne_bytes());
    std::fs::write(holder.path(), bytes).expect("can be written");
    let locked = File::options().write(true).open(holder.path()).expect("it is there");
    assert!(locks::try_lock(&locked, 0).expect("can be asked"));
    let (told, tells) = mpsc::channel();
    thread::scope(|scope| {
        let place = place.path();
        scope.spawn(move || {
            let lease = Queue::new(need(1), Some(10), None).enter(ledger(place)).expect("comes in");
            drop(lease);
            told.send(clock_gettime(ClockId::ThreadCPUTime)).expect("somebody listens");
        });
        assert!(tells.recv_timeout(Duration::from_secs(2)).is_err(), "what is locked takes room");
        drop(locked);
        let used = tells.recv_timeout(LIMIT).expect("and then there is room");
        assert!(used.tv_sec == 0 && used.tv_nsec < 300_000_000, "it took {used:?} to wait");
    });
    ended.wait().expect("it is ours");
}

#[test]
fn a_ledger_of_two_names_is_none_of_ours() {
    let place = tempfile::tempdir().expect("a directory can be made");
    let ledger = ledger(place.path());
    ledger.is_ours().expect("it is");
    std::fs::hard_link(ledger.path(), place.path().join("other")).expect("a link can be made");
    assert!(ledger.is_ours().is_err());
}

#[test]
fn who_keeps_a_machine_does_not_wait_for_himself() {
    let place = tempfile::tempdir().expect("a directory can be made");
    let kept = Need { kept: true, ..need(10) };
    let first = Queue::new(kept, Some(10), None).enter(ledger(place.path())).expect("comes in");
    let mut second = Queue::new(kept, Some(10), None);
    second.stalemate = Duration::from_millis(100);
    drop((first, second.enter(ledger(place.path())).expect("comes in, after a while")));
}

#[test]
fn a_signal_that_ends_a_run_ends_its_wait() {
    let place = tempfile::tempdir().expect("a directory can be made");
    let _first = Queue::new(need(10), Some(10), None).enter(ledger(place.path())).expect("comes in");
    for waits_for_its_turn in [false, true] {
        let holder = ledger(place.path());
        assert!(!waits_for_its_turn || holder.try_turn().expect("can be asked"));
        let (signals, sender) = Signals::of_threads().expect("a pipe can be made");
        sender.send(15);
        let ended = Queue::new(need(10), Some(10), Some(&signals)).enter(ledger(place.path()));
        assert!(matches!(ended, Err(Error::Cancelled(15))), "{ended:?}");
    }
    // What stood in line gets the turn, and gives it back.
    ledger(place.path()).wait_for_turn().expect("nobody keeps it");
}
