// SPDX-License-Identifier: Apache-2.0
//! Several virtual CPUs: as many as asked for, all of them at work, and one memory.

use std::fs;
use std::io::{BufRead, BufReader};

use harness::{Case, Need};
use sha2::{Digest, Sha256};
use tests::Bench;

macro_rules! case {
    ($name:ident $(, $need:expr)*) => {
        Case { name: concat!("smp::", stringify!($name)), needs: &[$($need),*], body: $name }
    };
}

pub(crate) const CASES: &[Case] = &[
    case!(cpus_are_as_many_as_asked_for),
    case!(threads_on_every_cpu_compute_the_right_result, Need::Program("python3")),
    case!(two_cpus_share_the_work),
];

type Result = std::result::Result<(), String>;

const COUNTS: [usize; 3] = [1, 2, 4];

fn cpus_are_as_many_as_asked_for() -> Result {
    let bench = Bench::new();
    bench.run(["nproc"]).wait().prints("1");
    for count in COUNTS {
        let script = "nproc; grep -c ^processor /proc/cpuinfo; cat /sys/devices/system/cpu/online";
        let online = if count == 1 { "0".to_owned() } else { format!("0-{}", count - 1) };
        let ran = bench.run(["--cpus", &count.to_string(), "--", "sh", "-c", script]).wait();
        ran.prints(&format!("{count}\n{count}\n{online}"));
    }
    Ok(())
}

/// A thread bound to each CPU adds to a chain of hashes in turn, which shows every lost or doubled turn, and between its
/// turns hashes a block of its own with the others, since Python lets go of its lock meanwhile.
const CHAIN: &str = "import hashlib, os, sys, threading
count, turns, chain, where = int(sys.argv[1]), 32, [b''], set()
turn = threading.Condition()
def work(own):
    os.sched_setaffinity(0, [own])
    block = bytes([own]) * 65536
    for number in range(own, turns * count, count):
        mine = hashlib.sha256(block + chain_at(number)).digest()
        with turn:
            turn.wait_for(lambda: len(chain) == number + 1)
            chain.append(hashlib.sha256(chain[-1] + mine).digest())
            turn.notify_all()
    where.add(int(open('/proc/thread-self/stat').read().rsplit(')', 1)[1].split()[36]))
def chain_at(number): return number.to_bytes(4, 'little')
threads = [threading.Thread(target=work, args=[own]) for own in range(count)]
[thread.start() for thread in threads]; [thread.join() for thread in threads]
print(chain[-1].hex(), sorted(where))";

fn threads_on_every_cpu_compute_the_right_result() -> Result {
    let bench = Bench::new();
    for count in COUNTS {
        let words = ["--cpus", &count.to_string(), "--", "/usr/bin/python3", "-c", CHAIN, &count.to_string()];
        let cpus: Vec<usize> = (0..count).collect();
        bench.run(words).wait().prints(&format!("{} {cpus:?}", expected(count)));
    }
    Ok(())
}

/// Two processes that count, then a word, then a wait for the end of standard input.
const JOB: &str =
    "count() { i=0; while [ $i -lt 50000 ]; do i=$((i+1)); done; }; count & count; wait; echo up; read line; true";

/// On a host with a processor for each virtual one, a job is over when the busiest of their threads is. What else the host does
/// counts as theirs and only ever adds, so of runs that take turns the quickest are compared.
fn two_cpus_share_the_work() -> Result {
    let bench = Bench::new();
    let mut least = [u64::MAX; 2];
    for _ in 0..3 {
        for (least, cpus) in least.iter_mut().zip([1, 2]) {
            *least = busiest(&bench, cpus).min(*least);
        }
    }
    let [one, two] = least;
    assert!(two * 4 < one * 3, "the busier of two ran for {two} ticks, one alone for {one}");
    Ok(())
}

/// For how long the busiest of so many has run when the job is done.
fn busiest(bench: &Bench, cpus: usize) -> u64 {
    let mut run = bench.run(["--cpus", &cpus.to_string(), "--", "sh", "-c", JOB]).input("").spawn();
    let mut line = String::new();
    BufReader::new(run.stdout.take().expect("piped")).read_line(&mut line).expect("the job is done");
    assert_eq!(line, "up\n");
    let times = processor_times(run.id());
    assert_eq!(times.len(), cpus);
    drop(run.stdin.take());
    run.ran().expect(0, "exited");
    times.into_iter().max().expect("there is one")
}

/// For how many ticks the thread of each virtual CPU has run (proc_pid_stat(5)).
fn processor_times(run: u32) -> Vec<u64> {
    let read = |path: String| fs::read_to_string(path).unwrap_or_default();
    let children = read(format!("/proc/{run}/task/{run}/children"));
    let tasks = children.split_whitespace().flat_map(|child| fs::read_dir(format!("/proc/{child}/task")).into_iter());
    let stats = tasks.flatten().flatten().map(|task| read(format!("{}/stat", task.path().display())));
    let time = |stat: String| {
        let (name, rest) = stat.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let field = |at: usize| fields.get(at).and_then(|text| text.parse::<u64>().ok());
        name.contains("(vcpu-").then(|| Some(field(11)? + field(12)?)).flatten()
    };
    stats.filter_map(time).collect()
}

/// The same chain, here and in one thread.
fn expected(count: usize) -> String {
    let mut chain = Vec::new();
    for number in 0..32 * count {
        let block = vec![(number % count) as u8; 65536];
        let mine = Sha256::new().chain_update(block).chain_update((number as u32).to_le_bytes()).finalize();
        chain = Sha256::new().chain_update(chain).chain_update(mine).finalize().to_vec();
    }
    chain.iter().map(|byte| format!("{byte:02x}")).collect()
}
