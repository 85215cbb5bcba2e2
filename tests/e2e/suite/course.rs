// SPDX-License-Identifier: Apache-2.0
//! What happens to a suite as a whole, which must not look like what happens to its tests: another run of it, a signal, a full disk.

use std::fs;
use std::io::{BufRead, BufReader, Read};

use rustix::process::{Signal, kill_process};
use tests::Bench;

use super::{Result, begun, of, said, suite, write};

fn junit(bench: &Bench, name: &str) -> String {
    fs::read_to_string(bench.path().join(name)).expect("it was written")
}

/// Two runs would take each other's evidence; that of a killed one is free.
pub(super) fn two_runs_wait_for_each_other() -> Result {
    let bench = Bench::new();
    let (mut first, _) = begun(&bench, &["--evidence", "evidence"])?;
    let mut second = suite(&bench, &["suite.toml", "two", "--evidence", "evidence"]).spawn();
    let mut stderr = BufReader::new(second.stderr.take().expect("it is a pipe"));
    let mut line = String::new();
    stderr.read_line(&mut line).map_err(|error| error.to_string())?;
    let place = bench.path().join("evidence");
    assert_eq!(line, format!("sandbox: waits for another run of this suite, which has {}\n", place.display()));
    assert!(place.join("one/1/stdout").exists(), "it was the first one's");
    first.kill().map_err(|error| error.to_string())?;
    let ran = second.ran();
    assert_eq!(ran.code(), 0, "{}", ran.text());
    said(&ran, "test two ... ok");
    let mut rest = String::new();
    stderr.read_to_string(&mut rest).map_err(|error| error.to_string())?;
    assert_eq!(rest, "");
    Ok(())
}

pub(super) fn a_signal_leaves_what_is_known() -> Result {
    for (signal, code) in [(Signal::TERM, 15), (Signal::HUP, 1)] {
        let bench = Bench::new();
        let (suite, _) = begun(&bench, &["--junit", "junit.xml", "--evidence", "evidence"])?;
        kill_process(suite.pid(), signal).map_err(|error| error.to_string())?;
        let ran = suite.ran();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&ran.status), Some(code), "{}", ran.stderr);
        let junit = junit(&bench, "junit.xml");
        assert!(junit.contains("tests=\"3\" skipped=\"0\" failures=\"0\" errors=\"2\""), "{junit}");
        assert!(!of(&junit, "zero").contains("<error") && of(&junit, "two").contains("ended the suite"), "{junit}");
    }
    Ok(())
}

/// Whose words cannot be written has not found a test wrong, nor itself.
pub(super) fn what_cannot_be_written_is_no_failure() -> Result {
    let (bench, cache) = (Bench::new(), Bench::new());
    write(&bench, "[[test]]\nname = 'one'\ncommand = 'true'\n[[test]]\nname = 'two'\ncommand = 'true'\n");
    let full = |words: &[&str]| {
        let mut call = suite(&bench, &[&["suite.toml", "--evidence", "evidence"], words].concat());
        let full = fs::File::options().write(true).open("/dev/full").expect("every host has it");
        call.command.stdout(full).stderr(std::process::Stdio::piped());
        let output = call.spawn_as_is().output();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let words = "sandbox: cannot write to standard output: is its disk full, or its reader gone?\n";
    let no_failure = (Some(125), words.to_owned());
    assert_eq!(full(&["--list"]), no_failure);
    assert_eq!(full(&["--test-threads", "1", "--junit", "one.xml"]), no_failure);
    assert_eq!(full(&["--test-threads", "2", "--junit", "two.xml"]), no_failure);
    assert!(junit(&bench, "one.xml").contains("tests=\"2\" skipped=\"0\" failures=\"0\" errors=\"2\""));

    // Found out before anything is booted.
    let ran = suite(&bench, &["suite.toml", "--junit", "none/x.xml"]).env("XDG_CACHE_HOME", cache.path()).wait();
    assert_eq!((ran.code(), ran.text().as_str()), (125, ""));
    assert!(ran.stderr.starts_with("sandbox: cannot write none/x.xml: No such file"), "{}", ran.stderr);
    Ok(())
}

pub(super) fn results_that_are_missing_are_told() -> Result {
    let bench = Bench::new();
    let make = "mkdir /tmp/made; echo fine > /tmp/made/file; mkfifo /tmp/made/pipe";
    write(
        &bench,
        &format!(
            "[[test]]\nname = 'nothing made'\ncommand = 'true'\ncopy_out = ['/tmp/made:none']\n\
             [[test]]\nname = 'nothing made but as told'\ncommand = 'exit 3'\nstatus = 3\ncopy_out = ['/tmp/made:none']\n\
             [[test]]\nname = 'part of it'\ncommand = '{make}'\ncopy_out = ['/tmp/made:some']\n\
             [[test]]\nname = 'odd \u{fffe}'\ncommand = '''printf '\\357\\277\\277'; {make}; exit 1'''\ncopy_out = ['/tmp/made:more']\n"
        ),
    );
    let ran = suite(&bench, &["suite.toml", "--junit", "junit.xml", "--evidence", "evidence"]).wait();
    assert_eq!(ran.code(), 101, "{}\n{}", ran.text(), ran.stderr);
    said(&ran, "test nothing made ... FAILED");
    said(&ran, "test nothing made but as told ... FAILED");
    said(&ran, "test part of it ... ok");
    assert_eq!(ran.stderr, "sandbox: part of it: left out: \"pipe\": no file, directory or link\n");
    said(&ran, "left out: \"pipe\": no file, directory or link");
    assert!(!ran.text().contains("infrastructure"), "{}", ran.text());
    let some = fs::read_to_string(bench.path().join("some/file")).map_err(|error| error.to_string())?;
    assert_eq!(some, "fine\n");
    let junit = junit(&bench, "junit.xml");
    assert!(junit.contains("failures=\"3\" errors=\"0\""), "{junit}");
    assert!(of(&junit, "nothing made").contains("the command&apos;s results: the guest could not read"), "{junit}");
    assert!(!junit.contains(['\u{fffe}', '\u{ffff}']) && junit.contains("name=\"odd \u{fffd}\""), "{junit}");
    Ok(())
}
