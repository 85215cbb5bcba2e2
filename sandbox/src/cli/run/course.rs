// SPDX-License-Identifier: Apache-2.0
//! The course of a run, whichever verb it was asked for with. Not for what the verbs mean.

use std::io;
use std::process::ExitCode;

use super::{Arguments, complain, explain, say};
use crate::caller::Caller;
use crate::cli::{FAILURE, config, keep, tell};
use crate::report::{Report, kept};
use crate::run::Outcome;
use crate::run::results::Visit;
use crate::spec::Spec;
use crate::usage::Table;
use crate::{Cause, Signals, Stages};

/// What is left to do when everything has been said.
pub(in crate::cli) struct End {
    /// The exit code.
    pub(in crate::cli) code: ExitCode,
    /// The signal that ended the command, if one did.
    pub(in crate::cli) signal: Option<i32>,
}

impl End {
    fn refusal(cause: &Cause) -> Self {
        Self { code: complain(cause), signal: None }
    }
}

/// From what was typed to what is said in the end. `make` makes the spec of it, `perform` runs that; `is_test` says whether it
/// is a test that nextest may have started.
pub(in crate::cli) fn carry_out(
    arguments: Arguments,
    is_test: bool,
    make: impl FnOnce(&Arguments, &Caller) -> Result<Spec, String>,
    perform: impl FnOnce(&Prepared) -> Outcome,
) -> End {
    let stages = Stages::begin();
    let report = match arguments.open_report() {
        Ok(report) => report,
        Err(error) => return End::refusal(&Cause::UsageError(error)),
    };
    let (arguments, refused) = config::apply(arguments);
    let (outcome, prepared) = match refused.map_or_else(|| prepare(&arguments, make), |why| Err(Cause::UsageError(why)))
    {
        Err(cause) => (Outcome::refused(cause, stages), None),
        Ok(prepared) if arguments.explain => {
            return End { code: explain(&prepared.spec, &arguments.sources), signal: None };
        }
        Ok(prepared) => (perform(&prepared), Some(prepared)),
    };
    let mut code = say(&outcome);
    if arguments.timings {
        tell(format_args!("{}", outcome.stages));
    }
    if arguments.usage {
        tell(format_args!("{}", Table(&outcome)));
    }
    let account = Report::new(&outcome, prepared.as_ref().map(|prepared| &prepared.spec));
    if let Err((path, error)) = kept::keep(&account, is_test) {
        tell(format_args!("sandbox: cannot keep the report as {}: {error}", path.display()));
    }
    if let Some(prepared) = &prepared
        && !keep_evidence(prepared, &arguments, &outcome, &account)
        && outcome.cause.code() == 0
    {
        // What was asked for is not there.
        code = ExitCode::from(FAILURE);
    }
    if let Some(mut file) = report
        && let Err(error) = account.write(&mut file)
    {
        tell(format_args!("sandbox: cannot write the report: {error}"));
        return End { code: ExitCode::from(FAILURE), signal: None };
    }
    End { code, signal: outcome.cause.signal() }
}

/// Keeps what tells of a run, if that is wanted, and says where; whether nothing failed in that.
fn keep_evidence(prepared: &Prepared, arguments: &Arguments, outcome: &Outcome, report: &Report) -> bool {
    let Some(place) = &prepared.place else { return true };
    match place.keep(arguments, outcome, &prepared.spec, report) {
        Ok(Some(path)) => tell(format_args!("sandbox: what tells of this run is in {}", path.display())),
        Ok(None) => {}
        Err(error) => {
            tell(format_args!("sandbox: cannot keep what tells of this run: {error}"));
            return false;
        }
    }
    true
}

/// What to run, who may end it, whether our words are read at a terminal, and what is done should it fail.
pub(in crate::cli) struct Prepared {
    pub(in crate::cli) spec: Spec,
    pub(in crate::cli) signals: Signals,
    pub(super) seen: bool,
    place: Option<keep::Place>,
    pub(super) visit: Option<Visit>,
}

fn prepare(
    arguments: &Arguments,
    make: impl FnOnce(&Arguments, &Caller) -> Result<Spec, String>,
) -> Result<Prepared, Cause> {
    let look = |error: io::Error| Cause::SetupError(format!("cannot look at the calling process: {error}"));
    let caller = Caller::look().map_err(look)?;
    let signals = Signals::block(caller.ignored).map_err(look)?;
    let spec = make(arguments, &caller).map_err(Cause::UsageError)?;
    spec.check().map_err(|error| Cause::UsageError(error.to_string()))?;
    let seen = caller.terminals[2];
    if arguments.explain {
        return Ok(Prepared { spec, signals, seen, place: None, visit: None });
    }
    let place = arguments.keep.place().map_err(Cause::UsageError)?;
    let visit = arguments.keep.visit(&spec).map_err(Cause::UsageError)?;
    Ok(Prepared { spec, signals, seen, place, visit })
}
