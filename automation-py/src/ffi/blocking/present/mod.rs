//! Where calls can be redirected: Linux with glibc, on processors whose tables of addresses are known.

mod errors;
mod interpose;
mod locks;
mod sealed;
mod signals;
mod waits;

use pyo3::prelude::*;
use pyo3::types::PyType;

pub(crate) use self::interpose::refresh;
pub(crate) use self::signals::{
    interrupt, reap_child, reap_children, signal_process, thread_number, ticks_since_boot, unblock,
};
pub(crate) use self::waits::{bind, note_copy, spare, unbind};

/// Makes waits interruptible: they raise `interruption`, in place of one that waits in the thread and that `meet`
/// meets. Answers with why that is not possible here, if so.
pub(crate) fn install(
    py: Python<'_>,
    interruption: &Bound<'_, PyType>,
    meet: &Bound<'_, PyAny>,
    child_reaped: waits::ChildReaped,
) -> PyResult<Result<(), &'static str>> {
    if !signals::install() {
        return Ok(Err("every real-time signal is taken"));
    }
    waits::on_child_reaped(child_reaped);
    let locks = locks::install(py, interruption, meet)?;
    let calls = interpose::install();
    Ok(calls.and(
        locks
            .then_some(())
            .ok_or("the methods of locks are not as expected"),
    ))
}
