// SPDX-License-Identifier: Apache-2.0
//! What a command that does its worst costs a neighbour: another run on the same host, and nothing else there. For quiet
//! machines only, so not for CI; docs/benchmarks.md has the ratios.

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
const ROUNDS: usize = 5;

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

fn neighbour() -> Result {
    let (bench, other) = (Bench::new(), Bench::new());
    work(&bench);
    for attacker in ATTACKS {
        let mut ratios: Vec<f64> = (0..ROUNDS)
            .map(|_| {
                let alone = work(&bench);
                let running = attack(&other, attacker);
                let beside = work(&bench);
                drop(running);
                beside / alone
            })
            .collect();
        ratios.sort_by(f64::total_cmp);
        let (name, ..) = attacker;
        println!(
            "beside {name} a run takes {:.2} times as long ({:.2} to {:.2})",
            ratios[ROUNDS / 2],
            ratios[0],
            ratios[ROUNDS - 1]
        );
        assert!(ratios[ROUNDS / 2] < 1.5, "beside {name}: {ratios:.2?}");
    }
    Ok(())
}
