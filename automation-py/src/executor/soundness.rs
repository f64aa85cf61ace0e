//! Whether the interpreter still is what it was: looked at when a run was refused memory, which CPython does not
//! survive everywhere.

use std::sync::OnceLock;

use automation_core::executor::ExecutorError;
use pyo3::prelude::*;

use crate::ffi;
use crate::run::Glue;

/// What was found; once something is wrong it stays wrong, since there is one interpreter a process.
#[derive(Debug, Default)]
pub(super) struct Soundness {
    problem: OnceLock<String>,
}

impl Soundness {
    /// Gives back what a run held that was refused memory, and looks whether the interpreter still works.
    pub(super) fn recover(&self, py: Python<'_>) {
        let glue = Glue::get(py);
        let collected = py.import("gc").and_then(|gc| gc.getattr("collect"));
        let collected = collected.and_then(|collect| ffi::call0(&collect));
        ffi::return_memory();
        let checked = collected
            .and_then(|_| glue.function(py, "check_soundness"))
            .and_then(|check| ffi::call0(&check));
        if let Err(error) = checked {
            let problem = format!("the interpreter broke when a run met its memory limit: {error}");
            tracing::error!(problem, "no further run is taken");
            let _ = self.problem.set(problem);
        }
    }

    /// Returns what is wrong, if anything is.
    pub(super) fn problem(&self) -> Option<&str> {
        self.problem.get().map(String::as_str)
    }

    /// Refuses when something is wrong.
    pub(super) fn check(&self) -> Result<(), ExecutorError> {
        match self.problem() {
            None => Ok(()),
            Some(problem) => Err(ExecutorError::Unavailable {
                detail: problem.to_owned(),
            }),
        }
    }
}
