//! `automation.ctx`: what a script may ask of the engine and tell it. One object for all; each call is
//! dispatched to the run of the calling thread, and without one it is a stand-in for runs by hand.

use std::sync::Arc;

use automation_core::executor::RunEvent;
use automation_core::secret::SecretError;
use pyo3::exceptions::{PyLookupError, PyOSError, PyRuntimeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyDict;
use serde_json::Value;

use super::{Run, current, emit, remaining};
use crate::convert::{object_to_python, to_python};

/// Prefix of the variables that stand for secrets when a script runs by hand.
const SECRET_PREFIX: &str = "AUTOMATION_SECRET_";

/// The object behind `automation.ctx`.
#[pyclass(frozen, module = "automation")]
pub(crate) struct Context;

impl Context {
    /// Returns the one object of this class.
    pub(crate) fn shared(py: Python<'_>) -> PyResult<Py<Self>> {
        static SHARED: PyOnceLock<Py<Context>> = PyOnceLock::new();
        let context = SHARED.get_or_try_init(py, || Py::new(py, Self))?;
        Ok(context.clone_ref(py))
    }
}

/// Returns the run of this thread. `Ok(None)` when the script runs by hand.
fn run() -> PyResult<Option<Arc<Run>>> {
    match current() {
        Some(run) if run.has_ended() => Err(PyRuntimeError::new_err("the run has ended")),
        run => Ok(run),
    }
}

/// Returns a value of the run, converted once.
fn cached<'py>(
    py: Python<'py>,
    run: &Run,
    place: usize,
    convert: impl FnOnce() -> PyResult<Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyAny>> {
    let cached = run.objects.lock().context[place]
        .as_ref()
        .map(|value| value.clone_ref(py));
    if let Some(value) = cached {
        return Ok(value.into_bound(py));
    }
    let value = convert()?;
    let former = run.objects.lock().context[place].replace(value.clone().unbind());
    drop(former);
    Ok(value)
}

fn optional<'py>(py: Python<'py>, value: Option<&Value>) -> PyResult<Bound<'py, PyAny>> {
    to_python(py, value.unwrap_or(&Value::Null))
}

#[pymethods]
impl Context {
    /// The validated parameters.
    #[getter]
    fn parameters(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let Some(run) = run()? else {
            return Ok(PyDict::new(py).into_any().unbind());
        };
        let convert = || Ok(object_to_python(py, &run.invocation.parameters)?.into_any());
        cached(py, &run, 0, convert).map(Bound::unbind)
    }

    /// The ticket, or `None`.
    #[getter]
    fn ticket(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let Some(run) = run()? else {
            return Ok(py.None());
        };
        let convert = || optional(py, run.invocation.ticket.as_ref());
        cached(py, &run, 1, convert).map(Bound::unbind)
    }

    /// The ticket's classification, or `None`.
    #[getter]
    fn classification(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let Some(run) = run()? else {
            return Ok(py.None());
        };
        let convert = || optional(py, run.invocation.classification.as_ref());
        cached(py, &run, 2, convert).map(Bound::unbind)
    }

    /// The run's id, or `None`.
    #[getter]
    fn execution_id(&self) -> PyResult<Option<String>> {
        Ok(run()?.map(|run| run.invocation.execution_id.to_string()))
    }

    /// Whether the script is to change nothing.
    #[getter]
    fn dry_run(&self) -> PyResult<bool> {
        Ok(run()?.is_some_and(|run| run.invocation.host.dry_run()))
    }

    /// Whether the run was asked to end.
    #[getter]
    fn cancelled(&self) -> PyResult<bool> {
        Ok(run()?.is_some_and(|run| run.cancel_requested() || run.invocation.host.is_cancelled()))
    }

    /// Seconds until the deadline; `None` when there is none.
    fn remaining(&self) -> PyResult<Option<f64>> {
        let remaining = run()?.and_then(|run| remaining(&run));
        Ok(remaining.map(|remaining| remaining.as_secs_f64()))
    }

    /// Says how far the script is, from 0 to 1, and what it is doing.
    #[pyo3(signature = (fraction, text=""))]
    fn progress(&self, py: Python<'_>, fraction: f64, text: &str) -> PyResult<()> {
        if !(0.0..=1.0).contains(&fraction) {
            return Err(PyValueError::new_err(format!(
                "fraction is {fraction}, expected 0 to 1"
            )));
        }
        if let Some(run) = run()? {
            let text = text.to_owned();
            emit(py, &run, vec![RunEvent::Progress { fraction, text }]);
        }
        Ok(())
    }

    /// Adds a line to the run's log; to standard error by hand.
    fn log(&self, py: Python<'_>, text: &Bound<'_, PyAny>) -> PyResult<()> {
        let text = text.str()?.to_string_lossy().into_owned();
        if let Some(run) = run()? {
            emit(py, &run, vec![RunEvent::Log { text }]);
            return Ok(());
        }
        let stderr = py.import("sys")?.getattr("stderr")?;
        if !stderr.is_none() {
            stderr.call_method1("write", (text + "\n",))?;
        }
        Ok(())
    }

    /// Returns the secret with this name. By hand it is the variable `AUTOMATION_SECRET_<NAME>`.
    ///
    /// Raises `LookupError` when there is none.
    fn secret(&self, py: Python<'_>, name: &str) -> PyResult<String> {
        let Some(run) = run()? else {
            return secret_by_hand(py, name);
        };
        let secret = py.detach(|| run.invocation.host.secret(name));
        match secret {
            Ok(secret) => Ok(secret.expose().to_owned()),
            Err(error @ SecretError::InvalidName { .. }) => {
                Err(PyValueError::new_err(error.to_string()))
            }
            Err(error @ SecretError::Unreadable { .. }) => {
                Err(PyOSError::new_err(error.to_string()))
            }
            Err(error) => Err(PyLookupError::new_err(error.to_string())),
        }
    }

    fn __repr__(&self) -> PyResult<String> {
        Ok(match self.execution_id()? {
            Some(id) => format!("<automation context of run {id}>"),
            None => "<automation context without a run>".to_owned(),
        })
    }
}

fn secret_by_hand(py: Python<'_>, name: &str) -> PyResult<String> {
    let variable = format!("{SECRET_PREFIX}{}", name.to_ascii_uppercase());
    let environ = py.import("os")?.getattr(intern!(py, "environ"))?;
    let value: Option<String> = environ.call_method1("get", (&variable,))?.extract()?;
    value.ok_or_else(|| {
        PyLookupError::new_err(format!(
            "secret {name:?} is not configured: set {variable} to run by hand"
        ))
    })
}
