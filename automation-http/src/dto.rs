//! The wire types of answers. Their names and shapes are what existing clients read; fields are only ever added.

use std::collections::BTreeMap;

use automation_core::executor::ExecutorHealth;
use automation_core::executor::RunLimits;
use automation_core::script::{Diagnostic, InvalidScript, Script, Validation};
use automation_core::{
    Concern, Consequence, Effect, Event, Execution, ExecutionId, Isolation, Quarantined, Reason,
    ScriptStats, Stats, Status, Trigger,
};
use axum::Json;
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, SecondsFormat, Utc};
use serde::Serialize;
use serde_json::{Map, Value};

/// The envelope of every answer that is not an error. `success` is about the request.
#[derive(Debug, Serialize)]
pub(crate) struct Envelope<T> {
    success: bool,
    data: T,
    message: String,
    #[serde(flatten)]
    more: Map<String, Value>,
}

impl<T: Serialize> Envelope<T> {
    pub(crate) fn new(data: T, message: impl Into<String>) -> Self {
        Self {
            success: true,
            data,
            message: message.into(),
            more: Map::new(),
        }
    }

    /// Adds a field beside `data`.
    pub(crate) fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.more.insert(name.to_owned(), value.into());
        self
    }
}

impl<T: Serialize> IntoResponse for Envelope<T> {
    fn into_response(self) -> Response {
        Json(self).into_response()
    }
}

/// Returns a time as RFC 3339 in UTC with milliseconds.
pub(crate) fn timestamp(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// Returns microseconds as exact milliseconds.
#[expect(
    clippy::cast_precision_loss,
    reason = "2^52 microseconds are 142 years"
)]
fn milliseconds(us: u64) -> f64 {
    us as f64 / 1000.0
}

/// What a run is, whoever asks.
#[derive(Debug, Serialize)]
struct Facts {
    status: Status,
    reason: Option<Reason>,
    error: Option<String>,
    execution_type: &'static str,
    /// A number once the run is terminal, since clients count with it: 0 for one that never began.
    execution_time: Option<u64>,
    duration_ms: Option<f64>,
    queue_ms: Option<f64>,
    cpu_ms: Option<f64>,
    memory_peak_bytes: Option<u64>,
    children: Option<u32>,
    threads: Option<u32>,
    exit_code: Option<i32>,
    still_running: bool,
    truncated: bool,
    output_bytes: u64,
    isolation: Isolation,
    concern: Option<Concern>,
    script_version: String,
    dry_run: bool,
    attempt: i32,
    root_id: Option<ExecutionId>,
    parent_id: Option<ExecutionId>,
    run_at: Option<String>,
    started_at: String,
    completed_at: Option<String>,
}

impl Facts {
    fn of(execution: &Execution) -> Self {
        Self {
            status: execution.status,
            reason: execution.reason,
            error: execution.error.clone(),
            execution_type: execution.execution_type(),
            execution_time: execution.success().map(|_| seconds_of(execution)),
            duration_ms: execution.duration_us.map(milliseconds),
            queue_ms: execution.queue_us.map(milliseconds),
            cpu_ms: execution.usage.cpu_us.map(milliseconds),
            memory_peak_bytes: execution.usage.memory_peak_bytes,
            children: execution.usage.children,
            threads: execution.usage.threads,
            exit_code: execution.exit_code,
            still_running: execution.still_running,
            truncated: execution.truncated,
            output_bytes: execution.output_bytes,
            isolation: execution.isolation,
            concern: execution.concern,
            script_version: execution.script_version.clone(),
            dry_run: execution.dry_run,
            attempt: execution.attempt,
            root_id: execution.root_id,
            parent_id: execution.parent_id,
            run_at: execution.run_at.map(timestamp),
            started_at: timestamp(execution.started_at),
            completed_at: execution.completed_at.map(timestamp),
        }
    }
}

fn seconds_of(execution: &Execution) -> u64 {
    execution.execution_time_seconds().unwrap_or_default()
}

/// The answer to a request for a run. `success` is about the script.
#[derive(Debug, Serialize)]
pub(crate) struct RunDto {
    automation_id: String,
    ticket_id: String,
    script_used: String,
    /// Null while the run is open.
    success: Option<bool>,
    output: String,
    stderr: String,
    parsed_output: Option<Value>,
    timestamp: String,
    #[serde(flatten)]
    facts: Facts,
}

impl From<Execution> for RunDto {
    fn from(execution: Execution) -> Self {
        Self {
            facts: Facts::of(&execution),
            automation_id: execution.id.to_string(),
            success: execution.success(),
            timestamp: timestamp(execution.completed_at.unwrap_or(execution.started_at)),
            ticket_id: execution.ticket_id,
            script_used: execution.script_name,
            output: execution.output,
            stderr: execution.stderr,
            parsed_output: execution.parsed_output,
        }
    }
}

/// The answer to a test.
#[derive(Debug, Serialize)]
pub(crate) struct TestDto {
    script: String,
    automation_id: String,
    success: bool,
    output: String,
    stderr: String,
    parsed_output: Option<Value>,
    #[serde(flatten)]
    facts: Facts,
}

impl From<Execution> for TestDto {
    fn from(execution: Execution) -> Self {
        Self {
            facts: Facts::of(&execution),
            automation_id: execution.id.to_string(),
            success: execution.success().unwrap_or_default(),
            script: execution.script_name,
            output: execution.output,
            stderr: execution.stderr,
            parsed_output: execution.parsed_output,
        }
    }
}

/// A row of the log. `success` is null while the run is open.
#[derive(Debug, Serialize)]
pub(crate) struct LogDto {
    id: String,
    ticket_id: String,
    script_name: String,
    success: Option<bool>,
    output: String,
    stderr: String,
    parsed_output: Option<Value>,
    parameters: Value,
    actor: Option<String>,
    #[serde(flatten)]
    facts: Facts,
}

impl From<Execution> for LogDto {
    fn from(execution: Execution) -> Self {
        Self {
            facts: Facts::of(&execution),
            id: execution.id.to_string(),
            success: execution.success(),
            ticket_id: execution.ticket_id,
            script_name: execution.script_name,
            output: execution.output,
            stderr: execution.stderr,
            parsed_output: execution.parsed_output,
            parameters: execution.parameters,
            actor: execution.actor,
        }
    }
}

/// A run, whatever its ticket. `success` is null while it is open.
#[derive(Debug, Serialize)]
pub(crate) struct ExecutionDto {
    id: String,
    ticket_id: String,
    script_name: String,
    trigger: Trigger,
    success: Option<bool>,
    parameters: Value,
    actor: Option<String>,
    run_at: Option<String>,
    #[serde(flatten)]
    facts: Facts,
    #[serde(flatten)]
    bodies: Option<Bodies>,
}

/// What a run wrote and returned: long, and so only for who asks.
#[derive(Debug, Serialize)]
struct Bodies {
    output: String,
    stderr: String,
    parsed_output: Option<Value>,
}

impl ExecutionDto {
    /// With what the run wrote and returned.
    pub(crate) fn whole(mut execution: Execution) -> Self {
        let bodies = Bodies {
            output: std::mem::take(&mut execution.output),
            stderr: std::mem::take(&mut execution.stderr),
            parsed_output: execution.parsed_output.take(),
        };
        Self {
            bodies: Some(bodies),
            ..Self::row(execution)
        }
    }

    /// Without what the run wrote and returned.
    pub(crate) fn row(execution: Execution) -> Self {
        Self {
            facts: Facts::of(&execution),
            id: execution.id.to_string(),
            success: execution.success(),
            trigger: execution.trigger,
            run_at: execution.run_at.map(timestamp),
            ticket_id: execution.ticket_id,
            script_name: execution.script_name,
            parameters: execution.parameters,
            actor: execution.actor,
            bodies: None,
        }
    }
}

/// How a run stands, in a stream of events.
#[derive(Debug, Serialize)]
pub(crate) struct StatusDto {
    automation_id: String,
    status: Status,
    reason: Option<Reason>,
    started_at: String,
    completed_at: Option<String>,
}

impl From<&Execution> for StatusDto {
    fn from(execution: &Execution) -> Self {
        Self {
            automation_id: execution.id.to_string(),
            status: execution.status,
            reason: execution.reason,
            started_at: timestamp(execution.started_at),
            completed_at: execution.completed_at.map(timestamp),
        }
    }
}

/// What a run reported, in a stream of events. What it says stands beside number and time.
#[derive(Debug, Serialize)]
pub(crate) struct EventDto {
    seq: u32,
    at: String,
    data: Value,
}

impl From<Event> for EventDto {
    fn from(event: Event) -> Self {
        Self {
            seq: event.seq,
            at: timestamp(event.at),
            data: event.data,
        }
    }
}

/// What came of a run, in a stream of events.
#[derive(Debug, Serialize)]
pub(crate) struct ResultDto {
    success: Option<bool>,
    parsed_output: Option<Value>,
    error: Option<String>,
    exit_code: Option<i32>,
    truncated: bool,
}

impl From<Execution> for ResultDto {
    fn from(execution: Execution) -> Self {
        Self {
            success: execution.success(),
            parsed_output: execution.parsed_output,
            error: execution.error,
            exit_code: execution.exit_code,
            truncated: execution.truncated,
        }
    }
}

/// The last of a stream of events.
#[derive(Debug, Serialize)]
pub(crate) struct EndDto {
    automation_id: String,
    status: Status,
    still_running: bool,
}

impl From<&Execution> for EndDto {
    fn from(execution: &Execution) -> Self {
        Self {
            automation_id: execution.id.to_string(),
            status: execution.status,
            still_running: execution.still_running,
        }
    }
}

/// The statistics. Rates and averages of the owner's document are texts with two decimals.
#[derive(Debug, Serialize)]
pub(crate) struct StatsDto {
    total_automations: u64,
    successful_automations: u64,
    failed_automations: u64,
    success_rate: String,
    avg_execution_time: String,
    by_script: BTreeMap<String, u64>,
    recent_automations: Vec<LogDto>,
    cancelled: u64,
    running: u64,
    percentiles: Percentiles,
    cpu: Cpu,
    memory: Memory,
    #[serde(flatten)]
    totals: Totals,
    scripts: BTreeMap<String, ScriptStatsDto>,
}

impl From<Stats> for StatsDto {
    fn from(stats: Stats) -> Self {
        let by_script = stats
            .by_script
            .iter()
            .map(|(name, script)| (name.clone(), script.total))
            .collect();
        let scripts = stats
            .by_script
            .iter()
            .map(|(name, script)| (name.clone(), script.into()))
            .collect();
        let all = stats.all;
        Self {
            total_automations: all.total,
            successful_automations: all.successful,
            failed_automations: all.failed,
            success_rate: success_rate(&all),
            avg_execution_time: avg_execution_time(&all),
            by_script,
            recent_automations: stats.recent.into_iter().map(LogDto::from).collect(),
            cancelled: all.cancelled,
            running: stats.open,
            percentiles: Percentiles::of(&all),
            cpu: Cpu::of(&all),
            memory: Memory {
                peak_bytes: all.memory_peak_bytes,
            },
            totals: Totals::of(&all),
            scripts,
        }
    }
}

/// The statistics of one script.
#[derive(Debug, Serialize)]
struct ScriptStatsDto {
    total: u64,
    successful: u64,
    failed: u64,
    cancelled: u64,
    success_rate: String,
    avg_execution_time: String,
    percentiles: Percentiles,
    cpu: Cpu,
    memory: Memory,
    #[serde(flatten)]
    totals: Totals,
}

impl From<&ScriptStats> for ScriptStatsDto {
    fn from(stats: &ScriptStats) -> Self {
        Self {
            total: stats.total,
            successful: stats.successful,
            failed: stats.failed,
            cancelled: stats.cancelled,
            success_rate: success_rate(stats),
            avg_execution_time: avg_execution_time(stats),
            percentiles: Percentiles::of(stats),
            cpu: Cpu::of(stats),
            memory: Memory {
                peak_bytes: stats.memory_peak_bytes,
            },
            totals: Totals::of(stats),
        }
    }
}

/// What else runs used, summed up.
#[derive(Debug, Serialize)]
struct Totals {
    queue: Queue,
    output_bytes: u64,
    children: u64,
    threads: u64,
}

/// Waiting for a worker.
#[derive(Debug, Serialize)]
struct Queue {
    total_ms: f64,
    avg_ms: f64,
}

impl Totals {
    fn of(stats: &ScriptStats) -> Self {
        Self {
            queue: Queue {
                total_ms: milliseconds(stats.queue_us),
                avg_ms: stats.avg_queue_us().round() / 1000.0,
            },
            output_bytes: stats.output_bytes,
            children: stats.children,
            threads: stats.threads,
        }
    }
}

/// Lengths that a part of the runs does not exceed, to 12.5 %; null when nothing ran.
#[derive(Debug, Serialize)]
struct Percentiles {
    p50_ms: Option<f64>,
    p90_ms: Option<f64>,
    p95_ms: Option<f64>,
    p99_ms: Option<f64>,
}

impl Percentiles {
    fn of(stats: &ScriptStats) -> Self {
        let ms = |percent| stats.durations.percentile_us(percent).map(milliseconds);
        Self {
            p50_ms: ms(50),
            p90_ms: ms(90),
            p95_ms: ms(95),
            p99_ms: ms(99),
        }
    }
}

#[derive(Debug, Serialize)]
struct Cpu {
    total_ms: f64,
    avg_ms: f64,
}

impl Cpu {
    #[expect(
        clippy::cast_precision_loss,
        reason = "2^52 microseconds are 142 years"
    )]
    fn of(stats: &ScriptStats) -> Self {
        let runs = stats.total.max(1) as f64;
        Self {
            total_ms: milliseconds(stats.cpu_us),
            avg_ms: (stats.cpu_us as f64 / runs).round() / 1000.0,
        }
    }
}

#[derive(Debug, Serialize)]
struct Memory {
    peak_bytes: u64,
}

fn success_rate(stats: &ScriptStats) -> String {
    format!("{:.2}", stats.success_rate())
}

/// Seconds.
fn avg_execution_time(stats: &ScriptStats) -> String {
    format!("{:.2}", stats.avg_duration_us() / 1_000_000.0)
}

/// A script that can run.
#[derive(Debug, Serialize)]
pub(crate) struct ScriptDto {
    category: Option<String>,
    script: String,
    description: String,
    parameters: Map<String, Value>,
    schema: Value,
    defaults: Map<String, Value>,
    output_schema: Option<Value>,
    version: String,
    limits: LimitsDto,
    deny: Vec<Effect>,
    isolation: Isolation,
    /// Null for a version that may run in this process.
    quarantine: Option<QuarantineDto>,
    risk: automation_core::script::Risk,
    idempotent: bool,
    warnings: Vec<String>,
}

/// What a script may use, defaults and ceilings of the server included; null where it has no limit of its own.
#[derive(Debug, Serialize)]
struct LimitsDto {
    timeout_seconds: f64,
    cpu_seconds: Option<f64>,
    memory_mb: u64,
    output_kib: usize,
    children_max: Option<u32>,
}

impl From<RunLimits> for LimitsDto {
    fn from(limits: RunLimits) -> Self {
        Self {
            timeout_seconds: limits.timeout.as_secs_f64(),
            cpu_seconds: limits.cpu.map(|cpu| cpu.as_secs_f64()),
            memory_mb: limits.memory_bytes / (1024 * 1024),
            output_kib: limits.stream_bytes / 1024,
            children_max: limits.children_max,
        }
    }
}

impl ScriptDto {
    /// `quarantined` are the versions of all scripts that are kept out of the process.
    pub(crate) fn new(script: &Script, limits: RunLimits, quarantined: &[Quarantined]) -> Self {
        let metadata = script.metadata();
        let mut quarantined = quarantined.iter();
        let quarantined = quarantined.find(|one| one.script_version == **script.version());
        Self {
            category: metadata.category.clone(),
            script: script.name().to_owned(),
            description: metadata.description.clone(),
            parameters: script.parameters().types(),
            schema: script.parameters().schema().clone(),
            defaults: script.parameters().defaults(),
            output_schema: script.output_schema().map(|output| output.schema().clone()),
            version: script.version().to_string(),
            limits: limits.into(),
            deny: metadata.deny.clone(),
            isolation: metadata.isolation,
            quarantine: quarantined.map(QuarantineDto::from),
            risk: metadata.risk,
            idempotent: metadata.idempotent,
            warnings: script.warnings().iter().map(ToString::to_string).collect(),
        }
    }
}

/// A script that can run, with its source.
#[derive(Debug, Serialize)]
pub(crate) struct ScriptDetailDto {
    #[serde(flatten)]
    script: ScriptDto,
    source: String,
}

impl ScriptDetailDto {
    /// As [`ScriptDto::new`].
    pub(crate) fn new(script: &Script, limits: RunLimits, quarantined: &[Quarantined]) -> Self {
        Self {
            script: ScriptDto::new(script, limits, quarantined),
            source: script.source().to_string(),
        }
    }
}

/// That a version is kept out of the process, and why.
#[derive(Debug, Serialize)]
pub(crate) struct QuarantineDto {
    script: String,
    version: String,
    concern: Concern,
    automation_id: String,
    timestamp: String,
    consequence: Consequence,
}

impl From<&Quarantined> for QuarantineDto {
    fn from(one: &Quarantined) -> Self {
        Self {
            script: one.script_name.clone(),
            version: one.script_version.clone(),
            concern: one.concern,
            automation_id: one.execution_id.to_string(),
            timestamp: timestamp(one.at),
            consequence: one.consequence,
        }
    }
}

/// A script that can't run, and why.
#[derive(Debug, Serialize)]
pub(crate) struct InvalidScriptDto {
    script: String,
    diagnostics: Vec<String>,
}

impl From<&InvalidScript> for InvalidScriptDto {
    fn from(script: &InvalidScript) -> Self {
        Self {
            script: script.name.clone(),
            diagnostics: script.diagnostics.iter().map(ToString::to_string).collect(),
        }
    }
}

/// What was found in a source.
#[derive(Debug, Serialize)]
pub(crate) struct ValidationDto {
    valid: bool,
    name: String,
    diagnostics: Vec<Diagnostic>,
    /// What the source would be as a script; `null` when it can't run.
    script: Option<ScriptDto>,
}

impl ValidationDto {
    /// `limits` says what a script would be allowed to use.
    pub(crate) fn new(validation: Validation, limits: impl Fn(&Script) -> RunLimits) -> Self {
        let script = validation.script.as_deref();
        Self {
            valid: validation.is_valid(),
            script: script.map(|script| ScriptDto::new(script, limits(script), &[])),
            name: validation.name,
            diagnostics: validation.diagnostics,
        }
    }
}

/// How the interpreter is. The executor's own details stand beside the fields that clients know.
#[derive(Debug, Serialize)]
pub(crate) struct PythonDto {
    available: bool,
    version: Option<String>,
    workers: usize,
    busy: usize,
    quarantined_threads: usize,
    /// What runs scripts in processes of their own, where there is such an executor.
    #[serde(skip_serializing_if = "Option::is_none")]
    isolated: Option<ExecutorHealth>,
    #[serde(flatten)]
    details: Map<String, Value>,
}

impl PythonDto {
    pub(crate) fn new(health: ExecutorHealth, isolated: Option<ExecutorHealth>) -> Self {
        let mut details = health.details;
        for taken in [
            "available",
            "version",
            "workers",
            "busy",
            "quarantined_threads",
            "isolated",
        ] {
            details.remove(taken);
        }
        Self {
            available: health.available,
            version: health.version,
            workers: health.workers,
            busy: health.busy,
            quarantined_threads: health.quarantined_threads,
            isolated,
            details,
        }
    }
}

/// How the service is. It has no envelope.
#[derive(Debug, Serialize)]
pub(crate) struct HealthDto {
    pub(crate) status: &'static str,
    pub(crate) timestamp: String,
    pub(crate) version: &'static str,
    pub(crate) service: &'static str,
    pub(crate) environment: String,
    pub(crate) python_available: bool,
    pub(crate) python_version: Option<String>,
    pub(crate) storage_available: bool,
    pub(crate) accepting: bool,
    /// Script versions that are kept out of the process.
    pub(crate) quarantined: usize,
    pub(crate) running: usize,
    pub(crate) queued: usize,
    /// Runs that have ended, and whose ends are not recorded yet.
    pub(crate) spooled: usize,
}

/// That the process answers.
#[derive(Debug, Serialize)]
pub(crate) struct LiveDto {
    pub(crate) status: &'static str,
}

/// Whether runs can be accepted and executed, and why not.
#[derive(Debug, Serialize)]
pub(crate) struct ReadyDto {
    pub(crate) status: &'static str,
    pub(crate) causes: Vec<&'static str>,
}
