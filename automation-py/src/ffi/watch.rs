//! Dictionary watchers (Python 3.12 and later): CPython tells of each change, before it is made, on the thread that
//! makes it. Knows nothing of whose dictionaries they are.

use std::ffi::c_int;
use std::sync::OnceLock;

use pyo3::exceptions::PyRuntimeError;
use pyo3::ffi::{self, PyObject};
use pyo3::prelude::*;
use pyo3::types::{PyAny, PyDict, PyType};

/// What is told of watched dictionaries. Called with the GIL held; must change no dictionary and run no Python code.
#[derive(Debug)]
pub(crate) struct WatchHooks {
    /// Returns whether a change of the dictionary at an address is of interest, made by code with these globals.
    pub(crate) is_wanted: fn(py: Python<'_>, dict: usize, globals: &Bound<'_, PyAny>) -> bool,
    /// Takes a change: of a key, to a value, or away.
    pub(crate) change:
        fn(dict: &Bound<'_, PyDict>, key: &Bound<'_, PyAny>, after: Option<&Bound<'_, PyAny>>),
    /// Notes that the dictionary at an address is gone.
    pub(crate) gone: fn(dict: usize),
}

static HOOKS: OnceLock<(WatchHooks, c_int)> = OnceLock::new();

// Of the `PyDict_WatchEvent` constants, those after the first three (added, changed, deleted).
const CLONED: c_int = 3;
const CLEARED: c_int = 4;
const DEALLOCATED: c_int = 5;

type Callback = unsafe extern "C" fn(c_int, *mut PyObject, *mut PyObject, *mut PyObject) -> c_int;

// What `pyo3-ffi` leaves out.
unsafe extern "C" {
    fn PyDict_AddWatcher(callback: Callback) -> c_int;
}

/// Sets the hooks, once in a process.
pub(crate) fn install_watch_hooks(py: Python<'_>, hooks: WatchHooks) -> PyResult<()> {
    // SAFETY: attached; the callback is a function of the right type that lives for ever.
    let watcher = unsafe { PyDict_AddWatcher(changed) };
    if watcher < 0 {
        return Err(PyErr::fetch(py));
    }
    let hooks = HOOKS.set((hooks, watcher));
    hooks.map_err(|_| PyRuntimeError::new_err("dictionaries are watched already"))
}

/// Watches a dictionary from now on.
pub(crate) fn watch(dict: &Bound<'_, PyDict>) {
    if let Some((_, watcher)) = HOOKS.get() {
        // SAFETY: attached; the watcher was registered, and the argument is a dictionary. It can't fail then.
        unsafe { ffi::PyDict_Watch(*watcher, dict.as_ptr()) };
    }
}

/// Returns the dictionary of a class itself, and not a view of it.
pub(crate) fn class_dict<'py>(class: &Bound<'py, PyType>) -> Option<Bound<'py, PyDict>> {
    // SAFETY: attached; the answer is a new reference, or null when there is none.
    let dict = unsafe {
        let dict = ffi::PyType_GetDict(class.as_type_ptr());
        Bound::from_owned_ptr_or_opt(class.py(), dict)
    };
    dict?.cast_into::<PyDict>().ok()
}

/// # Safety
/// Called by CPython as a dictionary watcher.
unsafe extern "C" fn changed(
    event: c_int,
    dict: *mut PyObject,
    key: *mut PyObject,
    after: *mut PyObject,
) -> c_int {
    let Some((hooks, _)) = HOOKS.get() else {
        return 0;
    };
    if event == DEALLOCATED {
        (hooks.gone)(dict.addr());
        return 0;
    }
    // SAFETY: CPython calls with the GIL held and with living objects, of which `after` is null for a deletion, and
    // `key` is the copied dictionary where one is copied into an empty one. The globals are borrowed from the frame
    // that executes, and null without one.
    unsafe {
        let py = Python::assume_attached();
        let Some(globals) = Bound::from_borrowed_ptr_or_opt(py, ffi::PyEval_GetGlobals()) else {
            return 0;
        };
        if !(hooks.is_wanted)(py, dict.addr(), &globals) {
            return 0;
        }
        let Ok(dict) = Bound::from_borrowed_ptr(py, dict).cast_into::<PyDict>() else {
            return 0;
        };
        let after = Bound::from_borrowed_ptr_or_opt(py, after);
        match event {
            CLEARED => each(&dict, |key, _| (hooks.change)(&dict, key, None)),
            CLONED => {
                if let Ok(copied) = Bound::from_borrowed_ptr(py, key).cast::<PyDict>() {
                    each(copied, |key, value| (hooks.change)(&dict, key, Some(value)));
                }
            }
            _ => (hooks.change)(&dict, &Bound::from_borrowed_ptr(py, key), after.as_ref()),
        }
    }
    0
}

fn each(dict: &Bound<'_, PyDict>, f: impl Fn(&Bound<'_, PyAny>, &Bound<'_, PyAny>)) {
    for (key, value) in dict.iter() {
        f(&key, &value);
    }
}
