//! Values that are set one over the other, as nested patches of `sys.stdout` do. Knows nothing of what they are for.

use pyo3::prelude::*;

/// Values that are kept; code that never restores what it replaces would keep all of them alive.
const VALUES_MAX: usize = 32;

/// The values; the last one counts. What a method returns is gone, and is dropped by the caller: with it may run
/// a `__del__`, which must meet no lock.
#[derive(Debug, Default)]
pub(super) struct Layers(Vec<Py<PyAny>>);

impl Layers {
    /// Returns layers without a value.
    pub(super) const fn new() -> Self {
        Self(Vec::new())
    }

    /// Returns the value that counts.
    pub(super) fn top(&self) -> Option<&Py<PyAny>> {
        self.0.last()
    }

    /// Returns how many values there are.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Puts a value over the others; goes back to it where it is among them.
    #[must_use = "dropping may run Python code"]
    pub(super) fn set(&mut self, value: Py<PyAny>) -> Vec<Py<PyAny>> {
        if let Some(place) = self.0.iter().position(|held| held.is(&value)) {
            let mut gone = self.0.split_off(place + 1);
            gone.push(value);
            return gone;
        }
        self.0.push(value);
        if self.0.len() > VALUES_MAX {
            // The lowest is what all of it began with.
            return vec![self.0.remove(1)];
        }
        Vec::new()
    }

    /// Takes the value that counts away.
    #[must_use = "dropping may run Python code"]
    pub(super) fn restore(&mut self) -> Option<Py<PyAny>> {
        self.0.pop()
    }

    /// Takes all values away.
    #[must_use = "dropping may run Python code"]
    pub(super) fn clear(&mut self) -> Vec<Py<PyAny>> {
        std::mem::take(&mut self.0)
    }
}
