// SPDX-License-Identifier: Apache-2.0
//! A test in its machine: the program is started there again, and a variable tells it for which of its functions.

use std::env;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use rustix::fs::{Access, access};
use rustix::process::geteuid;
use sandbox::caller::Caller;
use sandbox::cargo::Process;
use sandbox::suite::{Plan, Test, directory, hold, refusal};
use sandbox::{Cause, Verdict};

use crate::machine::Registered;

/// Which test a program is in a machine for.
const VARIABLE: &str = "HARNESS_TEST";

/// Where evidence is left, instead of in the target directory.
const EVIDENCE: &str = "SANDBOX_EVIDENCE";

/// The same there, or, where that cannot be written, in the directory of temporary files.
const PLACE: &str = "vm-evidence";

/// Most lines of a test's output in a message.
const LINES: usize = 200;

/// How Rust's programs end that panic, and that return an error.
const PANICKED: Cause = Cause::Exited(101);
const ABORTED: Cause = Cause::Signaled(6);
const ERRED: Cause = Cause::Exited(1);

/// What this program is to end with, if it has been started in a machine for a test.
pub(crate) fn run() -> Option<ExitCode> {
    let name = env::var(VARIABLE).ok()?;
    // What a test does to its machine must not be done to a host where the variable is set by chance.
    if !sandbox::is_guest() {
        eprintln!("harness: {VARIABLE} is set, and this is no machine of sandbox's: unset it to run tests");
        return Some(ExitCode::FAILURE);
    }
    let test = Registered::all().into_iter().find(|test| test.name() == name);
    Some(test.map_or_else(
        || {
            eprintln!("harness: this program has no test {name}");
            ExitCode::FAILURE
        },
        |test| (test.body)(),
    ))
}

/// Runs a test in a machine of its own. If it has not passed, there is something to be said.
pub(crate) fn perform(test: &Registered) -> (Verdict, String) {
    let (plan, place) = match plan(test) {
        Ok(planned) => planned,
        Err(cause) => return (Verdict::Infrastructure, refusal(&cause)),
    };
    let _held = match hold(&place) {
        Ok(held) => held,
        Err(error) => {
            let words = format!("cannot leave evidence in {}: {error}; {EVIDENCE} may name a place", place.display());
            return (Verdict::Infrastructure, refusal(&Cause::SetupError(words)));
        }
    };
    let name = test.name();
    // nextest keeps what is written and shows it with the test.
    let echo = env::var_os("NEXTEST").is_some();
    let judge = |cause: &Cause, _: &[u8], stderr: &[u8]| judge(cause, stderr);
    let record = Test { name: &name, plan: &plan, input: &[], retries: 0, place, echo, judge: &judge }.run();
    let output = if echo { String::new() } else { record.output(LINES) };
    (record.verdict(), record.message() + &output)
}

fn plan(test: &Registered) -> Result<(Plan, PathBuf), Cause> {
    let look = |error: io::Error| Cause::SetupError(format!("cannot look at this process: {error}"));
    let caller = Caller::look_on().map_err(look)?;
    let executable = env::current_exe().map_err(look)?;
    let process = Process::of(&caller, &executable);
    let name = test.name();
    let place = place(test, process.target.as_deref()).map_err(|error| {
        Cause::SetupError(format!("there is no place for evidence, which {EVIDENCE} may name: {error}"))
    })?;
    let command = [executable.into_os_string(), "--exact".into(), name.clone().into(), "--include-ignored".into()];
    let options = test.machine.options(&caller.directory);
    let plan = Plan::of_cargo(options, &command, (VARIABLE, &name), &process, &caller)?;
    Ok((plan, place))
}

fn place(test: &Registered, target: Option<&Path>) -> io::Result<PathBuf> {
    let named = env::var_os(EVIDENCE).filter(|place| !place.is_empty()).map(PathBuf::from);
    let writable = |place: &PathBuf| {
        fs::create_dir_all(place).is_ok() && access(place, Access::WRITE_OK | Access::EXEC_OK).is_ok()
    };
    let place = match named.or_else(|| target.map(|target| target.join(PLACE)).filter(writable)) {
        Some(place) => place,
        None => own(&env::temp_dir())?,
    };
    Ok(place.join(test.suite()).join(directory(&test.name())))
}

/// A directory of this user's own where everybody may make one: what others lay there could lead our writes anywhere.
fn own(shared: &Path) -> io::Result<PathBuf> {
    let uid = geteuid().as_raw();
    let place = shared.join(format!("{PLACE}-{uid}"));
    match DirBuilder::new().mode(0o700).create(&place) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let metadata = place.symlink_metadata()?;
    if metadata.is_dir() && metadata.uid() == uid && metadata.mode() & 0o022 == 0 {
        return Ok(place);
    }
    Err(io::Error::other(format!("{} is not this user's alone", place.display())))
}

/// Whether the program has said that its test is fine, and otherwise what it has said.
fn judge(cause: &Cause, stderr: &[u8]) -> Result<(), String> {
    if *cause == Cause::Exited(0) {
        return Ok(());
    }
    let text = String::from_utf8_lossy(stderr);
    match (panic(&text), error(&text)) {
        (Some(panic), _) if *cause == PANICKED => Err(panic.to_owned()),
        (Some(panic), _) if *cause == ABORTED => Err(format!("{panic}\n{cause}")),
        (_, Some(error)) if *cause == ERRED => Err(error.to_owned()),
        _ => Err(cause.to_string()),
    }
}

/// The first panic, as the standard library prints it: where it was, and its message.
fn panic(stderr: &str) -> Option<&str> {
    let from = stderr.match_indices("panicked at ").find(|(at, _)| {
        let line = stderr[..*at].rsplit('\n').next().unwrap_or_default();
        line.starts_with("thread '")
    })?;
    let text = &stderr[from.0..];
    let ends = ["\nnote: run with `RUST_BACKTRACE", "\nstack backtrace:", "\n\nthread '"];
    let end = ends.iter().filter_map(|end| text.find(end)).min().unwrap_or(text.len());
    Some(text[..end].trim_end())
}

/// What `main` has returned as an error.
fn error(stderr: &str) -> Option<&str> {
    stderr.lines().rev().find(|line| line.starts_with("Error: "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_what_is_said() {
        let note = "note: run with `RUST_BACKTRACE=1` environment variable to display a backtrace\n";
        let text =
            format!("before\n\nthread 'main' (1) panicked at src/x.rs:3:5:\nassertion failed\n  left: 1\n{note}");
        assert_eq!(
            judge(&PANICKED, text.as_bytes()),
            Err("panicked at src/x.rs:3:5:\nassertion failed\n  left: 1".to_owned())
        );
        let aborted = judge(&ABORTED, text.as_bytes()).expect_err("no pass");
        assert!(aborted.ends_with("  left: 1\nsignal 6 killed the command"), "{aborted}");
        let backtrace = "thread '<unnamed>' panicked at a.rs:1:1:\nfirst\nstack backtrace:\n   0: x\n";
        assert_eq!(judge(&PANICKED, backtrace.as_bytes()), Err("panicked at a.rs:1:1:\nfirst".to_owned()));
    }

    #[test]
    fn in_a_shared_directory_evidence_has_one_of_its_own() {
        let shared = env::temp_dir().join(format!("harness-shared-{}", std::process::id()));
        fs::create_dir(&shared).expect("a directory can be made");
        let place = own(&shared).expect("it is there");
        assert_eq!(place.metadata().expect("it is there").mode() & 0o777, 0o700);
        assert_eq!(own(&shared).expect("it is there still"), place);
        fs::set_permissions(&place, std::os::unix::fs::PermissionsExt::from_mode(0o777)).expect("it is ours");
        assert!(own(&shared).is_err(), "others may write there");
        fs::remove_dir(&place).expect("it is empty");
        std::os::unix::fs::symlink("/", &place).expect("a link can be made");
        assert!(own(&shared).is_err(), "it leads elsewhere");
        fs::remove_dir_all(&shared).expect("it can be removed");
    }

    #[test]
    fn only_the_end_decides() {
        let text = b"thread 'x' panicked at y\nError: z\n";
        assert_eq!(judge(&Cause::Exited(0), text), Ok(()));
        assert_eq!(judge(&ERRED, text), Err("Error: z".to_owned()));
        assert_eq!(judge(&PANICKED, b"says panicked at nothing"), Err(PANICKED.to_string()));
        assert_eq!(judge(&Cause::Timeout, text), Err(Cause::Timeout.to_string()));
    }
}
