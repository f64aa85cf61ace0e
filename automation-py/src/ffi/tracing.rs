//! A trace function that raises at every line: what no `except` can catch for good, since the handler has lines too.

use std::ffi::c_int;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

use pyo3::ffi::{self, PyFrameObject, PyObject};
use pyo3::prelude::*;
use pyo3::types::PyType;

static INTERRUPTION: AtomicPtr<PyObject> = AtomicPtr::new(ptr::null_mut());

unsafe extern "C" fn raise(
    _: *mut PyObject,
    _: *mut PyFrameObject,
    what: c_int,
    _: *mut PyObject,
) -> c_int {
    if what != ffi::PyTrace_CALL && what != ffi::PyTrace_LINE {
        return 0;
    }
    // SAFETY: called attached; the exception was set before.
    unsafe { ffi::PyErr_SetNone(INTERRUPTION.load(Ordering::Acquire)) };
    -1
}

/// Makes the calling thread raise `interruption` at every call and line. Replaces its trace function.
pub(crate) fn raise_at_every_line(interruption: &Bound<'_, PyType>) {
    let former = INTERRUPTION.swap(interruption.clone().into_ptr(), Ordering::AcqRel);
    // SAFETY: attached, as the argument shows; the former reference was ours.
    unsafe {
        ffi::Py_XDECREF(former);
        ffi::PyEval_SetTrace(Some(raise), ptr::null_mut());
    }
}

/// Takes the calling thread's trace function away.
pub(crate) fn stop_tracing(_: Python<'_>) {
    // SAFETY: attached, as the token shows.
    unsafe { ffi::PyEval_SetTrace(None, ptr::null_mut()) };
}
