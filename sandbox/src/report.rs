// SPDX-License-Identifier: Apache-2.0
//! The machine-readable account of a run: one JSON object, schema version 1 (docs/report.md).

pub mod kept;

use std::collections::BTreeMap;
use std::io::{self, Write};

use serde::Serialize;

use crate::outcome::{Cause, Victim};
use crate::run::{self, Begin, Outcome};
use crate::spec::Spec;

/// Version of the schema. Fields may be added without a new one; none changes its meaning.
const SCHEMA: u32 = 1;

/// One run, as it is written to `--report`.
#[derive(Debug, Serialize)]
pub struct Report {
    schema: u32,
    cause: &'static str,
    verdict: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
    code: u8,
    signal: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    oom_victim: Option<&'static str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    oom_killed: Vec<Killed>,
    limits_hit: Vec<Hit>,
    started: bool,
    never_started: bool,
    attempt: u32,
    engine: Option<&'static str>,
    isolation: Option<&'static str>,
    begin: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    begin_detail: Option<String>,
    timings_ms: BTreeMap<&'static str, f64>,
    usage: Usage,
    limits: Limits,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    console: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    notices: Vec<String>,
    versions: BTreeMap<&'static str, String>,
}

#[derive(Debug, Serialize)]
struct Usage {
    user_ms: f64,
    system_ms: f64,
    memory_peak_bytes: u64,
    processes_peak: u64,
    page_faults: u64,
    page_faults_major: u64,
    read_bytes: Option<u64>,
    written_bytes: Option<u64>,
    private_bytes: u64,
    complete: bool,
    stdin_bytes: u64,
    stdout_bytes: u64,
    stderr_bytes: u64,
}

#[derive(Debug, Serialize)]
struct Limits {
    memory_bytes: Option<u64>,
    cpus: Option<u32>,
    timeout_s: Option<f64>,
    output_bytes: Option<u64>,
    processes: Option<u64>,
    private_bytes: Option<u64>,
    shm_bytes: Option<u64>,
    ulimits: BTreeMap<&'static str, [Option<u64>; 2]>,
}

#[derive(Debug, Serialize)]
struct Killed {
    name: String,
    pid: u32,
}

#[derive(Debug, Serialize)]
struct Hit {
    limit: String,
    ended: bool,
    count: Option<u64>,
    detail: String,
}

impl From<&run::Hit> for Hit {
    fn from(hit: &run::Hit) -> Self {
        Self { limit: hit.limit.clone(), ended: hit.ended, count: hit.count, detail: hit.words.clone() }
    }
}

impl Limits {
    fn of(spec: Option<&Spec>) -> Self {
        let limits = spec.map(|spec| &spec.limits);
        let bounded = |value| (value != u64::MAX).then_some(value);
        let ulimits = limits.into_iter().flat_map(|limits| &limits.ulimits);
        Self {
            memory_bytes: spec.map(|spec| spec.memory),
            cpus: spec.map(|spec| spec.cpus),
            timeout_s: spec.and_then(|spec| spec.timeout).map(|timeout| timeout.as_secs_f64()),
            output_bytes: spec.and_then(|spec| spec.output_limit),
            processes: limits.and_then(|limits| limits.processes),
            private_bytes: spec.map(|spec| spec.limits.private.unwrap_or_else(|| spec.half_of_memory())),
            shm_bytes: spec.map(|spec| spec.limits.shm.unwrap_or_else(|| spec.half_of_memory())),
            ulimits: ulimits.map(|limit| (limit.name, [limit.soft, limit.hard].map(bounded))).collect(),
        }
    }
}

impl Report {
    /// Its text, for people and programs.
    ///
    /// # Errors
    /// Those of the writer of JSON, which has none for what a report holds.
    pub fn text(&self) -> io::Result<String> {
        let mut text = serde_json::to_string_pretty(self)?;
        text.push('\n');
        Ok(text)
    }

    /// Writes it.
    ///
    /// # Errors
    /// Of writing.
    pub fn write(&self, to: &mut impl Write) -> io::Result<()> {
        to.write_all(self.text()?.as_bytes())
    }

    /// The account of a run; `spec` is missing where the command line could not be understood.
    #[must_use]
    pub fn new(outcome: &Outcome, spec: Option<&Spec>) -> Self {
        let cause = &outcome.cause;
        let usage = &outcome.tally.usage;
        let timings = outcome.stages.milliseconds().chain([("total", outcome.stages.total())]);
        Self {
            schema: SCHEMA,
            cause: cause.name(),
            verdict: cause.verdict().name(),
            detail: cause.needs_words().then(|| cause.to_string()),
            code: cause.code(),
            signal: cause.signal(),
            oom_victim: match cause {
                Cause::Oom { victim: Victim::Command(_), .. } => Some("command"),
                Cause::Oom { victim: Victim::Init, .. } => Some("init"),
                _ => None,
            },
            oom_killed: outcome
                .killed
                .iter()
                .map(|killed| Killed { name: killed.name.clone(), pid: killed.pid })
                .collect(),
            limits_hit: outcome.hits.iter().map(Hit::from).collect(),
            started: outcome.started,
            never_started: outcome.never_started(),
            attempt: outcome.attempt,
            engine: outcome.engine.as_ref().map(crate::engine::Engine::name),
            isolation: outcome.engine.as_ref().map(|engine| engine.isolation().name()),
            begin: outcome.begin.as_ref().map(|begin| match begin {
                Begin::Clone => "clone",
                Begin::Boot(_) => "boot",
            }),
            begin_detail: match &outcome.begin {
                Some(Begin::Boot(why)) => why.clone(),
                _ => None,
            },
            timings_ms: timings.collect(),
            usage: Usage {
                user_ms: usage.user_us as f64 / 1e3,
                system_ms: usage.system_us as f64 / 1e3,
                memory_peak_bytes: usage.memory_peak,
                processes_peak: usage.processes_peak,
                page_faults: usage.faults,
                page_faults_major: usage.major_faults,
                read_bytes: usage.transfer.map(|transfer| transfer.read),
                written_bytes: usage.transfer.map(|transfer| transfer.written),
                private_bytes: usage.private_bytes,
                complete: outcome.tallied,
                stdin_bytes: outcome.stdin_bytes,
                stdout_bytes: outcome.stdout_bytes,
                stderr_bytes: outcome.stderr_bytes,
            },
            limits: Limits::of(spec),
            notices: outcome.notices.clone(),
            console: if cause.is_of_the_machine() { outcome.console.clone() } else { Vec::new() },
            versions: BTreeMap::from([
                ("sandbox", env!("CARGO_PKG_VERSION").to_owned()),
                ("protocol", guest_init::wire::VERSION.to_string()),
            ]),
        }
    }
}
