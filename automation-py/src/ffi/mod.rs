//! The calls that PyO3 has no safe form for. The only folder of this crate with `unsafe`; it knows nothing of runs.

#![expect(unsafe_code, reason = "the one folder for calls without a safe form")]

mod allocators;
mod arenas;
pub(crate) mod audit;
pub(crate) mod blocking;
pub(crate) mod crash;
mod heap;
mod import;
pub(crate) mod mask;
#[cfg(not(Py_3_12))]
mod pairs;
pub(crate) mod place;
pub(crate) mod stack;
mod tally;
mod thread_clock;
pub(crate) mod tracing;
#[cfg(Py_3_12)]
mod watch;

use std::ffi::{CStr, CString, OsStr};
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple, PyType};

pub(crate) use self::allocators::install as install_allocators;
pub(crate) use self::heap::{keep_little, return_memory};
pub(crate) use self::import::{
    ImportHooks, import_function, importing, is_importing, outside_imports,
};
#[cfg(not(Py_3_12))]
pub(crate) use self::pairs::{Pairs, class_dict};
pub(crate) use self::tally::{Charging, Memory, charge_nobody};
pub(crate) use self::thread_clock::{ThreadClock, thread_cpu_time};
#[cfg(Py_3_12)]
pub(crate) use self::watch::{WatchHooks, class_dict, install_watch_hooks, watch};

/// Identifies a thread for [`raise_in_thread`]; unique among living threads only.
pub(crate) type ThreadIdent = std::ffi::c_ulong;

/// Returns whether Python runs in this process.
pub(crate) fn is_initialized() -> bool {
    // SAFETY: may be called at any time.
    unsafe { ffi::Py_IsInitialized() != 0 }
}

/// Returns the version of the library that is loaded, for instance `3.11.7 (main, ...) [GCC ...]`. Python need not run.
pub(crate) fn library_version() -> String {
    // SAFETY: may be called at any time; the answer is a constant string of the library.
    let version = unsafe { CStr::from_ptr(ffi::Py_GetVersion()) };
    version.to_string_lossy().into_owned()
}

/// Returns the file that holds the loaded library, where the platform tells.
pub(crate) fn library_path() -> Option<PathBuf> {
    let mut info = MaybeUninit::<libc::Dl_info>::zeroed();
    let symbol = ffi::Py_GetVersion as *const () as *const libc::c_void;
    // SAFETY: `symbol` is an address in a loaded object, and `info` is written to when the answer is not 0.
    let found = unsafe { libc::dladdr(symbol, info.as_mut_ptr()) } != 0;
    // SAFETY: zeroed above, and all-zero is a valid value of its pointers and integers.
    let info = unsafe { info.assume_init() };
    if !found || info.dli_fname.is_null() {
        return None;
    }
    // SAFETY: the loader's own string, which lives as long as the object is loaded.
    let name = unsafe { CStr::from_ptr(info.dli_fname) };
    let path = PathBuf::from(OsStr::from_bytes(name.to_bytes()));
    Some(path.canonicalize().unwrap_or(path))
}

/// Starts Python as if `executable` had been started: its environment, its packages. The calling thread
/// becomes Python's main thread, and does not hold the GIL afterwards.
///
/// The process's environment and locale are neither read nor changed, signals stay the host's, text is UTF-8.
pub(crate) fn initialize(executable: &Path) -> Result<(), String> {
    let path = CString::new(executable.as_os_str().as_bytes())
        .map_err(|_| "the interpreter's path holds a null byte".to_owned())?;
    // SAFETY: Python does not run yet (the caller's lock sees to it), and the configuration functions are
    // called in the documented order on structs that the `Init` functions have filled.
    unsafe {
        let mut pre = MaybeUninit::<ffi::PyPreConfig>::uninit();
        ffi::PyPreConfig_InitPythonConfig(pre.as_mut_ptr());
        let mut pre = pre.assume_init();
        pre.parse_argv = 0;
        pre.use_environment = 0;
        pre.configure_locale = 0;
        pre.coerce_c_locale = 0;
        pre.utf8_mode = 1;
        check(ffi::Py_PreInitialize(&raw const pre))?;

        let mut config = MaybeUninit::<ffi::PyConfig>::uninit();
        ffi::PyConfig_InitPythonConfig(config.as_mut_ptr());
        let mut config = config.assume_init();
        config.parse_argv = 0;
        config.use_environment = 0;
        config.install_signal_handlers = 0;
        config.configure_c_stdio = 0;
        config.pathconfig_warnings = 0;
        let (config, target) = (&raw mut config, &raw mut config.executable);
        let started = check(ffi::PyConfig_SetBytesString(config, target, path.as_ptr()))
            .and_then(|()| check(ffi::Py_InitializeFromConfig(config)));
        ffi::PyConfig_Clear(config);
        started?;
        ffi::PyEval_SaveThread();
    }
    Ok(())
}

/// Turns a status into an error with its text.
///
/// # Safety
/// `status` comes from a configuration function.
unsafe fn check(status: ffi::PyStatus) -> Result<(), String> {
    // SAFETY: reads the struct's tag.
    if unsafe { ffi::PyStatus_Exception(status) } == 0 {
        return Ok(());
    }
    if status.err_msg.is_null() {
        return Err(format!("exit code {}", status.exitcode));
    }
    // SAFETY: error messages are constant strings of the library.
    let text = unsafe { CStr::from_ptr(status.err_msg) };
    Err(text.to_string_lossy().into_owned())
}

mod unwinding {
    use pyo3::ffi::PyObject;

    // Before Python 3.14 a thread that asks for the GIL while the interpreter ends leaves by `pthread_exit`, which
    // unwinds the stack.
    unsafe extern "C-unwind" {
        pub(super) fn PyEval_EvalCode(
            code: *mut PyObject,
            globals: *mut PyObject,
            locals: *mut PyObject,
        ) -> *mut PyObject;
        pub(super) fn PyObject_Call(
            callable: *mut PyObject,
            arguments: *mut PyObject,
            keywords: *mut PyObject,
        ) -> *mut PyObject;
    }
}

/// Keeps the thread for ever when it is unwound: no Rust frame may see such an unwinding, which ends the process.
struct Parked;

impl Drop for Parked {
    fn drop(&mut self) {
        loop {
            std::thread::park();
        }
    }
}

/// Executes a code object in a namespace. Never returns once the interpreter ends.
pub(crate) fn eval<'py>(
    code: &Bound<'py, PyAny>,
    namespace: &Bound<'py, PyDict>,
) -> PyResult<Bound<'py, PyAny>> {
    let guard = Parked;
    let (code_ptr, namespace) = (code.as_ptr(), namespace.as_ptr());
    // SAFETY: attached, as both arguments show; `code` is a code object, which is what the compile cache holds.
    let result = unsafe { unwinding::PyEval_EvalCode(code_ptr, namespace, namespace) };
    std::mem::forget(guard);
    // SAFETY: attached; the call returns a new reference, or null with an exception set.
    unsafe { Bound::from_owned_ptr_or_err(code.py(), result) }
}

/// Calls what may execute a script's code. Never returns once the interpreter ends.
pub(crate) fn call<'py>(
    callable: &Bound<'py, PyAny>,
    arguments: &Bound<'py, PyTuple>,
    keywords: Option<&Bound<'py, PyDict>>,
) -> PyResult<Bound<'py, PyAny>> {
    let guard = Parked;
    let keywords = keywords.map_or(std::ptr::null_mut(), |keywords| keywords.as_ptr());
    // SAFETY: attached, as the arguments show; null stands for no keywords.
    let result =
        unsafe { unwinding::PyObject_Call(callable.as_ptr(), arguments.as_ptr(), keywords) };
    std::mem::forget(guard);
    // SAFETY: attached; the call returns a new reference, or null with an exception set.
    unsafe { Bound::from_owned_ptr_or_err(callable.py(), result) }
}

/// Returns the global names of the Python code that executes on this thread, if any does.
pub(crate) fn globals(py: Python<'_>) -> Option<Bound<'_, PyDict>> {
    // SAFETY: attached, as the token shows; the answer is borrowed from the frame, or null without one.
    let globals = unsafe { Bound::from_borrowed_ptr_or_opt(py, ffi::PyEval_GetGlobals()) };
    globals?.cast_into().ok()
}

/// Calls what takes no arguments as [`call`] does.
pub(crate) fn call0<'py>(callable: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    call(callable, &PyTuple::empty(callable.py()), None)
}

/// Returns the calling thread's identity.
pub(crate) fn thread_ident() -> ThreadIdent {
    // SAFETY: may be called on any thread.
    unsafe { ffi::PyThread_get_thread_ident() }
}

/// A thread as Python and as the kernel know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Thread {
    pub(crate) ident: ThreadIdent,
    pub(crate) number: i32,
}

impl Thread {
    /// Returns the calling thread.
    pub(crate) fn this() -> Self {
        Self {
            ident: thread_ident(),
            number: blocking::thread_number(),
        }
    }
}

/// Makes a thread raise `exception` as soon as it executes Python code. Replaces one that waits to be raised.
///
/// There is no way to take it back: clearing it leaves a flag set (CPython 3.11), for which traced code then looks
/// without end. It has to be met.
pub(crate) fn raise_in_thread(ident: ThreadIdent, exception: &Bound<'_, PyType>) {
    // SAFETY: attached, as the argument shows; an identity of no living thread is answered with 0.
    unsafe { ffi::PyThreadState_SetAsyncExc(ident.cast_signed(), exception.as_ptr()) };
}

/// A fresh `contextvars` context on this thread, left when dropped: a run must not see what an earlier one
/// on the same thread left in it, the `decimal` context for instance.
pub(crate) struct FreshContext<'py>(Bound<'py, PyAny>);

impl<'py> FreshContext<'py> {
    /// Creates and enters one.
    pub(crate) fn enter(py: Python<'py>) -> PyResult<Self> {
        // SAFETY: attached, as the token shows; the new reference is owned by the guard.
        unsafe {
            let context = Bound::from_owned_ptr_or_err(py, ffi::PyContext_New())?;
            match ffi::PyContext_Enter(context.as_ptr()) {
                0 => Ok(Self(context)),
                _ => Err(PyErr::fetch(py)),
            }
        }
    }
}

impl Drop for FreshContext<'_> {
    fn drop(&mut self) {
        // SAFETY: attached, as the guard's lifetime shows; an error is cleared, since nobody could act on it.
        unsafe {
            if ffi::PyContext_Exit(self.0.as_ptr()) != 0 {
                ffi::PyErr_Clear();
            }
        }
    }
}

/// Has a function called when the process ends by `exit`: the one that was registered last is called first.
pub(crate) fn at_exit(function: extern "C" fn()) {
    // SAFETY: the function lives as long as this library, which is never unloaded. Without memory for it, it is not
    // called.
    unsafe { libc::atexit(function) };
}

/// Ends the process at once, without any clean-up: the only way out of a forked child.
pub(crate) fn exit_child(code: i32) -> ! {
    // SAFETY: never returns.
    unsafe { libc::_exit(code) }
}
