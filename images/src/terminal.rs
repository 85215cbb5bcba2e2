// SPDX-License-Identifier: Apache-2.0
//! How a build looks on standard error: a bar on a terminal, a line now and then elsewhere.

use images::Event;
use indicatif::{ProgressBar, ProgressStyle};
use std::io::{self, IsTerminal as _, Write as _};
use std::path::Path;
use std::time::{Duration, Instant};

/// How often a log gets a line.
const LINE_EVERY: Duration = Duration::from_secs(10);
/// Drawing for every file would cost more than some files do.
const BAR: &str = "{prefix} [{bar:40}] {percent}% {elapsed}, about {eta} left";

pub(crate) struct Terminal {
    what: String,
    bar: Option<ProgressBar>,
    is_terminal: bool,
    last_line: Instant,
    quiet: bool,
}

impl Terminal {
    pub(crate) fn new(what: String) -> Self {
        let is_terminal = io::stderr().is_terminal();
        Self { what, bar: None, is_terminal, last_line: Instant::now(), quiet: false }
    }

    pub(crate) fn show(&mut self, event: Event) {
        match event {
            Event::Waiting => self.say("waits for another build to end"),
            Event::AlreadyBuilt => self.quiet = true,
            Event::Unpacking(archive) => self.say(&format!("unpacks {}", archive.display())),
            Event::Configuring => self.say("is being configured"),
            Event::Compiling { done, expected } => self.advance(done, expected),
            Event::Installing => {
                if let Some(bar) = self.bar.take() {
                    bar.finish_and_clear();
                }
                self.say("is being installed");
            }
        }
    }

    /// Says where the result is: the last word, and for what was there already the only one.
    pub(crate) fn finish(self, path: &Path) {
        self.say(&format!("{} {}", if self.quiet { "is up to date:" } else { "is in" }, path.display()));
    }

    fn advance(&mut self, done: u64, expected: u64) {
        // the expectation is an estimate: never show more than all
        let done = done.min(expected);
        if self.is_terminal {
            let bar = self.bar.get_or_insert_with(|| new_bar(&self.what, expected));
            bar.set_position(done);
        } else if self.last_line.elapsed() >= LINE_EVERY {
            self.last_line = Instant::now();
            self.say(&format!("is {} % compiled", done * 100 / expected.max(1)));
        }
    }

    fn say(&self, text: &str) {
        // progress nobody can read is no reason to stop a build
        let _ = writeln!(io::stderr(), "{} {text}", self.what);
    }
}

fn new_bar(what: &str, expected: u64) -> ProgressBar {
    let bar = ProgressBar::new(expected).with_prefix(what.to_owned());
    match ProgressStyle::with_template(BAR) {
        Ok(style) => bar.with_style(style.progress_chars("=> ")),
        Err(_) => bar,
    }
}
