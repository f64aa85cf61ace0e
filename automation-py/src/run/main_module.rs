//! `__main__`: each run has a fresh module of its own. The one object in `sys.modules` forwards to it on the
//! run's threads; that half is `RunModule` in `glue.py`.

use std::sync::atomic::{AtomicBool, Ordering};

use automation_core::script::Entry;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyModule, PyString, PyTuple};

use super::{Glue, Run, current, guard, with_current};

/// Returns the `__main__` of this thread's run; `None` without a run.
#[pyfunction]
pub(super) fn run_module(py: Python<'_>) -> Option<Bound<'_, PyModule>> {
    with_current(|run| run?.module(py))
}

/// Whether this process is a copy that a script forked.
static FORKED: AtomicBool = AtomicBool::new(false);

/// Prepares a copy of this process. Called by Python before it is made.
#[pyfunction]
pub(super) fn prepare_fork() {
    guard::before_fork();
}

/// Notes that this process is a copy, if a run made it: a host's copy is the host's own. Called in it by Python.
#[pyfunction]
pub(super) fn mark_forked() {
    // What a copy is given, its own copies have.
    if in_run() && !FORKED.swap(true, Ordering::AcqRel) {
        guard::after_fork();
    }
}

/// Returns whether this process is a copy that a script forked: it has no other threads, and must end where the
/// script ends.
pub(crate) fn is_forked() -> bool {
    FORKED.load(Ordering::Acquire)
}

/// Returns whether this thread belongs to a run.
#[pyfunction]
pub(super) fn in_run() -> bool {
    with_current(|run| run.is_some())
}

/// Keeps a function for the end of this thread's run. `false` without a run.
#[pyfunction]
pub(super) fn at_exit(py: Python<'_>, entry: &Bound<'_, PyTuple>) -> PyResult<bool> {
    let Some(run) = current() else {
        return Ok(false);
    };
    // Made before the lock is taken: making it may collect garbage, and a `__del__` may come here again.
    let fresh = PyList::empty(py).unbind();
    let mut objects = run.objects.lock();
    let list = objects
        .exit_functions
        .get_or_insert_with(|| fresh.clone_ref(py))
        .clone_ref(py);
    drop(objects);
    list.bind(py).append(entry)?;
    Ok(true)
}

/// Returns the functions kept for the end of this thread's run.
#[pyfunction]
pub(super) fn exit_functions(py: Python<'_>) -> Option<Bound<'_, PyList>> {
    with_current(|run| {
        let objects = run?.objects.lock();
        Some(objects.exit_functions.as_ref()?.bind(py).clone())
    })
}

/// Sees to it that `__main__` dispatches: `runpy`, a debugger or a script may have put a module in its place.
fn restore_main(py: Python<'_>) -> PyResult<()> {
    let glue = Glue::get(py);
    let main = glue.modules.bind(py).get_item(intern!(py, "__main__"))?;
    if !main.is_some_and(|main| main.get_type().is(&glue.run_module)) {
        glue.restore_main.bind(py).call0()?;
    }
    Ok(())
}

impl Run {
    /// Makes the run's `__main__` (`__automation__` where it defines `run`). Returns its namespace.
    pub(crate) fn create_module<'py>(
        &self,
        py: Python<'py>,
        file: &Bound<'py, PyString>,
        builtins: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyDict>> {
        restore_main(py)?;
        let module = match self.invocation.script.metadata().entry {
            Entry::Plain => PyModule::new(py, "__main__")?,
            Entry::Run => PyModule::new(py, "__automation__")?,
        };
        let namespace = module.dict();
        namespace.set_item(intern!(py, "__builtins__"), builtins)?;
        namespace.set_item(intern!(py, "__file__"), file)?;
        namespace.set_item(intern!(py, "__cached__"), py.None())?;
        let former = self.objects.lock().module.replace(module.unbind());
        drop(former);
        Ok(namespace)
    }
}
