//! A trace function that raises at every line of a script: what no `except` can catch for good, since the handler has
//! lines too. Lines of libraries are left alone: one that releases a lock would not be executed.

use std::ffi::c_int;
use std::ptr;

use pyo3::ffi::{self, PyFrameObject, PyObject};
use pyo3::prelude::*;
use pyo3::types::{PyString, PyTuple, PyType};

/// `arguments` are the interruption, the script's file, and what the names of its other files begin with.
unsafe extern "C" fn raise(
    arguments: *mut PyObject,
    frame: *mut PyFrameObject,
    what: c_int,
    _: *mut PyObject,
) -> c_int {
    if what != ffi::PyTrace_CALL && what != ffi::PyTrace_LINE {
        return 0;
    }
    // SAFETY: called attached, with the tuple of three that was set and the frame that executes.
    unsafe {
        let argument = |place| ffi::PyTuple_GetItem(arguments, place);
        let code = ffi::PyFrame_GetCode(frame);
        let file = ffi::PyObject_GetAttrString(code.cast(), c"co_filename".as_ptr());
        ffi::Py_DecRef(code.cast());
        let own = is_own(file, argument(1), argument(2));
        ffi::Py_XDECREF(file);
        if !own {
            return 0;
        }
        ffi::PyErr_SetNone(argument(0));
    }
    -1
}

/// # Safety
/// Attached; `script` and `folder` are texts, `file` is an object or null with an exception set.
unsafe fn is_own(file: *mut PyObject, script: *mut PyObject, folder: *mut PyObject) -> bool {
    // SAFETY: texts, as asked for above. The script's own file is in its folder, where it has one.
    unsafe {
        if file.is_null() || ffi::PyUnicode_Check(file) == 0 {
            ffi::PyErr_Clear();
            return false;
        }
        ffi::PyUnicode_Compare(file, script) == 0
            || ffi::PyUnicode_GetLength(folder) > 0
                && ffi::PyUnicode_Tailmatch(file, folder, 0, isize::MAX, -1) == 1
    }
}

/// Makes the calling thread raise `interruption` at every call and line of `script` and of what is in `folder`, which
/// ends with a separator or is empty. Replaces its trace function.
pub(crate) fn raise_at_every_line(
    interruption: &Bound<'_, PyType>,
    script: &str,
    folder: &str,
) -> PyResult<()> {
    let py = interruption.py();
    let texts = [script, folder].map(|text| PyString::new(py, text).into_any());
    let [script, folder] = texts;
    let arguments = PyTuple::new(py, [interruption.as_any(), &script, &folder])?;
    // SAFETY: attached, as the argument shows; CPython takes a reference of its own.
    unsafe { ffi::PyEval_SetTrace(Some(raise), arguments.as_ptr()) };
    Ok(())
}

/// Takes the calling thread's trace function away.
pub(crate) fn stop_tracing(_: Python<'_>) {
    // SAFETY: attached, as the token shows.
    unsafe { ffi::PyEval_SetTrace(None, ptr::null_mut()) };
}
