// SPDX-License-Identifier: Apache-2.0
//! Nothing is left behind, however a run ends.

use std::collections::BTreeSet;
use std::fs;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use harness::Case;
use tests::Bench;
use tests::tier::{patient, share};

macro_rules! case {
    ($prefix:literal, $name:ident) => {
        Case { name: concat!($prefix, "::", stringify!($name)), needs: &[], body: $name }
    };
}

pub(crate) const CASES: &[Case] = &[
    case!("kill", killed_runs_leave_nothing),
    case!("kill", twenty_runs_eight_at_a_time),
    case!("soak", two_hundred_runs_eight_at_a_time),
];

type Result = std::result::Result<(), String>;

#[derive(Debug, PartialEq, Eq)]
struct Leftovers {
    mounts: usize,
    temporary: BTreeSet<String>,
    cgroups: BTreeSet<String>,
    sockets: usize,
}

fn look() -> Leftovers {
    let names = |place: &str| {
        let entries = fs::read_dir(place).into_iter().flatten().flatten();
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect::<BTreeSet<_>>()
    };
    // The ledger of what runs stays where it is, as large as the most there was.
    let is_ours = |name: &String| name.contains("sandbox") && !name.starts_with("sandbox-ledger-");
    let ours = |names: BTreeSet<String>| names.into_iter().filter(is_ours).collect();
    let lines = |path: &str| fs::read_to_string(path).unwrap_or_default().lines().count();
    let named = fs::read_to_string("/proc/net/unix").unwrap_or_default();
    Leftovers {
        mounts: lines("/proc/self/mountinfo"),
        temporary: [ours(names("/tmp")), ours(names("/dev/shm")), ours(names("/run"))].concat_sets(),
        cgroups: ours(names("/sys/fs/cgroup")),
        sockets: named.lines().filter(|line| line.contains("sandbox")).count(),
    }
}

trait Concat {
    fn concat_sets(self) -> BTreeSet<String>;
}

impl<const N: usize> Concat for [BTreeSet<String>; N] {
    fn concat_sets(self) -> BTreeSet<String> {
        self.into_iter().flatten().collect()
    }
}

/// Living processes whose parent chain or process group leads to one of these.
pub(crate) fn descendants(roots: &BTreeSet<u32>) -> BTreeSet<u32> {
    let mut found = roots.clone();
    loop {
        let more: BTreeSet<u32> = processes()
            .into_iter()
            .filter(|(pid, parent, _)| found.contains(parent) && !found.contains(pid))
            .map(|(pid, _, _)| pid)
            .collect();
        if more.is_empty() {
            return found;
        }
        found.extend(more);
    }
}

/// Process id, parent and state of everything that runs.
pub(crate) fn processes() -> Vec<(u32, u32, char)> {
    let numbers = fs::read_dir("/proc").into_iter().flatten().flatten();
    let stat = |name: String| {
        let text = fs::read_to_string(format!("/proc/{name}/stat")).ok()?;
        let (_, rest) = text.rsplit_once(") ")?;
        let mut fields = rest.split(' ');
        Some((name.parse().ok()?, fields.nth(1)?.parse().ok()?, rest.chars().next()?))
    };
    numbers.filter_map(|entry| stat(entry.file_name().to_string_lossy().into_owned())).collect()
}

/// Held by each case here: eight machines at a time would take the processors that the other case's processes need to
/// die on within their second.
static ALONE: Mutex<()> = Mutex::new(());

/// Kills runs at moments spread over their whole life.
fn killed_runs_leave_nothing() -> Result {
    let _alone = ALONE.lock();
    let before = look();
    let bench = Bench::new();
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    for number in 0..share(100) {
        let mut child = bench.shell("sleep 5").spawn();
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        thread::sleep(Duration::from_millis(state % 2500));
        let family = descendants(&BTreeSet::from([child.id()]));
        child.kill().map_err(|error| error.to_string())?;
        child.wait().map_err(|error| error.to_string())?;
        let killed = Instant::now();
        loop {
            let left: Vec<_> =
                processes().into_iter().filter(|(pid, _, state)| family.contains(pid) && *state != 'Z').collect();
            if left.is_empty() {
                break;
            }
            assert!(killed.elapsed() < patient(Duration::from_secs(1)), "run {number} left {left:?}");
            thread::sleep(Duration::from_millis(10));
        }
    }
    assert_eq!(look(), before);
    Ok(())
}

fn runs(count: usize) -> Result {
    let _alone = ALONE.lock();
    let before = look();
    thread::scope(|scope| {
        let workers: Vec<_> = (0..8)
            .map(|worker| {
                scope.spawn(move || {
                    let bench = Bench::new();
                    for number in (worker..count).step_by(8) {
                        bench.shell(&format!("echo run {number}")).wait().prints(&format!("run {number}"));
                    }
                })
            })
            .collect();
        workers.into_iter().for_each(|worker| worker.join().expect("every run succeeds"));
    });
    assert_eq!(look(), before);
    Ok(())
}

fn twenty_runs_eight_at_a_time() -> Result {
    runs(20)
}

fn two_hundred_runs_eight_at_a_time() -> Result {
    runs(200)
}
