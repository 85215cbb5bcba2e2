// SPDX-License-Identifier: Apache-2.0
//! What a machine for each test costs: the same tests under nextest, on the host and with `sandbox runner`, with several numbers
//! of jobs, and where the time of each of the runner's processes goes.
//!
//! On KVM this very program measures inside a guest of the fallback, whose processor is emulated and whose KVM is the real one:
//! there only the ratios mean something.

use std::collections::BTreeMap;
use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tests::{Bench, program};

use super::{STAGES, median};

/// How many tests there are, all of which do nothing.
const TESTS: usize = 8;

/// `-j` of nextest.
const JOBS: [&str; 3] = ["1", "2", "4"];

/// The call whose runs have the host to themselves.
const ALONE: [&str; 3] = ["run", "-j", "1"];

const MANIFEST: &str = "[package]\nname = \"idle\"\nversion = \"0.1.0\"\nedition = \"2021\"\n[workspace]\n";

/// The word after which this program measures inside a guest.
const INSIDE: &str = "runner-inside";

/// Samples in milliseconds, by name.
type Values = BTreeMap<String, Vec<f64>>;

/// Whether this program has been started to measure inside a guest; then it has done so.
pub(super) fn inside() -> Result<bool> {
    let words: Vec<String> = env::args().skip(1).collect();
    let [word, place, rounds] = words.as_slice() else { return Ok(false) };
    if word != INSIDE {
        return Ok(false);
    }
    let values = Suite::at(Path::new(place), "kvm").measure(rounds.parse()?)?;
    println!("{}", serde_json::to_string(&values)?);
    Ok(true)
}

/// Measures and prints the tables.
pub(super) fn print(bench: &Bench, rounds: u64) -> Result<()> {
    let suite = Suite::build(&bench.path().join("idle"))?;
    let emulated = suite.measure(rounds)?;
    // All that is needed there is in one place, but for the program.
    let own = bench.path().join("bench");
    fs::copy(env::current_exe()?, &own)?;
    let mut guest = Command::new(program());
    guest.args(["run", "--engine", "qemu", "--nested", "-m", "3G", "--timeout", "40m", "-v"]);
    let (here, program) = (bench.path().display(), program());
    let beside = program.parent().unwrap_or(&program).display();
    guest.arg(format!("{here}:{here}")).arg("-v").arg(format!("{beside}:{beside}:ro"));
    guest.args(["-e", "SANDBOX_BIN", "--"]).arg(&own);
    guest.arg(INSIDE).arg(&suite.place).arg(rounds.to_string()).env("SANDBOX_BIN", &program);
    let output = guest.current_dir(bench.path()).stdin(Stdio::null()).stderr(Stdio::inherit()).output()?;
    ensure!(output.status.success(), "the guest that measures ended with {}", output.status);
    let hardware: Values = serde_json::from_slice(&output.stdout).context("the guest's figures make no sense")?;
    println!("\n## A machine for each of {TESTS} tests, {rounds} rounds, interleaved, medians\n");
    println!("| engine | -j | native, ms a test | runner, ms a test | a machine more, ms | to one machine's time |");
    println!("| --- | --- | --- | --- | --- | --- |");
    for (engine, values) in [("qemu", &emulated), ("kvm, nested", &hardware)] {
        let of = |name: &str| values.get(name).map_or(f64::NAN, |samples| median(&mut samples.clone()));
        for jobs in JOBS {
            let (native, runner) = (of(&format!("native {jobs}")), of(&format!("runner {jobs}")));
            let ratio = (runner - native) / of("total");
            println!("| {engine} | {jobs} | {native:.1} | {runner:.1} | {:.1} | {ratio:.2} |", runner - native);
        }
    }
    println!("\n| ms | qemu | kvm, nested |\n| --- | --- | --- |");
    let lists = ["list native", "list vm"];
    for name in lists.into_iter().chain(STAGES).chain(["total"]) {
        let of = |values: &Values| values.get(name).map_or(f64::NAN, |samples| median(&mut samples.clone()));
        println!("| {name} | {:.1} | {:.1} |", of(&emulated), of(&hardware));
    }
    Ok(())
}

/// The tests, built and packed, so that nothing is built where they run.
struct Suite {
    place: PathBuf,
    engine: &'static str,
}

impl Suite {
    fn build(place: &Path) -> Result<Self> {
        fs::create_dir_all(place.join("src"))?;
        fs::write(place.join("Cargo.toml"), MANIFEST)?;
        let test = |number| format!("#[test] fn idle{number}() {{}}\n");
        fs::write(place.join("src/lib.rs"), (0..TESTS).map(test).collect::<String>())?;
        let suite = Self::at(place, "qemu");
        let built = suite.nextest(&["archive", "--archive-file", "idle.tar.zst"], None).output()?;
        ensure!(built.status.success(), "the tests cannot be built: {}", String::from_utf8_lossy(&built.stderr));
        Ok(suite)
    }

    fn at(place: &Path, engine: &'static str) -> Self {
        Self { place: place.to_owned(), engine }
    }

    /// A call of nextest, with how `sandbox runner` is to list if it is to be used.
    fn nextest(&self, words: &[&str], listing: Option<&str>) -> Command {
        let mut command = Command::new("cargo");
        command.args(["nextest", words[0], "--color", "never"]).args(&words[1..]);
        command.current_dir(&self.place).stdin(Stdio::null());
        // What is said of this program itself.
        let families = ["CARGO_", "NEXTEST", "RUST_TEST", "SANDBOX_"];
        let ours = |name: &OsString| families.iter().any(|family| name.to_string_lossy().starts_with(family));
        for (name, _) in env::vars_os().filter(|(name, _)| name != "CARGO_HOME" && ours(name)) {
            command.env_remove(name);
        }
        if let Some(listing) = listing {
            let runner = format!("{} runner --listing {listing}", program().display());
            command.env("CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER", runner);
            command.env("SANDBOX_ENGINE", self.engine).env("SANDBOX_REPORTS", self.reports(words));
        }
        command
    }

    /// Where the runs of such a call leave their reports.
    fn reports(&self, words: &[&str]) -> PathBuf {
        let call: String = words.concat().chars().filter(char::is_ascii_alphanumeric).collect();
        self.place.join(format!("reports-{}-{call}", self.engine))
    }

    fn measure(&self, rounds: u64) -> Result<Values> {
        let mut values = Values::new();
        // The first round does not count: caches, and the template.
        for round in 0..=rounds {
            // An archive's files are new each time they are unpacked, so that no list that was kept is of them.
            for (name, listing) in [("list native", None), ("list vm", Some("vm"))] {
                let begun = Instant::now();
                self.perform(&["list"], listing)?;
                put(&mut values, name, begun.elapsed().as_secs_f64() * 1e3);
            }
            for jobs in JOBS {
                for (name, listing) in [("native", None), ("runner", Some("vm"))] {
                    let seconds = summary(&self.perform(&["run", "-j", jobs], listing)?)?;
                    put(&mut values, &format!("{name} {jobs}"), seconds * 1e3 / TESTS as f64);
                }
            }
            if round == 0 {
                values.clear();
                fs::remove_dir_all(self.reports(&ALONE))?;
            }
        }
        self.stages(&mut values)?;
        Ok(values)
    }

    fn perform(&self, words: &[&str], listing: Option<&str>) -> Result<String> {
        let mut command = self.nextest(words, listing);
        command.args(["--archive-file", "idle.tar.zst", "--workspace-remap"]).arg(&self.place);
        let output = command.output().context("cannot start nextest")?;
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.success(), "nextest failed: {text}");
        Ok(text)
    }

    /// How long each stage of each test's run took while there was one job: with more, they wait for each other.
    fn stages(&self, values: &mut Values) -> Result<()> {
        for entry in fs::read_dir(self.reports(&ALONE))? {
            let report: Value = serde_json::from_slice(&fs::read(entry?.path())?)?;
            if report["test"].is_null() {
                continue;
            }
            for stage in STAGES.into_iter().chain(["total"]) {
                put(values, stage, report["timings_ms"][stage].as_f64().unwrap_or(0.0));
            }
        }
        Ok(())
    }
}

fn put(values: &mut Values, name: &str, value: f64) {
    values.entry(name.to_owned()).or_default().push(value);
}

/// Nextest's own clock for all of its tests: `Summary [   1.234s] 8 tests run: 8 passed`.
fn summary(text: &str) -> Result<f64> {
    let line = text.lines().find_map(|line| line.trim_start().strip_prefix("Summary [")).context("no summary")?;
    ensure!(line.contains(&format!("{TESTS} passed")), "not all have passed: {line}");
    Ok(line.split('s').next().unwrap_or_default().trim().parse()?)
}
