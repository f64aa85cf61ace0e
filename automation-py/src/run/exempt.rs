//! What a run's memory limit does not count for. Imports and compiling: the interpreter survives a refusal there
//! neither itself (compiling) nor in what it leaves (a module that is half imported, for the whole process). And our
//! own code.

use pyo3::exceptions::PyMemoryError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyByteArray, PyBytes, PyDict, PyString, PyTuple};
use pyo3::wrap_pyfunction;

use super::{current, with_current};
use crate::ffi;

/// The functions that ours stand for.
static ORIGINALS: PyOnceLock<Originals> = PyOnceLock::new();

struct Originals {
    find_and_load: Py<PyAny>,
    compile: Py<PyAny>,
    exec: Py<PyAny>,
    eval: Py<PyAny>,
}

impl Originals {
    fn get(py: Python<'_>) -> &'static Self {
        ORIGINALS
            .get(py)
            .expect("kept before ours are put in their place")
    }
}

/// Puts our functions in the place of the interpreter's, once. Without a run they only pass on.
pub(crate) fn install(py: Python<'_>) -> PyResult<()> {
    if ORIGINALS.get(py).is_some() {
        return Ok(());
    }
    let builtins = py.import("builtins")?;
    let importing = py.import("importlib._bootstrap")?;
    let originals = Originals {
        find_and_load: importing.getattr("_find_and_load")?.unbind(),
        compile: builtins.getattr("compile")?.unbind(),
        exec: builtins.getattr("exec")?.unbind(),
        eval: builtins.getattr("eval")?.unbind(),
    };
    let _ = ORIGINALS.set(py, originals);
    // Called for modules that are not loaded yet only; under this name tracebacks leave it out.
    importing.add_function(wrap_pyfunction!(_find_and_load, &importing)?)?;
    builtins.add_function(wrap_pyfunction!(compile, &builtins)?)?;
    builtins.add_function(wrap_pyfunction!(exec, &builtins)?)?;
    builtins.add_function(wrap_pyfunction!(eval, &builtins)?)
}

/// Does what our own code does on a script's thread: charged to nobody and never refused, since PyO3 panics when it is
/// refused something, and ends the process when that is an exception.
pub(super) fn free_of_charge<R>(py: Python<'_>, work: impl FnOnce() -> PyResult<R>) -> PyResult<R> {
    let _nobody = ffi::charge_nobody();
    let result = work();
    if let Err(error) = &result {
        // Made now, and not where it is raised.
        error.value(py);
    }
    result
}

/// Find and load the module.
#[pyfunction]
#[pyo3(signature = (*arguments, **keywords))]
fn _find_and_load<'py>(
    arguments: &Bound<'py, PyTuple>,
    keywords: Option<&Bound<'py, PyDict>>,
) -> PyResult<Bound<'py, PyAny>> {
    let original = Originals::get(arguments.py())
        .find_and_load
        .bind(arguments.py());
    let run = current();
    let _import = run.as_ref().and_then(|run| run.account().import());
    ffi::call(original, arguments, keywords)
}

/// Compile source into a code object that can be executed by exec() or eval().
///
/// The source code may represent a Python module, statement or expression.
#[pyfunction]
#[pyo3(
    signature = (*arguments, **keywords),
    text_signature = "(source, filename, mode, flags=0, dont_inherit=False, optimize=-1, *, _feature_version=-1)"
)]
fn compile<'py>(
    arguments: &Bound<'py, PyTuple>,
    keywords: Option<&Bound<'py, PyDict>>,
) -> PyResult<Bound<'py, PyAny>> {
    let py = arguments.py();
    let source = match arguments.get_item(0) {
        Ok(source) => Some(source),
        Err(_) => keywords.and_then(|keywords| keywords.get_item("source").ok().flatten()),
    };
    check_size(source.as_ref())?;
    let _unlimited = ffi::charge_nobody();
    ffi::call(Originals::get(py).compile.bind(py), arguments, keywords)
}

/// Execute the given source in the context of globals and locals.
///
/// The source may be a string representing one or more Python statements or a code object as returned by compile().
#[pyfunction]
#[pyo3(
    signature = (*arguments, **keywords),
    text_signature = "(source, globals=None, locals=None, /, *, closure=None)"
)]
fn exec<'py>(
    arguments: &Bound<'py, PyTuple>,
    keywords: Option<&Bound<'py, PyDict>>,
) -> PyResult<Bound<'py, PyAny>> {
    let original = Originals::get(arguments.py()).exec.bind(arguments.py());
    let compiled = compiled(arguments, "exec")?;
    ffi::call(original, compiled.as_ref().unwrap_or(arguments), keywords)
}

/// Evaluate the given source in the context of globals and locals.
///
/// The source may be a string representing a Python expression or a code object as returned by compile().
#[pyfunction]
#[pyo3(
    signature = (*arguments, **keywords),
    text_signature = "(source, globals=None, locals=None, /)"
)]
fn eval<'py>(
    arguments: &Bound<'py, PyTuple>,
    keywords: Option<&Bound<'py, PyDict>>,
) -> PyResult<Bound<'py, PyAny>> {
    let original = Originals::get(arguments.py()).eval.bind(arguments.py());
    let compiled = compiled(arguments, "eval")?;
    ffi::call(original, compiled.as_ref().unwrap_or(arguments), keywords)
}

/// Returns the arguments with the source compiled; `None` where it is none, or no run asks.
fn compiled<'py>(
    arguments: &Bound<'py, PyTuple>,
    mode: &str,
) -> PyResult<Option<Bound<'py, PyTuple>>> {
    let py = arguments.py();
    let Ok(source) = arguments.get_item(0) else {
        return Ok(None);
    };
    if !is_source(&source) || with_current(|run| run.is_none()) {
        return Ok(None);
    }
    check_size(Some(&source))?;
    let _unlimited = ffi::charge_nobody();
    let source = if mode == "eval" {
        stripped(&source)?
    } else {
        source
    };
    // The flags of the calling code count, as they do for the functions that we stand for.
    let code = ffi::call(
        Originals::get(py).compile.bind(py),
        &(source, "<string>", mode).into_pyobject(py)?,
        None,
    )?;
    let rest = arguments.iter().skip(1);
    PyTuple::new(py, std::iter::once(code).chain(rest).collect::<Vec<_>>()).map(Some)
}

fn is_source(value: &Bound<'_, PyAny>) -> bool {
    value.is_instance_of::<PyString>()
        || value.is_instance_of::<PyBytes>()
        || value.is_instance_of::<PyByteArray>()
}

/// Takes away what `eval` does not see: spaces and tabs before the expression.
fn stripped<'py>(source: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    let py = source.py();
    if source.is_instance_of::<PyString>() {
        return source.call_method1(intern!(py, "lstrip"), (" \t",));
    }
    source.call_method1(intern!(py, "lstrip"), (PyBytes::new(py, b" \t"),))
}

/// Refuses a source that would take more memory than the run may have, before it is looked at.
fn check_size(source: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
    let Some(source) = source.filter(|source| is_source(source)) else {
        return Ok(());
    };
    let bytes = source.len()? as u64;
    let fits = with_current(|run| run.is_none_or(|run| run.account().admits_source(bytes)));
    if fits {
        return Ok(());
    }
    let message =
        format!("{bytes} bytes of source take more memory to compile than the run may have");
    Err(PyMemoryError::new_err(message))
}
