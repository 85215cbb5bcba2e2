// SPDX-License-Identifier: Apache-2.0
//! The process that called us, as far as a run takes after it: its directory, environment, user and limits.

mod account;
mod status;

pub use account::{Account, account};

use std::env;
use std::ffi::{OsStr, OsString};
use std::io::{self, IsTerminal};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::spec::{Process, User};
use status::Status;

/// Variables a command gets without being asked for. The rest of the environment may hold secrets and does not pass
/// unless named with `-e`.
const PASSED: [&str; 19] = [
    // who and where
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "SHELL",
    "TZ", // how to talk to people
    "TERM",
    "COLORTERM",
    "NO_COLOR",
    "LANG",
    "LANGUAGE", // where tools of the home directory live
    "CARGO_HOME",
    "RUSTUP_HOME",
    "RUSTUP_TOOLCHAIN",
    "PYENV_ROOT",
    "PYENV_VERSION",
    "NVM_DIR",
    "GOPATH",
    "GOROOT",
];

/// Families of variables that pass too: locale settings.
const PASSED_PREFIX: &str = "LC_";

/// Limits that change what a command can do, the one for files first; the others are about a machine that is not its own.
const LIMITS: [(u32, Resource); 4] =
    [(1, Resource::Fsize), (3, Resource::Stack), (4, Resource::Core), (7, Resource::Nofile)];

/// Most descriptors a process of the guest may have (Linux's default `fs.nr_open`); a higher limit cannot be set.
const NOFILE_MAX: u64 = 1 << 20;

/// The calling process.
#[derive(Debug, Clone)]
pub struct Caller {
    /// Its working directory, by the name that it uses itself.
    pub directory: PathBuf,
    /// Its environment.
    pub environment: Vec<(OsString, OsString)>,
    /// Its user.
    pub user: User,
    /// Its limits.
    pub process: Process,
    /// The signals that it has us ignore: for number n the bit n - 1.
    pub ignored: u64,
    /// Which of its standard streams are terminals: input, output, error.
    pub terminals: [bool; 3],
}

impl Caller {
    /// Looks at this process, and has it write files as large as it may.
    ///
    /// # Errors
    /// If the working directory does not exist any more, or there is no `/proc`.
    pub fn look() -> io::Result<Self> {
        let caller = Self::look_on()?;
        // Remembered for the command; guest memory counts as a file, so ours goes as high as it may.
        let (_, now, most) = caller.process.rlimits[0];
        if now != most {
            let maximum = Some(most).filter(|most| *most != u64::MAX);
            let _stays = setrlimit(Resource::Fsize, Rlimit { current: maximum, maximum });
        }
        Ok(caller)
    }

    /// The same without a change to this process.
    ///
    /// # Errors
    /// If the working directory does not exist any more, or there is no `/proc`.
    pub fn look_on() -> io::Result<Self> {
        let status = Status::read()?;
        let rlimits = LIMITS.map(|(number, resource)| {
            let limit = getrlimit(resource);
            let most = if number == 7 { NOFILE_MAX } else { u64::MAX };
            let value = |limit: Option<u64>| limit.unwrap_or(u64::MAX).min(most);
            (number, value(limit.current), value(limit.maximum))
        });
        Ok(Self {
            directory: directory().map_err(|error| {
                io::Error::new(
                    error.kind(),
                    format!("the current directory is not there any more, go to another ({error})"),
                )
            })?,
            environment: env::vars_os().collect(),
            user: User { uid: status.user()?, gid: status.group()?, groups: status.groups()? },
            process: Process { umask: status.umask()?, rlimits: rlimits.to_vec() },
            ignored: status.ignored()?,
            terminals: [io::stdin().is_terminal(), io::stdout().is_terminal(), io::stderr().is_terminal()],
        })
    }

    /// A variable's value.
    #[must_use]
    pub fn variable(&self, name: &OsStr) -> Option<&OsString> {
        self.environment.iter().find(|(own, _)| own == name).map(|(_, value)| value)
    }

    /// The part of the environment that passes without being asked for.
    #[must_use]
    pub fn passed(&self) -> Vec<(OsString, OsString)> {
        let passes = |name: &OsStr| {
            PASSED.iter().any(|passed| name == *passed) || name.as_bytes().starts_with(PASSED_PREFIX.as_bytes())
        };
        self.environment.iter().filter(|(name, _)| passes(name)).cloned().collect()
    }
}

/// The current directory. A shell that went there through a symbolic link says so in `PWD`, and that is the name its
/// user knows.
fn directory() -> io::Result<PathBuf> {
    let real = env::current_dir()?;
    let claimed = env::var_os("PWD").map(PathBuf::from).filter(|claimed| names(claimed, &real));
    Ok(claimed.unwrap_or(real))
}

/// Whether `claimed` may stand for the directory `real` by the rules of pwd(1): absolute, without `.` and `..`, and
/// indeed that directory.
fn names(claimed: &Path, real: &Path) -> bool {
    let plain = claimed.as_os_str().as_bytes().split(|byte| *byte == b'/').all(|part| part != b"." && part != b"..");
    let file = |path: &Path| path.metadata().map(|metadata| (metadata.dev(), metadata.ino())).ok();
    plain && claimed.is_absolute() && file(claimed).is_some_and(|claimed| file(real) == Some(claimed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_do_not_pass() {
        let caller = Caller {
            directory: "/".into(),
            environment: [("PATH", "/bin"), ("AWS_SECRET_ACCESS_KEY", "x"), ("LC_ALL", "C"), ("PATHS", "y")]
                .map(|(name, value)| (name.into(), value.into()))
                .to_vec(),
            user: User { uid: 0, gid: 0, groups: vec![] },
            process: Process { umask: 0, rlimits: vec![] },
            ignored: 0,
            terminals: [false; 3],
        };
        let names: Vec<OsString> = caller.passed().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["PATH", "LC_ALL"]);
    }

    #[test]
    fn a_directory_may_go_by_the_name_of_a_link() {
        let place = tempfile::tempdir().expect("a directory can be made");
        let at = |name: &str| place.path().join(name);
        std::fs::create_dir(at("real")).expect("so can one in it");
        std::os::unix::fs::symlink("real", at("link")).expect("and a link");

        for (claimed, holds) in [("real", true), ("link", true), ("link/", true), ("missing", false), ("", false)] {
            assert_eq!(names(&at(claimed), &at("real")), holds, "{claimed}");
        }
        for odd in ["./real", "real/.", "link/../real"] {
            assert!(!names(&at(odd), &at("real")), "{odd}");
        }
        assert!(!names(Path::new("."), &env::current_dir().expect("tests have one")));
    }
}
