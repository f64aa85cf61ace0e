//! What keeps a run from harming its host: functions that would reach the whole process do something else inside a
//! run, and the audit hook sees what the run does to the world.
//!
//! On threads without a run, and in a copy of the process that a script forked, everything is as it was. This is a
//! guard against accidents: foreign code does what it likes.

mod audit;
mod descriptors;
mod effects;
mod events;
mod exit;
mod function;
mod place;
mod pump;

use std::sync::OnceLock;
use std::sync::atomic::AtomicBool;

use parking_lot::Mutex;
use pyo3::exceptions::PyPermissionError;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use pyo3::wrap_pyfunction;

pub(crate) use self::audit::hears_effects;
pub(super) use self::descriptors::{Stdio, write_own};
use self::effects::Trail;
pub(crate) use self::place::Place;
use super::{is_forked, with_current};
use crate::ffi::mask::SignalMask;

/// What is kept of a run for its guard.
#[derive(Debug, Default)]
pub(crate) struct Guard {
    trail: Mutex<Trail>,
    /// Its descriptors 0, 1 and 2, once something asked for them.
    stdio: OnceLock<Stdio>,
    /// The code with which it asked to end at once.
    exit: OnceLock<i32>,
    /// Whether it may have changed its working directory or umask.
    place_changed: AtomicBool,
    /// What signals its worker did not take before the run changed that.
    mask: OnceLock<SignalMask>,
    /// Whether a copy that is being forked has a terminal of its own.
    own_terminal: AtomicBool,
}

/// Returns whether this thread is guarded: it belongs to a run, and this is the host's process.
pub(super) fn is_guarded() -> bool {
    with_current(|run| run.is_some()) && !is_forked()
}

/// Adds what `glue/guard.py` calls to its namespace.
pub(super) fn add_natives(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<function::Guarded>()?;
    module.add("RECURSION_MAX", super::threads::RECURSION_MAX)?;
    for function in [
        wrap_pyfunction!(descriptors::own_descriptor, module)?,
        wrap_pyfunction!(descriptors::keep_terminal, module)?,
        wrap_pyfunction!(effects::before_child, module)?,
        wrap_pyfunction!(exit::end_run, module)?,
        wrap_pyfunction!(place::before_change, module)?,
        wrap_pyfunction!(place::before_mask_change, module)?,
        wrap_pyfunction!(audit::is_host_process, module)?,
        wrap_pyfunction!(super::purity::run_state, module)?,
    ] {
        module.add_function(function)?;
    }
    Ok(())
}

/// Installs the guard, once the namespace of `glue/guard.py` is there.
pub(super) fn install(py: Python<'_>, namespace: &Bound<'_, PyDict>) -> PyResult<()> {
    namespace.as_any().get_item("install")?.call0()?;
    audit::install(py)
}

/// Prepares a fork on this thread, in the process that forks.
pub(super) fn before_fork() {
    descriptors::prepare_fork();
}

/// Gives a copy that a script forked what its run's children have.
pub(super) fn after_fork() {
    crate::ffi::crash::write_nothing();
    crate::ffi::blocking::note_copy();
    descriptors::adopt_in_copy();
}

/// Returns the error of what a run may not do.
fn refused(what: &str, why: &str) -> PyErr {
    PyPermissionError::new_err((
        libc::EPERM,
        format!("{what} is refused inside a run: {why}"),
    ))
}
