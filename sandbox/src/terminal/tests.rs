// SPDX-License-Identifier: Apache-2.0
use super::*;
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{LocalModes, OutputModes, Winsize, tcsetwinsize};
use std::thread;
use std::time::Duration;

/// A terminal that controls nobody: its two ends, user's and program's.
fn pair() -> (OwnedFd, OwnedFd) {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let user = openpt(flags).expect("there are terminals");
    unlockpt(&user).expect("it is ours");
    let program = ioctl_tiocgptpeer(&user, flags).expect("it is unlocked");
    (user, program)
}

/// Everything that stty(1) shows of the settings.
fn settings(terminal: &OwnedFd) -> String {
    format!("{:?}", tcgetattr(terminal).expect("a terminal has settings"))
}

fn terminal(program: &OwnedFd, raw: bool) -> Terminal {
    Terminal::look(program.as_fd(), [program.as_fd(); 2], raw).expect("there are descriptors enough")
}

#[test]
fn a_terminal_is_raw_only_while_it_is_taken() {
    let (_user, program) = pair();
    let before = settings(&program);
    let mut terminal = terminal(&program, true);
    assert_eq!(settings(&program), before);
    terminal.take();
    let raw = tcgetattr(&program).expect("a terminal has settings");
    assert!(!raw.local_modes.intersects(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG));
    assert!(!raw.output_modes.contains(OutputModes::OPOST));
    terminal.leave();
    assert_eq!(settings(&program), before);
    terminal.take();
    drop(terminal);
    assert_eq!(settings(&program), before);
}

#[test]
fn a_terminal_that_is_taken_again_is_left_as_it_was_first() {
    let (_user, program) = pair();
    let before = settings(&program);
    let mut terminal = terminal(&program, true);
    terminal.take();
    terminal.take();
    drop(terminal);
    assert_eq!(settings(&program), before);
}

#[test]
fn one_that_somebody_has_set_meanwhile_is_left_as_he_has() {
    let (_user, program) = pair();
    let cooked = tcgetattr(&program).expect("a terminal has settings");
    let mut terminal = terminal(&program, true);
    terminal.take();
    // As a shell does whose job was stopped by a signal that nobody can catch.
    tcsetattr(&program, OptionalActions::Now, &cooked).expect("they can be set");
    terminal.take();
    let raw = tcgetattr(&program).expect("a terminal has settings");
    assert!(!raw.local_modes.contains(LocalModes::ICANON), "it is taken again");
    drop(terminal);
    assert_eq!(settings(&program), format!("{cooked:?}"));
}

#[test]
fn a_panic_leaves_it_as_it_was() {
    let (_user, program) = pair();
    let before = settings(&program);
    let mut taken = terminal(&program, true);
    let panicked = thread::spawn(move || {
        taken.take();
        assert!(!taken.is_taken(), "so that this panics");
    });
    assert!(panicked.join().is_err());
    assert_eq!(settings(&program), before);
}

#[test]
fn what_it_becomes_meanwhile_is_what_it_is_left_as() {
    let (_user, program) = pair();
    let mut terminal = terminal(&program, true);
    terminal.take();
    terminal.leave();
    let mut other = tcgetattr(&program).expect("a terminal has settings");
    other.local_modes.remove(LocalModes::ECHO);
    tcsetattr(&program, OptionalActions::Now, &other).expect("they can be set");
    let meanwhile = settings(&program);
    terminal.take();
    drop(terminal);
    assert_eq!(settings(&program), meanwhile);
}

#[test]
fn a_command_without_a_terminal_changes_nothing() {
    let (_user, program) = pair();
    let before = settings(&program);
    let mut terminal = terminal(&program, false);
    terminal.take();
    assert_eq!(settings(&program), before);
    assert!(terminal.gate().expect("there is a keyboard").is_open());
}

#[test]
fn size_and_settings_are_told() {
    let (_user, program) = pair();
    tcsetwinsize(&program, Winsize { ws_row: 50, ws_col: 132, ws_xpixel: 1, ws_ypixel: 2 }).expect("it can be set");
    let mut terminal = terminal(&program, true);
    assert_eq!(terminal.size(), Size { rows: 50, columns: 132, width: 1, height: 2 });
    let modes = terminal.modes().expect("a terminal has settings");
    // INTR, EOF and SUSP of every new terminal.
    assert_eq!((modes.codes[0], modes.codes[4], modes.codes[10]), (3, 4, 26));
    terminal.take();
    assert_eq!(terminal.modes(), Some(modes), "those of the caller, not ours");
}

#[test]
fn no_terminal_has_the_size_of_the_first_ones() {
    let (reader, writer) = io::pipe().expect("a pipe can be made");
    let terminal = Terminal::look(reader.as_fd(), [writer.as_fd(); 2], true).expect("it is looked at");
    assert_eq!((terminal.size(), terminal.modes()), (SIZE, None));
    assert!(terminal.gate().is_none() && !terminal.is_awaited());
}

#[test]
fn nobody_passes_a_closed_gate() {
    let gate = Arc::new(Gate::default());
    let (passed, told) = std::sync::mpsc::channel();
    let shared = Arc::clone(&gate);
    let waiting = thread::spawn(move || {
        shared.pass();
        passed.send(()).expect("the test waits");
    });
    assert!(told.recv_timeout(Duration::from_millis(50)).is_err());
    gate.set(true);
    told.recv_timeout(Duration::from_secs(60)).expect("the gate is open");
    waiting.join().expect("it does not panic");
}
