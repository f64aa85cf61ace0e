//! A part of a list of runs.

use automation_core as core;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyIterator, PyTuple};

use super::execution::Execution;
use super::fields::to_dict;

/// A part of a list of runs: a sequence that knows where the next part begins.
#[pyclass(frozen, sequence, module = "automation")]
pub(crate) struct Page {
    items: Py<PyTuple>,
    next: Option<core::Cursor>,
}

impl Page {
    pub(super) fn new(py: Python<'_>, listing: core::Listing<core::Execution>) -> PyResult<Self> {
        let items = listing.items.into_iter().map(Execution::from);
        let items: Vec<_> = items
            .map(|item| Py::new(py, item))
            .collect::<PyResult<_>>()?;
        Ok(Self {
            items: PyTuple::new(py, items)?.unbind(),
            next: listing.next,
        })
    }
}

#[pymethods]
impl Page {
    #[getter]
    fn items<'py>(&self, py: Python<'py>) -> &Bound<'py, PyTuple> {
        self.items.bind(py)
    }

    #[getter]
    fn next(&self) -> Option<&str> {
        self.next.as_ref().map(core::Cursor::as_str)
    }

    fn __len__(&self, py: Python<'_>) -> usize {
        self.items.bind(py).len()
    }

    fn __getitem__<'py>(&self, index: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        self.items.bind(index.py()).as_any().get_item(index)
    }

    fn __iter__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyIterator>> {
        self.items.bind(py).try_iter()
    }

    fn __eq__(&self, py: Python<'_>, other: &Self) -> PyResult<bool> {
        Ok(self.next == other.next && self.items.bind(py).eq(&other.items)?)
    }

    /// Returns the properties as a dictionary that `json.dumps` takes.
    fn to_dict<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyDict>> {
        to_dict(slf, &["items", "next"])
    }

    fn __repr__(&self, py: Python<'_>) -> String {
        let more = if self.next.is_some() {
            ", more follow"
        } else {
            ""
        };
        format!("<Page of {} executions{more}>", self.items.bind(py).len())
    }
}
