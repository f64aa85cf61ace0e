//! Script versions that are kept out of the process, as Python sees them.

use automation_core as core;
use chrono::{DateTime, Utc};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::fields::{repr, to_dict};

/// A script version that is kept out of the process, and why.
#[pyclass(frozen, eq, hash, get_all, module = "automation")]
#[derive(PartialEq, Eq, Hash)]
pub(crate) struct Quarantined {
    script_name: String,
    script_version: String,
    concern: &'static str,
    execution_id: String,
    at: DateTime<Utc>,
    consequence: &'static str,
}

impl From<core::Quarantined> for Quarantined {
    fn from(one: core::Quarantined) -> Self {
        Self {
            script_name: one.script_name,
            script_version: one.script_version,
            concern: one.concern.as_str(),
            execution_id: one.execution_id.to_string(),
            at: one.at,
            consequence: one.consequence.as_str(),
        }
    }
}

#[pymethods]
impl Quarantined {
    /// Returns the properties as a dictionary that `json.dumps` takes.
    fn to_dict<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyDict>> {
        let fields = [
            "script_name",
            "script_version",
            "concern",
            "execution_id",
            "at",
            "consequence",
        ];
        to_dict(slf, &fields)
    }

    fn __repr__(slf: &Bound<'_, Self>) -> PyResult<String> {
        repr(slf, &["script_name", "concern", "consequence"])
    }
}
