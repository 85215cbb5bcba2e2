// SPDX-License-Identifier: Apache-2.0
//! `sandbox junit`: from nextest's files and our reports to one file that says what is known.

use std::env;
use std::fs::File;
use std::io::{self, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use quick_junit::Report;

use super::{FAILURE, tell};
use crate::junit::{self, Reports, join};
use crate::report::kept;

pub(super) const EXAMPLES: &str = "\
Examples:
  SANDBOX_REPORTS=target/reports cargo nextest run --profile ci
  sandbox junit --reports target/reports -o junit.xml target/nextest/ci/junit.xml
  sandbox junit -o junit.xml part-1.xml part-2.xml        # of two partitions";

/// Join nextest's JUnit files with the reports of their tests' runs, and with each other
///
/// A test whose machine did not come up or was lost has not failed: it becomes an error. The tests of several files, of
/// partitions, become those of one.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Arguments {
    /// Where the tests' runs have left their reports [default: SANDBOX_REPORTS]
    #[arg(long, value_name = "DIR")]
    reports: Vec<PathBuf>,
    /// Write to this file instead of standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// JUnit files as nextest writes them
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
}

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("cannot open {}", .0.display())]
    Open(PathBuf, #[source] io::Error),
    #[error("cannot understand {}", .0.display())]
    Understand(PathBuf, #[source] quick_junit::DeserializeError),
    #[error(transparent)]
    Reports(#[from] kept::Error),
    #[error("cannot write {}", .0.display())]
    Write(PathBuf, #[source] io::Error),
    #[error("cannot write what was joined")]
    Serialize(#[from] quick_junit::SerializeError),
}

/// Carries out `sandbox junit`.
#[must_use]
pub fn run(arguments: Arguments) -> ExitCode {
    match carry_out(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tell(format_args!("sandbox: {}", crate::explain(&error)));
            ExitCode::from(FAILURE)
        }
    }
}

fn carry_out(arguments: Arguments) -> Result<(), Error> {
    let files = arguments.files.iter().map(|path| read(path)).collect::<Result<Vec<_>, _>>()?;
    let mut places = arguments.reports;
    if places.is_empty() {
        places.extend(env::var_os(kept::VARIABLE).filter(|path| !path.is_empty()).map(PathBuf::from));
    }
    let mut reports = Vec::new();
    for place in &places {
        reports.extend(kept::read(place)?);
    }
    let mut text = junit::text(&join(files, &Reports::new(&reports)))?.into_bytes();
    if text.last() != Some(&b'\n') {
        text.push(b'\n');
    }
    match arguments.output {
        Some(path) => std::fs::write(&path, text).map_err(|error| Error::Write(path, error)),
        None => io::stdout().write_all(&text).map_err(|error| Error::Write("standard output".into(), error)),
    }
}

fn read(path: &Path) -> Result<Report, Error> {
    let file = File::open(path).map_err(|error| Error::Open(path.to_owned(), error))?;
    Report::deserialize(BufReader::new(file)).map_err(|error| Error::Understand(path.to_owned(), error))
}
