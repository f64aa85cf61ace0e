//! What a run does to the world outside its own memory: noted, counted, and denied where its script's metadata says
//! so. A tripwire against accidents, no sandbox.

use std::sync::Arc;

use automation_core::Effect;
use automation_core::executor::RunEvent;
use pyo3::exceptions::PyPermissionError;
use pyo3::prelude::*;

use super::super::{Run, current, emit};
use super::events::command_line;
use super::is_guarded;

/// Effects that are told of one run. Later ones are still denied and counted; a run that writes thousands of files
/// says nothing new with each.
const EFFECTS_MAX: usize = 256;

/// What was told last, and how much was told.
#[derive(Debug, Default)]
pub(super) struct Trail {
    last: Option<RunEvent>,
    told: usize,
}

impl Trail {
    /// Returns the event if it has to be told: not when it repeats the last one, and not without end.
    fn next(&mut self, event: RunEvent) -> Option<RunEvent> {
        if self.told == EFFECTS_MAX || self.last.as_ref() == Some(&event) {
            return None;
        }
        self.told += 1;
        self.last = Some(event.clone());
        Some(event)
    }
}

/// Notes an effect that is about to happen.
///
/// # Errors
/// `PermissionError` when the script's metadata denies it.
pub(super) fn note(py: Python<'_>, run: &Arc<Run>, effect: Effect, target: String) -> PyResult<()> {
    let denied = run.invocation.script.metadata().deny.contains(&effect);
    let refusal = denied.then(|| denial(effect, &target));
    tell(py, run, effect, target, denied);
    refusal.map_or(Ok(()), Err)
}

fn tell(py: Python<'_>, run: &Arc<Run>, effect: Effect, target: String, denied: bool) {
    let event = RunEvent::Effect {
        effect,
        target,
        denied,
    };
    let next = run.guard.trail.lock().next(event);
    emit(py, run, next.into_iter().collect());
}

fn denial(effect: Effect, target: &str) -> PyErr {
    let text =
        format!("{effect} is denied ({target}): the script's metadata has deny = [\"{effect}\"]");
    PyPermissionError::new_err((libc::EPERM, text))
}

/// Counts a child that is about to be started.
///
/// # Errors
/// `PermissionError` when the run has as many as it may.
pub(super) fn count_child(py: Python<'_>, run: &Arc<Run>, target: &str) -> PyResult<()> {
    if run.account().child_started() {
        return Ok(());
    }
    tell(py, run, Effect::Subprocess, target.to_owned(), true);
    let max = run.invocation.limits.children_max.unwrap_or(u32::MAX);
    let text = format!("the script's metadata has children_max = {max}, and so many were started");
    Err(PyPermissionError::new_err((libc::EPERM, text)))
}

/// Notes and counts a program that is about to be started with these arguments.
#[pyfunction]
pub(super) fn before_child(py: Python<'_>, arguments: &Bound<'_, PyAny>) -> PyResult<()> {
    let Some(run) = current().filter(|_| is_guarded()) else {
        return Ok(());
    };
    let target = command_line(arguments);
    note(py, &run, Effect::Subprocess, target.clone())?;
    count_child(py, &run, &target)
}

#[cfg(test)]
mod tests {
    use automation_core::Effect;
    use automation_core::executor::RunEvent;

    use super::{EFFECTS_MAX, Trail};

    fn write(target: &str) -> RunEvent {
        RunEvent::Effect {
            effect: Effect::Write,
            target: target.to_owned(),
            denied: false,
        }
    }

    #[test]
    fn what_repeats_the_last_is_told_once() {
        let mut trail = Trail::default();
        let told = ["/a", "/a", "/b", "/a"].map(|target| trail.next(write(target)).is_some());
        assert_eq!(told, [true, false, true, true]);
    }

    #[test]
    fn a_run_tells_no_more_than_its_share() {
        let mut trail = Trail::default();
        let told = (0..1000).filter(|at| trail.next(write(&at.to_string())).is_some());
        assert_eq!(told.count(), EFFECTS_MAX);
    }
}
