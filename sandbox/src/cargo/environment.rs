// SPDX-License-Identifier: Apache-2.0
//! The variables of a process of cargo's: those that pass to any command, those that cargo, nextest and the usual test crates
//! set or read, and those that the package's build script has set. The rest may hold secrets.
//!
//! Three are not passed as they are: what leads to cargo's job server, of which the guest has no descriptor; how cargo runs
//! programs, for in the guest it runs them there; and where coverage profiles go, since process numbers repeat from machine to
//! machine (LLVM, "Source-based Code Coverage", `LLVM_PROFILE_FILE`).

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use crate::caller::Caller;

/// Where the dynamic linker looks first. Cargo sets it for the process, and so for us, too.
pub(super) const LIBRARIES: &str = "LD_LIBRARY_PATH";

/// Beginnings of the names of variables that hold a program.
pub(super) const PROGRAMS: [&str; 2] = ["CARGO_BIN_EXE_", "NEXTEST_BIN_EXE_"];

/// Beginnings of names that pass.
const FAMILIES: [&str; 13] = [
    "CARGO",
    "NEXTEST",
    "RUST",
    "INSTA_",
    "PROPTEST_",
    "QUICKCHECK_",
    "TRYBUILD",
    "MACROTEST",
    "SNAPSHOTS",
    "TRYCMD",
    "UPDATE_EXPECT",
    "CRITERION_",
    "DIVAN_",
];

/// Names that pass besides.
const NAMES: [&str; 9] =
    [LIBRARIES, "OUT_DIR", "CI", "TF_BUILD", "GITHUB_ACTIONS", "CLICOLOR", "CLICOLOR_FORCE", "FORCE_COLOR", "BLESS"];

/// What in a name says that its value is a secret; a proxy's address may have a password in it.
const SECRET: [&str; 7] = ["TOKEN", "SECRET", "PASSWORD", "PASSPHRASE", "CREDENTIAL", "PROXY", "_KEY"];

/// Variables of make's, of which the words that lead to a job server are taken out.
const MAKE: [&str; 3] = ["MAKEFLAGS", "CARGO_MAKEFLAGS", "MFLAGS"];
const JOB_SERVER: [&str; 2] = ["--jobserver-auth=", "--jobserver-fds="];

const PROFILE: &str = "LLVM_PROFILE_FILE";

/// How cargo runs the programs it has built: a variable for each target, of which this is ours.
const RUNNER: &str = "CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER";
const RUNNERS: [&str; 2] = ["CARGO_TARGET_", "_RUNNER"];

/// A runner that changes nothing. To name none would leave the word to configuration files.
const PLAIN: &str = "env";

/// A build script's output longer than this is not read.
const LONGEST: u64 = 1 << 20;

/// The environment of a process that this caller is.
pub(super) fn of(caller: &Caller) -> Vec<(OsString, OsString)> {
    let mut environment = caller.passed();
    let built = built(caller);
    let unique = unique();
    for (name, value) in &caller.environment {
        let known = (name.to_str().is_some_and(passes) && !names_a_password(value)) || built.contains(name);
        let value = match name.to_str() {
            Some(name) if MAKE.contains(&name) => without_job_server(value),
            Some(PROFILE) => Some(profile(value, &unique)),
            Some(name) if name.starts_with(RUNNERS[0]) && name.ends_with(RUNNERS[1]) => Some(PLAIN.into()),
            _ => known.then(|| value.clone()),
        };
        if let Some(value) = value.filter(|_| !environment.iter().any(|(own, _)| own == name)) {
            environment.push((name.clone(), value));
        }
    }
    if !environment.iter().any(|(name, _)| name == RUNNER) {
        environment.push((RUNNER.into(), PLAIN.into()));
    }
    environment
}

fn passes(name: &str) -> bool {
    let family = NAMES.contains(&name) || FAMILIES.iter().any(|family| name.starts_with(family));
    family && !SECRET.iter().any(|secret| name.contains(secret))
}

/// Whether this is an address with a user's name before its host, as a registry's may be: a password may come with it, or be it.
fn names_a_password(value: &OsStr) -> bool {
    let text = value.as_bytes();
    let mut places = text.windows(3).enumerate().filter(|(_, three)| three == b"://").map(|(at, _)| &text[at + 3..]);
    places.any(|rest| rest.split(|byte| b"/?# ".contains(byte)).next().is_some_and(|host| host.contains(&b'@')))
}

/// The names of the variables that the package's build script has set (`cargo::rustc-env`), which cargo sets for its tests, too.
fn built(caller: &Caller) -> Vec<OsString> {
    let Some(place) = caller.variable(OsStr::new("OUT_DIR")) else { return Vec::new() };
    let output = Path::new(place).with_file_name("output");
    let short = output.metadata().is_ok_and(|output| output.is_file() && output.len() <= LONGEST);
    let text = if short { std::fs::read(&output).unwrap_or_default() } else { Vec::new() };
    let lines = text.split(|byte| *byte == b'\n');
    let set = lines
        .filter_map(|line| line.strip_prefix(b"cargo:rustc-env=").or_else(|| line.strip_prefix(b"cargo::rustc-env=")));
    set.filter_map(|set| Some(OsString::from_vec(set.split(|byte| *byte == b'=').next()?.to_vec()))).collect()
}

/// Without the words that lead to a job server, and the one that is of no use without it; nothing if nothing is left.
fn without_job_server(flags: &OsStr) -> Option<OsString> {
    let leads = |word: &[u8]| word == b"-j" || JOB_SERVER.iter().any(|begin| word.starts_with(begin.as_bytes()));
    let words = flags.as_bytes().split(|byte| *byte == b' ').filter(|word| !word.is_empty() && !leads(word));
    let left = words.collect::<Vec<_>>().join(&b' ');
    (!left.is_empty() && left != b"--").then(|| OsString::from_vec(left))
}

/// A word that no other process of this host has now or had a moment ago.
fn unique() -> String {
    let mut random = [0; 4];
    // Without it the number alone has to do.
    let _some = rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::NONBLOCK);
    format!("{}-{:08x}", std::process::id(), u32::from_ne_bytes(random))
}

/// A place for coverage profiles that no other machine writes to: `%p` is told from the other machines' by the word before it, and
/// a pattern without it gets the word before its extension. (A file of `%m` alone is shared by processes, which merge what they
/// count into it; machines cannot.)
fn profile(pattern: &OsStr, unique: &str) -> OsString {
    let text = pattern.as_bytes();
    let mut out = Vec::new();
    if let Some(at) = text.windows(2).position(|two| two == b"%p") {
        out.extend_from_slice(&text[..at]);
        out.extend_from_slice(format!("{unique}-").as_bytes());
        out.extend_from_slice(&text[at..]);
    } else {
        let name = text.iter().rposition(|byte| *byte == b'/').map_or(0, |at| at + 1);
        let dot = text[name..].iter().rposition(|byte| *byte == b'.').map_or(text.len(), |at| name + at);
        out.extend_from_slice(&text[..dot]);
        out.extend_from_slice(format!("-{unique}-%p").as_bytes());
        out.extend_from_slice(&text[dot..]);
    }
    OsString::from_vec(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_do_not_pass_with_their_family() {
        for name in ["CARGO", "CARGO_PKG_NAME", "NEXTEST_ATTEMPT_ID", "RUST_BACKTRACE", "OUT_DIR", "CI", "TRYBUILD"] {
            assert!(passes(name), "{name}");
        }
        for name in [
            "CARGO_REGISTRY_TOKEN",
            "CARGO_HTTP_PROXY",
            "RUSTIC_S3_ACCESS_KEY",
            "GITHUB_TOKEN",
            "AWS_PROFILE",
            "CIRCLE",
            "OUT_DIRS",
        ] {
            assert!(!passes(name), "{name}");
        }
    }

    #[test]
    fn an_address_with_a_password_does_not_pass() {
        let names = |value: &str| names_a_password(OsStr::new(value));
        assert!(names("sparse+https://me:hush@example.org/index/") && names("a=https://b/ c=https://token@d"));
        assert!(!names("https://example.org/@scope/x") && !names("me@example.org") && !names("ssh://"));
    }

    #[test]
    fn make_keeps_what_is_no_job_server() {
        let kept = |text: &str| without_job_server(OsStr::new(text));
        assert_eq!(kept("-j --jobserver-fds=3,4 --jobserver-auth=3,4"), None);
        assert_eq!(kept(" -s -j --jobserver-auth=fifo:/tmp/x -- A=b"), Some("-s -- A=b".into()));
        assert_eq!(kept(" -j --jobserver-auth=3,4 --"), None);
    }

    #[test]
    fn profiles_of_two_machines_have_two_names() {
        let at = |text: &str| profile(OsStr::new(text), "7-ab");
        assert_eq!(at("/t/x-%p-%8m.profraw"), "/t/x-7-ab-%p-%8m.profraw");
        assert_eq!(at("/t.d/x-%m.profraw"), "/t.d/x-%m-7-ab-%p.profraw");
        assert_eq!(at("/t.d/x"), "/t.d/x-7-ab-%p");
        assert_ne!(unique(), unique());
    }
}
