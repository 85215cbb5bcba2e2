// SPDX-License-Identifier: Apache-2.0
//! A user at a terminal: what a program prints becomes a screen, and what is typed reaches it.
//!
//! The same for a program of the host and for `sandbox`, so that their screens can be compared.

use std::fs::File;
use std::io::{Read, Write};
use std::num::NonZero;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::OwnedFd;
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{Winsize, tcgetattr, tcsetwinsize};

use crate::tier::patient;
use crate::{Call, Ran, Running};

/// How long a user looks at the screen for something that should come.
const PATIENCE: Duration = Duration::from_secs(60);

/// The size of a terminal.
pub const ROWS: u16 = 24;
/// And its width.
pub const COLUMNS: u16 = 80;

/// A terminal with a program on it.
pub struct Terminal {
    keyboard: File,
    /// Its other end stays open, to look at the settings also when the program is gone.
    device: OwnedFd,
    screen: vt100::Parser,
    /// All that was printed, for those who look for what has left the screen.
    printed: Vec<u8>,
    program: Running,
    /// Its settings before anything ran on it.
    before: String,
}

/// A terminal on which nothing runs yet.
struct Ends {
    user: OwnedFd,
    device: OwnedFd,
}

impl Ends {
    fn new() -> Self {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let user = openpt(flags).expect("there are terminals");
        unlockpt(&user).expect("it is ours");
        let device = ioctl_tiocgptpeer(&user, flags).expect("it is unlocked");
        tcsetwinsize(&device, winsize(ROWS, COLUMNS)).expect("it can have a size");
        Self { user, device }
    }
}

fn settings(device: &OwnedFd) -> String {
    format!("{:?}", tcgetattr(device).expect("a terminal has settings"))
}

fn cells(count: u16) -> NonZero<u16> {
    NonZero::new(count).expect("a terminal shows something")
}

fn winsize(rows: u16, columns: u16) -> Winsize {
    Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }
}

impl Terminal {
    /// Starts the call's program as what the terminal controls, with all three standard streams on it unless `direct` leads them
    /// elsewhere.
    #[must_use]
    pub fn start(mut call: Call, direct: impl FnOnce(&mut Command) -> &mut Command) -> Self {
        let ends = Ends::new();
        let stream = || ends.device.try_clone().expect("a descriptor can be copied");
        // setsid(1) takes what is its standard input for the terminal.
        let mut command = Command::new("setsid");
        command.arg("--ctty").arg(call.command.get_program()).args(call.command.get_args());
        command.current_dir(call.command.get_current_dir().expect("every call has one"));
        for (name, value) in call.command.get_envs() {
            value.map(|value| command.env(name, value));
        }
        command.env("TERM", "xterm").stdin(stream()).stdout(stream()).stderr(stream());
        direct(&mut command);
        call.command = command;
        let before = settings(&ends.device);
        let program = call.spawn_as_is();
        let screen = vt100::Parser::new(cells(ROWS), cells(COLUMNS), 0);
        Self { keyboard: File::from(ends.user), device: ends.device, screen, printed: Vec::new(), program, before }
    }

    /// Starts it with all streams on the terminal.
    #[must_use]
    pub fn of(call: Call) -> Self {
        Self::start(call, |command| command)
    }

    /// The program's process.
    #[must_use]
    pub fn program(&self) -> &Running {
        &self.program
    }

    /// Presses keys.
    pub fn types(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).expect("a terminal takes keys");
    }

    /// What is on the screen.
    #[must_use]
    pub fn screen(&self) -> String {
        self.screen.screen().contents()
    }

    /// Everything that was printed up to now.
    #[must_use]
    pub fn printed(&self) -> String {
        String::from_utf8_lossy(&self.printed).into_owned()
    }

    /// Makes it larger or smaller.
    pub fn resize(&mut self, rows: u16, columns: u16) {
        tcsetwinsize(&self.keyboard, winsize(rows, columns)).expect("it can have a size");
        self.screen.screen_mut().set_size(cells(rows), cells(columns));
    }

    /// What stty(1) would show of it.
    #[must_use]
    pub fn settings(&self) -> String {
        settings(&self.device)
    }

    /// What it would have shown before anything ran on it.
    #[must_use]
    pub fn before(&self) -> &str {
        &self.before
    }

    /// Waits until the screen is as wanted.
    pub fn until(&mut self, what: &str, wanted: impl Fn(&Self) -> bool) {
        let limit = patient(PATIENCE);
        let begun = Instant::now();
        while !wanted(self) {
            let left = limit.saturating_sub(begun.elapsed());
            assert!(!left.is_zero(), "{what} did not come; the screen shows:\n{}", self.screen());
            self.look(left.min(Duration::from_millis(50)));
        }
    }

    /// Waits until this is somewhere on the screen.
    pub fn sees(&mut self, text: &str) {
        self.until(text, |terminal| terminal.screen().contains(text));
    }

    /// Waits until the screen shows just this.
    pub fn shows(&mut self, screen: &str) {
        self.until(&format!("this screen:\n{screen}\n"), |terminal| terminal.screen() == screen);
    }

    /// Takes what is printed within this time, and says whether anything was.
    pub fn look(&mut self, time: Duration) -> bool {
        let timeout = Timespec::try_from(time).expect("it is short");
        let mut fds = [PollFd::new(&self.keyboard, PollFlags::IN)];
        if poll(&mut fds, Some(&timeout)) != Ok(1) || !fds[0].revents().contains(PollFlags::IN) {
            return false;
        }
        let mut bytes = [0; 4096];
        let count = self.keyboard.read(&mut bytes).expect("what is there can be read");
        self.screen.process(&bytes[..count]);
        self.printed.extend_from_slice(&bytes[..count]);
        true
    }

    /// Waits for the program's end: what came of it, the last screen, and the settings that it left.
    #[must_use]
    pub fn end(mut self) -> End {
        let limit = patient(PATIENCE);
        let begun = Instant::now();
        let mut over = false;
        while !over {
            assert!(begun.elapsed() < limit, "it does not end; the screen shows:\n{}", self.screen());
            over = self.program.try_wait().expect("a child can be asked").is_some();
            while self.look(Duration::from_millis(10)) {}
        }
        let (screen, printed, settings) = (self.screen(), self.printed(), self.settings());
        End { ran: self.program.ran(), screen, printed, settings, before: self.before }
    }
}

/// How a program on a terminal ended.
#[derive(Debug)]
pub struct End {
    /// What came back.
    pub ran: Ran,
    /// The last screen.
    pub screen: String,
    /// Everything that was printed.
    pub printed: String,
    /// The terminal's settings now.
    pub settings: String,
    /// And before.
    pub before: String,
}
