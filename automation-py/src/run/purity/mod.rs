//! tmp
use pyo3::prelude::*;
pub(super) fn imported(_py: Python<'_>) {}
