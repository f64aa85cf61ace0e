//! Attributes of `sys`, `threading` and `warnings` that each run has for itself. Descriptors on a class of the module give a run
//! its own value by attribute access, while C code that reads the module's dictionary finds what dispatches.

use pyo3::exceptions::PyAttributeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyModule};

use super::folder::folder;
use super::hooks::{Hook, visible_hook};
use super::host::{restore_host_value, set_host_value};
use super::output::Output;
use super::streams::{Redirect, Stream, visible_stream};
use super::{Run, Slot, current, free_of_charge};
use crate::ffi;

/// What an attribute stands for.
#[derive(Debug, Clone, Copy)]
enum Kind {
    /// A stream that may be replaced.
    Stream(Stream),
    /// The stream as it was at first, `sys.__stdout__` for instance.
    Original(Stream),
    /// A hook that may be replaced.
    Hook(Hook),
    /// Another value, which the host keeps in `sys.__dict__`.
    Value(Slot),
}

impl Kind {
    const fn slot(self) -> Option<Slot> {
        match self {
            Self::Stream(stream) => Some(stream.slot()),
            Self::Hook(hook) => Some(hook.slot()),
            Self::Value(slot) => Some(slot),
            Self::Original(_) => None,
        }
    }

    /// Returns where the host's own value is, when the module's dictionary has what dispatches to it.
    const fn dispatched(self) -> Option<Slot> {
        match self {
            Self::Stream(_) | Self::Hook(_) => self.slot(),
            Self::Original(_) | Self::Value(_) => None,
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
        free_of_charge(slf.py(), || match attribute.kind {
            Kind::Stream(stream) => visible_stream(slf.py(), stream),
            Kind::Original(stream) => attribute.original(module, stream),
            Kind::Hook(hook) => visible_hook(slf.py(), hook),
            Kind::Value(slot) => attribute.value(module, slot),
        })
    }

    fn __set__(&self, module: &Bound<'_, PyAny>, value: Bound<'_, PyAny>) -> PyResult<()> {
        let restores = self.restores(module, &value)?;
        let value = visible(value)?;
        if let Some(run) = current() {
            match self.kind.slot() {
                Some(slot) if restores => run.restore_slot(slot),
                Some(slot) if self.is_own(&value)? => run.clear_slot(slot),
                Some(slot) => run.set_slot(slot, value.unbind()),
                // A run that replaces it would replace it for everybody.
                None => {}
            }
            return Ok(());
        }
        match self.kind.dispatched() {
            Some(slot) if restores => restore_host_value(slot),
            // A stream that a run left stands for the host's own there.
            Some(_) if value.is_instance_of::<Output>() => {}
            Some(slot) => set_host_value(slot, value.unbind()),
            None => dict(module)?.set_item(self.name, value)?,
        }
        Ok(())
    }

    fn __delete__(&self, module: &Bound<'_, PyAny>) -> PyResult<()> {
        if let Some(run) = current() {
            if let Some(slot) = self.kind.slot() {
                run.clear_slot(slot);
            }
            return Ok(());
        }
        match self.kind.dispatched() {
            Some(slot) => set_host_value(slot, module.py().None()),
            None => dict(module)?.del_item(self.name)?,
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
            Some(_) => Ok(Output::shared(py, stream)?.clone().into_any()),
            None => self.host_value(module),
        }
    }

    fn value<'py>(&self, module: &Bound<'py, PyAny>, slot: Slot) -> PyResult<Bound<'py, PyAny>> {
        let py = module.py();
        let Some(run) = current() else {
            return self.host_value(module);
        };
        if matches!(slot, Slot::MetaPath | Slot::PathHooks) && is_librarys(py) {
            return self.host_value(module);
        }
        if let Some(value) = run.slot(py, slot) {
            return Ok(value.into_bound(py));
        }
        match slot {
            // The machinery of imports only reads them.
            Slot::MetaPath | Slot::PathHooks if ffi::is_importing() => self.host_value(module),
            Slot::MetaPath | Slot::PathHooks | Slot::WarningFilters => {
                let host = self.host_value(module)?.try_iter()?;
                let list = PyList::new(py, host.collect::<PyResult<Vec<_>>>()?)?;
                Ok(kept(&run, slot, list))
            }
            Slot::Argv => Ok(kept(&run, slot, PyList::new(py, run.argv())?)),
            Slot::Path => Ok(kept(&run, slot, path(&run, &self.host_value(module)?)?)),
            // The host's own hook is not for what scripts raise.
            Slot::ExceptHook => module.getattr(intern!(py, "__excepthook__")),
            _ => self.host_value(module),
        }
    }

    fn host_value<'py>(&self, module: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let value = dict(module)?.get_item(self.name)?;
        value.ok_or_else(|| {
            PyAttributeError::new_err(format!("the module has no attribute '{}'", self.name))
        })
    }
}

/// Returns whether the code that executes now belongs to a library that is imported: what it adds is there for all.
fn is_librarys(py: Python<'_>) -> bool {
    let is_machinery = || {
        let name = ffi::globals(py)?.get_item(intern!(py, "__name__")).ok()??;
        let name = name.extract::<String>().ok()?;
        Some(name.starts_with("_frozen_importlib") || name.starts_with("importlib"))
    };
    ffi::is_importing() && !is_machinery().unwrap_or(false)
}

/// Returns what a value stands for at this moment: what dispatches to a stream must never become that stream.
fn visible(value: Bound<'_, PyAny>) -> PyResult<Bound<'_, PyAny>> {
    match value.cast::<Redirect>() {
        Ok(redirect) => visible_stream(value.py(), redirect.get().stream),
        Err(_) => Ok(value),
    }
}

/// Keeps a list as the run's: one like any other, since C code reads lists without asking their class.
fn kept<'py>(run: &Run, slot: Slot, list: Bound<'py, PyList>) -> Bound<'py, PyAny> {
    run.set_slot(slot, list.clone().into_any().unbind());
    list.into_any()
}

/// Returns what `sys.path` is in a run at first: the script's folder, where `python3 script.py` would have it, and
/// what the host has.
fn path<'py>(run: &Run, host: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyList>> {
    let path = PyList::empty(host.py());
    if let Some(folder) = folder(run.invocation.script.path()) {
        path.append(folder.to_string_lossy())?;
    }
    for entry in host.try_iter()? {
        path.append(entry?)?;
    }
    Ok(path)
}

fn dict<'py>(module: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyDict>> {
    Ok(module.cast::<PyModule>()?.dict())
}

/// Gives the modules classes with the descriptors; `kind` is the class of those.
pub(super) fn install(py: Python<'_>, kind: &Bound<'_, PyAny>) -> PyResult<()> {
    let of_sys = [
        ("argv", Kind::Value(Slot::Argv)),
        ("path", Kind::Value(Slot::Path)),
        ("meta_path", Kind::Value(Slot::MetaPath)),
        ("path_hooks", Kind::Value(Slot::PathHooks)),
        ("excepthook", Kind::Value(Slot::ExceptHook)),
        ("unraisablehook", Kind::Hook(Hook::Unraisable)),
        ("stdin", Kind::Stream(Stream::Stdin)),
        ("stdout", Kind::Stream(Stream::Stdout)),
        ("stderr", Kind::Stream(Stream::Stderr)),
        ("__stdin__", Kind::Original(Stream::Stdin)),
        ("__stdout__", Kind::Original(Stream::Stdout)),
        ("__stderr__", Kind::Original(Stream::Stderr)),
    ];
    describe(&py.import("sys")?, kind, &of_sys)?;
    let of_warnings = [("filters", Kind::Value(Slot::WarningFilters))];
    describe(&py.import("warnings")?, kind, &of_warnings)?;
    let of_threading = [("excepthook", Kind::Hook(Hook::Thread))];
    describe(&py.import("threading")?, kind, &of_threading)
}

fn describe(
    module: &Bound<'_, PyModule>,
    kind: &Bound<'_, PyAny>,
    attributes: &[(&'static str, Kind)],
) -> PyResult<()> {
    let py = module.py();
    let namespace = PyDict::new(py);
    for &(name, kind) in attributes {
        namespace.set_item(name, Py::new(py, RunAttribute { name, kind })?)?;
    }
    namespace.set_item("__slots__", ())?;
    let kind = kind.call1(("module", (module.get_type(),), namespace))?;
    module.setattr(intern!(py, "__class__"), kind)
}
