//! A function of the standard library that does something else inside a run.

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyInt, PyTuple};

use super::{descriptors, is_guarded};

/// Stands for a function. It is no Python function, so that it binds to nothing when a class holds it, as built-in
/// functions do not. What it is called and documented as is set from outside.
#[pyclass(frozen, dict, weakref, module = "automation._automation")]
pub(super) struct Guarded {
    original: Py<PyAny>,
    /// What is called inside a run.
    inside: Py<PyAny>,
    /// Whether only calls are meant whose first argument is one of the run's standard descriptors.
    standard: bool,
}

#[pymethods]
impl Guarded {
    #[new]
    #[pyo3(signature = (original, inside, standard=false))]
    fn new(original: Py<PyAny>, inside: Py<PyAny>, standard: bool) -> Self {
        Self {
            original,
            inside,
            standard,
        }
    }

    #[pyo3(signature = (*arguments, **keywords))]
    fn __call__<'py>(
        &self,
        py: Python<'py>,
        arguments: &Bound<'py, PyTuple>,
        keywords: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let meant = is_guarded() && (!self.standard || concerns_standard(arguments));
        let function = if meant { &self.inside } else { &self.original };
        function.bind(py).call(arguments, keywords)
    }

    fn __getattr__<'py>(&self, py: Python<'py>, name: &str) -> PyResult<Bound<'py, PyAny>> {
        self.original.bind(py).getattr(name)
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        Ok(self.original.bind(py).repr()?.to_string())
    }

    /// Pickled, and copied, as what has its name.
    fn __reduce__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.original.bind(py).getattr("__qualname__")
    }
}

/// Whether the first argument may be a standard descriptor. One that is given by name is looked at later.
fn concerns_standard(arguments: &Bound<'_, PyTuple>) -> bool {
    let Ok(first) = arguments.get_item(0) else {
        return true;
    };
    first.is_instance_of::<PyInt>() && first.extract().is_ok_and(descriptors::is_standard)
}
