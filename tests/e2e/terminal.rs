// SPDX-License-Identifier: Apache-2.0
//! The command's terminal, and the caller's: as on the host while the command runs, as before when it does not.

mod jobs;

use std::fs;
use std::process::Stdio;

use harness::{Case, Need};
use jobs::{command_that_stops_stops_us, nothing_in_the_background_is_stopped, stop_from_outside_is_passed_on};
use rustix::process::{Pid, Signal, kill_process};
use tests::pty::Terminal;
use tests::{Bench, Call, words};

macro_rules! case {
    ($name:ident $(, $need:expr)*) => {
        Case { name: concat!("terminal::", stringify!($name)), needs: &[$($need),*], body: $name }
    };
}

pub(crate) const CASES: &[Case] = &[
    case!(shell_does_job_control, Need::Program("bash")),
    case!(editor_writes_a_file, Need::Program("vi")),
    case!(pager_follows_the_size, Need::Program("less")),
    case!(top_draws_and_quits, Need::Program("top")),
    case!(interpreter_is_interrupted_and_ends, Need::Program("python3")),
    case!(terminal_is_the_guests_own),
    case!(terminal_needs_no_terminal),
    case!(parted_streams_stay_parted),
    case!(settings_survive_a_killed_machine),
    case!(settings_survive_a_guest_panic),
    case!(settings_survive_signals),
    case!(settings_survive_being_told_to_go_on, Need::Program("bash")),
    case!(command_that_stops_stops_us, Need::Program("bash")),
    case!(stop_from_outside_is_passed_on, Need::Program("bash")),
    case!(nothing_in_the_background_is_stopped, Need::Program("bash")),
];

type Result = std::result::Result<(), String>;

/// Does the same to a program of the host and to one of the guest. Each time it gives back what the screen has to show next, it
/// waits until the guest's screen is the host's.
fn alike(bench: &Bench, program: &[&str], steps: &[(&str, &str)]) {
    let mut host = Terminal::of(bench.host(program));
    let mut guest = Terminal::of(bench.run([&["--"], program].concat()));
    for (keys, sign) in steps {
        host.types(keys);
        guest.types(keys);
        host.sees(sign);
        settle(&mut host);
        guest.shows(&host.screen());
    }
    let (host, guest) = (host.end(), guest.end());
    assert_eq!(guest.ran.status, host.ran.status);
    assert_eq!(guest.settings, guest.before);
}

/// A program prints in parts. The host's has no further one when it has been silent for a while.
fn settle(host: &mut Terminal) {
    while host.look(std::time::Duration::from_millis(150)) {}
}

fn shell_does_job_control() -> Result {
    let bench = Bench::new();
    let job = "sh -c 'echo up; exec sleep 100'";
    alike(
        &bench,
        &["bash", "--norc", "-i"],
        &[
            ("PS1='> '; unset PROMPT_COMMAND; clear\n", "> "),
            ("tty > /dev/null && stty size\n", "24 80"),
            (&format!("{job}\n"), "up"),
            ("\u{1a}", "Stopped"),
            ("jobs; fg\n", "fg"),
            ("\u{3}", "^C"),
            ("echo $?; cat\n", "130"),
            ("ten\u{7f}\u{7f}\u{7f}two\n", "two\ntwo"),
            ("\u{4}", "two\ntwo\n> "),
            ("exit 7\n", "exit"),
        ],
    );
    Ok(())
}

fn editor_writes_a_file() -> Result {
    let bench = Bench::new();
    for name in ["host", "guest"] {
        fs::create_dir(bench.path().join(name)).map_err(|error| error.to_string())?;
    }
    let editor = |place: &str| format!("cd {place} && exec vi -u NONE -i NONE -N note");
    let mut host = Terminal::of(bench.host(["sh", "-c", &editor("host")]));
    let here = bench.path().join("guest").display().to_string();
    let script = editor("guest");
    let mut guest = Terminal::of(bench.run(["-v", &format!("{here}:{here}"), "--", "sh", "-c", &script]));
    // Its first screen is not compared: on a slow processor vim sometimes waits for its first key, without a limit, before it has drawn
    // more than this line (seen in the guest's /proc: pselect6, nothing pending).
    host.sees("[New]");
    guest.sees("[New]");
    for (keys, sign) in [("ihello\nw\u{f6}rld", "w\u{f6}rld"), ("\u{1b}gg0Cbye\u{1b}", "bye"), (":w\r", "written")] {
        host.types(keys);
        guest.types(keys);
        host.sees(sign);
        settle(&mut host);
        guest.shows(&host.screen());
    }
    host.types(":q\r");
    guest.types(":q\r");
    assert!(host.end().ran.status.success());
    let end = guest.end();
    end.ran.expect(0, "exited");
    assert_eq!(end.settings, end.before);
    let text = |name: &str| fs::read_to_string(bench.path().join(name).join("note")).map_err(|error| error.to_string());
    assert_eq!((text("guest")?, text("host")?), ("bye\nw\u{f6}rld\n".to_owned(), "bye\nw\u{f6}rld\n".to_owned()));
    Ok(())
}

fn pager_follows_the_size() -> Result {
    let bench = Bench::new();
    bench.write("lines", (1..=200).map(|line| format!("{line} {}\n", "x".repeat(line))).collect::<String>());
    let program = ["less", "-SN", "lines"];
    let mut host = Terminal::of(bench.host(program));
    let mut guest = Terminal::of(bench.run(["--"].iter().chain(&program)));
    let mut both = |size: Option<(u16, u16)>, keys: &str, sign: &str| {
        for terminal in [&mut host, &mut guest] {
            if let Some((rows, columns)) = size {
                terminal.resize(rows, columns);
            }
            terminal.types(keys);
        }
        host.sees(sign);
        settle(&mut host);
        guest.shows(&host.screen());
    };
    both(None, "", "lines");
    both(None, " ", "     40 ");
    both(Some((40, 100)), "", "     60 ");
    both(None, "/150 \r", "    150 ");
    both(Some((10, 60)), "", "    150 ");
    both(None, "g", "      1 ");
    host.types("q");
    guest.types("q");
    assert!(host.end().ran.status.success());
    let end = guest.end();
    end.ran.expect(0, "exited");
    assert_eq!(end.settings, end.before);
    Ok(())
}

fn top_draws_and_quits() -> Result {
    let bench = Bench::new();
    let mut guest = Terminal::of(bench.run(["top"]));
    guest.sees("PID USER");
    guest.sees("Tasks:");
    guest.resize(12, 60);
    guest.until("a smaller table", |guest| {
        let screen = guest.screen();
        screen.contains("PID USER") && screen.lines().count() <= 12
    });
    guest.types("q");
    let end = guest.end();
    end.ran.expect(0, "exited");
    assert_eq!(end.settings, end.before);
    Ok(())
}

fn interpreter_is_interrupted_and_ends() -> Result {
    let bench = Bench::new();
    let mut guest = Terminal::of(bench.run(["/usr/bin/python3", "-q"]));
    guest.sees(">>>");
    guest.types("6*7\n");
    guest.sees("42");
    // A loop, and no sleep, which a signal just before it does not end.
    guest.types("print('u' + 'p'); all(x == 0 for x in iter(int, 1))\n");
    guest.sees("\nup");
    guest.types("\u{3}");
    guest.sees("KeyboardInterrupt\n>>>");
    guest.types("\u{4}");
    let end = guest.end();
    // As on the host, it ends by the signal that it has met last.
    end.ran.expect(130, "signaled");
    assert_eq!(end.settings, end.before);
    Ok(())
}

/// Its size, settings, owner and names; and none of the host's device.
fn terminal_is_the_guests_own() -> Result {
    let bench = Bench::new();
    let script = "stty -a > mine; tty; stat -c '%a %u' $(tty); echo x > /dev/tty; ls -l /proc/self/fd | grep -c ' /dev/pts/0$'; ls -1 /dev/pts; cat mine";
    let mut host = Terminal::of(bench.host(["sh", "-c", "stty intr ^G -ixon && stty -a"]));
    host.sees("extproc");
    let settings = host.end().screen;
    let words = ["-u", "65534", "-v", ".:/tmp/m", "-w", "/tmp", "-e", "TERM=vt52", "--", "sh", "-c"];
    let call = bench.run(words.into_iter().chain([script]));
    let mut shell = bench.host(["sh", "-c", "stty intr ^G -ixon && exec \"$@\"", "sh"]);
    shell.command.arg(call.command.get_program()).args(call.command.get_args());
    let mut guest = Terminal::of(shell);
    guest.sees("extproc");
    let end = guest.end();
    let expected = format!("/dev/pts/0\n620 65534\nx\n2\n0\nptmx\n{settings}");
    assert!(end.printed.replace('\r', "").contains(&expected), "{}\ninstead of\n{expected}", end.printed);
    Ok(())
}

fn terminal_needs_no_terminal() -> Result {
    let bench = Bench::new();
    let ran =
        bench.run(["-t", "--", "sh", "-c", "stty size; tty >&2; echo $TERM; cat; exit 3"]).env("TERM", "dumb").wait();
    ran.expect(3, "exited");
    assert_eq!(ran.text().replace('\r', ""), "24 80\n/dev/pts/0\ndumb", "{}", ran.stderr);
    assert_eq!(ran.stderr, "");
    // What is piped is typed, and its end is Ctrl-D, which ends a line that is not complete first.
    let ran = bench.run(["-it", "--", "sh", "-c", "stty -echo; cat | od -An -c"]).input("one\ntwo").wait();
    ran.expect(0, "exited");
    assert!(ran.text().contains("o   n   e  \\n   t   w   o\r"), "{}", ran.text());
    // And without -t nothing is a terminal.
    let ran = bench.shell("tty; test -t 1 || test -t 2 || exit 4").wait();
    ran.expect(4, "exited");
    assert_eq!(ran.text(), "not a tty");
    Ok(())
}

fn parted_streams_stay_parted() -> Result {
    let bench = Bench::new();
    let script = "tty; test -t 2 || echo apart; echo words >&2";
    let log = fs::File::create(bench.path().join("log")).map_err(|error| error.to_string())?;
    let terminal = Terminal::start(bench.run(["--", "sh", "-c", script]), |command| command.stderr(log));
    let end = terminal.end();
    end.ran.expect(0, "exited");
    assert_eq!(end.printed, "/dev/pts/0\r\napart\r\n");
    assert_eq!(fs::read_to_string(bench.path().join("log")).map_err(|error| error.to_string())?, "words\n");
    // Standard output elsewhere: nothing is a terminal, and the caller's is as it was.
    let call = bench.run(["--", "sh", "-c", "tty; test -t 1; echo $?; read x; echo $x"]);
    let mut terminal = Terminal::start(call, |command| command.stdout(Stdio::piped()));
    terminal.types("typed\n");
    terminal.sees("typed");
    assert_eq!(terminal.settings(), terminal.before());
    let end = terminal.end();
    end.ran.expect(0, "exited");
    assert_eq!(end.ran.text(), "not a tty\n1\ntyped");
    Ok(())
}

/// Starts a command that says "up" and waits.
fn waiting(call: Call) -> Terminal {
    let mut terminal = Terminal::of(call);
    terminal.sees("up");
    assert_ne!(terminal.settings(), terminal.before(), "the terminal is not raw");
    terminal
}

fn settings_survive_a_killed_machine() -> Result {
    let bench = Bench::new();
    let terminal = waiting(bench.shell("echo up; read go"));
    kill_process(crate::endings::machine(terminal.program()), Signal::KILL).map_err(|error| error.to_string())?;
    let end = terminal.end();
    end.ran.expect(125, "vmm_crash");
    assert_eq!(end.settings, end.before);
    // Our own words come when the terminal is as it was: each line begins at its left.
    assert!(
        end.screen.lines().any(|line| line.starts_with("sandbox: the virtual machine's process ended")),
        "{}",
        end.screen
    );
    Ok(())
}

fn settings_survive_a_guest_panic() -> Result {
    let bench = Bench::new();
    let mut terminal =
        waiting(bench.run(["-u", "0", "--", "sh", "-c", "echo up; read go; echo c > /proc/sysrq-trigger; sleep 60"]));
    terminal.types("\n");
    let end = terminal.end();
    end.ran.expect(125, "guest_panic");
    assert_eq!(end.settings, end.before);
    Ok(())
}

fn settings_survive_signals() -> Result {
    let bench = Bench::new();
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143), (Signal::HUP, 129)] {
        let terminal = waiting(bench.run(words(["--", "sh", "-c", "echo up; read go"])));
        let process = Pid::from_child(terminal.program());
        kill_process(process, signal).map_err(|error| error.to_string())?;
        let end = terminal.end();
        end.ran.expect(code, "cancelled");
        assert_eq!(end.settings, end.before);
    }
    Ok(())
}

/// Says when it has been continued. A shell's trap would not do: one that is stopped before its read(2) looks at its traps only
/// when that returns.
const CONTINUED: &str = "import signal as s; s.pthread_sigmask(s.SIG_BLOCK, [s.SIGCONT]); print('up', flush=True); \
    s.sigwait([s.SIGCONT]); print('on again', flush=True); print('got', input())";

/// SIGCONT to a run that was never stopped.
fn settings_survive_being_told_to_go_on() -> Result {
    let bench = Bench::new();
    let mut terminal = waiting(bench.run(words(["--", "/usr/bin/python3", "-c", CONTINUED])));
    kill_process(Pid::from_child(terminal.program()), Signal::CONT).map_err(|error| error.to_string())?;
    terminal.sees("on again");
    terminal.types("word\n");
    terminal.sees("got word");
    let end = terminal.end();
    end.ran.expect(0, "exited");
    assert_eq!(end.settings, end.before);
    Ok(())
}
