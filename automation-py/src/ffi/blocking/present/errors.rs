//! The functions with which Python raises what `errno` says. A call that was ended raises the interruption instead, so
//! that no handler takes it for a failure of the network or the disk. Where Python calls them without its table of
//! addresses (builds for speed do) the script sees `OSError` with `ECANCELED` first.

use pyo3::ffi::PyObject;

use super::locks::interrupted;
use super::waits;

/// Defines stand-ins.
macro_rules! stand_ins {
    ($($name:ident => $original:ident($($argument:ident),*);)*) => {$(
        pub(super) unsafe extern "C" fn $name(
            class: *mut PyObject,
            $($argument: *mut PyObject),*
        ) -> *mut PyObject {
            // SAFETY: called attached, with the original's arguments.
            unsafe {
                if waits::take_ended_call() {
                    interrupted()
                } else {
                    pyo3::ffi::$original(class, $($argument),*)
                }
            }
        }
    )*};
}

stand_ins! {
    set_from_errno => PyErr_SetFromErrno();
    set_with_name => PyErr_SetFromErrnoWithFilenameObject(name);
    set_with_names => PyErr_SetFromErrnoWithFilenameObjects(name, other);
}
