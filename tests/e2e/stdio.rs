// SPDX-License-Identifier: Apache-2.0
//! The standard streams: apart, live, byte-exact, and never a reason to hang.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use harness::Case;
use sha2::{Digest, Sha256};
use tests::tier::{patient, share};
use tests::{Bench, Running};

macro_rules! case {
    ($name:ident) => {
        Case { name: concat!("stdio::", stringify!($name)), needs: &[], body: $name }
    };
}

pub(crate) const CASES: &[Case] = &[
    case!(streams_are_apart),
    case!(output_is_live),
    case!(many_bytes_out),
    case!(many_bytes_in),
    case!(slow_reader_loses_nothing),
    case!(reader_that_leaves_breaks_the_pipe),
    case!(closed_stdin_is_the_end),
    case!(silent_stdin_does_not_hold_the_run),
    case!(grandchild_does_not_hold_the_run),
    case!(late_output_of_the_command_arrives),
    case!(device_names_of_the_streams_work),
    case!(full_disk_of_the_host_is_told),
];

type Result = std::result::Result<(), String>;

/// How many bytes "many" are: far more than all that lies between the command and us can hold.
fn many() -> u64 {
    share(256 << 20)
}

/// How much our process may grow meanwhile, in KiB.
const GROWTH: u64 = 8 << 10;

fn streams_are_apart() -> Result {
    let ran = Bench::new().shell("echo out; echo err >&2").wait();
    ran.prints("out");
    assert_eq!(ran.stderr, "err\n");
    Ok(())
}

fn output_is_live() -> Result {
    let bench = Bench::new();
    let mut child = bench.shell("echo first; read line; echo $line").input("").spawn();
    let mut stdin = child.stdin.take().expect("piped");
    let mut output = BufReader::new(child.stdout.take().expect("piped"));
    let mut line = String::new();
    output.read_line(&mut line).map_err(|error| error.to_string())?;
    // The command waits for us, so what we have read came before its end.
    assert_eq!(line, "first\n");
    stdin.write_all(b"second\n").map_err(|error| error.to_string())?;
    line.clear();
    output.read_line(&mut line).map_err(|error| error.to_string())?;
    assert_eq!(line, "second\n");
    assert!(child.wait().map_err(|error| error.to_string())?.success());
    Ok(())
}

/// Memory of our process that is its own, in KiB; the guest's, which it shares, is not.
fn own_memory(child: &Running) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).expect("the process runs");
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("Linux tells it");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// A block whose content depends on its place, so that a lost or doubled one shows.
fn block(number: u64) -> Vec<u8> {
    let mut state = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(1 << 16);
    while bytes.len() < 1 << 16 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes
}

const HASH_INPUT: &str = "sha256sum | cut -d' ' -f1";

fn many_bytes_out() -> Result {
    // The guest makes the stream and its hash; the two must agree here.
    let (bench, many) = (Bench::new(), many());
    let script = format!("exec 3>&1 1>&2; head -c {many} /dev/urandom | tee /dev/stderr | {HASH_INPUT} >&3");
    let mut child = bench.shell(&script).spawn();
    let mut hash = child.stdout.take().expect("piped");
    let hash = thread::spawn(move || {
        let mut text = String::new();
        hash.read_to_string(&mut text).map(|_| text)
    });
    let mut data = child.stderr.take().expect("piped");
    let (mut digest, mut total, mut buffer) = (Sha256::new(), 0, vec![0; 1 << 16]);
    let mut before = None;
    loop {
        let count = data.read(&mut buffer).map_err(|error| error.to_string())?;
        if count == 0 {
            break;
        }
        digest.update(&buffer[..count]);
        total += count as u64;
        if total > many / 16 && total < many - (8 << 20) {
            let now = own_memory(&child);
            let first = *before.get_or_insert(now);
            assert!(now.abs_diff(first) <= GROWTH, "grew from {first} to {now} KiB");
        }
    }
    assert!(child.wait().map_err(|error| error.to_string())?.success());
    assert_eq!(total, many);
    let told = hash.join().expect("the reading thread does not panic").map_err(|error| error.to_string())?;
    assert_eq!(told.trim(), hex(&digest.finalize()));
    Ok(())
}

fn many_bytes_in() -> Result {
    let bench = Bench::new();
    let mut child = bench.shell(HASH_INPUT).input("").spawn();
    let mut stdin = child.stdin.take().expect("piped");
    let mut digest = Sha256::new();
    let mut before = None;
    let blocks = many() >> 16;
    for number in 0..blocks {
        let bytes = block(number);
        digest.update(&bytes);
        stdin.write_all(&bytes).map_err(|error| error.to_string())?;
        if number > blocks / 16 {
            let now = own_memory(&child);
            let first = *before.get_or_insert(now);
            assert!(now.abs_diff(first) <= GROWTH, "grew from {first} to {now} KiB");
        }
    }
    drop(stdin);
    let output = child.output();
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), hex(&digest.finalize()));
    Ok(())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn slow_reader_loses_nothing() -> Result {
    let bench = Bench::new();
    let mut child = bench.shell("seq 1 200000").spawn();
    let mut output = child.stdout.take().expect("piped");
    let (mut text, mut buffer) = (Vec::new(), vec![0; 40_000]);
    loop {
        let count = output.read(&mut buffer).map_err(|error| error.to_string())?;
        if count == 0 {
            break;
        }
        text.extend_from_slice(&buffer[..count]);
        thread::sleep(Duration::from_millis(60));
    }
    assert!(child.wait().map_err(|error| error.to_string())?.success());
    let expected: String = (1..=200_000).map(|number| format!("{number}\n")).collect();
    assert!(text == expected.as_bytes(), "{} bytes instead of {}", text.len(), expected.len());
    Ok(())
}

fn reader_that_leaves_breaks_the_pipe() -> Result {
    let bench = Bench::new();
    let mut call = bench.run(["--timeout", "100s", "--", "yes"]);
    call.command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = call.spawn_as_is();
    let mut output = child.stdout.take().expect("piped");
    output.read_exact(&mut [0; 4]).map_err(|error| error.to_string())?;
    drop(output);
    let status = child.wait().map_err(|error| error.to_string())?;
    // 128 + SIGPIPE, as a shell reports it on the host.
    assert_eq!(status.code(), Some(141));
    Ok(())
}

fn closed_stdin_is_the_end() -> Result {
    let bench = Bench::new();
    bench.run(["wc", "-c"]).wait().prints("0");
    // Not even a descriptor: `<&-`.
    let mut call = bench.run(["wc", "-c"]);
    let program = call.command.get_program().to_owned();
    let words: Vec<_> = call.command.get_args().map(ToOwned::to_owned).collect();
    let mut shell = std::process::Command::new("sh");
    shell.args(["-c", "exec \"$@\" <&-", "sh"]).arg(program).args(words).current_dir(bench.path());
    call.command = shell;
    call.wait().prints("0");
    Ok(())
}

fn silent_stdin_does_not_hold_the_run() -> Result {
    let bench = Bench::new();
    let mut call = bench.run(["--", "echo", "done"]);
    call.command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = call.spawn_as_is();
    let stdin = child.stdin.take();
    let begun = Instant::now();
    let status = child.wait().map_err(|error| error.to_string())?;
    drop(stdin);
    assert!(status.success());
    assert!(begun.elapsed() < patient(Duration::from_secs(60)), "took {:?}", begun.elapsed());
    Ok(())
}

fn grandchild_does_not_hold_the_run() -> Result {
    let ran = Bench::new().shell("sleep 1000 & echo started").wait();
    ran.prints("started");
    let drained = ran.report["timings_ms"]["drain"].as_f64().expect("the drain is timed");
    assert!(drained < patient(Duration::from_secs(5)).as_secs_f64() * 1e3, "drained for {drained} ms");
    Ok(())
}

fn late_output_of_the_command_arrives() -> Result {
    // All in the pipe at once, and the command gone before the relay has seen any of it.
    let ran = Bench::new().shell("head -c 60000 /dev/zero").wait();
    ran.expect(0, "exited");
    assert_eq!(ran.stdout.len(), 60000);
    Ok(())
}

fn device_names_of_the_streams_work() -> Result {
    let ran = Bench::new().shell("echo a > /dev/stdout; echo b > /dev/stderr; cat /dev/stdin").input("c\n").wait();
    ran.prints("a\nc");
    assert_eq!(ran.stderr, "b\n");
    Ok(())
}

fn full_disk_of_the_host_is_told() -> Result {
    let bench = Bench::new();
    let mut call = bench.run(["echo", "lost"]);
    let full = fs::File::options().write(true).open("/dev/full").map_err(|error| error.to_string())?;
    call.command.stdout(full).stderr(Stdio::piped());
    let output = call.command.output().map_err(|error| error.to_string())?;
    assert_eq!(output.status.code(), Some(125), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
