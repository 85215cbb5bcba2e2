// SPDX-License-Identifier: Apache-2.0
//! What a command that does its worst costs a neighbour: another run on the same host, and nothing else there. For quiet
//! machines only, so not for CI; docs/benchmarks.md has the ratios.
//!
//! How many processors an attack can keep busy does not depend on what else the host does: its virtual processor is one
//! thread, and the rest of what its run costs is told as a part of that.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::{Duration, Instant};

use harness::Case;
use tests::{Bench, Running};

macro_rules! case {
    ($name:literal, $body:ident) => {
        Case { name: $name, needs: &[], body: $body }
    };
}

pub(crate) const CASES: &[Case] =
    &[case!("soak::flood_of_ten_gibibytes", flood), case!("soak::neighbour_is_slowed_by_less_than_half", neighbour)];

type Result = std::result::Result<(), String>;

/// Rounds of each attack; alone and beside it take turns.
const ROUNDS: usize = 3;

/// Who does what, within which limits. Each says "up", and then goes on for longer than a round.
const ATTACKS: [(&str, &[&str], &str); 5] = [
    ("a fork bomb", &["--pids-limit", "200"], "import os\nwhile True:\n  try: os.fork()\n  except OSError: pass"),
    (
        "a memory hog",
        &["-m", "256M"],
        "import os\nwhile True:\n  if os.fork() == 0:\n    x = []\n    while True: x.append(bytearray(b'x') * (1 << 20))\n  os.wait()",
    ),
    (
        "a disk filler",
        &["-m", "256M", "--disk-size", "1G"],
        "import os\nwhile True:\n  try:\n    with open('/var/tmp/x', 'wb') as f:\n      while True: f.write(b'x' * (1 << 20))\n  except OSError: pass",
    ),
    ("a flood", &["--output-limit", "1T"], "import os\nwhile True: os.write(1, b'x' * (1 << 16))"),
    ("a busy loop", &[], "while True: pass"),
];

fn flood() -> Result {
    let bench = Bench::new();
    let mut call = bench.run(["--output-limit", "10G", "--", "yes"]).within(Duration::from_secs(1800));
    call.command.stdout(Stdio::null()).stderr(Stdio::piped());
    let ran = call.spawn_as_is().ran();
    ran.expect(125, "output_limit");
    assert_eq!(ran.report["usage"]["stdout_bytes"], 10_u64 << 30);
    assert_eq!(ran.report["usage"]["complete"], true);
    println!("10 GiB took {:.0} s", ran.wall.as_secs_f64());
    Ok(())
}

/// Starts an attack, and waits until it is under way. Its output goes on to be read and thrown away.
fn attack(bench: &Bench, (_, options, script): (&str, &[&str], &str)) -> Running {
    let script = format!("print('up', flush=True)\n{script}");
    let words = [options, &["--timeout", "120s", "--", "/usr/bin/python3", "-c", &script]].concat();
    let mut running = bench.run(words).spawn();
    let mut output = BufReader::new(running.stdout.take().expect("piped"));
    let mut line = String::new();
    output.read_line(&mut line).expect("the attack says that it is under way");
    assert_eq!(line, "up\n");
    std::thread::spawn(move || std::io::copy(&mut output, &mut std::io::sink()));
    running
}

/// How long a neighbour takes for some work of its own.
fn work(bench: &Bench) -> f64 {
    let begun = Instant::now();
    bench.shell("i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done").wait().expect(0, "exited");
    begun.elapsed().as_secs_f64()
}

/// The CPU time of every thread of these processes and their descendants, in ticks.
fn threads(process: u32) -> Vec<f64> {
    let mut times = Vec::new();
    let tasks = fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
    for task in tasks {
        // A thread or process that has ended meanwhile is nobody's.
        let stat = fs::read_to_string(task.path().join("stat")).unwrap_or_default();
        let fields: Vec<&str> = stat.rsplit_once(") ").map_or("", |(_, rest)| rest).split(' ').collect();
        let field = |at: usize| fields.get(at).and_then(|text| text.parse::<f64>().ok()).unwrap_or_default();
        times.push(field(11) + field(12));
        let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
        times.extend(children.split_whitespace().filter_map(|child| child.parse().ok()).flat_map(threads));
    }
    times
}

/// How many processors a run of one virtual processor keeps busy at most.
fn processors(running: &Running) -> f64 {
    let times = threads(running.id());
    times.iter().sum::<f64>() / times.iter().fold(1.0, |most: f64, time| most.max(*time))
}

fn neighbour() -> Result {
    let (bench, other) = (Bench::new(), Bench::new());
    work(&bench);
    let mut slowed = Vec::new();
    for attacker in ATTACKS {
        let mut busy = 0.0_f64;
        let mut ratios: Vec<f64> = (0..ROUNDS)
            .map(|_| {
                let alone = work(&bench);
                let running = attack(&other, attacker);
                let beside = work(&bench);
                busy = busy.max(processors(&running));
                drop(running);
                beside / alone
            })
            .collect();
        ratios.sort_by(f64::total_cmp);
        let (name, ..) = attacker;
        let (least, median, most) = (ratios[0], ratios[ROUNDS / 2], ratios[ROUNDS - 1]);
        println!(
            "beside {name}, which keeps {busy:.2} processors busy: {median:.2} times as long ({least:.2} to {most:.2})"
        );
        assert!(busy < 1.5, "{name} keeps {busy:.2} processors busy");
        slowed.push((name, median));
    }
    let most = slowed.iter().find(|(_, ratio)| *ratio >= 1.5);
    assert!(most.is_none(), "a neighbour is slowed by more than half, or the host is not quiet: {slowed:.2?}");
    Ok(())
}
