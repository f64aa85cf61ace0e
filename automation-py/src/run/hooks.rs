//! What shows exceptions that nobody can catch: of threads, and of code that has no caller. The interpreter looks
//! for these hooks in a module's dictionary, so what is there dispatches to the run's, or to the host's own.

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyTuple};

use super::host::{host_value, set_host_value};
use super::{Slot, current};

/// Which hook.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hook {
    /// `threading.excepthook`.
    Thread,
    /// `sys.unraisablehook`.
    Unraisable,
}

impl Hook {
    pub(super) const fn slot(self) -> Slot {
        match self {
            Self::Thread => Slot::ThreadHook,
            Self::Unraisable => Slot::UnraisableHook,
        }
    }

    /// Returns what a run has at first: the interpreter's own, which writes to standard error.
    fn original(self, py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
        static THREAD: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        static UNRAISABLE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let (kept, module, name) = match self {
            Self::Thread => (&THREAD, "_thread", "_excepthook"),
            Self::Unraisable => (&UNRAISABLE, "sys", "__unraisablehook__"),
        };
        let hook = kept.get_or_try_init(py, || {
            Ok::<_, PyErr>(py.import(module)?.getattr(name)?.unbind())
        })?;
        Ok(hook.bind(py).clone())
    }
}

/// Returns what a hook is on this thread.
pub(super) fn visible_hook(py: Python<'_>, hook: Hook) -> PyResult<Bound<'_, PyAny>> {
    let Some(run) = current() else {
        return Ok(host_value(py, hook.slot()));
    };
    match run.slot(py, hook.slot()) {
        Some(object) => Ok(object.into_bound(py)),
        None => hook.original(py),
    }
}

/// What is in the module's dictionary.
#[pyclass(frozen, module = "automation._automation")]
pub(super) struct HookDispatch {
    hook: Hook,
}

#[pymethods]
impl HookDispatch {
    #[pyo3(signature = (*arguments, **keywords))]
    fn __call__<'py>(
        &self,
        py: Python<'py>,
        arguments: &Bound<'py, PyTuple>,
        keywords: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let hook = visible_hook(py, self.hook)?;
        if hook.is_none() {
            return Ok(py.None().into_bound(py));
        }
        hook.call(arguments, keywords)
    }
}

/// Puts the dispatching hooks in the place of the host's.
pub(super) fn install(py: Python<'_>) -> PyResult<()> {
    let places = [
        (
            Hook::Thread,
            py.import("threading")?,
            intern!(py, "excepthook"),
        ),
        (
            Hook::Unraisable,
            py.import("sys")?,
            intern!(py, "unraisablehook"),
        ),
    ];
    for (hook, module, name) in places {
        set_host_value(hook.slot(), module.getattr(name)?.unbind());
        module.setattr(name, Py::new(py, HookDispatch { hook })?)?;
    }
    Ok(())
}
