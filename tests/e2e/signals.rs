// SPDX-License-Identifier: Apache-2.0
//! Signals to `sandbox`: what the command gets of them, and when they end the run.

use std::fs;
use std::io::{BufRead, BufReader, Lines};
use std::process::ChildStdout;
use std::time::{Duration, Instant};

use harness::{Case, Need};
use rustix::process::{Pid, Signal, kill_process};
use tests::pty::Terminal;
use tests::tier::patient;
use tests::{Bench, Ran, Running};

macro_rules! case {
    ($name:ident $(, $need:expr)*) => {
        Case { name: concat!("signals::", stringify!($name)), needs: &[$($need),*], body: $name }
    };
}

pub(crate) const CASES: &[Case] = &[
    case!(every_signal_reaches_the_command, Need::Program("bash")),
    case!(own_ending_counts),
    case!(second_signal_ends_at_once),
    case!(grace_is_what_the_user_says),
    case!(time_limit_tells_first),
    case!(signal_before_the_start_is_kept),
    case!(key_reaches_the_whole_group, Need::Program("bash")),
];

type Result = std::result::Result<(), String>;

/// A run whose command has said "up".
struct Up {
    run: Running,
    lines: Lines<BufReader<ChildStdout>>,
    since: Instant,
}

impl Up {
    fn wait(bench: &Bench, options: &[&str], program: &[&str]) -> Self {
        let mut run = bench.run([options, &["--"], program].concat()).spawn();
        let lines = BufReader::new(run.stdout.take().expect("piped")).lines();
        let mut up = Self { run, lines, since: Instant::now() };
        assert_eq!(up.line(), "up");
        up
    }

    fn line(&mut self) -> String {
        self.lines.next().expect("there is a further line").expect("it can be read")
    }

    fn gets(&mut self, signal: Signal) {
        self.since = Instant::now();
        kill_process(self.run.pid(), signal).expect("sandbox runs");
    }

    /// The end, the lines up to it, and how long it took since the last signal.
    fn end(self) -> (Ran, Vec<String>, Duration) {
        let rest = self.lines.map(|line| line.expect("it can be read")).collect();
        let ran = self.run.ran();
        (ran, rest, self.since.elapsed())
    }
}

fn every_signal_reaches_the_command() -> Result {
    const SIGNALS: [(Signal, &str); 8] = [
        (Signal::USR1, "USR1"),
        (Signal::USR2, "USR2"),
        (Signal::QUIT, "QUIT"),
        (Signal::WINCH, "WINCH"),
        (Signal::CONT, "CONT"),
        (Signal::TSTP, "TSTP"),
        // It has us go on, where the one before has stopped us.
        (Signal::CONT, "CONT"),
        (Signal::HUP, "HUP"),
    ];
    let script =
        "for s in HUP QUIT USR1 USR2 WINCH CONT TSTP; do trap \"echo $s\" $s; done; trap 'echo TERM; exit 9' TERM
                  echo up; while :; do sleep 0.05; done";
    let bench = Bench::new();
    let mut up = Up::wait(&bench, &["--kill-after", "1h"], &["bash", "-c", script]);
    for (signal, name) in SIGNALS {
        up.gets(signal);
        assert_eq!(up.line(), name);
    }
    // The second one that ends a run is not the command's any more.
    up.gets(Signal::TERM);
    let (ran, rest, _) = up.end();
    ran.expect(143, "cancelled");
    assert!(rest.is_empty(), "{rest:?}");
    Ok(())
}

fn own_ending_counts() -> Result {
    let bench = Bench::new();
    for (signal, name, status) in [(Signal::INT, "INT", 3), (Signal::TERM, "TERM", 0)] {
        let script = format!("trap 'echo cleaned; exit {status}' {name}; echo up; while :; do sleep 0.1; done");
        let mut up = Up::wait(&bench, &[], &["sh", "-c", &script]);
        up.gets(signal);
        let (ran, rest, _) = up.end();
        ran.expect(status, "exited");
        assert_eq!(rest, ["cleaned"]);
    }
    Ok(())
}

const DEAF: &str = "trap '' INT TERM; echo up; while :; do sleep 0.1; done";

fn second_signal_ends_at_once() -> Result {
    let bench = Bench::new();
    let mut up = Up::wait(&bench, &["--kill-after", "1h"], &["sh", "-c", DEAF]);
    up.gets(Signal::INT);
    up.gets(Signal::TERM);
    let (ran, ..) = up.end();
    ran.expect(143, "cancelled");
    Ok(())
}

fn grace_is_what_the_user_says() -> Result {
    let bench = Bench::new();
    let mut up = Up::wait(&bench, &["--kill-after", "1s"], &["sh", "-c", DEAF]);
    up.gets(Signal::TERM);
    let (ran, _, took) = up.end();
    ran.expect(143, "cancelled");
    assert!((Duration::from_secs(1)..patient(Duration::from_secs(5))).contains(&took), "took {took:?}");
    Ok(())
}

fn time_limit_tells_first() -> Result {
    let bench = Bench::new();
    let options = ["--timeout", "1s", "--kill-after", "1h"];
    let script = "trap 'echo cleaned; exit 0' TERM; echo up; while :; do sleep 0.1; done";
    let (ran, rest, _) = Up::wait(&bench, &options, &["sh", "-c", script]).end();
    ran.expect(124, "timeout");
    assert_eq!(rest, ["cleaned"]);
    let options = ["--timeout", "1s", "--kill-after", "1s"];
    Up::wait(&bench, &options, &["sh", "-c", DEAF]).end().0.expect(124, "timeout");
    Ok(())
}

/// It comes while the machine starts. The command, which knows nothing of it, dies of it as soon as it runs.
fn signal_before_the_start_is_kept() -> Result {
    let bench = Bench::new();
    let run = bench.run(["--boot", "--", "sleep", "60"]).spawn();
    let begun = Instant::now();
    while !blocks(run.pid(), Signal::USR1) {
        assert!(begun.elapsed() < patient(Duration::from_secs(30)), "it never blocks the signal");
        std::thread::sleep(Duration::from_millis(1));
    }
    // The machine's process has been started, which the run's early stages do not wait for.
    while fs::read_to_string(format!("/proc/{0}/task/{0}/children", run.id())).unwrap_or_default().split(' ').count()
        < 3
    {
        assert!(begun.elapsed() < patient(Duration::from_secs(30)), "it never starts a machine");
        std::thread::sleep(Duration::from_millis(1));
    }
    kill_process(run.pid(), Signal::USR1).map_err(|error| error.to_string())?;
    let ran = run.ran();
    ran.expect(138, "signaled");
    assert_eq!(ran.report["signal"], 10);
    Ok(())
}

fn blocks(process: Pid, signal: Signal) -> bool {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigBlk:")).unwrap_or_default();
    u64::from_str_radix(mask.trim(), 16).is_ok_and(|mask| mask >> (signal.as_raw() - 1) & 1 == 1)
}

/// Ctrl-C at a terminal that is not the command's: a shell waits for what it has started, which must get the signal too.
fn key_reaches_the_whole_group() -> Result {
    let bench = Bench::new();
    let script = "trap 'echo caught' INT; sh -c 'echo up; exec sleep 1000'; echo over; exit 5";
    let mut terminal = Terminal::of(bench.run(["-T", "--kill-after", "1h", "--", "bash", "-c", script]));
    terminal.sees("up");
    terminal.types("\u{3}");
    let end = terminal.end();
    end.ran.expect(5, "exited");
    assert!(end.screen.contains("caught\nover"), "{}", end.screen);
    Ok(())
}
