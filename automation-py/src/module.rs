//! The native half of the Python package `automation`.

use pyo3::exceptions::PyBaseException;
use pyo3::prelude::*;

use crate::run::Context;

pyo3::create_exception!(
    automation,
    RunInterrupted,
    PyBaseException,
    "Raised in a script whose deadline passed or that was cancelled. Not an `Exception`, so that handlers for \
     those leave it alone."
);

/// The native module `automation._automation`.
#[pymodule(gil_used = true)]
pub(crate) fn _automation(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("RunInterrupted", module.py().get_type::<RunInterrupted>())?;
    module.add("ctx", Context::shared(module.py())?)
}
