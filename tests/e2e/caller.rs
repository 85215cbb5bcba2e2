// SPDX-License-Identifier: Apache-2.0
//! What a caller may have left behind: odd descriptors, ignored signals; and endings that only look like success.

use std::fs;
use std::io::{Read, Write};
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use harness::Case;
use tests::tier::patient;
use tests::{Bench, Call};

macro_rules! case {
    ($name:ident) => {
        Case { name: concat!("caller::", stringify!($name)), needs: &[], body: $name }
    };
}

pub(crate) const CASES: &[Case] = &[
    case!(machine_that_dies_with_output_on_its_way_is_no_success),
    case!(time_limit_counts_while_output_drains),
    case!(input_that_cannot_be_read_is_told),
    case!(input_that_does_not_block_is_waited_for),
    case!(output_that_does_not_block_is_waited_for),
    case!(descriptors_of_the_caller_stay_its_own),
    case!(ignored_signals_stay_ignored),
    case!(directory_that_is_gone_is_said),
    case!(report_goes_behind_what_its_descriptor_holds),
];

type Result = std::result::Result<(), String>;

/// The same call, made by a shell that does something to itself before.
fn by_shell(bench: &Bench, before: &str, mut call: Call) -> Call {
    let mut shell = std::process::Command::new("/usr/bin/bash");
    shell.args(["-c", &format!("{before}; exec \"$@\""), "bash"]).current_dir(bench.path()).stdin(Stdio::null());
    shell.arg(call.command.get_program()).args(call.command.get_args());
    call.command = shell;
    call
}

/// All is there before the command ends, which it does when its reader says so. The panic comes a moment after that, so
/// that init has told of the end, and before what holds the output up is killed: the process that brings it about goes
/// before all others, however late its timer is.
const DIE_SOON: &str = "import os, time
panic = open('/proc/sysrq-trigger', 'wb', 0)
end, alive = os.pipe()
if os.fork() == 0:
    os.close(alive); os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    os.read(end, 1); time.sleep(0.3); panic.write(b'c')
if os.fork() == 0: os.close(alive); os.read(end, 1); time.sleep(0.8); os.write(1, b'lost')
os.write(1, b'hi'); os.read(0, 1); os._exit(0)";

fn machine_that_dies_with_output_on_its_way_is_no_success() -> Result {
    let bench = Bench::new();
    let mut child = bench.run(["-u", "0", "--", "/usr/bin/python3", "-c", DIE_SOON]).input("").spawn();
    let mut output = child.stdout.take().expect("piped");
    let mut said = [0; 2];
    output.read_exact(&mut said).map_err(|error| error.to_string())?;
    assert_eq!(&said, b"hi");
    child.stdin.take().expect("piped").write_all(b"x").map_err(|error| error.to_string())?;
    let mut rest = String::new();
    output.read_to_string(&mut rest).map_err(|error| error.to_string())?;
    assert_eq!(rest, "");
    child.ran().expect(125, "guest_panic");
    Ok(())
}

/// More than a pipe takes, and less than what lies between the command and its reader does: it ends within its time.
const A_PIPE_AND_A_HALF: usize = 100_000;

/// A reader that holds the output up has all the time it needs, though the limit passes meanwhile, and what the guest
/// may owe after it.
fn time_limit_counts_while_output_drains() -> Result {
    let bench = Bench::new();
    let limit = patient(Duration::from_secs(2));
    let timeout = format!("{}s", limit.as_secs());
    let count = A_PIPE_AND_A_HALF.to_string();
    let mut child = bench.run(["--timeout", &timeout, "--", "head", "-c", &count, "/dev/zero"]).spawn();
    let mut output = child.stdout.take().expect("piped");
    output.read_exact(&mut [0]).map_err(|error| error.to_string())?;
    thread::sleep(limit + Duration::from_secs(6));
    let mut rest = Vec::new();
    output.read_to_end(&mut rest).map_err(|error| error.to_string())?;
    child.ran().expect(0, "exited");
    assert_eq!(rest.len(), A_PIPE_AND_A_HALF - 1);
    Ok(())
}

fn input_that_cannot_be_read_is_told() -> Result {
    let bench = Bench::new();
    let mut call = bench.run(["cat"]);
    call.command.stdin(fs::File::open("/").map_err(|error| error.to_string())?);
    let ran = call.wait();
    ran.expect(125, "setup_error");
    assert!(ran.stderr.contains("standard input"), "{}", ran.stderr);
    Ok(())
}

const DO_NOT_BLOCK: &str = "import fcntl, os, sys; \
    [fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_NONBLOCK) for fd in map(int, sys.argv[1:])]";

fn input_that_does_not_block_is_waited_for() -> Result {
    let bench = Bench::new();
    bench.write("mode.py", DO_NOT_BLOCK);
    let before = "exec < <(sleep 2; printf late); python3 mode.py 0";
    by_shell(&bench, before, bench.run(["cat"])).wait().prints("late");
    Ok(())
}

fn output_that_does_not_block_is_waited_for() -> Result {
    let bench = Bench::new();
    bench.write("mode.py", DO_NOT_BLOCK);
    let ran = by_shell(&bench, "python3 mode.py 1", bench.run(["head", "-c", "3000000", "/dev/zero"])).wait();
    ran.expect(0, "exited");
    assert_eq!(ran.stdout.len(), 3_000_000);
    Ok(())
}

fn descriptors_of_the_caller_stay_its_own() -> Result {
    let bench = Bench::new();
    bench.write("secret", "of the caller");
    let mut child = by_shell(&bench, "exec 17< secret", bench.shell("echo up; sleep 30")).spawn();
    let mut output = child.stdout.take().expect("piped");
    output.read_exact(&mut [0; 3]).map_err(|error| error.to_string())?;
    let children =
        fs::read_to_string(format!("/proc/{0}/task/{0}/children", child.id())).map_err(|error| error.to_string())?;
    assert_eq!(children.split_whitespace().count(), 2, "the machine and the file server: {children}");
    for pid in children.split_whitespace() {
        for entry in fs::read_dir(format!("/proc/{pid}/fd")).map_err(|error| error.to_string())? {
            let target = entry.and_then(|entry| fs::read_link(entry.path())).unwrap_or_default();
            assert!(!target.ends_with("secret"), "process {pid} holds {}", target.display());
        }
    }
    Ok(())
}

fn ignored_signals_stay_ignored() -> Result {
    let bench = Bench::new();
    let script = "sleep 2; echo survived";
    let ran = by_shell(&bench, "trap '' HUP CHLD; { sleep 1; kill -HUP $$; } & true", bench.shell(script)).wait();
    ran.prints("survived");
    Ok(())
}

fn directory_that_is_gone_is_said() -> Result {
    let bench = Bench::new();
    let ran = by_shell(&bench, "mkdir gone && cd gone && rmdir ../gone", bench.run(["true"])).wait();
    ran.expect(125, "setup_error");
    assert!(ran.stderr.contains("go to another"), "{}", ran.stderr);
    Ok(())
}

fn report_goes_behind_what_its_descriptor_holds() -> Result {
    let bench = Bench::new();
    let mut call = bench.run(["true"]);
    call.command = std::process::Command::new("/usr/bin/bash");
    let program = tests::program();
    call.command.args(["-c", "exec 9> out; echo first >&9; \"$0\" run --report-fd 9 -- true"]).arg(program);
    call.command.current_dir(bench.path()).stdin(Stdio::null());
    assert_eq!(call.wait().code(), 0);
    let text = fs::read_to_string(bench.path().join("out")).map_err(|error| error.to_string())?;
    assert!(text.starts_with("first\n{") && text.contains("\"schema\": 1"), "{text}");
    Ok(())
}
