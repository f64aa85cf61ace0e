//! Where calls can't be redirected: waits and children are left alone.

use std::sync::atomic::AtomicU8;
use std::time::Duration;

use pyo3::prelude::*;
use pyo3::types::PyType;

/// Is told the processor time of each child that a run's thread has reaped.
pub(crate) type ChildReaped = fn(Duration);

/// Says that waits can't be ended here.
pub(crate) fn install(
    _: Python<'_>,
    _: &Bound<'_, PyType>,
    _: &Bound<'_, PyAny>,
    _: ChildReaped,
) -> PyResult<Result<(), &'static str>> {
    Ok(Err("this needs Linux with glibc"))
}

pub(crate) fn refresh() {}
pub(crate) fn bind(_: &AtomicU8) {}
pub(crate) fn unbind() {}
pub(crate) fn spare() {}
pub(crate) fn interrupt(_: i32) {}
pub(crate) fn unblock() {}
pub(crate) fn note_copy() {}
pub(crate) fn reap_child(_: i32) {}
pub(crate) fn reap_children() -> bool {
    false
}
pub(crate) fn signal_process(_: i32, _: std::ffi::c_int) {}
pub(crate) fn thread_number() -> i32 {
    0
}
pub(crate) fn ticks_since_boot() -> u64 {
    0
}
