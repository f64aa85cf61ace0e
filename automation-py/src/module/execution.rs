//! One recorded run, as Python sees it. Reads; changes nothing.

use automation_core as core;
use chrono::{DateTime, Utc};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::errors;
use super::fields::{repr, seconds, to_dict};
use crate::convert;

/// One recorded run.
#[pyclass(frozen, eq, hash, module = "automation")]
#[derive(PartialEq)]
pub(crate) struct Execution(core::Execution);

impl From<core::Execution> for Execution {
    fn from(execution: core::Execution) -> Self {
        Self(execution)
    }
}

// Two that are equal have the same id.
impl std::hash::Hash for Execution {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.0.id.hash(state);
    }
}

/// What `to_dict` shows: every property.
const FIELDS: [&str; 42] = [
    "id",
    "tenant_id",
    "ticket_id",
    "script_name",
    "script_version",
    "trigger",
    "actor",
    "parameters",
    "dry_run",
    "decision",
    "status",
    "reason",
    "success",
    "started_at",
    "completed_at",
    "run_at",
    "priority",
    "claimed_by",
    "lease_until",
    "epoch",
    "attempt",
    "root_id",
    "parent_id",
    "idempotency_key",
    "queue_time",
    "duration",
    "cpu_time",
    "memory_peak_bytes",
    "children",
    "threads",
    "output",
    "stderr",
    "error",
    "failure",
    "parsed_output",
    "exit_code",
    "truncated",
    "output_bytes",
    "still_running",
    "isolation",
    "concern",
    "execution_type",
];

#[pymethods]
impl Execution {
    #[getter]
    fn id(&self) -> String {
        self.0.id.to_string()
    }

    #[getter]
    fn tenant_id(&self) -> &str {
        self.0.tenant_id.as_str()
    }

    #[getter]
    fn ticket_id(&self) -> &str {
        &self.0.ticket_id
    }

    #[getter]
    fn script_name(&self) -> &str {
        &self.0.script_name
    }

    #[getter]
    fn script_version(&self) -> &str {
        &self.0.script_version
    }

    #[getter]
    fn trigger(&self) -> &'static str {
        self.0.trigger.as_str()
    }

    #[getter]
    fn execution_type(&self) -> &'static str {
        self.0.execution_type()
    }

    #[getter]
    fn actor(&self) -> Option<&str> {
        self.0.actor.as_deref()
    }

    #[getter]
    fn parameters<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        convert::to_python(py, &self.0.parameters)
    }

    #[getter]
    fn decision(&self) -> Option<&str> {
        self.0.decision.as_deref()
    }

    #[getter]
    fn dry_run(&self) -> bool {
        self.0.dry_run
    }

    #[getter]
    fn status(&self) -> &'static str {
        self.0.status.as_str()
    }

    #[getter]
    fn reason(&self) -> Option<&'static str> {
        self.0.reason.map(core::Reason::as_str)
    }

    #[getter]
    fn success(&self) -> Option<bool> {
        self.0.success()
    }

    #[getter]
    fn started_at(&self) -> DateTime<Utc> {
        self.0.started_at
    }

    #[getter]
    fn completed_at(&self) -> Option<DateTime<Utc>> {
        self.0.completed_at
    }

    #[getter]
    fn run_at(&self) -> Option<DateTime<Utc>> {
        self.0.run_at
    }

    #[getter]
    fn priority(&self) -> i32 {
        self.0.priority
    }

    #[getter]
    fn claimed_by(&self) -> Option<&str> {
        self.0.claimed_by.as_ref().map(core::InstanceId::as_str)
    }

    #[getter]
    fn lease_until(&self) -> Option<DateTime<Utc>> {
        self.0.lease_until
    }

    #[getter]
    fn epoch(&self) -> i64 {
        self.0.epoch
    }

    #[getter]
    fn attempt(&self) -> i32 {
        self.0.attempt
    }

    #[getter]
    fn root_id(&self) -> Option<String> {
        self.0.root_id.map(|id| id.to_string())
    }

    #[getter]
    fn parent_id(&self) -> Option<String> {
        self.0.parent_id.map(|id| id.to_string())
    }

    #[getter]
    fn idempotency_key(&self) -> Option<&str> {
        self.0.idempotency_key.as_deref()
    }

    #[getter]
    fn queue_time(&self) -> Option<f64> {
        self.0.queue_us.map(seconds)
    }

    #[getter]
    fn duration(&self) -> Option<f64> {
        self.0.duration_us.map(seconds)
    }

    #[getter]
    fn cpu_time(&self) -> Option<f64> {
        self.0.usage.cpu_us.map(seconds)
    }

    #[getter]
    fn memory_peak_bytes(&self) -> Option<u64> {
        self.0.usage.memory_peak_bytes
    }

    #[getter]
    fn children(&self) -> Option<u32> {
        self.0.usage.children
    }

    #[getter]
    fn threads(&self) -> Option<u32> {
        self.0.usage.threads
    }

    #[getter]
    fn output(&self) -> &str {
        &self.0.output
    }

    #[getter]
    fn stderr(&self) -> &str {
        &self.0.stderr
    }

    #[getter]
    fn error(&self) -> Option<&str> {
        self.0.error.as_deref()
    }

    #[getter]
    fn failure(&self) -> Option<Failure> {
        (self.0.status == core::Status::Failed).then(|| Failure {
            reason: self.reason(),
            message: self.0.error.clone().unwrap_or_default(),
        })
    }

    #[getter]
    fn parsed_output<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let parsed = self.0.parsed_output.as_ref();
        parsed
            .map(|value| convert::to_python(py, value))
            .transpose()
    }

    #[getter]
    fn exit_code(&self) -> Option<i32> {
        self.0.exit_code
    }

    #[getter]
    fn truncated(&self) -> bool {
        self.0.truncated
    }

    #[getter]
    fn output_bytes(&self) -> u64 {
        self.0.output_bytes
    }

    #[getter]
    fn still_running(&self) -> bool {
        self.0.still_running
    }

    #[getter]
    fn isolation(&self) -> &'static str {
        self.0.isolation.as_str()
    }

    #[getter]
    fn concern(&self) -> Option<&'static str> {
        self.0.concern.map(core::Concern::as_str)
    }

    /// Raises ScriptFailedError when the run failed or was cancelled; returns the run otherwise.
    fn raise_for_status<'py>(slf: Bound<'py, Self>) -> PyResult<Bound<'py, Self>> {
        let execution = &slf.get().0;
        if execution.success() != Some(false) {
            return Ok(slf);
        }
        let why = execution.error.as_deref();
        let message = format!(
            "{} {}: {}",
            execution.script_name,
            execution.status,
            why.or(execution.reason.map(core::Reason::as_str))
                .unwrap_or("no reason is recorded")
        );
        Err(errors::script_failed(&slf, &message))
    }

    /// Returns the properties as a dictionary that `json.dumps` takes.
    fn to_dict<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyDict>> {
        to_dict(slf, &FIELDS)
    }

    fn __repr__(slf: &Bound<'_, Self>) -> PyResult<String> {
        match slf.get().0.reason {
            None => repr(slf, &["id", "script_name", "status"]),
            Some(_) => repr(slf, &["id", "script_name", "status", "reason"]),
        }
    }
}

/// Why a run failed.
#[pyclass(frozen, eq, hash, get_all, module = "automation")]
#[derive(PartialEq, Eq, Hash)]
pub(crate) struct Failure {
    reason: Option<&'static str>,
    message: String,
}

#[pymethods]
impl Failure {
    /// Returns the properties as a dictionary that `json.dumps` takes.
    fn to_dict<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyDict>> {
        to_dict(slf, &["reason", "message"])
    }

    fn __str__(&self) -> &str {
        &self.message
    }

    fn __repr__(slf: &Bound<'_, Self>) -> PyResult<String> {
        repr(slf, &["reason", "message"])
    }
}
