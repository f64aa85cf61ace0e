//! Attributes of `sys` that each run has for itself. Descriptors on a class of `sys` give a run its own value by
//! attribute access, while C code that reads `sys.__dict__` finds the dispatching streams.

use pyo3::exceptions::PyAttributeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyModule};

use super::host::{restore_host_value, set_host_value};
use super::output::Output;
use super::streams::{Redirect, Stream, visible_stream};
use super::{Run, Slot, current};

/// What an attribute stands for.
#[derive(Debug, Clone, Copy)]
enum Kind {
    /// A stream that may be replaced.
    Stream(Stream),
    /// The stream as it was at first, `sys.__stdout__` for instance.
    Original(Stream),
    /// Another value, which the host keeps in `sys.__dict__`.
    Value(Slot),
}

impl Kind {
    const fn slot(self) -> Option<Slot> {
        match self {
            Self::Stream(stream) => Some(stream.slot()),
            Self::Value(slot) => Some(slot),
            Self::Original(_) => None,
        }
    }
}

/// The descriptor of one attribute.
#[pyclass(frozen, module = "automation._automation")]
pub(super) struct RunAttribute {
    name: &'static str,
    kind: Kind,
}

#[pymethods]
impl RunAttribute {
    fn __get__<'py>(
        slf: &Bound<'py, Self>,
        module: &Bound<'py, PyAny>,
        _kind: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        if module.is_none() {
            return Ok(slf.clone().into_any());
        }
        let attribute = slf.get();
        match attribute.kind {
            Kind::Stream(stream) => visible_stream(slf.py(), stream),
            Kind::Original(stream) => attribute.original(module, stream),
            Kind::Value(slot) => attribute.value(module, slot),
        }
    }

    fn __set__(&self, module: &Bound<'_, PyAny>, value: Bound<'_, PyAny>) -> PyResult<()> {
        let restores = self.restores(module, &value)?;
        let value = visible(value)?;
        match (current(), self.kind) {
            (Some(run), kind) => match kind.slot() {
                Some(slot) if restores => run.restore_slot(slot),
                Some(slot) if self.is_own(&value)? => run.clear_slot(slot),
                Some(slot) => run.set_slot(slot, value.unbind()),
                // A run that replaces it would replace it for everybody.
                None => {}
            },
            (None, Kind::Stream(stream)) if restores => restore_host_value(stream.slot()),
            // A stream that a run left stands for the host's own there.
            (None, Kind::Stream(_)) if value.is_instance_of::<Output>() => {}
            (None, Kind::Stream(stream)) => set_host_value(stream.slot(), value.unbind()),
            (None, _) => dict(module)?.set_item(self.name, value)?,
        }
        Ok(())
    }

    fn __delete__(&self, module: &Bound<'_, PyAny>) -> PyResult<()> {
        match (current(), self.kind) {
            (Some(run), kind) => {
                if let Some(slot) = kind.slot() {
                    run.clear_slot(slot);
                }
            }
            (None, Kind::Stream(stream)) => set_host_value(stream.slot(), module.py().None()),
            (None, _) => dict(module)?.del_item(self.name)?,
        }
        Ok(())
    }
}

impl RunAttribute {
    /// Returns whether a value is what the module's dictionary has: `unittest.mock.patch` reads there what it
    /// sets again at its end, and means by it what was there before.
    fn restores(&self, module: &Bound<'_, PyAny>, value: &Bound<'_, PyAny>) -> PyResult<bool> {
        let kept = dict(module)?.get_item(self.name)?;
        Ok(kept.is_some_and(|kept| kept.is(value)))
    }

    /// Returns whether a value is the stream that every run has at first.
    fn is_own(&self, value: &Bound<'_, PyAny>) -> PyResult<bool> {
        match self.kind {
            Kind::Stream(stream) if stream != Stream::Stdin => {
                Ok(value.is(Output::shared(value.py(), stream)?))
            }
            _ => Ok(false),
        }
    }

    fn original<'py>(
        &self,
        module: &Bound<'py, PyAny>,
        stream: Stream,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = module.py();
        match current() {
            Some(_) if stream == Stream::Stdin => visible_stream(py, stream),
            Some(_) => Ok(Output::original(py, stream)?.clone().into_any()),
            None => self.host_value(module),
        }
    }

    fn value<'py>(&self, module: &Bound<'py, PyAny>, slot: Slot) -> PyResult<Bound<'py, PyAny>> {
        let py = module.py();
        let Some(run) = current() else {
            return self.host_value(module);
        };
        match run.slot(py, slot) {
            Some(value) => Ok(value.into_bound(py)),
            None if slot == Slot::Argv => argv(py, &run),
            None => self.host_value(module),
        }
    }

    fn host_value<'py>(&self, module: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let value = dict(module)?.get_item(self.name)?;
        value.ok_or_else(|| {
            PyAttributeError::new_err(format!("module 'sys' has no attribute '{}'", self.name))
        })
    }
}

/// Returns what a value stands for at this moment: what dispatches to a stream must never become that stream.
fn visible(value: Bound<'_, PyAny>) -> PyResult<Bound<'_, PyAny>> {
    match value.cast::<Redirect>() {
        Ok(redirect) => visible_stream(value.py(), redirect.get().stream),
        Err(_) => Ok(value),
    }
}

/// Makes the run's `sys.argv`: a list like any other, since C code reads lists without asking their class.
fn argv<'py>(py: Python<'py>, run: &Run) -> PyResult<Bound<'py, PyAny>> {
    let argv = PyList::new(py, run.argv())?.into_any();
    run.set_slot(Slot::Argv, argv.clone().unbind());
    Ok(argv)
}

fn dict<'py>(module: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyDict>> {
    Ok(module.cast::<PyModule>()?.dict())
}

/// Gives `sys` the class with the descriptors.
pub(super) fn install(py: Python<'_>) -> PyResult<()> {
    let namespace = PyDict::new(py);
    let add = |name: &'static str, kind: Kind| {
        namespace.set_item(name, Py::new(py, RunAttribute { name, kind })?)
    };
    add("argv", Kind::Value(Slot::Argv))?;
    add("excepthook", Kind::Value(Slot::ExceptHook))?;
    add("stdin", Kind::Stream(Stream::Stdin))?;
    add("stdout", Kind::Stream(Stream::Stdout))?;
    add("stderr", Kind::Stream(Stream::Stderr))?;
    add("__stdin__", Kind::Original(Stream::Stdin))?;
    add("__stdout__", Kind::Original(Stream::Stdout))?;
    add("__stderr__", Kind::Original(Stream::Stderr))?;
    namespace.set_item("__slots__", ())?;
    let sys = py.import("sys")?;
    let kind =
        py.import("builtins")?
            .getattr("type")?
            .call1(("module", (sys.get_type(),), namespace))?;
    sys.setattr(intern!(py, "__class__"), kind)
}
