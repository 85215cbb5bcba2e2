// SPDX-License-Identifier: Apache-2.0
//! Runs as jobs of a shell of the host: stopped, continued, in the background.

use std::fs;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tests::Bench;
use tests::pty::Terminal;

use super::{CONTINUED, Result};

/// A shell of the host on a terminal, that has started this call and knows it as `$run`.
fn shell(bench: &Bench, words: &[&str]) -> Terminal {
    let call = bench.run(words);
    let quoted: Vec<String> = std::iter::once(call.command.get_program())
        .chain(call.command.get_args())
        .map(|word| format!("'{}'", word.to_string_lossy().replace('\'', "'\\''")))
        .collect();
    bench.write("run", format!("exec {}\n", quoted.join(" ")));
    let mut shell = Terminal::of(bench.host(["bash", "--norc", "-i"]));
    shell.types("PS1='> '; unset PROMPT_COMMAND; clear\n");
    prompts(&mut shell);
    shell
}

/// Waits for the shell's prompt, to which nothing has been typed.
fn prompts(shell: &mut Terminal) {
    shell.until("the prompt", |shell| shell.screen().lines().last().is_some_and(|line| line.trim_end() == ">"));
}

/// Ends the shell, which has found the terminal as it was both while the run did not have it and after it.
fn settings_stayed(bench: &Bench, mut shell: Terminal, what: &str) -> Result {
    shell.types("stty rows 24 cols 80; stty -a > after; exit\n");
    assert!(shell.end().ran.status.success());
    let text = |name: &str| fs::read_to_string(bench.path().join(name)).map_err(|error| error.to_string());
    assert_eq!((text("during")?, text("after")?), (text("before")?, text("before")?), "{what}");
    Ok(())
}

/// The number of the process that runs the call, which the script that became it has written down.
fn number(bench: &Bench) -> Pid {
    let text = fs::read_to_string(bench.path().join("pid")).expect("it has been written");
    text.trim().parse().ok().and_then(Pid::from_raw).expect("it is a number")
}

/// Ctrl-Z reaches the command; that it stops gives the shell its terminal back, and `fg` has it go on.
pub(super) fn command_that_stops_stops_us() -> Result {
    let bench = Bench::new();
    let mut shell = shell(&bench, &["--", "sh", "-c", "echo up; read x; stty size; echo got $x"]);
    shell.types("stty -a > before; sh run; echo ended $?\n");
    shell.sees("up");
    shell.types("\u{1a}");
    shell.sees("Stopped");
    shell.types("stty -a > during; clear\n");
    shell.until("an empty screen", |shell| shell.screen().trim() == ">");
    shell.resize(30, 90);
    shell.types("fg\n");
    shell.sees("sh run");
    shell.types("word\n");
    shell.sees("got word");
    shell.sees("30 90");
    prompts(&mut shell);
    settings_stayed(&bench, shell, "Ctrl-Z")
}

/// SIGTSTP to `sandbox` itself, with and without a terminal for the command.
pub(super) fn stop_from_outside_is_passed_on() -> Result {
    let bench = Bench::new();
    for option in ["--tty", "--no-tty"] {
        let mut shell = shell(&bench, &[option, "--", "/usr/bin/python3", "-c", CONTINUED]);
        shell.types("stty -a > before; sh -c 'echo $$ > pid; . ./run'; echo ended $?\n");
        shell.sees("up");
        kill_process(number(&bench), Signal::TSTP).map_err(|error| error.to_string())?;
        shell.sees("Stopped");
        shell.types("stty -a > during; clear; kill -CONT %1; fg\n");
        shell.sees("on again");
        shell.types("word\n");
        shell.sees("got word");
        prompts(&mut shell);
        settings_stayed(&bench, shell, option)?;
    }
    Ok(())
}

/// A job in the background prints and ends; one that reads waits until it is in the foreground.
pub(super) fn nothing_in_the_background_is_stopped() -> Result {
    let bench = Bench::new();
    for option in ["--tty", "--no-tty"] {
        let mut shell = shell(&bench, &[option, "--", "sh", "-c", "echo up; read x; echo got $x"]);
        shell.types("stty -a > before; sh run & clear\n");
        shell.sees("up");
        shell.types("clear; stty -a > during; jobs\n");
        shell.sees("Running");
        shell.look(Duration::from_millis(300));
        shell.types("fg\n");
        shell.sees("\nsh run");
        shell.types("word\n");
        shell.sees("got word");
        prompts(&mut shell);
        settings_stayed(&bench, shell, option)?;
    }
    Ok(())
}
