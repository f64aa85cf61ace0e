//! One change of something that the whole process has: how it reads, whether it is still in place, how it is undone.

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString, PyType};

use super::moment::Moment;
use crate::ffi;

/// What was changed.
#[derive(Debug)]
pub(super) enum Target {
    /// A name of a module, or an entry of `sys.modules`.
    Item(Py<PyDict>, Py<PyString>),
    /// An attribute of a class.
    Attribute(Py<PyType>, Py<PyDict>, Py<PyString>),
    /// A setting, with the functions that read and write it.
    Setting { read: Py<PyAny>, write: Py<PyAny> },
}

/// A change.
#[derive(Debug)]
pub(super) struct Change {
    pub(super) target: Target,
    /// What was changed, in words.
    pub(super) name: String,
    pub(super) before: Option<Py<PyAny>>,
    pub(super) after: Option<Py<PyAny>>,
    pub(super) since: Moment,
}

impl Change {
    /// Returns whether both are about the same thing.
    pub(super) fn is_about(&self, py: Python<'_>, other: &Target) -> bool {
        match (&self.target, other) {
            (Target::Item(dict, key), Target::Item(of, name))
            | (Target::Attribute(_, dict, key), Target::Attribute(_, of, name)) => {
                dict.is(of) && is_same(py, key, name)
            }
            (Target::Setting { write, .. }, Target::Setting { write: other, .. }) => {
                write.is(other)
            }
            _ => false,
        }
    }

    /// Returns what was changed and how, for instance `json.dumps was replaced`.
    pub(super) fn text(&self) -> String {
        let how = match (&self.target, &self.before, &self.after) {
            (Target::Setting { .. }, ..) => "was changed",
            (_, None, _) => "was added",
            (_, _, None) => "was removed",
            _ => "was replaced",
        };
        format!("{} {how}", self.name)
    }

    /// Returns whether what was there before is there again.
    pub(super) fn is_undone(&self, py: Python<'_>) -> PyResult<bool> {
        self.is_at(py, self.before.as_ref())
    }

    /// Returns whether what the run has set is still there.
    pub(super) fn is_in_place(&self, py: Python<'_>) -> PyResult<bool> {
        self.is_at(py, self.after.as_ref())
    }

    fn is_at(&self, py: Python<'_>, value: Option<&Py<PyAny>>) -> PyResult<bool> {
        let now = match &self.target {
            Target::Item(dict, key) | Target::Attribute(_, dict, key) => {
                dict.bind(py).get_item(key)?
            }
            Target::Setting { read, .. } => {
                let now = read.bind(py).call0()?;
                return value.map_or(Ok(false), |value| now.eq(value));
            }
        };
        Ok(match (now, value) {
            (None, None) => true,
            (Some(now), Some(value)) => now.is(value),
            _ => false,
        })
    }

    /// Puts back what was there before.
    pub(super) fn undo(&self, py: Python<'_>) -> PyResult<()> {
        match (&self.target, &self.before) {
            (Target::Item(dict, key), Some(before)) => dict.bind(py).set_item(key, before),
            (Target::Item(dict, key), None) => dict.bind(py).del_item(key),
            (Target::Attribute(class, _, key), before) => {
                // Past a metaclass that has opinions, such as that of enumerations.
                let kind = py.get_type::<PyType>();
                match before {
                    Some(before) => {
                        kind.call_method1(intern!(py, "__setattr__"), (class, key, before))?
                    }
                    None => kind.call_method1(intern!(py, "__delattr__"), (class, key))?,
                };
                Ok(())
            }
            // What it does to modules is nobody's change any more.
            (Target::Setting { write, .. }, before) => {
                ffi::importing(py, || write.bind(py).call1((before,))).map(drop)
            }
        }
    }
}

fn is_same(py: Python<'_>, key: &Py<PyString>, other: &Py<PyString>) -> bool {
    key.is(other) || key.bind(py).to_string_lossy() == other.bind(py).to_string_lossy()
}
