//! The last means against a script that catches every interruption: a trace function on its own thread that raises
//! again at each line of the script, the handler's among them, until nothing of it is left.
//!
//! A trace function that was there, a debugger's for instance, is put back.

use std::cell::RefCell;
use std::path::MAIN_SEPARATOR;
use std::time::Duration;

use pyo3::intern;
use pyo3::prelude::*;

use super::{current, folder};
use crate::ffi::{blocking, tracing};
use crate::module::RunInterrupted;

/// Time that a script has to clean up: until then an interruption is raised once.
const AFTER: Duration = Duration::from_millis(45);

thread_local! {
    /// What was traced with before, while this thread raises at every line.
    static FORMER: RefCell<Option<Py<PyAny>>> = const { RefCell::new(None) };
}

/// Takes note that an interruption was made in this thread: if its run should have ended some time ago, and still
/// catches them, each line raises one from now on.
pub(crate) fn interruption_made(py: Python<'_>) {
    blocking::spare();
    let Some(run) = current().filter(|run| {
        run.traces && !run.has_ended() && run.cut_for().is_some_and(|since| since >= AFTER)
    }) else {
        return;
    };
    if FORMER.with_borrow(Option::is_some) {
        return;
    }
    let Ok(former) = sys_call(py, "gettrace", None) else {
        return;
    };
    FORMER.set(Some(former.unbind()));
    let path = run.invocation.script.path();
    let folder = folder(path).map_or_else(String::new, |folder| {
        format!("{}{MAIN_SEPARATOR}", folder.display())
    });
    let interruption = py.get_type::<RunInterrupted>();
    if let Err(error) =
        tracing::raise_at_every_line(&interruption, &path.to_string_lossy(), &folder)
    {
        tracing_failed(&error);
    }
}

fn tracing_failed(error: &PyErr) {
    ::tracing::error!(%error, "a script that catches every interruption can't be traced");
}

/// Puts this thread's trace function back. Called when the script's own code is left.
pub(crate) fn stop_tracing(py: Python<'_>) {
    let Some(former) = FORMER.take() else { return };
    tracing::stop_tracing(py);
    if !former.is_none(py) {
        let _ = sys_call(py, "settrace", Some(former.into_bound(py)));
    }
}

fn sys_call<'py>(
    py: Python<'py>,
    name: &str,
    argument: Option<Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyAny>> {
    let function = py.import(intern!(py, "sys"))?.getattr(name)?;
    match argument {
        Some(argument) => function.call1((argument,)),
        None => function.call0(),
    }
}
