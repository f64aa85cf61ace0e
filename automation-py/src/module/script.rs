//! Scripts and routes, as Python sees them.

use std::sync::Arc;

use automation_core as core;
use automation_core::executor::RunLimits;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use serde_json::json;

use super::fields::{repr, to_dict};
use crate::convert;

/// A script that can run.
#[pyclass(frozen, eq, hash, module = "automation")]
#[derive(Clone)]
pub(crate) struct Script(Arc<core::Script>, RunLimits);

impl Script {
    /// Shows a script as `automation` would run it.
    pub(super) fn new(automation: &core::Automation, script: Arc<core::Script>) -> Self {
        let limits = automation.limits(&script);
        Self(script, limits)
    }
}

// The version is a hash of the source, from which everything else follows.
impl PartialEq for Script {
    fn eq(&self, other: &Self) -> bool {
        self.0.version() == other.0.version() && self.0.path() == other.0.path()
    }
}

impl std::hash::Hash for Script {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.0.version().hash(state);
    }
}

/// What `to_dict` shows: every property.
const SCRIPT_FIELDS: [&str; 25] = [
    "name",
    "version",
    "path",
    "category",
    "order",
    "description",
    "parameters",
    "schema",
    "defaults",
    "output_schema",
    "timeout",
    "cpu_seconds",
    "memory_mb",
    "output_kib",
    "children_max",
    "deny",
    "isolation",
    "risk",
    "idempotent",
    "fallback",
    "entry",
    "context_argv",
    "requires_python",
    "dependencies",
    "warnings",
];

#[pymethods]
impl Script {
    #[getter]
    fn name(&self) -> &str {
        self.0.name()
    }

    #[getter]
    fn version(&self) -> &str {
        self.0.version()
    }

    #[getter]
    fn path(&self) -> String {
        self.0.path().to_string_lossy().into_owned()
    }

    #[getter]
    fn category(&self) -> Option<&str> {
        self.0.metadata().category.as_deref()
    }

    #[getter]
    fn order(&self) -> i32 {
        self.0.metadata().order
    }

    #[getter]
    fn description(&self) -> &str {
        &self.0.metadata().description
    }

    #[getter]
    fn parameters<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        convert::object_to_python(py, &self.0.parameters().types())
    }

    #[getter]
    fn schema<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        convert::to_python(py, self.0.parameters().schema())
    }

    #[getter]
    fn defaults<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        convert::object_to_python(py, &self.0.parameters().defaults())
    }

    #[getter]
    fn output_schema<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let schema = self.0.output_schema();
        schema
            .map(|output| convert::to_python(py, output.schema()))
            .transpose()
    }

    #[getter]
    fn timeout(&self) -> f64 {
        self.1.timeout.as_secs_f64()
    }

    #[getter]
    fn cpu_seconds(&self) -> Option<f64> {
        self.1.cpu.map(|cpu| cpu.as_secs_f64())
    }

    #[getter]
    fn memory_mb(&self) -> u64 {
        self.1.memory_bytes / (1024 * 1024)
    }

    #[getter]
    fn output_kib(&self) -> usize {
        self.1.stream_bytes / 1024
    }

    #[getter]
    fn children_max(&self) -> Option<u32> {
        self.1.children_max
    }

    #[getter]
    fn deny(&self) -> Vec<&'static str> {
        let denied = self.0.metadata().deny.iter();
        denied.map(|effect| effect.as_str()).collect()
    }

    #[getter]
    fn isolation(&self) -> &'static str {
        self.0.metadata().isolation.as_str()
    }

    #[getter]
    fn risk<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        convert::to_python(py, &json!(self.0.metadata().risk))
    }

    #[getter]
    fn idempotent(&self) -> bool {
        self.0.metadata().idempotent
    }

    #[getter]
    fn fallback(&self) -> bool {
        self.0.metadata().fallback
    }

    #[getter]
    fn entry<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        convert::to_python(py, &json!(self.0.metadata().entry))
    }

    #[getter]
    fn context_argv(&self) -> bool {
        self.0.metadata().context_argv
    }

    #[getter]
    fn requires_python(&self) -> Option<&str> {
        self.0.metadata().requires_python.as_deref()
    }

    #[getter]
    fn dependencies(&self) -> Vec<String> {
        self.0.metadata().dependencies.clone()
    }

    #[getter]
    fn warnings(&self) -> Vec<String> {
        texts(self.0.warnings())
    }

    /// Returns the properties as a dictionary that `json.dumps` takes.
    fn to_dict<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyDict>> {
        to_dict(slf, &SCRIPT_FIELDS)
    }

    fn __repr__(slf: &Bound<'_, Self>) -> PyResult<String> {
        repr(slf, &["name", "category"])
    }
}

fn texts(diagnostics: &[core::script::Diagnostic]) -> Vec<String> {
    diagnostics.iter().map(ToString::to_string).collect()
}

/// A script that can't run, and why.
#[pyclass(frozen, eq, hash, get_all, module = "automation")]
#[derive(PartialEq, Eq, Hash)]
pub(crate) struct InvalidScript {
    name: String,
    problems: Vec<String>,
}

impl From<&core::script::InvalidScript> for InvalidScript {
    fn from(script: &core::script::InvalidScript) -> Self {
        Self {
            name: script.name.clone(),
            problems: texts(&script.diagnostics),
        }
    }
}

#[pymethods]
impl InvalidScript {
    /// Returns the properties as a dictionary that `json.dumps` takes.
    fn to_dict<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyDict>> {
        to_dict(slf, &["name", "problems"])
    }

    fn __repr__(slf: &Bound<'_, Self>) -> PyResult<String> {
        repr(slf, &["name", "problems"])
    }
}

/// What was found in a source that was looked at and not kept.
#[pyclass(frozen, module = "automation")]
pub(crate) struct Validation(core::Validation, Option<Script>);

impl Validation {
    /// Shows what `automation` found.
    pub(super) fn new(automation: &core::Automation, mut validation: core::Validation) -> Self {
        let script = validation.script.take();
        let script = script.map(|script| Script::new(automation, script));
        Self(validation, script)
    }
}

#[pymethods]
impl Validation {
    #[getter]
    fn name(&self) -> &str {
        &self.0.name
    }

    #[getter]
    const fn valid(&self) -> bool {
        self.1.is_some()
    }

    #[getter]
    fn problems(&self) -> Vec<String> {
        texts(&self.0.diagnostics)
    }

    #[getter]
    fn script(&self) -> Option<Script> {
        self.1.clone()
    }

    /// Returns the properties as a dictionary that `json.dumps` takes.
    fn to_dict<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyDict>> {
        to_dict(slf, &["name", "valid", "problems", "script"])
    }

    const fn __bool__(&self) -> bool {
        self.1.is_some()
    }

    fn __repr__(slf: &Bound<'_, Self>) -> PyResult<String> {
        repr(slf, &["name", "problems"])
    }
}

/// Which script would run for a ticket, and why.
#[pyclass(frozen, eq, hash, get_all, module = "automation")]
#[derive(PartialEq, Eq, Hash)]
pub(crate) struct Route {
    script_name: String,
    script_version: String,
    category: String,
    reason: String,
    alternatives: Vec<String>,
    fallbacks: Vec<String>,
    priority: i32,
    needs_approval: bool,
    concern: Option<&'static str>,
}

impl From<core::Route> for Route {
    fn from(route: core::Route) -> Self {
        Self {
            script_name: route.script_name,
            script_version: route.script_version,
            category: route.category,
            reason: route.reason,
            alternatives: route.alternatives,
            fallbacks: route.fallbacks,
            priority: route.priority,
            needs_approval: route.needs_approval,
            concern: route.concern.map(core::Concern::as_str),
        }
    }
}

#[pymethods]
impl Route {
    /// Returns the properties as a dictionary that `json.dumps` takes.
    fn to_dict<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyDict>> {
        let fields = [
            "script_name",
            "script_version",
            "category",
            "reason",
            "alternatives",
            "fallbacks",
            "priority",
            "needs_approval",
            "concern",
        ];
        to_dict(slf, &fields)
    }

    fn __repr__(slf: &Bound<'_, Self>) -> PyResult<String> {
        repr(slf, &["script_name", "reason"])
    }
}
