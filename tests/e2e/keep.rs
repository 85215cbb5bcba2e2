// SPDX-License-Identifier: Apache-2.0
//! What is kept of a run that fails, and the shell in its machine.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use harness::{Case, Need};
use tests::pty::Terminal;
use tests::{Bench, Ran};

macro_rules! case {
    ($name:ident $(, $need:expr)*) => {
        Case { name: concat!("keep::", stringify!($name)), needs: &[$($need),*], body: $name }
    };
}

pub(crate) const CASES: &[Case] = &[
    case!(a_failure_leaves_what_tells_of_it_and_can_be_repeated),
    case!(a_hostile_root_leaves_nothing_that_acts, Need::Root),
    case!(a_shell_opens_in_the_machine_of_a_failure),
    case!(a_shell_opens_when_time_is_up_and_none_without_a_failure),
    case!(a_shell_needs_a_terminal_and_says_so),
];

type Result = std::result::Result<(), String>;

/// What a run says that it has kept; it says so once.
fn kept(ran: &Ran) -> PathBuf {
    let told: Vec<&str> =
        ran.stderr.lines().filter_map(|line| line.strip_prefix("sandbox: what tells of this run is in ")).collect();
    assert_eq!(told.len(), 1, "{}", ran.stderr);
    PathBuf::from(told[0])
}

fn names(place: &Path) -> Vec<String> {
    let entries = fs::read_dir(place).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

fn read(place: &Path, name: &str) -> String {
    fs::read_to_string(place.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn a_failure_leaves_what_tells_of_it_and_can_be_repeated() -> Result {
    let (bench, state) = (Bench::new(), Bench::new());
    let script = "echo \"it's $TOKEN\" > made; exit 3";
    let options = ["--keep", "on-failure", "-e", "TOKEN=hush", "--", "sh", "-c", script];
    let failed = bench.run(options).env("XDG_STATE_HOME", state.path()).wait();
    failed.expect(3, "exited");
    let place = kept(&failed);
    assert!(place.starts_with(state.path().join("sandbox/kept")), "{place:?}");
    assert_eq!(names(&place), ["changes.txt", "console.txt", "kernel.txt", "repeat.sh", "report.json"]);
    let private = |path: &Path| path.metadata().is_ok_and(|path| path.permissions().mode() & 0o077 == 0);
    assert!(private(&place) && names(&place).iter().all(|name| private(&place.join(name))));
    let made = bench.path().canonicalize().map_err(|error| error.to_string())?.join("made");
    assert_eq!(read(&place, "changes.txt"), format!("A {}\n", made.display()));
    assert!(read(&place, "kernel.txt").contains("] Linux version "), "{}", read(&place, "kernel.txt"));
    let report: serde_json::Value =
        serde_json::from_str(&read(&place, "report.json")).map_err(|error| error.to_string())?;
    assert_eq!(report, failed.report);
    assert!(
        !names(&place).iter().any(|name| read(&place, name).contains("hush")),
        "a value of the environment is kept"
    );

    let again = Command::new(place.join("repeat.sh")).args(["--diff"]).current_dir("/").output();
    let again = again.map_err(|error| error.to_string())?;
    assert_eq!(again.status.code(), Some(3), "{again:?}");
    let fine = bench.run(["--keep", "on-failure", "--", "true"]).env("XDG_STATE_HOME", state.path()).wait();
    fine.expect(0, "exited");
    assert_eq!((fine.stderr.as_str(), names(&state.path().join("sandbox/kept")).len()), ("", 1));
    Ok(())
}

/// Names and log lines that act on a terminal, and a kernel that panics: the console is all that is left of it.
fn a_hostile_root_leaves_nothing_that_acts() -> Result {
    let bench = Bench::new();
    let script =
        "touch \"$(printf 'x\\033[2J')\"; mknod /dev/log c 1 11; printf '\\033[2Jlogged\\n' > /dev/log; exit 1";
    let ran = bench.run(["-u", "0", "--keep-dir", "kept", "--", "sh", "-c", script]).wait();
    ran.expect(1, "exited");
    let place = kept(&ran);
    assert_eq!(place.parent(), Some(bench.path().join("kept").as_path()));
    assert!(read(&place, "kernel.txt").contains("[2Jlogged"), "{}", read(&place, "kernel.txt"));
    assert!(read(&place, "changes.txt").contains("x\\u{1b}[2J"), "{}", read(&place, "changes.txt"));
    assert!(names(&place).iter().all(|name| !read(&place, name).contains('\u{1b}')), "something acts on a terminal");

    let panic = bench.run(["-u", "0", "--keep-dir", "kept", "--", "sh", "-c", "echo c > /proc/sysrq-trigger"]).wait();
    panic.expect(125, "guest_panic");
    let place = kept(&panic);
    assert_eq!(names(&place), ["console.txt", "missing.txt", "repeat.sh", "report.json"]);
    assert!(read(&place, "console.txt").contains("Kernel panic"), "{}", read(&place, "console.txt"));
    assert_eq!(names(&bench.path().join("kept")).len(), 2);
    Ok(())
}

fn a_shell_opens_in_the_machine_of_a_failure() -> Result {
    let bench = Bench::new();
    let script = "cd /tmp; echo left > made; sleep 1000 & test -t 0 && exit 7";
    // The first shell is not there, so a plain one is run.
    let call = bench
        .run(["--keep-vm", "--diff", "-e", "PS1=ready> ", "--", "sh", "-c", script])
        .env("SHELL", "/no/such/shell");
    let mut terminal = Terminal::of(call);
    terminal.sees("status 7; this is a shell in its machine");
    terminal.sees("cannot run /no/such/shell");
    terminal.sees("ready>");
    terminal.types("cat /tmp/made; pwd; tty; pgrep sleep || echo alone\n");
    terminal.sees("left");
    terminal.sees(&bench.path().display().to_string());
    terminal.sees("/dev/pts/");
    terminal.sees("\nalone");
    // Ctrl-C is the shell's, and the terminal is raw for it.
    // A job that says so has the keyboard; before that the key would be the shell's own, which goes on with its line.
    terminal.types("sh -c 'echo wa\"\"its; exec sleep 1000'\n");
    terminal.sees("waits");
    terminal.types("\u{3}");
    terminal.until("the prompt", |terminal| terminal.screen().trim_end().ends_with("\nready>"));
    terminal.types("echo a''live; exit 3\n");
    terminal.sees("alive");
    let end = terminal.end();
    end.ran.expect(7, "exited");
    assert_eq!(end.settings, end.before);
    assert!(end.printed.contains("A /tmp/made"), "{}", end.printed);
    Ok(())
}

fn a_shell_opens_when_time_is_up_and_none_without_a_failure() -> Result {
    let bench = Bench::new();
    // Its output goes elsewhere; the shell's does not.
    let script = "echo begun; echo made > /tmp/made; sleep 1000";
    let call = bench
        .run(["--keep-vm", "--timeout", "1s", "-e", "PS1=ready> ", "--", "sh", "-c", script])
        .env("SHELL", "/bin/sh");
    let mut terminal = Terminal::start(call, |command| command.stdout(std::process::Stdio::piped()));
    terminal.sees("this is a shell in its machine");
    terminal.sees("ready>");
    terminal.types("cat /tmp/ma''de\n");
    terminal.sees("\nmade");
    terminal.types("exit\n");
    let end = terminal.end();
    end.ran.expect(124, "timeout");
    assert_eq!((end.ran.text().as_str(), end.settings == end.before), ("begun", true));
    let end = Terminal::of(bench.run(["--keep-vm", "--", "true"])).end();
    end.ran.expect(0, "exited");
    assert!(!end.printed.contains("shell"), "{}", end.printed);
    Ok(())
}

fn a_shell_needs_a_terminal_and_says_so() -> Result {
    let bench = Bench::new();
    let call = bench.run(["--keep-vm", "--", "touch", "/tmp/x"]);
    let mut apart = bench.host(["setsid", "--wait"]);
    apart.command.arg(call.command.get_program()).args(call.command.get_args());
    let ran = apart.wait();
    ran.expect(125, "usage_error");
    assert!(ran.stderr.contains("--keep-vm opens a shell on your terminal, and there is none"), "{}", ran.stderr);
    Ok(())
}
