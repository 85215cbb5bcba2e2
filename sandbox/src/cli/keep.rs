// SPDX-License-Identifier: Apache-2.0
//! The options for a run that fails: what tells of it is kept, and its machine can be looked into.

mod bundle;
mod repeat;

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use clap::Args;

use super::run::{Arguments, TERM, TERM_DEFAULT, set};
use super::{config, shell};
use crate::report::Report;
use crate::run::Outcome;
use crate::run::results::Visit;
use crate::spec::{Keep, Limits, Results, Spec, Terminal};

/// Below the directory where a user's state is (XDG Base Directory Specification).
const PLACE: &str = "sandbox/kept";

/// The shell where no other can be run.
const PLAIN: &str = "/bin/sh";

/// What is done when a run fails.
#[derive(Debug, Args)]
pub(super) struct Keeping {
    /// Keep what tells of a run in a directory of its own: report, the guest's console and kernel log, what changed, and the
    /// command line to repeat it [default: never]
    #[arg(long, value_enum, value_name = "WHEN")]
    keep: Option<Keep>,
    /// Where those directories are made, instead of $XDG_STATE_HOME/sandbox/kept; without --keep, on failure
    #[arg(long, value_name = "DIR")]
    keep_dir: Option<PathBuf>,
    /// If the command fails, open a shell in its machine, on the terminal, before the machine ends
    #[arg(long)]
    keep_vm: bool,
}

/// Where a run's directory is made.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Place {
    path: PathBuf,
    /// Whether it is ours, so that old ones make room there.
    own: bool,
}

impl Keeping {
    /// When something is kept.
    pub(super) fn when(&self) -> Keep {
        self.keep.unwrap_or(if self.keep_dir.is_some() { Keep::OnFailure } else { Keep::Never })
    }

    /// Where it goes, if anything may be kept; it is there then.
    pub(super) fn place(&self) -> Result<Option<Place>, String> {
        if self.when() == Keep::Never {
            return Ok(None);
        }
        let place = match &self.keep_dir {
            Some(path) => Place { path: std::path::absolute(path).unwrap_or_else(|_| path.clone()), own: false },
            None => {
                let variable = |name: &str| env::var_os(name).filter(|value| !value.is_empty());
                let state = config::state(&variable).map_err(|error| format!("{error}; or use --keep-dir"))?;
                Place { path: state.join(PLACE), own: true }
            }
        };
        place.make()?;
        Ok(Some(place))
    }

    /// The shell that is opened if this command fails, if one is wanted.
    pub(super) fn visit(&self, spec: &Spec) -> Result<Option<Visit>, String> {
        if !self.keep_vm {
            return Ok(None);
        }
        let terminal = File::options().read(true).write(true).open("/dev/tty");
        let terminal = terminal.map_err(|error| {
            format!(
                "--keep-vm opens a shell on your terminal, and there is none ({error}); --keep on-failure needs none"
            )
        })?;
        let mut shells = vec![shell::chosen(env::var_os("SHELL"))];
        if shells.iter().all(|shell| shell != OsStr::new(PLAIN)) {
            shells.push(PLAIN.into());
        }
        let shells = shells.into_iter().map(|shell| beside(spec, shell)).collect();
        Ok(Some(Visit { shells, terminal }))
    }
}

/// A shell beside a command: its directory, user and environment, and none of the limits that may have been its end.
fn beside(spec: &Spec, shell: OsString) -> Spec {
    let mut environment = spec.environment.clone();
    if !environment.iter().any(|(name, _)| name == TERM) {
        set(&mut environment, TERM, TERM_DEFAULT);
    }
    Spec {
        command: vec![shell],
        environment,
        terminal: Some(Terminal { error: true }),
        timeout: None,
        kill_after: None,
        output_limit: None,
        limits: Limits { processes: None, ulimits: Vec::new(), ..spec.limits.clone() },
        results: Results::default(),
        keep: Keep::Never,
        ..spec.clone()
    }
}

impl Place {
    /// Sees to it that it is there, and that our own is nobody else's.
    fn make(&self) -> Result<(), String> {
        let shown = self.path.display();
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.path);
        made.map_err(|error| format!("cannot make {shown}, where what tells of a run is kept: {error}"))?;
        let metadata = self.path.metadata().map_err(|error| format!("cannot look at {shown}: {error}"))?;
        let mine = metadata.uid() == rustix::process::geteuid().as_raw() && metadata.mode() & 0o022 == 0;
        if self.own && !mine {
            return Err(format!("others can write to {shown}: have it to yourself (chmod go-w), or use --keep-dir"));
        }
        Ok(())
    }

    /// Keeps what tells of a run: its directory.
    pub(super) fn keep(
        &self,
        arguments: &Arguments,
        outcome: &Outcome,
        spec: &Spec,
        report: &Report,
    ) -> io::Result<Option<PathBuf>> {
        let Some(evidence) = &outcome.evidence else { return Ok(None) };
        let repeat = repeat::script(&arguments.words, &spec.sight.current, &spec.environment)?;
        let name =
            spec.command.first().map_or(OsStr::new(""), |program| Path::new(program).file_name().unwrap_or(program));
        let bundle = bundle::Bundle { evidence, report: report.text()?, repeat };
        bundle.write(&self.path, name, self.own).map(Some)
    }
}
