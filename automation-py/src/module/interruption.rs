//! The exception that ends a run.

use pyo3::exceptions::PyBaseException;
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use crate::run::interruption_made;

/// Raised in a script whose deadline passed or that was cancelled. Not an `Exception`, so that handlers for those leave
/// it alone.
#[pyclass(extends = PyBaseException, subclass, module = "automation")]
pub(crate) struct RunInterrupted;

#[pymethods]
impl RunInterrupted {
    /// Called in the very thread that is interrupted, at the latest when something catches it.
    #[new]
    #[pyo3(signature = (*_arguments))]
    fn new(py: Python<'_>, _arguments: &Bound<'_, PyTuple>) -> Self {
        interruption_made(py);
        Self
    }
}

impl RunInterrupted {
    /// Returns the error that raises it.
    pub(crate) fn raised() -> PyErr {
        PyErr::new::<Self, _>(())
    }
}
