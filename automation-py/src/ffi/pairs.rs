//! Compares dictionaries with what they held, by identity, as fast as memory allows: thousands of pairs in tens of
//! microseconds, where safe iteration would count references. For Python before 3.12, which has no watchers.

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyAny, PyDict, PyType};

/// What a dictionary held.
#[derive(Debug)]
pub(crate) struct Pairs(Vec<(Py<PyAny>, Py<PyAny>)>);

impl Pairs {
    /// Returns what a dictionary holds.
    pub(crate) fn of(dict: &Bound<'_, PyDict>) -> Self {
        let pairs = dict
            .iter()
            .map(|(key, value)| (key.unbind(), value.unbind()));
        Self(pairs.collect())
    }

    /// Returns the pairs.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &(Py<PyAny>, Py<PyAny>)> {
        self.0.iter()
    }

    /// Returns whether a dictionary still holds the same objects in the same order.
    pub(crate) fn are_in(&self, dict: &Bound<'_, PyDict>) -> bool {
        let (mut key, mut value) = (std::ptr::null_mut(), std::ptr::null_mut());
        let mut place = 0;
        let mut kept = self.0.iter();
        // SAFETY: attached, and nothing runs in the loop that could change the dictionary; what it hands out is
        // compared as addresses only.
        while unsafe { ffi::PyDict_Next(dict.as_ptr(), &mut place, &mut key, &mut value) } != 0 {
            let Some((kept_key, kept_value)) = kept.next() else {
                return false;
            };
            if kept_key.as_ptr() != key || kept_value.as_ptr() != value {
                return false;
            }
        }
        kept.next().is_none()
    }
}

/// Returns the dictionary of a class itself, and not a view of it.
pub(crate) fn class_dict<'py>(class: &Bound<'py, PyType>) -> Option<Bound<'py, PyDict>> {
    // SAFETY: attached; before Python 3.12 every class that is ready has its dictionary there.
    let dict = unsafe {
        let dict = (*class.as_type_ptr()).tp_dict;
        Bound::from_borrowed_ptr_or_opt(class.py(), dict)
    };
    dict?.cast_into::<PyDict>().ok()
}
