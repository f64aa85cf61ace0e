//! The size of the stacks of threads that Python starts.

use std::marker::PhantomData;

use pyo3::prelude::*;

unsafe extern "C" {
    fn PyThread_get_stacksize() -> usize;
    fn PyThread_set_stacksize(bytes: usize) -> std::ffi::c_int;
}

/// Threads that Python starts have another stack size until this is dropped. The GIL keeps the host's out of it.
pub(crate) struct DeepStack<'py> {
    former: usize,
    attached: PhantomData<Python<'py>>,
}

impl<'py> DeepStack<'py> {
    pub(crate) fn of_new_threads(_py: Python<'py>, bytes: usize) -> Self {
        // SAFETY: attached, as the token shows.
        let former = unsafe { PyThread_get_stacksize() };
        // SAFETY: attached. A size that the system refuses leaves the former one.
        unsafe { PyThread_set_stacksize(bytes) };
        Self {
            former,
            attached: PhantomData,
        }
    }
}

impl Drop for DeepStack<'_> {
    fn drop(&mut self) {
        // SAFETY: attached, as the lifetime shows; the size was accepted before, and 0 means the system's.
        unsafe { PyThread_set_stacksize(self.former) };
    }
}
