//! `automation.ctx`: what a script may ask of the engine and tell it. One object for all; each call is
//! dispatched to the run of the calling thread. Without a run it can't be imported, so that a script that is
//! started by hand notices and brings its own stand-in.

use std::sync::Arc;

use automation_core::executor::RunEvent;
use automation_core::secret::SecretError;
use pyo3::exceptions::{PyAttributeError, PyLookupError, PyOSError, PyRuntimeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyString, PyTuple};
use serde_json::Value;

use super::{Run, current, emit, free_of_charge, library, remaining};
use crate::convert::{object_to_python, to_python};

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

/// Returns the run of this thread.
fn run() -> PyResult<Arc<Run>> {
    match current() {
        Some(run) if run.has_ended() => Err(PyRuntimeError::new_err("the run has ended")),
        Some(run) => Ok(run),
        None => Err(PyRuntimeError::new_err("this thread belongs to no run")),
    }
}

/// Returns what the module has besides its dictionary: `ctx`, on a run's threads.
#[pyfunction]
#[pyo3(name = "__getattr__")]
pub(crate) fn module_attribute(py: Python<'_>, name: &str) -> PyResult<Py<Context>> {
    match name {
        "ctx" if current().is_some() => Context::shared(py),
        "ctx" => Err(PyAttributeError::new_err(
            "automation.ctx exists only in a run",
        )),
        _ => Err(PyAttributeError::new_err(format!(
            "module 'automation' has no attribute '{name}'"
        ))),
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
    let value = free_of_charge(py, convert)?;
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
        let run = run()?;
        let convert = || Ok(object_to_python(py, &run.invocation.parameters)?.into_any());
        cached(py, &run, 0, convert).map(Bound::unbind)
    }

    /// The ticket, or `None`.
    #[getter]
    fn ticket(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let run = run()?;
        let convert = || optional(py, run.invocation.ticket.as_deref());
        cached(py, &run, 1, convert).map(Bound::unbind)
    }

    /// The ticket's classification, or `None`.
    #[getter]
    fn classification(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let run = run()?;
        let convert = || optional(py, run.invocation.classification.as_deref());
        cached(py, &run, 2, convert).map(Bound::unbind)
    }

    /// The run's id.
    #[getter]
    fn execution_id(&self) -> PyResult<String> {
        Ok(run()?.invocation.execution_id.to_string())
    }

    /// Whether the script is to change nothing.
    #[getter]
    fn dry_run(&self, py: Python<'_>) -> PyResult<bool> {
        let run = run()?;
        Ok(py.detach(|| run.invocation.host.dry_run()))
    }

    /// Whether the run was asked to end.
    #[getter]
    fn cancelled(&self, py: Python<'_>) -> PyResult<bool> {
        let run = run()?;
        Ok(run.cancel_requested() || py.detach(|| run.invocation.host.is_cancelled()))
    }

    /// Seconds until the deadline; `None` when there is none.
    fn remaining(&self) -> PyResult<Option<f64>> {
        let remaining = remaining(&*run()?);
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
        let text = text.to_owned();
        emit(py, &run()?, vec![RunEvent::Progress { fraction, text }]);
        Ok(())
    }

    /// Adds a line to the run's log.
    fn log(&self, py: Python<'_>, text: &Bound<'_, PyAny>) -> PyResult<()> {
        let text = text.str()?;
        let text = free_of_charge(py, || Ok(text.to_string_lossy().into_owned()))?;
        emit(py, &run()?, vec![RunEvent::Log { text }]);
        Ok(())
    }

    /// Returns the secret with this name.
    ///
    /// Raises `LookupError` when there is none.
    fn secret(&self, py: Python<'_>, name: &str) -> PyResult<Py<PyString>> {
        let run = run()?;
        let secret = py.detach(|| run.invocation.host.secret(name));
        free_of_charge(py, || match secret {
            Ok(secret) => Ok(PyString::new(py, secret.expose()).unbind()),
            Err(error @ SecretError::InvalidName { .. }) => {
                Err(PyValueError::new_err(error.to_string()))
            }
            Err(error @ SecretError::Unreadable { .. }) => {
                Err(PyOSError::new_err(error.to_string()))
            }
            Err(error) => Err(PyLookupError::new_err(error.to_string())),
        })
    }

    /// Runs a program, without a shell, and waits for its end; the end of the run ends it too.
    #[pyo3(
        signature = (*args, **options),
        text_signature = "($self, args, *, timeout=None, check=True, input=None, env=None, cwd=None)"
    )]
    fn run_cmd<'py>(
        &self,
        py: Python<'py>,
        args: &Bound<'py, PyTuple>,
        options: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        static LIBRARY: PyOnceLock<Py<PyDict>> = PyOnceLock::new();
        run()?;
        let files = [include_str!("../../python/automation/_run_cmd.py")];
        let library = LIBRARY.get_or_try_init(py, || library(py, &files).map(Bound::unbind))?;
        let function = library.bind(py).as_any().get_item(intern!(py, "run_cmd"))?;
        function.call(args, options)
    }

    fn __repr__(&self) -> String {
        match run() {
            Ok(run) => format!(
                "<automation context of run {}>",
                run.invocation.execution_id
            ),
            Err(_) => "<automation context without a run>".to_owned(),
        }
    }
}
