//! The configuration of loggers: level, handlers and so on of each one are the run's own on its threads. A run begins
//! as a script by hand does, with what libraries have set when they were imported, and a bare root.

use pyo3::exceptions::PyAttributeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyString};

use crate::ffi;
use crate::run::current;

/// `logging.WARNING`, the level of the root.
const WARNING: i32 = 30;

/// The descriptor of one attribute.
#[pyclass(frozen, module = "automation._automation")]
pub(crate) struct LoggerAttribute {
    name: Py<PyString>,
}

#[pymethods]
impl LoggerAttribute {
    #[new]
    fn new(name: Py<PyString>) -> Self {
        Self { name }
    }

    fn __get__<'py>(
        slf: &Bound<'py, Self>,
        logger: &Bound<'py, PyAny>,
        _kind: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        if logger.is_none() {
            return Ok(slf.clone().into_any());
        }
        let attribute = slf.get();
        let Some(own) = own(logger)? else {
            return attribute.shared(logger);
        };
        let name = attribute.name.bind(slf.py());
        if let Some(value) = own.get_item(name)? {
            return Ok(value);
        }
        let value = attribute.at_first(logger)?;
        own.set_item(name, &value)?;
        Ok(value)
    }

    fn __set__(&self, logger: &Bound<'_, PyAny>, value: &Bound<'_, PyAny>) -> PyResult<()> {
        let name = self.name.bind(logger.py());
        let shared = fields(logger)?;
        let own = own(logger)?;
        // What a logger is made with, and what a library sets when it is imported, is there for all.
        let is_for_all = own.is_none() || ffi::is_importing() || !shared.contains(name)?;
        if is_for_all {
            shared.set_item(name, value)?;
        }
        match own {
            Some(own) if !is_for_all || own.contains(name)? => own.set_item(name, value),
            _ => Ok(()),
        }
    }
}

impl LoggerAttribute {
    fn shared<'py>(&self, logger: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let name = self.name.bind(logger.py());
        let value = fields(logger)?.get_item(name)?;
        value.ok_or_else(|| PyAttributeError::new_err(name.clone().unbind()))
    }

    /// Returns what a run finds when it looks for the first time.
    fn at_first<'py>(&self, logger: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let py = logger.py();
        let is_root = logger.get_type().name()? == "RootLogger";
        match &*self.name.bind(py).to_cow()? {
            "_cache" => Ok(PyDict::new(py).into_any()),
            "handlers" | "filters" if is_root => Ok(PyList::empty(py).into_any()),
            "handlers" | "filters" => {
                let shared = self.shared(logger)?;
                Ok(PyList::new(py, shared.try_iter()?.collect::<PyResult<Vec<_>>>()?)?.into_any())
            }
            "level" if is_root => Ok(WARNING.into_pyobject(py)?.into_any()),
            "_disable" => Ok(0_i32.into_pyobject(py)?.into_any()),
            _ => self.shared(logger),
        }
    }
}

fn fields<'py>(logger: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyDict>> {
    let fields = logger.getattr(intern!(logger.py(), "__dict__"))?;
    Ok(fields.cast_into()?)
}

/// Returns the run's configuration of a logger; `None` without a run.
fn own<'py>(logger: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyDict>>> {
    let Some(run) = current() else {
        return Ok(None);
    };
    let py = logger.py();
    // Made before the lock is taken: making it may collect garbage, and a `__del__` may log.
    let fresh = PyDict::new(py).unbind();
    let mut objects = run.objects.lock();
    let all = objects.loggers.get_or_insert(fresh).clone_ref(py);
    drop(objects);
    let all = all.bind(py);
    if let Some(own) = all.get_item(logger)? {
        return Ok(Some(own.cast_into()?));
    }
    let own = PyDict::new(py);
    all.set_item(logger, &own)?;
    Ok(Some(own))
}
