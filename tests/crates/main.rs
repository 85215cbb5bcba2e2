// SPDX-License-Identifier: Apache-2.0
//! `make crates`: test suites of crates that were not written for us, on the host and in machines, verdict by verdict.
//!
//! Each crate is fetched by name and version through cargo, built once, and run twice under nextest, and its doctests by `cargo test
//! --doc`: without a runner, and with ours. A difference fails it. `CRATES=name,name` takes some of them. docs/runner.md keeps the table.

mod list;

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tests::nextest::{self, Verdicts};

use list::{CRATES, Crate};

/// What nextest says of a test that passed, and of one that did and left something running. That is on the host only: in a machine
/// it dies.
const PASS: &str = "PASS";
const LEAK: &str = "LEAK";

fn main() -> Result<ExitCode> {
    let place = env::var_os("CRATES_DIR").map_or_else(|| PathBuf::from("target/crates"), PathBuf::from);
    fs::create_dir_all(&place)?;
    let place = place.canonicalize()?;
    let some = env::var("CRATES").unwrap_or_default();
    let wanted = |one: &&Crate| some.is_empty() || some.split(',').any(|name| name == one.name);
    let sources = fetch(&place)?;
    println!(
        "| crate | about | tests | doctests | passed | same verdict | leaky on the host, in machines | host | machines |"
    );
    println!("| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |");
    let mut code = ExitCode::SUCCESS;
    for one in CRATES.iter().filter(wanted) {
        let differences = match compare(one, &place, &sources) {
            Ok(compared) => {
                println!("{}", compared.row(one));
                compared.differences(one.name)
            }
            Err(error) => vec![format!("{} {}: {error:#}", one.name, one.version)],
        };
        for difference in differences {
            eprintln!("{difference}");
            code = ExitCode::FAILURE;
        }
    }
    Ok(code)
}

/// Has cargo fetch all of them into its registry; says where the manifest of each is.
fn fetch(place: &Path) -> Result<serde_json::Value> {
    let directory = place.join("fetch");
    fs::create_dir_all(directory.join("src"))?;
    fs::write(directory.join("src/lib.rs"), "")?;
    let mut manifest =
        "[package]\nname = \"fetch\"\nversion = \"0.0.0\"\nedition = \"2024\"\n[workspace]\n[dependencies]\n"
            .to_owned();
    for Crate { name, version, .. } in CRATES {
        manifest.push_str(&format!("{name} = \"={version}\"\n"));
    }
    fs::write(directory.join("Cargo.toml"), manifest)?;
    let mut cargo = Command::new("cargo");
    nextest::prepare(&mut cargo, false);
    let output = cargo.args(["metadata", "--format-version", "1"]).current_dir(&directory).output()?;
    ensure!(output.status.success(), "cannot fetch: {}", String::from_utf8_lossy(&output.stderr));
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// A copy of a crate's package, as a workspace of its own.
fn unpack(one: &Crate, place: &Path, sources: &serde_json::Value) -> Result<PathBuf> {
    let packages = sources["packages"].as_array().context("cargo tells no packages")?;
    let is_it = |package: &&serde_json::Value| package["name"] == one.name && package["version"] == one.version;
    let manifest = packages.iter().find(is_it).and_then(|package| package["manifest_path"].as_str());
    let source = Path::new(manifest.context("cargo does not tell of it")?).parent().context("it has no place")?;
    let copy = place.join(format!("{}-{}", one.name, one.version));
    if !copy.exists() {
        let copied = Command::new("cp").arg("-r").arg(source).arg(&copy).status()?;
        ensure!(copied.success(), "cannot copy {}", source.display());
        let mut manifest = fs::read_to_string(copy.join("Cargo.toml"))?;
        manifest.push_str("\n[workspace]\n");
        fs::write(copy.join("Cargo.toml"), manifest)?;
    }
    Ok(copy)
}

/// What one way of running said, and how long it took.
struct Told {
    tests: Verdicts,
    doctests: Verdicts,
    /// How many left something running that held their output.
    leaks: usize,
    took: Duration,
}

struct Compared {
    host: Told,
    guest: Told,
}

fn compare(one: &Crate, place: &Path, sources: &serde_json::Value) -> Result<Compared> {
    let copy = unpack(one, place, sources)?;
    let call = |words: &[&str], runner| {
        let mut command = Command::new("cargo");
        nextest::prepare(&mut command, runner);
        command.args(words).args(one.features).current_dir(&copy);
        // Small, since there are many; and each where it is at home, since some look there.
        command.env("CARGO_PROFILE_DEV_DEBUG", "0");
        command.env("CARGO_INCREMENTAL", "0").env("NO_COLOR", "1").env_remove("RUST_BACKTRACE");
        // What today's compiler warns of is not what their authors denied.
        command.env("RUSTFLAGS", "--cap-lints warn");
        command
    };
    let built = call(&[&["nextest", "run", "--no-run"], one.targets].concat(), false).output()?;
    ensure!(built.status.success(), "cannot build: {}", String::from_utf8_lossy(&built.stderr));
    let run = |runner: bool| -> Result<Told> {
        let begun = Instant::now();
        let words = ["nextest", "run", "--no-fail-fast", "--status-level", "pass", "--final-status-level", "none"];
        let jobs = if one.alone && !runner { &["-j1"][..] } else { &[] };
        let more = ["--color", "never", "--no-tests", "pass"];
        let output = call(&[&words[..], &more, jobs, one.targets].concat(), runner).output()?;
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        let mut tests = nextest::verdicts(&text);
        let leaks = tests.values_mut().filter(|verdict| *verdict == LEAK);
        let leaks = leaks.map(|verdict| PASS.clone_into(verdict)).count();
        // What trybuild says of each file, in what nextest shows of a test that failed.
        tests.extend(
            nextest::results(&text).into_iter().filter(|(name, _)| name.split(' ').next().is_some_and(is_source)),
        );
        let output = call(&["test", "--doc", "--no-fail-fast"], runner).output()?;
        let doctests = nextest::results(&String::from_utf8_lossy(&output.stdout));
        ensure!(!tests.is_empty() || !doctests.is_empty(), "nothing was run: {text}");
        Ok(Told { tests, doctests, leaks, took: begun.elapsed() })
    };
    Ok(Compared { host: run(false)?, guest: run(true)? })
}

fn is_source(name: &str) -> bool {
    Path::new(name).extension().is_some_and(|extension| extension == "rs")
}

impl Told {
    fn all(&self) -> Verdicts {
        self.tests.iter().chain(&self.doctests).map(|(name, verdict)| (name.clone(), verdict.clone())).collect()
    }
}

impl Compared {
    /// A line of the table.
    fn row(&self, one: &Crate) -> String {
        let (host, guest) = (self.host.all(), self.guest.all());
        let passed = host.values().filter(|verdict| [PASS, "ok"].contains(&verdict.as_str())).count();
        let same = host.iter().filter(|(name, verdict)| guest.get(*name) == Some(verdict)).count();
        format!(
            "| {} {} | {} | {} | {} | {passed} | {same} of {} | {}, {} | {:.1} s | {:.1} s |",
            one.name,
            one.version,
            one.about,
            self.host.tests.len(),
            self.host.doctests.len(),
            host.len(),
            self.host.leaks,
            self.guest.leaks,
            self.host.took.as_secs_f64(),
            self.guest.took.as_secs_f64()
        )
    }

    /// The tests that do not end alike.
    fn differences(&self, name: &str) -> Vec<String> {
        let (host, guest) = (self.host.all(), self.guest.all());
        let names: BTreeSet<&String> = host.keys().chain(guest.keys()).collect();
        let differing = names.into_iter().filter(|test| host.get(*test) != guest.get(*test));
        let words = differing.map(|test| {
            format!("{name}: {test}: on the host {:?}, in a machine {:?}", host.get(test), guest.get(test))
        });
        words.collect()
    }
}
