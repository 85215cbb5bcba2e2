// SPDX-License-Identifier: Apache-2.0
//! What the end-to-end tests and the benchmarks share: calling `sandbox` and looking at what came back.

pub mod clocked;
pub mod nextest;
pub mod pty;
pub mod tier;

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::Write;
use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tempfile::TempDir;

/// No run takes longer than this, in the tier that is fastest, unless its test says so; a hang is then a failure with
/// words, and not the suite's.
pub const LIMIT: Duration = Duration::from_secs(300);

/// The program under test: `SANDBOX_BIN`, or the one built beside this test.
#[must_use]
pub fn program() -> PathBuf {
    if let Some(path) = env::var_os("SANDBOX_BIN") {
        return PathBuf::from(path);
    }
    let own = env::current_exe().expect("a test has an executable");
    let profile = own.ancestors().find(|place| place.join("sandbox").is_file());
    profile.expect("build the program first: make build, or set SANDBOX_BIN").join("sandbox")
}

/// A directory of a test's own, and the calls of `sandbox run` made in it.
#[derive(Debug)]
pub struct Bench {
    directory: TempDir,
}

impl Bench {
    /// Makes the directory.
    #[expect(clippy::new_without_default, reason = "it makes a directory, which a default should not")]
    #[must_use]
    pub fn new() -> Self {
        Self { directory: tempfile::tempdir().expect("a temporary directory can be made") }
    }

    /// The directory; every run starts there.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Writes a file there.
    pub fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        fs::write(self.path().join(name), text).expect("a file of the test's own can be written");
    }

    /// A call of `sandbox run` with these options and command, on the tier's engine unless they name one.
    #[must_use]
    pub fn run<S: AsRef<OsStr>>(&self, words: impl IntoIterator<Item = S>) -> Call {
        let report = self.path().join(".report.json");
        let words: Vec<S> = words.into_iter().collect();
        let options = words.iter().map(AsRef::as_ref).take_while(|word| *word != "--");
        let named = options.map(OsStr::to_string_lossy).any(|word| word.starts_with("--engine"));
        let mut command = Command::new(program());
        command.current_dir(self.path()).arg("run").arg("--report").arg(&report).stdin(Stdio::null());
        if !named {
            command.args(["--engine", &tier::engine()]);
        }
        command.args(words);
        Call { command, report, input: Vec::new(), limit: tier::patient(LIMIT) }
    }

    /// A call of a program of the host itself, for comparison.
    #[must_use]
    pub fn host<S: AsRef<OsStr>>(&self, words: impl IntoIterator<Item = S>) -> Call {
        let mut words = words.into_iter();
        let mut command = Command::new(words.next().expect("a program is named"));
        command.current_dir(self.path()).args(words).stdin(Stdio::null());
        let report = self.path().join(".report.json");
        Call { command, report, input: Vec::new(), limit: tier::patient(LIMIT) }
    }

    /// A call that runs a shell script in the guest.
    #[must_use]
    pub fn shell(&self, script: &str) -> Call {
        self.run(["--", "sh", "-c", script])
    }
}

/// A call to be made.
#[derive(Debug)]
pub struct Call {
    /// The host's command, to change before it is made.
    pub command: Command,
    report: PathBuf,
    input: Vec<u8>,
    limit: Duration,
}

/// Runs any command of the host to its end, which comes by [`LIMIT`] at the latest.
#[must_use]
pub fn bounded(mut command: Command) -> Output {
    command.stdin(Stdio::null());
    let limit = tier::patient(LIMIT);
    Call { command, report: PathBuf::new(), input: Vec::new(), limit }.spawn().output()
}

/// A call under way. Dropping it ends it, so that a test that fails leaves nothing; and so does its limit, so that a
/// test that waits for it by any means comes to an end.
#[derive(Debug)]
pub struct Running {
    child: Option<Child>,
    watchdog: Option<Watchdog>,
    report: PathBuf,
    begun: Instant,
}

impl Running {
    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> Pid {
        Pid::from_child(self)
    }

    /// Reads what is left of its output and waits for its end.
    #[must_use]
    pub fn output(mut self) -> Output {
        let child = self.child.take().expect("taken only here and in drop");
        let output = child.wait_with_output().expect("sandbox can be waited for");
        let watchdog = self.watchdog.take().expect("taken only here and in drop");
        let limit = watchdog.limit;
        assert!(!watchdog.stop(), "sandbox run hung for {limit:?}: {}", String::from_utf8_lossy(&output.stderr));
        output
    }

    /// The same, with its report.
    #[must_use]
    pub fn ran(self) -> Ran {
        let (report, begun) = (self.report.clone(), self.begun);
        let output = self.output();
        let wall = begun.elapsed();
        let text = fs::read(&report).unwrap_or_default();
        Ran {
            status: output.status,
            stdout: output.stdout,
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            report: serde_json::from_slice(&text).unwrap_or_default(),
            wall,
        }
    }
}

impl Deref for Running {
    type Target = Child;

    fn deref(&self) -> &Child {
        self.child.as_ref().expect("taken only when it is over")
    }
}

impl DerefMut for Running {
    fn deref_mut(&mut self) -> &mut Child {
        self.child.as_mut().expect("taken only when it is over")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Both fail only if it has been waited for already.
            let _over = child.kill();
            let _over = child.wait();
        }
        if let Some(watchdog) = self.watchdog.take() {
            let _bitten = watchdog.stop();
        }
    }
}

/// What came back.
#[derive(Debug)]
pub struct Ran {
    /// How `sandbox` ended.
    pub status: ExitStatus,
    /// Its standard output.
    pub stdout: Vec<u8>,
    /// Its standard error, as text.
    pub stderr: String,
    /// Its report; null if it wrote none.
    pub report: serde_json::Value,
    /// How long it took.
    pub wall: Duration,
}

impl Call {
    /// Sets a variable of the host's command.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Writes this to the command's standard input.
    #[must_use]
    pub fn input(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.input = bytes.into();
        self.command.stdin(Stdio::piped());
        self
    }

    /// Gives it this long instead of [`LIMIT`], in the tier that is fastest.
    #[must_use]
    pub fn within(mut self, limit: Duration) -> Self {
        self.limit = tier::patient(limit);
        self
    }

    /// Starts it with its output on pipes.
    #[must_use]
    pub fn spawn(mut self) -> Running {
        self.command.stdout(Stdio::piped()).stderr(Stdio::piped());
        self.spawn_as_is()
    }

    /// Starts it with its output wherever the test has directed it.
    #[must_use]
    pub fn spawn_as_is(mut self) -> Running {
        let begun = Instant::now();
        let child = self.command.spawn().expect("sandbox can be started");
        let watchdog = Watchdog::over(Pid::from_child(&child), self.limit);
        Running { child: Some(child), watchdog: Some(watchdog), report: self.report, begun }
    }

    /// Makes the call and waits, but not for ever.
    #[must_use]
    pub fn wait(mut self) -> Ran {
        let input = std::mem::take(&mut self.input);
        let mut child = self.spawn();
        let feeder = child.stdin.take().map(|mut stdin| thread::spawn(move || drop(stdin.write_all(&input))));
        let ran = child.ran();
        if let Some(feeder) = feeder {
            feeder.join().expect("the feeding thread does not panic");
        }
        ran
    }
}

/// Kills a process that lives too long.
#[derive(Debug)]
struct Watchdog {
    limit: Duration,
    done: std::sync::mpsc::Sender<()>,
    thread: thread::JoinHandle<bool>,
}

impl Watchdog {
    fn over(pid: Pid, limit: Duration) -> Self {
        // By descriptor: the number may be another's when the time is over.
        let process = pidfd_open(pid, PidfdFlags::empty()).expect("a child can be watched");
        let (done, told) = std::sync::mpsc::channel();
        let thread = thread::spawn(move || {
            let late = told.recv_timeout(limit).is_err();
            if late {
                let _gone = pidfd_send_signal(&process, Signal::KILL);
            }
            late
        });
        Self { limit, done, thread }
    }

    /// Whether it had to bite.
    fn stop(self) -> bool {
        let _bitten = self.done.send(());
        self.thread.join().expect("the watchdog does not panic")
    }
}

impl Ran {
    /// The exit code; fails if a signal ended `sandbox` itself.
    #[must_use]
    pub fn code(&self) -> i32 {
        self.status.code().unwrap_or_else(|| panic!("sandbox itself ended by {}: {}", self.status, self.stderr))
    }

    /// Standard output as text without the last line's end.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).trim_end_matches('\n').to_owned()
    }

    /// The report's cause.
    #[must_use]
    pub fn cause(&self) -> &str {
        self.report["cause"].as_str().unwrap_or("(no report)")
    }

    /// Fails unless the run ended so.
    pub fn expect(&self, code: i32, cause: &str) -> &Self {
        let text = String::from_utf8_lossy(&self.stdout[..self.stdout.len().min(4000)]);
        let told = (self.code(), self.cause());
        assert_eq!(told, (code, cause), "stdout: {text}\nstderr: {}\nreport: {}", self.stderr, self.report);
        assert_eq!(self.report["code"], code, "the report tells another code");
        self
    }

    /// Fails unless the command succeeded and printed this.
    pub fn prints(&self, text: &str) {
        self.expect(0, "exited");
        assert_eq!(self.text(), text, "stderr: {}", self.stderr);
    }
}

/// Copies strings to what a command line takes.
#[must_use]
pub fn words<const N: usize>(words: [&str; N]) -> Vec<OsString> {
    words.iter().map(OsString::from).collect()
}
