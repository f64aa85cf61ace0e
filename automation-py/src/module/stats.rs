//! Statistics, as Python sees them.

use automation_core as core;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use super::execution::Execution;
use super::fields::{repr, seconds, to_dict};

/// What is counted of one script.
#[pyclass(frozen, eq, subclass, module = "automation")]
#[derive(PartialEq)]
pub(crate) struct ScriptStats(core::ScriptStats);

/// What `to_dict` shows of a script: every property, and the usual percentiles.
const SCRIPT_FIELDS: [&str; 18] = [
    "total",
    "successful",
    "failed",
    "cancelled",
    "success_rate",
    "duration",
    "avg_duration",
    "p50",
    "p90",
    "p95",
    "p99",
    "queue_time",
    "avg_queue_time",
    "cpu_time",
    "memory_peak_bytes",
    "children",
    "threads",
    "output_bytes",
];

#[pymethods]
impl ScriptStats {
    #[getter]
    fn total(&self) -> u64 {
        self.0.total
    }

    #[getter]
    fn successful(&self) -> u64 {
        self.0.successful
    }

    #[getter]
    fn failed(&self) -> u64 {
        self.0.failed
    }

    #[getter]
    fn cancelled(&self) -> u64 {
        self.0.cancelled
    }

    #[getter]
    fn success_rate(&self) -> f64 {
        self.0.success_rate()
    }

    #[getter]
    fn duration(&self) -> f64 {
        seconds(self.0.duration_us)
    }

    #[getter]
    fn avg_duration(&self) -> f64 {
        self.0.avg_duration_us() / 1_000_000.0
    }

    #[getter]
    fn p50(&self) -> Option<f64> {
        self.percentile(50)
    }

    #[getter]
    fn p90(&self) -> Option<f64> {
        self.percentile(90)
    }

    #[getter]
    fn p95(&self) -> Option<f64> {
        self.percentile(95)
    }

    #[getter]
    fn p99(&self) -> Option<f64> {
        self.percentile(99)
    }

    #[getter]
    fn queue_time(&self) -> f64 {
        seconds(self.0.queue_us)
    }

    #[getter]
    fn avg_queue_time(&self) -> f64 {
        self.0.avg_queue_us() / 1_000_000.0
    }

    #[getter]
    fn children(&self) -> u64 {
        self.0.children
    }

    #[getter]
    fn threads(&self) -> u64 {
        self.0.threads
    }

    #[getter]
    fn output_bytes(&self) -> u64 {
        self.0.output_bytes
    }

    #[getter]
    fn cpu_time(&self) -> f64 {
        seconds(self.0.cpu_us)
    }

    #[getter]
    fn memory_peak_bytes(&self) -> u64 {
        self.0.memory_peak_bytes
    }

    /// Returns the properties as a dictionary that `json.dumps` takes.
    fn to_dict<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyDict>> {
        to_dict(slf, &SCRIPT_FIELDS)
    }

    fn __repr__(slf: &Bound<'_, Self>) -> PyResult<String> {
        repr(slf, &["total", "successful", "failed", "cancelled"])
    }
}

impl ScriptStats {
    fn percentile(&self, percent: u8) -> Option<f64> {
        self.0.durations.percentile_us(percent).map(seconds)
    }
}

/// What is counted of all scripts together, and of each.
#[pyclass(frozen, eq, extends = ScriptStats, module = "automation")]
#[derive(PartialEq)]
pub(crate) struct Stats(core::Stats);

impl Stats {
    pub(super) fn new(py: Python<'_>, stats: core::Stats) -> PyResult<Py<Self>> {
        let all = ScriptStats(stats.all.clone());
        Py::new(py, PyClassInitializer::from(all).add_subclass(Self(stats)))
    }
}

#[pymethods]
impl Stats {
    #[getter]
    fn by_script<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let dict = PyDict::new(py);
        for (name, stats) in &self.0.by_script {
            dict.set_item(name, Py::new(py, ScriptStats(stats.clone()))?)?;
        }
        Ok(dict)
    }

    #[getter]
    fn open(&self) -> u64 {
        self.0.open
    }

    #[getter]
    fn recent<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        let recent = self.0.recent.iter().cloned().map(Execution::from);
        let recent: Vec<_> = recent
            .map(|execution| Py::new(py, execution))
            .collect::<PyResult<_>>()?;
        PyTuple::new(py, recent)
    }

    /// Returns the properties as a dictionary that `json.dumps` takes.
    fn to_dict<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyDict>> {
        let dict = to_dict(slf, &SCRIPT_FIELDS)?;
        dict.update(to_dict(slf, &["by_script", "open", "recent"])?.as_mapping())?;
        Ok(dict)
    }
}
