//! What people have stopped, as Python sees it.

use automation_core as core;
use automation_core::{Error, StopTarget};
use chrono::{DateTime, Utc};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::fields::{repr, to_dict};

/// That somebody has stopped everything, a script or a category.
#[pyclass(frozen, eq, hash, get_all, module = "automation")]
#[derive(PartialEq, Eq, Hash)]
pub(crate) struct Stopped {
    scope: &'static str,
    name: Option<String>,
    actor: String,
    reason: String,
    at: DateTime<Utc>,
}

impl From<core::Stopped> for Stopped {
    fn from(stop: core::Stopped) -> Self {
        let (scope, name) = match stop.target {
            StopTarget::All => ("all", None),
            StopTarget::Script(name) => ("script", Some(name)),
            StopTarget::Category(name) => ("category", Some(name)),
        };
        Self {
            scope,
            name,
            actor: stop.actor,
            reason: stop.reason,
            at: stop.at,
        }
    }
}

#[pymethods]
impl Stopped {
    /// Returns the properties as a dictionary that `json.dumps` takes.
    fn to_dict<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyDict>> {
        to_dict(slf, &["scope", "name", "actor", "reason", "at"])
    }

    fn __repr__(slf: &Bound<'_, Self>) -> PyResult<String> {
        repr(slf, &["scope", "name", "actor", "reason"])
    }
}

/// Returns what is to be stopped or resumed: everything, unless one thing is named.
pub(super) fn target(
    script: Option<String>,
    category: Option<String>,
) -> Result<StopTarget, Error> {
    match (script, category) {
        (None, None) => Ok(StopTarget::All),
        (Some(script), None) => Ok(StopTarget::Script(script)),
        (None, Some(category)) => Ok(StopTarget::Category(category)),
        (Some(_), Some(_)) => {
            let detail = "is given beside script, expected one of them";
            Err(Error::invalid_request("/category", detail))
        }
    }
}
