//! A function in the place of `builtins.__import__`. Each `import` statement passes it, so it is called the way
//! that costs nanoseconds, which PyO3 has no form for. Knows nothing of what is imported.

use std::cell::Cell;
use std::ffi::{CStr, c_char};
use std::sync::OnceLock;

use pyo3::ffi::{self, Py_ssize_t, PyObject};
use pyo3::prelude::*;

use super::Parked;

/// What takes part in imports.
pub(crate) struct ImportHooks {
    /// What was there before.
    pub(crate) original: Py<PyAny>,
    /// Is called in its place where `diverts`.
    pub(crate) other: Py<PyAny>,
    /// Returns whether imports of the calling thread go another way.
    pub(crate) diverts: fn() -> bool,
    /// Returns whether what was imported means another thing for the calling thread: it came there meanwhile.
    pub(crate) is_anothers: fn(&Bound<'_, PyAny>) -> bool,
    /// Is called when the outermost import of a thread has succeeded.
    pub(crate) imported: fn(Python<'_>),
}

static HOOKS: OnceLock<ImportHooks> = OnceLock::new();

thread_local! {
    static DEPTH: Cell<usize> = const { Cell::new(0) };
}

/// Returns whether the calling thread is importing: what happens then is a library's doing.
pub(crate) fn is_importing() -> bool {
    DEPTH.get() > 0
}

/// Calls `f` as code that is not part of an import.
pub(crate) fn outside_imports<R>(f: impl FnOnce() -> R) -> R {
    let depth = DEPTH.replace(0);
    let result = f();
    DEPTH.set(depth);
    result
}

/// Calls `f` as a part of an import.
pub(crate) fn importing<R>(py: Python<'_>, f: impl FnOnce() -> PyResult<R>) -> PyResult<R> {
    let depth = DEPTH.get();
    DEPTH.set(depth + 1);
    let result = f();
    DEPTH.set(depth);
    if depth == 0
        && result.is_ok()
        && let Some(hooks) = HOOKS.get()
    {
        (hooks.imported)(py);
    }
    result
}

/// Makes the function. Its hooks can be set once in a process.
pub(crate) fn import_function(py: Python<'_>, hooks: ImportHooks) -> PyResult<Bound<'_, PyAny>> {
    const NAME: &CStr = c"__import__";
    struct Definition(ffi::PyMethodDef);
    // SAFETY: never written to, and what it points to is constant.
    unsafe impl Sync for Definition {}
    static DEFINITION: Definition = Definition(ffi::PyMethodDef {
        ml_name: NAME.as_ptr().cast::<c_char>(),
        ml_meth: ffi::PyMethodDefPointer {
            PyCFunctionFastWithKeywords: import,
        },
        ml_flags: ffi::METH_FASTCALL | ffi::METH_KEYWORDS,
        ml_doc: std::ptr::null(),
    });
    let _ = HOOKS.set(hooks);
    let definition = (&raw const DEFINITION.0).cast_mut();
    // SAFETY: attached; the definition is static, and CPython only reads it. The reference is new, or null with an
    // exception set.
    unsafe {
        let function =
            ffi::PyCFunction_NewEx(definition, std::ptr::null_mut(), std::ptr::null_mut());
        Bound::from_owned_ptr_or_err(py, function)
    }
}

/// # Safety
/// Called by CPython by its calling convention for a fast call with keywords.
unsafe extern "C" fn import(
    _this: *mut PyObject,
    arguments: *const *mut PyObject,
    count: Py_ssize_t,
    keywords: *mut PyObject,
) -> *mut PyObject {
    // SAFETY: CPython calls with the GIL held.
    let py = unsafe { Python::assume_attached() };
    let Some(hooks) = HOOKS.get() else {
        return std::ptr::null_mut();
    };
    // SAFETY: the arguments are passed on as they came.
    let call = |function: &Py<PyAny>| unsafe {
        let guard = Parked;
        let result = vectorcall(
            function.as_ptr(),
            arguments,
            count.cast_unsigned(),
            keywords,
        );
        std::mem::forget(guard);
        result
    };
    if (hooks.diverts)() {
        return call(&hooks.other);
    }
    let depth = DEPTH.get();
    DEPTH.set(depth + 1);
    let result = call(&hooks.original);
    DEPTH.set(depth);
    // SAFETY: attached; the call returns a new reference, or null with an exception set.
    let Some(module) = (unsafe { Bound::from_owned_ptr_or_opt(py, result) }) else {
        return result;
    };
    if (hooks.is_anothers)(&module) {
        drop(module);
        return call(&hooks.other);
    }
    if depth == 0 {
        (hooks.imported)(py);
    }
    module.into_ptr()
}

mod unwinding {
    use pyo3::ffi::PyObject;

    // As in the parent module: the interpreter may end under what these call.
    unsafe extern "C-unwind" {
        #[cfg(Py_3_11)]
        pub(super) fn PyObject_Vectorcall(
            callable: *mut PyObject,
            arguments: *const *mut PyObject,
            count: usize,
            names: *mut PyObject,
        ) -> *mut PyObject;
        #[cfg(not(Py_3_11))]
        pub(super) fn PyObject_VectorcallDict(
            callable: *mut PyObject,
            arguments: *const *mut PyObject,
            count: usize,
            keywords: *mut PyObject,
        ) -> *mut PyObject;
    }
}
#[cfg(Py_3_11)]
use unwinding::PyObject_Vectorcall as vectorcall;

/// Stands for `PyObject_Vectorcall`, which libraries before Python 3.11 do not export.
///
/// # Safety
/// As for that function: `arguments` holds `count` objects, and one for each of `names` after them.
#[cfg(not(Py_3_11))]
unsafe fn vectorcall(
    callable: *mut PyObject,
    arguments: *const *mut PyObject,
    count: usize,
    names: *mut PyObject,
) -> *mut PyObject {
    // SAFETY: the caller's promise; the dictionary of keywords is ours until it is given back.
    unsafe {
        if names.is_null() {
            return unwinding::PyObject_VectorcallDict(callable, arguments, count, names);
        }
        let keywords = ffi::PyDict_New();
        for place in 0..ffi::PyTuple_GET_SIZE(names) {
            let name = ffi::PyTuple_GET_ITEM(names, place);
            ffi::PyDict_SetItem(
                keywords,
                name,
                *arguments.add(count + place.cast_unsigned()),
            );
        }
        let result = unwinding::PyObject_VectorcallDict(callable, arguments, count, keywords);
        ffi::Py_DECREF(keywords);
        result
    }
}
