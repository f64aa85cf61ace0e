//! The environment of a run: the process's own, until the run changes it; then a copy that only the run and the
//! programs that it starts see. The Python half is `RunEnviron` in `glue.py`.

use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::{current, with_current};

/// Returns what `os.environ` reads on this thread: the run's copy if it has one, else `process`.
#[pyfunction]
pub(super) fn environ_to_read<'py>(
    py: Python<'py>,
    process: Bound<'py, PyDict>,
) -> Bound<'py, PyDict> {
    changed_environ(py).unwrap_or(process)
}

/// Returns the run's copy, made of `process` at the first call; `None` on a thread without a run.
#[pyfunction]
pub(super) fn environ_to_write<'py>(
    py: Python<'py>,
    process: &Bound<'py, PyDict>,
) -> PyResult<Option<Bound<'py, PyDict>>> {
    if let Some(copy) = changed_environ(py) {
        return Ok(Some(copy));
    }
    let Some(run) = current() else {
        return Ok(None);
    };
    // Made before the lock is taken: making it may collect garbage, and a `__del__` may have made one meanwhile.
    let copy = process.copy()?.unbind();
    let mut objects = run.objects.lock();
    let kept = objects
        .environ
        .get_or_insert_with(|| copy.clone_ref(py))
        .clone_ref(py);
    drop(objects);
    Ok(Some(kept.into_bound(py)))
}

/// Returns the run's copy if it has one.
#[pyfunction]
pub(super) fn changed_environ(py: Python<'_>) -> Option<Bound<'_, PyDict>> {
    with_current(|run| {
        let objects = run?.objects.lock();
        let copy = objects.environ.as_ref()?;
        Some(copy.bind(py).clone())
    })
}
