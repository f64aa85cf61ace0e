//! The interpreter's audit hook. It is one for the process, and nothing takes it away again.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use pyo3::exceptions::PyRuntimeError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyTuple;

/// Hears of an event. An error keeps from happening what the event announces.
pub(crate) type Listener = fn(Python<'_>, &[u8], &Bound<'_, PyTuple>) -> PyResult<()>;

/// Who hears of what.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Audit {
    /// Whether the calling thread's events are heard. Asked first: a program has millions of events.
    pub(crate) is_heard: fn() -> bool,
    /// Called with each event of such a thread.
    pub(crate) listener: Listener,
}

static AUDIT: OnceLock<Audit> = OnceLock::new();
/// Whether the hook was called before there was anybody to tell.
static HEARS: AtomicBool = AtomicBool::new(false);

unsafe extern "C" {
    fn PySys_AddAuditHook(
        hook: unsafe extern "C" fn(*const c_char, *mut ffi::PyObject, *mut c_void) -> c_int,
        data: *mut c_void,
    ) -> c_int;
}

/// Starts listening, once.
///
/// # Errors
/// A hook that was there before objects.
pub(crate) fn listen(py: Python<'_>, audit: Audit) -> PyResult<()> {
    // SAFETY: attached, as the token shows; the hook is a function of this library, which is never unloaded.
    if unsafe { PySys_AddAuditHook(hook, std::ptr::null_mut()) } != 0 {
        return Err(PyErr::fetch(py));
    }
    // Some objections are not told. A hook that is there hears this, and has nobody to tell it yet.
    py.import("sys")?
        .call_method1("audit", ("automation.listen",))?;
    if !HEARS.load(Ordering::Relaxed) {
        return Err(PyRuntimeError::new_err("another audit hook objects"));
    }
    let _ = AUDIT.set(audit);
    Ok(())
}

/// # Safety
/// Called by the interpreter, attached, with a name and a tuple (or null while it starts or ends).
unsafe extern "C" fn hook(
    name: *const c_char,
    arguments: *mut ffi::PyObject,
    _data: *mut c_void,
) -> c_int {
    let Some(audit) = AUDIT.get() else {
        HEARS.store(true, Ordering::Relaxed);
        return 0;
    };
    if arguments.is_null() || !(audit.is_heard)() {
        return 0;
    }
    // SAFETY: the interpreter's event names are constant strings.
    let name = unsafe { CStr::from_ptr(name) }.to_bytes();
    let heard = catch_unwind(AssertUnwindSafe(|| {
        // SAFETY: a thread of a run that raises an event is attached.
        let py = unsafe { Python::assume_attached() };
        // SAFETY: a borrowed reference, alive for as long as the call lasts.
        let arguments = unsafe { Bound::from_borrowed_ptr(py, arguments) };
        let Ok(arguments) = arguments.cast::<PyTuple>() else {
            return 0;
        };
        match (audit.listener)(py, name, arguments) {
            Ok(()) => 0,
            Err(error) => {
                error.restore(py);
                -1
            }
        }
    }));
    heard.unwrap_or(0)
}
