// SPDX-License-Identifier: Apache-2.0
//! `sandbox suite`: the commands of a file, each a test in a machine of its own, with the interface of `cargo test`.
//!
//! What a test needs is written as in a configuration file and means what the option of `sandbox run` means; docs/suites.md has it
//! all.

mod expect;
mod file;
mod junit;
mod mimic;

use std::env;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use clap::Args;
use libtest_mimic::{ColorSetting, Failed, FormatSetting, Trial};

use self::file::{Entry, Suite};
use super::{FAILURE, config, tell};
use crate::caller::Caller;
use crate::outcome::Verdict;
use crate::suite::{self, Plan, Record, Test};
use crate::sys::signals;

/// Which suite, and what of it.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The file
    file: PathBuf,
    /// Run only the tests whose name contains this
    filter: Option<String>,
    /// List the tests, and run none
    #[arg(long)]
    list: bool,
    /// FILTER and --skip are whole names
    #[arg(long)]
    exact: bool,
    /// Run only the tests that are ignored
    #[arg(long)]
    ignored: bool,
    /// Run those that are ignored, too
    #[arg(long, conflicts_with = "ignored")]
    include_ignored: bool,
    /// Leave out tests whose name contains this; may be given more than once
    #[arg(long, value_name = "FILTER")]
    skip: Vec<String>,
    /// How many tests run at the same time [default: as many as there are processors]
    #[arg(long, value_name = "N")]
    test_threads: Option<usize>,
    /// How results are shown
    #[arg(long, value_name = "FORMAT")]
    format: Option<FormatSetting>,
    /// The same as --format terse
    #[arg(short, long, conflicts_with = "format")]
    quiet: bool,
    /// When to use colours
    #[arg(long, value_name = "WHEN")]
    color: Option<ColorSetting>,
    /// Write the results to this file, as JUnit's XML
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// Where to leave what tells why a test failed, instead of the user's state directory
    #[arg(long, value_name = "DIR")]
    evidence: Option<PathBuf>,
    /// Accepted for those used to cargo: the output of a test that fails is always kept
    #[arg(long, hide = true)]
    nocapture: bool,
    /// The same
    #[arg(long, hide = true)]
    show_output: bool,
}

/// Lines of output shown with a failure; all of it is kept.
const LINES: usize = 20;

/// What is said if standard output takes no more.
const UNSEEN: &str = "cannot write to standard output: is its disk full, or its reader gone?";

/// Carries out `sandbox suite`.
#[must_use]
pub fn run(arguments: &Arguments) -> ExitCode {
    match attempt(arguments) {
        Ok(code) => code,
        Err(why) => {
            tell(format_args!("sandbox: {why}"));
            ExitCode::from(FAILURE)
        }
    }
}

/// A test with all it takes to run it.
struct Ready {
    entry: Entry,
    plan: Plan,
    place: PathBuf,
}

fn attempt(arguments: &Arguments) -> Result<ExitCode, String> {
    if arguments.test_threads == Some(0) {
        return Err("--test-threads 0 would run nothing; give at least 1".to_owned());
    }
    let caller = Caller::look().map_err(|error| format!("cannot look at the calling process: {error}"))?;
    let suite = Suite::read(&arguments.file, &caller)?;
    let evidence = match &arguments.evidence {
        Some(place) => caller.directory.join(place),
        None => state(&suite.path)?,
    };
    let mut ready = Vec::new();
    for entry in suite.entries {
        let (options, command) = (entry.options(), &entry.command);
        let plan = Plan::new(options, command, &caller, &suite.directory)
            .map_err(|why| format!("{}: test {:?}: {why}", arguments.file.display(), entry.name))?;
        let place = evidence.join(suite::directory(&entry.name));
        ready.push(Ready { entry, plan, place });
    }
    let chosen = arguments.mimic();
    if chosen.list {
        let trials = ready
            .into_iter()
            .map(|ready| Trial::test(ready.entry.name, || Ok(())).with_ignored_flag(ready.entry.ignored));
        return if mimic::run(&chosen, trials.collect()) { Ok(ExitCode::SUCCESS) } else { Err(UNSEEN.to_owned()) };
    }
    let _held = suite::hold(&evidence).map_err(|error| {
        format!("cannot leave evidence in {}: {error}; name another place with --evidence", evidence.display())
    })?;
    let junit = arguments.junit.as_deref().map(junit::Output::open).transpose()?;
    let watched = junit.is_some();
    let results = Arc::new(Mutex::new(Results { suite: suite.name, junit, ..Results::default() }));
    if watched {
        watch(&results, caller.ignored).map_err(|error| format!("cannot wait for signals: {error}"))?;
    }
    let seen = conduct(&chosen, ready, &results);
    let mut results = lock(&results);
    let why = if seen { "sandbox itself has failed; its own words are above" } else { UNSEEN };
    let written = results.close(why);
    let known = written.is_ok() && seen;
    for why in written.err().into_iter().chain((!seen).then(|| UNSEEN.to_owned())) {
        tell(format_args!("sandbox: {why}"));
    }
    let verdicts = results.records.iter().map(Record::verdict);
    Ok(suite::exit_code(verdicts.chain((!known).then_some(Verdict::Infrastructure))))
}

/// Has what is known go to JUnit's file, and then us, if a signal ends us. For the thread that starts all others.
fn watch(results: &Arc<Mutex<Results>>, ignored: u64) -> io::Result<()> {
    let results = Arc::clone(results);
    signals::at_end(ignored, move |signal| {
        let why = format!("signal {signal} ended the suite before this test had ended");
        if let Err(why) = lock(&results).close(&why) {
            tell(format_args!("sandbox: {why}"));
        }
    })
}

/// Has libtest-mimic run what is chosen; whether its words were written.
fn conduct(chosen: &libtest_mimic::Arguments, ready: Vec<Ready>, results: &Arc<Mutex<Results>>) -> bool {
    let mut trials = Vec::new();
    for ready in ready {
        let (name, ignored, shared) = (ready.entry.name.clone(), ready.entry.ignored, Arc::clone(results));
        let trial = Trial::test(name.clone(), move || {
            let record = ready.run();
            let (verdict, message) = (record.verdict(), record.message() + &record.output(LINES));
            lock(&shared).records.push(record);
            if verdict == Verdict::Pass { Ok(()) } else { Err(Failed::from(message)) }
        })
        .with_ignored_flag(ignored);
        if !chosen.is_filtered_out(&trial) {
            let mut results = lock(results);
            let list = if chosen.is_ignored(&trial) { &mut results.skipped } else { &mut results.begun };
            list.push(name);
        }
        trials.push(trial);
    }
    mimic::run(chosen, trials)
}

/// What is known of a suite so far.
#[derive(Debug, Default)]
struct Results {
    suite: String,
    junit: Option<junit::Output>,
    records: Vec<Record>,
    /// What was chosen, and what of that was passed over as ignored.
    begun: Vec<String>,
    skipped: Vec<String>,
    closed: bool,
}

impl Results {
    /// Once nothing more can come: of the rest nothing is known, for this reason. A panic of ours is caught with each test, and must not
    /// look like one that was never there.
    fn close(&mut self, why: &str) -> Result<(), String> {
        if std::mem::replace(&mut self.closed, true) {
            return Ok(());
        }
        let begun = std::mem::take(&mut self.begun);
        let lost = begun.iter().filter(|name| !self.records.iter().any(|record| record.name == **name));
        let lost: Vec<Record> = lost.map(|name| Record::lost(name, why)).collect();
        self.records.extend(lost);
        for record in self.records.iter().filter(|record| record.verdict() == Verdict::Pass) {
            if record.is_flaky() {
                let attempts = record.attempts.len();
                tell(format_args!("sandbox: flaky: {} passed, but only at attempt {attempts}", record.name));
            }
            for note in record.attempts.iter().flat_map(|attempt| &attempt.notes) {
                tell(format_args!("sandbox: {}: {note}", record.name));
            }
        }
        match self.junit.take() {
            Some(junit) => junit.write(&self.suite, &self.records, &self.skipped),
            None => Ok(()),
        }
    }
}

/// Nothing that holds the lock leaves it half done.
fn lock(results: &Mutex<Results>) -> MutexGuard<'_, Results> {
    results.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Ready {
    fn run(&self) -> Record {
        let expect = &self.entry.expect;
        Test {
            name: &self.entry.name,
            plan: &self.plan,
            input: &self.entry.input,
            retries: self.entry.retries,
            place: self.place.clone(),
            echo: false,
            judge: &|cause, stdout, stderr| expect.judge(cause, stdout, stderr),
        }
        .run()
    }
}

impl Arguments {
    fn mimic(&self) -> libtest_mimic::Arguments {
        libtest_mimic::Arguments {
            list: self.list,
            exact: self.exact,
            ignored: self.ignored,
            include_ignored: self.include_ignored,
            skip: self.skip.clone(),
            test_threads: self.test_threads,
            format: self.format,
            quiet: self.quiet,
            color: self.color,
            filter: self.filter.clone(),
            ..libtest_mimic::Arguments::default()
        }
    }
}

/// Where the evidence of a suite lies: the same place each time (XDG Base Directory Specification).
fn state(suite: &Path) -> Result<PathBuf, String> {
    let variable = |name: &str| env::var_os(name).filter(|value| !value.is_empty());
    let state = config::state(&variable).map_err(|error| format!("{error}; or name a place with --evidence"))?;
    Ok(state.join("sandbox/suites").join(suite::directory(&suite.to_string_lossy())))
}
