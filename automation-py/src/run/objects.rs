//! The Python objects that belong to one run: made when first asked for, given back when the run ends.

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyModule};

use super::Run;
use super::layers::Layers;

/// Attributes of `sys` that each run has for itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Slot {
    /// The command line.
    Argv,
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// Standard input: empty.
    Stdin,
    /// Where imports look.
    Path,
    /// What an uncaught exception is shown by.
    ExceptHook,
    /// What an uncaught exception of a thread is shown by.
    ThreadHook,
    /// What an exception that can't be raised is shown by.
    UnraisableHook,
    /// What finds modules.
    MetaPath,
    /// What finds modules in an entry of the import path.
    PathHooks,
    /// What is done with warnings.
    WarningFilters,
}

/// How many slots there are.
pub(super) const SLOTS: usize = 11;

/// The objects. The lock around them is never held while Python code may run, and that includes `__del__`:
/// what is replaced is handed out to be dropped by the caller.
#[derive(Debug, Default)]
pub(crate) struct Objects {
    slots: [Layers; SLOTS],
    /// The run's `__main__`.
    pub(crate) module: Option<Py<PyModule>>,
    /// The run's own modules of the scripts folder, by name.
    pub(super) folder_modules: Option<Py<PyDict>>,
    /// The run's own source of random numbers, once it has set one going.
    pub(super) random: Option<Py<PyAny>>,
    /// The run's configuration of loggers, by logger.
    pub(super) loggers: Option<Py<PyDict>>,
    /// The run's environment, once it differs from the process's.
    pub(crate) environ: Option<Py<PyDict>>,
    /// What the script registered with `atexit`: triples of function, arguments and keywords.
    pub(crate) exit_functions: Option<Py<PyList>>,
    /// `ctx.parameters`, `ctx.ticket`, `ctx.classification`, once asked for.
    pub(crate) context: [Option<Py<PyAny>>; 3],
}

impl Objects {
    /// Returns whether a slot holds anything.
    pub(super) fn is_set(&self, slot: Slot) -> bool {
        self.slots[slot as usize].top().is_some()
    }
}

impl Run {
    /// Returns what a slot holds.
    pub(crate) fn slot(&self, py: Python<'_>, slot: Slot) -> Option<Py<PyAny>> {
        let objects = self.objects.lock();
        objects.slots[slot as usize]
            .top()
            .map(|object| object.clone_ref(py))
    }

    /// Sets what a slot holds.
    pub(crate) fn set_slot(&self, slot: Slot, object: Py<PyAny>) {
        let gone = self.objects.lock().slots[slot as usize].set(object);
        drop(gone);
    }

    /// Goes back to what a slot held before.
    pub(super) fn restore_slot(&self, slot: Slot) {
        let gone = self.objects.lock().slots[slot as usize].restore();
        drop(gone);
    }

    /// Empties a slot.
    pub(super) fn clear_slot(&self, slot: Slot) {
        let gone = self.objects.lock().slots[slot as usize].clear();
        drop(gone);
    }

    /// Returns the run's `__main__`, while it has one.
    pub(crate) fn module<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyModule>> {
        let objects = self.objects.lock();
        objects
            .module
            .as_ref()
            .map(|module| module.bind(py).clone())
    }

    /// Gives every object back. Called with the GIL held, so that they are freed here and now.
    pub(crate) fn release_objects(&self, _py: Python<'_>) {
        let objects = std::mem::take(&mut *self.objects.lock());
        drop(objects);
    }
}
