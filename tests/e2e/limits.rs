// SPDX-License-Identifier: Apache-2.0
//! Limits: each is exceeded, and then found by its name, in the report and in one line on standard error, with guest init
//! alive: it has told what the command used (`usage.complete`).

use std::fs;
use std::time::Duration;

use harness::Case;
use serde_json::Value;
use tests::tier::patient;
use tests::{Bench, Ran};

macro_rules! case {
    ($name:ident) => {
        Case { name: concat!("limits::", stringify!($name)), needs: &[], body: $name }
    };
}

pub(crate) const CASES: &[Case] = &[
    case!(memory_names_whom_it_killed),
    case!(memory_that_ends_a_child_is_told),
    case!(processors_are_no_more_than_asked_for),
    case!(processes_are_counted),
    case!(fork_bomb_ends_in_time),
    case!(private_layer_is_full),
    case!(shared_memory_is_full),
    case!(file_systems_in_memory_are_full),
    case!(file_system_in_memory_lies_in_a_volume),
    case!(resource_limits_end_a_command),
    case!(resource_limits_are_the_commands),
    case!(flood_ends_at_its_limit),
    case!(busy_loop_ends_in_time),
    case!(usage_is_told),
];

type Result = std::result::Result<(), String>;

const HOG: &str = "x = []\nwhile True: x.append(bytearray(b'x') * (1 << 20))";

/// What the report says of a limit that was met.
fn hit<'r>(ran: &'r Ran, limit: &str) -> &'r Value {
    let hits = ran.report["limits_hit"].as_array().expect("the report lists what was met");
    hits.iter().find(|hit| hit["limit"] == limit).unwrap_or_else(|| panic!("{limit} was not met: {}", ran.report))
}

/// Fails unless this limit was met, ended the run or not, is told of in one line, and init was alive at the end.
fn met(ran: &Ran, limit: &str, ended: bool) {
    let detail = hit(ran, limit)["detail"].as_str().expect("a limit is told of in words");
    assert_eq!(hit(ran, limit)["ended"], ended, "{}", ran.report);
    let own: Vec<&str> = ran.stderr.lines().filter(|line| line.starts_with("sandbox: ")).collect();
    assert_eq!(own, [format!("sandbox: {detail}")], "{}", ran.stderr);
    assert_eq!(ran.report["usage"]["complete"], true, "init was not alive: {}", ran.report);
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}

fn memory_names_whom_it_killed() -> Result {
    let ran = Bench::new().run(["-m", "128M", "--", "/usr/bin/python3", "-c", HOG]).wait();
    ran.expect(137, "oom");
    met(&ran, "memory", true);
    assert_eq!((&ran.report["oom_victim"], &ran.report["signal"]), (&"command".into(), &9.into()));
    let killed = &ran.report["oom_killed"][0];
    let named = format!("killed {} (pid {}) at a peak of ", killed["name"].as_str().unwrap_or_default(), killed["pid"]);
    assert!(killed["name"].as_str().is_some_and(|name| name.starts_with("python3")), "{killed}");
    assert!(ran.stderr.contains(&named) && ran.stderr.contains("-m"), "{}", ran.stderr);
    let peak = number(&ran.report["usage"]["memory_peak_bytes"]);
    assert!((64e6..128.0 * 1048576.0).contains(&peak), "{peak}");
    Ok(())
}

fn memory_that_ends_a_child_is_told() -> Result {
    let bench = Bench::new();
    bench.write("hog.py", HOG);
    let script = "/usr/bin/python3 hog.py; echo went on; exit 3";
    let ran = bench.run(["-m", "128M", "--", "sh", "-c", script]).wait();
    ran.expect(3, "exited");
    met(&ran, "memory", false);
    assert_eq!((ran.text().as_str(), &hit(&ran, "memory")["count"]), ("went on", &1.into()));
    Ok(())
}

fn processors_are_no_more_than_asked_for() -> Result {
    let busy = "timeout 1 sh -c 'while :; do :; done' &";
    let ran = Bench::new().shell(&format!("{busy} {busy} {busy} {busy} wait")).wait();
    ran.expect(0, "exited");
    let usage = &ran.report["usage"];
    let (used, took) =
        (number(&usage["user_ms"]) + number(&usage["system_ms"]), number(&ran.report["timings_ms"]["run"]));
    // The clock of the one and the counter of the other are not the same.
    assert!(used > 500.0 && used < took * 1.1, "{used} ms of processor time in {took} ms");
    Ok(())
}

fn processes_are_counted() -> Result {
    let script = "import os, time\nfor n in range(20):\n  if os.fork() == 0: time.sleep(60)";
    let bench = Bench::new();
    let ran = bench.run(["--pids-limit", "8", "--", "/usr/bin/python3", "-c", script]).wait();
    ran.expect(1, "exited");
    assert!(ran.stderr.contains("Resource temporarily unavailable"), "{}", ran.stderr);
    met(&ran, "pids", false);
    assert_eq!((&hit(&ran, "pids")["count"], &ran.report["usage"]["processes_peak"]), (&1.into(), &8.into()));
    let ran = bench.run(["--pids-limit", "8", "--", "sh", "-c", "for i in 1 2 3 4; do sleep 0 & done; wait"]).wait();
    assert_eq!((ran.code(), &ran.report["limits_hit"]), (0, &Value::Array(vec![])), "{}", ran.stderr);
    Ok(())
}

/// Each process of it makes two more; the first one goes on, so that only time ends them.
fn fork_bomb_ends_in_time() -> Result {
    let bench = Bench::new();
    bench.write("bomb.py", "import os\nwhile True:\n  try: os.fork()\n  except OSError: pass\n");
    let words = ["--pids-limit", "64", "--timeout", "3s", "--", "/usr/bin/python3", "bomb.py"];
    let ran = bench.run(words).wait();
    ran.expect(124, "timeout");
    assert_eq!(hit(&ran, "timeout")["ended"], true);
    assert_eq!(ran.report["usage"]["processes_peak"], 64, "{}", ran.report);
    assert!(number(&hit(&ran, "pids")["count"]) > 0.0, "{}", ran.report);
    let run = number(&ran.report["timings_ms"]["run"]);
    assert!(run < 3000.0 + patient(Duration::from_secs(3)).as_secs_f64() * 1e3, "it took {run} ms");
    Ok(())
}

fn private_layer_is_full() -> Result {
    let ran = Bench::new().run(["--disk-size", "4M", "--", "dd", "if=/dev/zero", "of=/var/tmp/x", "bs=64k"]).wait();
    ran.expect(1, "exited");
    assert!(ran.stderr.contains("No space left on device"), "{}", ran.stderr);
    met(&ran, "disk", false);
    let held = number(&ran.report["usage"]["private_bytes"]);
    assert!((4e6..4.0 * 1048576.0 + 1.0).contains(&held), "{held}");
    Ok(())
}

fn shared_memory_is_full() -> Result {
    let bench = Bench::new();
    let fill = ["--shm-size", "1M", "--", "dd", "if=/dev/zero", "of=/dev/shm/x", "bs=64k"];
    let ran = bench.run(fill).wait();
    ran.expect(1, "exited");
    met(&ran, "shm", false);
    // A command that got through is left alone, whatever it met.
    let fill = "dd if=/dev/zero of=/dev/shm/x bs=64k 2>/dev/null; stat -c %s /dev/shm/x";
    let ran = bench.run(["--shm-size", "1M", "--", "sh", "-c", fill]).wait();
    ran.prints("1048576");
    assert_eq!((ran.stderr.as_str(), &hit(&ran, "shm")["ended"]), ("", &false.into()));
    Ok(())
}

fn file_systems_in_memory_are_full() -> Result {
    let bench = Bench::new();
    let script = "stat -c %a,%U /a /b/c && echo 'echo ran' > /b/c/x && chmod +x /b/c/x && /b/c/x && cp /b/c/x /a/x && ! /a/x 2>&1 \
                  && dd if=/dev/zero of=/a/y bs=64k 2>/dev/null";
    let ran = bench
        .run(["--tmpfs", "/a:size=1m", "--tmpfs", "/b/c:exec,mode=0700", "-u", "0", "--", "sh", "-c", script])
        .wait();
    ran.expect(1, "exited");
    met(&ran, "tmpfs /a", false);
    let lines: Vec<String> = ran.text().lines().map(str::to_owned).collect();
    assert_eq!(lines[..3], ["1777,root", "700,root", "ran"], "{lines:?}");
    assert!(lines[3].contains("Permission denied"), "{lines:?}");
    Ok(())
}

/// What a project builds stays out of the project, which is there to be written to.
fn file_system_in_memory_lies_in_a_volume() -> Result {
    let bench = Bench::new();
    fs::create_dir_all(bench.path().join("project/target")).map_err(|error| error.to_string())?;
    let script = "echo kept > /p/result && echo gone > /p/target/object && cat /p/target/object";
    bench.run(["--tmpfs", "/p/target", "-v", "project:/p", "--", "sh", "-c", script]).wait().prints("gone");
    assert!(bench.path().join("project/result").exists() && !bench.path().join("project/target/object").exists());
    Ok(())
}

fn resource_limits_end_a_command() -> Result {
    let bench = Bench::new();
    let ran = bench.run(["--ulimit", "cpu=1:3", "--", "sh", "-c", "while :; do :; done"]).wait();
    ran.expect(152, "signaled");
    met(&ran, "ulimit cpu", true);
    // Where both are the same the kernel kills at once; and by way of a shell.
    let ran = bench.run(["--ulimit", "cpu=1", "--", "sh", "-c", "sh -c 'while :; do :; done'; exit $?"]).wait();
    ran.expect(137, "exited");
    met(&ran, "ulimit cpu", true);
    let ran = bench.run(["--ulimit", "fsize=64k", "--", "dd", "if=/dev/zero", "of=/tmp/x", "bs=4k"]).wait();
    ran.expect(153, "signaled");
    met(&ran, "ulimit fsize", true);
    Ok(())
}

fn resource_limits_are_the_commands() -> Result {
    let script = "ulimit -S -n; ulimit -H -n; ulimit -c; ulimit -s";
    let words = ["--ulimit", "nofile=100:200", "--ulimit", "core=0", "--ulimit", "stack=1m:unlimited", "-u", "1", "--"];
    let ran = Bench::new().run(words.into_iter().chain(["sh", "-c", script])).wait();
    ran.prints("100\n200\n0\n1024");
    assert_eq!(ran.report["limits"]["ulimits"]["stack"], serde_json::json!([1 << 20, null]));
    Ok(())
}

fn flood_ends_at_its_limit() -> Result {
    let ran = Bench::new().run(["--output-limit", "1m", "--", "yes"]).wait();
    ran.expect(125, "output_limit");
    met(&ran, "output", true);
    assert_eq!(ran.stdout.len(), 1 << 20);
    Ok(())
}

fn busy_loop_ends_in_time() -> Result {
    let ran = Bench::new().run(["--timeout", "1s", "--", "sh", "-c", "while :; do :; done"]).wait();
    ran.expect(124, "timeout");
    met(&ran, "timeout", true);
    let used = number(&ran.report["usage"]["user_ms"]) + number(&ran.report["usage"]["system_ms"]);
    assert!(used > 100.0, "of a second it used {used} ms");
    Ok(())
}

fn usage_is_told() -> Result {
    let script = "head -c 3000000 /dev/zero > /tmp/x; cat /tmp/x > /dev/null; head -c 10 >&2; sleep 0 & wait";
    let ran = Bench::new().run(["--usage", "--", "sh", "-c", script]).input("0123456789").wait();
    ran.expect(0, "exited");
    let usage = &ran.report["usage"];
    // Programs and libraries are read too, but not written.
    assert!(number(&usage["read_bytes"]) >= 6_000_010.0, "{usage}");
    assert!((6_000_000.0..6_100_000.0).contains(&number(&usage["written_bytes"])), "{usage}");
    assert!((3_000_000.0..3_100_000.0).contains(&number(&usage["private_bytes"])), "{usage}");
    assert!(number(&usage["processes_peak"]) >= 2.0, "{usage}");
    let faults = (number(&usage["page_faults"]), number(&usage["page_faults_major"]));
    assert!(faults.1 >= 1.0 && faults.0 > faults.1, "{usage}");
    let (said, table) = ran.stderr.split_at(10);
    assert_eq!(said, "0123456789");
    let names: Vec<&str> = table.lines().filter_map(|line| line.get(..14)).map(str::trim).collect();
    let rows = ["cpu time", "memory", "processes", "page faults", "read", "written", "streamed", "time"];
    assert_eq!(names, rows, "{table}");
    assert!(table.contains("10 in, 0 out, 10 of errors"), "{table}");
    Ok(())
}
