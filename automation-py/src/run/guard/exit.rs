//! `os._exit` and `os.abort`: they end the run, and not the process.

use std::sync::Arc;

use pyo3::exceptions::PySystemExit;
use pyo3::prelude::*;

use super::super::{Run, current};
use crate::ffi;
use crate::module::RunInterrupted;

pyo3::create_exception!(
    automation,
    RunExit,
    PySystemExit,
    "Raised where a script ends its process at once. Whoever catches it changes nothing about the run's exit code."
);

/// Ends this thread's run with an exit code, at once as far as Python lets it: here by an exception, in the run's
/// other threads by an interruption.
#[pyfunction]
pub(super) fn end_run(py: Python<'_>, code: i64) -> PyErr {
    let code = (code & 0xff) as i32;
    if let Some(run) = current() {
        let _ = run.guard.exit.set(code);
        interrupt_others(py, &run);
    }
    RunExit::new_err((code,))
}

fn interrupt_others(py: Python<'_>, run: &Arc<Run>) {
    let here = ffi::thread_ident();
    let mut others = run.threads();
    others.extend(run.worker());
    others.retain(|thread| *thread != here);
    if !others.is_empty() && !run.has_ended() {
        run.note_interruption();
        let exception = py.get_type::<RunInterrupted>();
        for thread in others {
            ffi::raise_in_thread(thread, &exception);
        }
    }
}

impl Run {
    /// Returns the code with which the script ended its process, if it did.
    pub(crate) fn exit(&self) -> Option<i32> {
        self.guard.exit.get().copied()
    }
}
