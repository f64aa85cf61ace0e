//! `os._exit` and `os.abort`: they end the run, and not the process.

use std::sync::Arc;

use pyo3::exceptions::PySystemExit;
use pyo3::prelude::*;

use super::super::{Run, current};
use crate::ffi;
use crate::module::RunInterrupted;

/// Ends this thread's run with an exit code, at once as far as Python lets it: in the run's other threads by an
/// interruption, here by the exception that it returns. Whoever catches that changes nothing about the code.
#[pyfunction]
pub(super) fn end_run(py: Python<'_>, code: i64) -> PyErr {
    let code = (code & 0xff) as i32;
    if let Some(run) = current() {
        let _ = run.guard.exit.set(code);
        interrupt_others(py, &run);
    }
    PySystemExit::new_err((code,))
}

fn interrupt_others(py: Python<'_>, run: &Arc<Run>) {
    let here = ffi::thread_ident();
    let threads = run.threads();
    let mut others: Vec<_> = threads.iter().map(|thread| thread.ident).collect();
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
