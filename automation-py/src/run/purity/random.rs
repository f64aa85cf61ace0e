//! Random numbers: a run that sets the sequence going has one of its own from there on, so that it determines
//! nobody else's numbers.

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString, PyTuple};

use crate::ffi;
use crate::run::{current, with_current};

/// Stands for one of the functions of the module `random`.
#[pyclass(frozen, module = "automation._automation")]
pub(crate) struct RandomFunction {
    name: Py<PyString>,
    /// Whether it sets the sequence.
    sets: bool,
    original: Py<PyAny>,
    /// The class of sources.
    source: Py<PyAny>,
}

#[pymethods]
impl RandomFunction {
    #[new]
    fn new(name: &Bound<'_, PyString>, original: Py<PyAny>, source: Py<PyAny>) -> PyResult<Self> {
        let sets = matches!(&*name.to_cow()?, "seed" | "setstate");
        Ok(Self {
            name: name.clone().unbind(),
            sets,
            original,
            source,
        })
    }

    #[pyo3(signature = (*arguments, **keywords))]
    fn __call__<'py>(
        &self,
        py: Python<'py>,
        arguments: &Bound<'py, PyTuple>,
        keywords: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        match self.own(py)? {
            Some(own) => ffi::call(&own.getattr(&self.name)?, arguments, keywords),
            None => ffi::call(self.original.bind(py), arguments, keywords),
        }
    }

    fn __getattr__<'py>(&self, py: Python<'py>, name: &str) -> PyResult<Bound<'py, PyAny>> {
        self.original.bind(py).getattr(name)
    }

    #[getter]
    fn __wrapped__(&self, py: Python<'_>) -> Py<PyAny> {
        self.original.clone_ref(py)
    }
}

impl RandomFunction {
    /// Returns the run's own source, if it has one now.
    fn own<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let own = with_current(|run| {
            let objects = run?.objects.lock();
            Some(objects.random.as_ref()?.bind(py).clone())
        });
        if own.is_some() || !self.sets {
            return Ok(own);
        }
        let Some(run) = current() else {
            return Ok(None);
        };
        // Made before the lock is taken: making it runs Python code.
        let fresh = self.source.bind(py).call0()?;
        let former = run.objects.lock().random.replace(fresh.clone().unbind());
        drop(former);
        Ok(Some(fresh))
    }
}
