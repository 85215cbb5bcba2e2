// SPDX-License-Identifier: Apache-2.0
//! Several virtual CPUs: as many as asked for, all of them at work, and one memory.

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
