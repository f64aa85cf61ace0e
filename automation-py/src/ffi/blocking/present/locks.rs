//! Python's lock methods, which take part in ending waits.
//!
//! A wait for a lock that is ended looks to CPython like one that timed out, and `with lock:` would go on as if it held
//! the lock. So the C functions behind the methods are replaced, in the tables that Python's types share with every
//! bound method: no Python object changes. On a thread without a run they do what they always did.

use std::ffi::{c_int, c_void};
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicPtr, Ordering};

use pyo3::ffi::{self, Py_ssize_t, PyMethodDef, PyObject, PyTypeObject};
use pyo3::prelude::*;
use pyo3::types::PyType;

use super::waits;

/// The exception that ends a wait.
static INTERRUPTION: AtomicPtr<PyObject> = AtomicPtr::new(ptr::null_mut());
/// Meets an interruption that waits in this thread, which is the same one.
static MEET: AtomicPtr<PyObject> = AtomicPtr::new(ptr::null_mut());

type Plain = unsafe extern "C" fn(*mut PyObject, *mut PyObject) -> *mut PyObject;
type Keywords = unsafe extern "C" fn(*mut PyObject, *mut PyObject, *mut PyObject) -> *mut PyObject;
type Fast = unsafe extern "C" fn(
    *mut PyObject,
    *const *mut PyObject,
    Py_ssize_t,
    *mut PyObject,
) -> *mut PyObject;
type Method = unsafe extern "C" fn(
    *mut PyObject,
    *mut PyTypeObject,
    *const *mut PyObject,
    Py_ssize_t,
    *mut PyObject,
) -> *mut PyObject;

static LOCK: OnceLock<Keywords> = OnceLock::new();
static RECURSIVE_LOCK: OnceLock<Keywords> = OnceLock::new();
static QUEUE_FAST: OnceLock<Fast> = OnceLock::new();
static QUEUE: OnceLock<Method> = OnceLock::new();
static JOIN: OnceLock<Plain> = OnceLock::new();

/// Time for which a thread that ends a run's waits waits for another at a time, where Python offers no end.
const SLICE_SECONDS: f64 = 0.02;

/// Replaces the functions behind the lock methods. Returns whether all were as expected.
pub(super) fn install(
    py: Python<'_>,
    interruption: &Bound<'_, PyType>,
    meet: &Bound<'_, PyAny>,
) -> PyResult<bool> {
    INTERRUPTION.store(interruption.clone().into_ptr(), Ordering::Release);
    MEET.store(meet.clone().into_ptr(), Ordering::Release);
    let threads = py.import("_thread")?;
    let (lock, recursive) = (threads.getattr("LockType")?, threads.getattr("RLock")?);
    let queue = py.import("_queue")?.getattr("SimpleQueue")?;
    const KEYWORDS: c_int = ffi::METH_VARARGS | ffi::METH_KEYWORDS;
    const FAST: c_int = ffi::METH_FASTCALL | ffi::METH_KEYWORDS;
    let mut whole = true;
    for name in ["acquire", "acquire_lock", "__enter__"] {
        whole &= replace(&lock, name, KEYWORDS, &LOCK, lock_acquire as Keywords);
    }
    for name in ["acquire", "__enter__"] {
        whole &= replace(
            &recursive,
            name,
            KEYWORDS,
            &RECURSIVE_LOCK,
            recursive_acquire as Keywords,
        );
    }
    whole &= if cfg!(Py_3_10) {
        replace(
            &queue,
            "get",
            FAST | ffi::METH_METHOD,
            &QUEUE,
            queue_get as Method,
        )
    } else {
        replace(&queue, "get", FAST, &QUEUE_FAST, queue_get_fast as Fast)
    };
    if let Some(handle) = threads.getattr_opt("_ThreadHandle")? {
        whole &= replace(&handle, "join", ffi::METH_VARARGS, &JOIN, join as Plain);
    }
    Ok(whole)
}

/// Replaces the function behind a method that is called as expected.
fn replace<F: Copy>(
    class: &Bound<'_, PyAny>,
    name: &str,
    convention: c_int,
    kept: &OnceLock<F>,
    stand_in: F,
) -> bool {
    const { assert!(size_of::<F>() == size_of::<*mut c_void>()) };
    let Ok(method) = class.getattr(name) else {
        return false;
    };
    // SAFETY: attached; the type says that it is a method of a type that is written in C, which refers to a static
    // table. The convention says what kind of function is there, and so does `F`.
    unsafe {
        if ffi::Py_TYPE(method.as_ptr()) != &raw mut ffi::PyMethodDescr_Type {
            return false;
        }
        let definition: *mut PyMethodDef =
            (*method.as_ptr().cast::<ffi::PyMethodDescrObject>()).d_method;
        if (*definition).ml_flags & !ffi::METH_COEXIST != convention {
            return false;
        }
        let place = (&raw mut (*definition).ml_meth).cast::<F>();
        kept.get_or_init(|| place.read());
        place.write(stand_in);
    }
    true
}

/// Calls a lock's method on a thread of a run, and raises the interruption if its wait was ended.
///
/// # Safety
/// Attached; `call` returns a new reference, or null with an exception set.
unsafe fn guarded(call: impl FnOnce() -> *mut PyObject) -> *mut PyObject {
    let (result, ended) = waits::in_lock_method(call);
    // SAFETY: attached.
    unsafe {
        if !ended || !(result.is_null() || result == ffi::Py_False()) {
            return result;
        }
        ffi::Py_XDECREF(result);
        ffi::PyErr_Clear();
        interrupted()
    }
}

/// Raises the interruption: once, so that what cleans up is not hit by the one that waits in this thread.
///
/// # Safety
/// Attached, with no exception set.
pub(super) unsafe fn interrupted() -> *mut PyObject {
    // SAFETY: attached, and both objects were set before any function was replaced.
    unsafe {
        ffi::Py_XDECREF(ffi::PyObject_CallNoArgs(MEET.load(Ordering::Acquire)));
        ffi::PyErr_SetNone(INTERRUPTION.load(Ordering::Acquire));
    }
    ptr::null_mut()
}

/// Returns whether arguments are values that no code runs for.
///
/// # Safety
/// Attached; `items` are `count` objects.
unsafe fn are_plain(items: *const *mut PyObject, count: usize) -> bool {
    (0..count).all(|at| {
        // SAFETY: as the caller states.
        unsafe {
            let item = *items.add(at);
            item == ffi::Py_None()
                || ffi::PyBool_Check(item) != 0
                || ffi::PyLong_CheckExact(item) != 0
                || ffi::PyFloat_CheckExact(item) != 0
        }
    })
}

/// Returns whether the arguments of a call are values that no code runs for.
///
/// # Safety
/// Attached; a tuple and a dictionary, or null.
unsafe fn is_plain_call(arguments: *mut PyObject, keywords: *mut PyObject) -> bool {
    // SAFETY: as the caller states; items are borrowed.
    unsafe {
        let count = ffi::PyTuple_Size(arguments);
        let plain = (0..count).all(|at| are_plain(&ffi::PyTuple_GetItem(arguments, at), 1));
        let (mut at, mut value) = (0, ptr::null_mut());
        let mut plain_keywords = true;
        while !keywords.is_null()
            && ffi::PyDict_Next(keywords, &raw mut at, ptr::null_mut(), &raw mut value) != 0
        {
            plain_keywords &= are_plain(&value, 1);
        }
        plain && plain_keywords
    }
}

/// Returns what was kept of a function that was replaced.
fn original<F: Copy>(kept: &OnceLock<F>) -> F {
    *kept
        .get()
        .expect("kept before the stand-in is in its place")
}

macro_rules! acquire {
    ($name:ident, $kept:ident) => {
        unsafe extern "C" fn $name(
            this: *mut PyObject,
            arguments: *mut PyObject,
            keywords: *mut PyObject,
        ) -> *mut PyObject {
            // SAFETY: called by Python in the convention of the original, which gets what came.
            unsafe {
                let call = || original(&$kept)(this, arguments, keywords);
                if waits::is_bound() && is_plain_call(arguments, keywords) {
                    guarded(call)
                } else {
                    call()
                }
            }
        }
    };
}

acquire!(lock_acquire, LOCK);
acquire!(recursive_acquire, RECURSIVE_LOCK);

unsafe extern "C" fn queue_get(
    this: *mut PyObject,
    class: *mut PyTypeObject,
    arguments: *const *mut PyObject,
    count: Py_ssize_t,
    names: *mut PyObject,
) -> *mut PyObject {
    // SAFETY: as for locks; the values of keywords follow the others.
    unsafe {
        let call = || original(&QUEUE)(this, class, arguments, count, names);
        if waits::is_bound() && are_plain(arguments, values(count, names)) {
            guarded(call)
        } else {
            call()
        }
    }
}

unsafe extern "C" fn queue_get_fast(
    this: *mut PyObject,
    arguments: *const *mut PyObject,
    count: Py_ssize_t,
    names: *mut PyObject,
) -> *mut PyObject {
    // SAFETY: as above.
    unsafe {
        let call = || original(&QUEUE_FAST)(this, arguments, count, names);
        if waits::is_bound() && are_plain(arguments, values(count, names)) {
            guarded(call)
        } else {
            call()
        }
    }
}

/// Returns how many values a call passes.
///
/// # Safety
/// Attached; `names` is a tuple or null.
unsafe fn values(count: Py_ssize_t, names: *mut PyObject) -> usize {
    let named = if names.is_null() {
        0
    } else {
        // SAFETY: as the caller states.
        unsafe { ffi::PyTuple_Size(names) }
    };
    (count + named).unsigned_abs()
}

/// Waits for a thread's end (3.13 and later), a slice at a time: Python repeats an endless wait whatever ends it.
unsafe extern "C" fn join(this: *mut PyObject, arguments: *mut PyObject) -> *mut PyObject {
    // SAFETY: called by Python, attached, with a handle and a tuple.
    unsafe {
        let first = (ffi::PyTuple_Size(arguments) == 1).then(|| ffi::PyTuple_GetItem(arguments, 0));
        let endless = ffi::PyTuple_Size(arguments) == 0 || first == Some(ffi::Py_None());
        if !waits::is_bound() || !endless {
            return original(&JOIN)(this, arguments);
        }
        let slice = ffi::Py_BuildValue(c"(d)".as_ptr(), SLICE_SECONDS);
        let result = join_in_slices(this, slice, arguments);
        ffi::Py_XDECREF(slice);
        result
    }
}

/// # Safety
/// Attached; `slice` and `endless` are argument tuples.
unsafe fn join_in_slices(
    this: *mut PyObject,
    slice: *mut PyObject,
    endless: *mut PyObject,
) -> *mut PyObject {
    // SAFETY: attached; each call returns a new reference, or null with an exception set.
    unsafe {
        while !slice.is_null() {
            let result = original(&JOIN)(this, slice);
            if result.is_null() {
                return result;
            }
            ffi::Py_DECREF(result);
            let done = ffi::PyObject_CallMethod(this, c"is_done".as_ptr(), ptr::null());
            if done.is_null() {
                return done;
            }
            ffi::Py_DECREF(done);
            if done == ffi::Py_True() {
                return original(&JOIN)(this, endless);
            }
            if waits::is_cut() {
                return interrupted();
            }
        }
        ptr::null_mut()
    }
}
