// SPDX-License-Identifier: Apache-2.0
//! The private layer on a disk, when it may outgrow the machine's memory.

use std::fs;

use harness::Case;
use tests::tier::share;
use tests::{Bench, Ran};

macro_rules! case {
    ($name:literal, $body:ident) => {
        Case { name: $name, needs: &[], body: $body }
    };
}

pub(crate) const CASES: &[Case] = &[
    case!("disk::private_layer_outgrows_memory", outgrows),
    case!("disk::private_layer_is_full", full),
    case!("disk::memory_is_as_scarce_as_without", hog),
    case!("disk::files_are_as_in_memory", files),
    case!("disk::nothing_is_left_and_nothing_can_be_made", nowhere),
    case!("disk::limit_of_file_sizes_is_the_commands", limit_of_file_sizes),
    case!("soak::four_gibibytes_in_a_small_machine", soak),
];

type Result = std::result::Result<(), String>;

/// Writes so many different mebibytes, reads them again and compares.
fn write_and_read(mebibytes: u64) -> Ran {
    let bench = Bench::new();
    bench.write(
        "fill.py",
        format!(
            "piece = lambda n: n.to_bytes(4, 'little') * (1 << 18)\n\
             with open('/var/tmp/x', 'wb') as f:\n  for n in range({mebibytes}): f.write(piece(n))\n\
             with open('/var/tmp/x', 'rb') as f:\n  print(all(f.read(1 << 20) == piece(n) for n in range({mebibytes})))\n"
        ),
    );
    bench.run(["-m", "256M", "--disk-size", "5G", "--", "/usr/bin/python3", "fill.py"]).wait()
}

fn outgrows() -> Result {
    let ran = write_and_read(share(320));
    ran.prints("True");
    let private = ran.report["usage"]["private_bytes"].as_u64().unwrap_or_default();
    assert!((share(320) << 20..(share(320) + 8) << 20).contains(&private), "{}", ran.report);
    assert_eq!(ran.report["limits_hit"], serde_json::json!([]));
    Ok(())
}

fn soak() -> Result {
    write_and_read(4096).prints("True");
    Ok(())
}

fn full() -> Result {
    let words = ["-m", "128M", "--disk-size", "80M", "--", "dd", "if=/dev/zero", "of=/root/x", "bs=1M"];
    let ran = Bench::new().run(["-u", "0"].into_iter().chain(words)).wait();
    ran.expect(1, "exited");
    assert!(ran.stderr.contains("No space left on device"), "{}", ran.stderr);
    assert!(
        ran.stderr.ends_with("sandbox: the private layer is full (80M); give it more with --disk-size\n"),
        "{}",
        ran.stderr
    );
    let private = ran.report["usage"]["private_bytes"].as_u64().unwrap_or_default();
    assert!((80 << 20..128 << 20).contains(&private), "it holds what it was asked to: {}", ran.report);
    Ok(())
}

/// The disk is no swap space.
fn hog() -> Result {
    let hog = "x = []\nwhile True: x.append(bytearray(b'x') * (1 << 20))";
    let ran = Bench::new().run(["-m", "128M", "--disk-size", "4G", "--", "/usr/bin/python3", "-c", hog]).wait();
    ran.expect(137, "oom");
    assert_eq!(ran.report["usage"]["complete"], true);
    Ok(())
}

/// What an overlay asks of its upper layer: files of the view are changed, renamed and removed, and directories replaced.
fn files() -> Result {
    let bench = Bench::new();
    fs::create_dir_all(bench.path().join("d/e")).map_err(|error| error.to_string())?;
    for name in ["a", "b", "d/c", "d/e/f"] {
        bench.write(name, name);
    }
    let script = "set -e; echo more >> a; rm b; mv d moved; rm -r moved/e; mkdir d; ln -s a link; ln a hard; chmod 640 hard
        mkfifo p; sync; touch -d @5 d
        find . -not -name '.report*' | sort | tr '\\n' ' '; cat a moved/c; stat -c '%a %h %Y' a d | tr '\\n' ' '; test ! -e b";
    let ran = bench.run(["--disk-size", "2G", "--", "sh", "-c", script]).wait();
    ran.expect(0, "exited");
    let said = ran.text();
    assert!(said.starts_with(". ./a ./d ./hard ./link ./moved ./moved/c ./p amore\nd/c640 2 "), "{said}");
    assert!(said.contains(" 755 1 5 ") || said.contains(" 755 2 5 "), "{said}");
    assert!(bench.path().join("b").exists(), "the host has what it had");
    Ok(())
}

fn nowhere() -> Result {
    let bench = Bench::new();
    let place = bench.path().join("place");
    fs::create_dir(&place).map_err(|error| error.to_string())?;
    bench.run(["--disk-size", "2G", "true"]).env("TMPDIR", &place).wait().expect(0, "exited");
    assert_eq!(fs::read_dir(&place).map_err(|error| error.to_string())?.count(), 0);
    let missing = bench.path().join("missing");
    let ran = bench.run(["--disk-size", "2G", "true"]).env("TMPDIR", &missing).wait();
    ran.expect(125, "setup_error");
    assert!(ran.stderr.contains("missing") && ran.stderr.contains("TMPDIR"), "{}", ran.stderr);
    let ran = bench.run(["--disk-size", "2T", "true"]).wait();
    ran.expect(125, "usage_error");
    Ok(())
}

/// What the caller can raise does not hold for us, who write the disk; what it cannot is told.
fn limit_of_file_sizes() -> Result {
    let bench = Bench::new();
    let limited = |ulimit: &str| {
        let call = bench.run(["--disk-size", "2G", "--", "sh", "-c", "ulimit -f; head -c 2M /dev/zero > /var/tmp/x"]);
        let mut own = bench.host(["sh", "-c", &format!("ulimit {ulimit} -f 1000; exec \"$@\""), "sh"]);
        own.command.arg(call.command.get_program()).args(call.command.get_args());
        own.wait()
    };
    let soft = limited("-S");
    // The command's limit is its own: 1000 blocks of 512 bytes, which its file exceeds.
    soft.expect(153, "exited");
    assert_eq!(soft.text(), "1000");
    let hard = limited("");
    hard.expect(125, "setup_error");
    assert!(hard.stderr.contains("ulimit -f"), "{}", hard.stderr);
    // A suite of commands says the same of each.
    bench.write("checks.toml", "[[test]]\nname = 'one'\ncommand = 'true'\n");
    let mut suite = bench.host(["sh", "-c", "ulimit -f 1000; exec \"$@\"", "sh"]);
    suite.command.arg(tests::program()).args(["suite", "checks.toml", "--evidence", "left"]);
    let ran = suite.env("SANDBOX_ENGINE", tests::tier::engine()).wait();
    assert_eq!(ran.code(), 125, "{}", ran.stderr);
    assert!(ran.text().contains("infrastructure") && ran.text().contains("ulimit -f"), "{}", ran.text());
    Ok(())
}
