//! What can be said of a script without executing it: syntax, entry, Python version, packages.

use std::str::FromStr;
use std::sync::Arc;
use std::thread;

use automation_core::Script;
use automation_core::executor::{ExecutorError, Inspection};
use automation_core::script::{Diagnostic, Entry};
use pep440_rs::{Version, VersionSpecifiers};
use pyo3::exceptions::{PyMemoryError, PyRecursionError, PySyntaxError};
use pyo3::prelude::*;

use super::perform::panicked;
use super::pool::Pool;
use crate::interpreter::{Interpreter, STACK_BYTES, without_gil};
use crate::run::Glue;

/// Inspects a script on a thread of its own: sources that nest deeply need a deep stack.
pub(super) fn inspect(
    pool: &Arc<Pool>,
    interpreter: &Interpreter,
    script: &Script,
) -> Result<Inspection, ExecutorError> {
    let inspect = || {
        thread::scope(|scope| {
            thread::Builder::new()
                .name("python-inspect".to_owned())
                .stack_size(STACK_BYTES)
                .spawn_scoped(scope, || {
                    Python::attach(|py| findings(py, pool, interpreter, script))
                })
                .map_err(|error| ExecutorError::Unavailable {
                    detail: format!("no thread for an inspection: {error}"),
                })?
                .join()
                .map_err(|panic| panicked(&*panic))
        })
    };
    without_gil(inspect)
}

fn findings(py: Python<'_>, pool: &Pool, interpreter: &Interpreter, script: &Script) -> Inspection {
    let mut inspection = Inspection::default();
    let diagnostics = &mut inspection.diagnostics;
    diagnostics.extend(version_problem(&interpreter.version, script));
    // The code is kept, so that what the compiler warns of is not written into the first run's output.
    if let Err(error) = pool.codes.get(py, script) {
        diagnostics.push(compile_problem(py, script, &error));
        return inspection;
    }
    let looked = entry_problems(py, script).and_then(|mut problems| {
        problems.extend(absent_packages(py, interpreter, script)?);
        Ok(problems)
    });
    match looked {
        Ok(problems) => diagnostics.extend(problems),
        Err(error) => diagnostics.push(Diagnostic::error(script.name(), error.to_string())),
    }
    inspection
}

fn version_problem(version: &str, script: &Script) -> Option<Diagnostic> {
    let wanted = script.metadata().requires_python.as_deref()?;
    let problem = match (
        VersionSpecifiers::from_str(wanted),
        Version::from_str(version),
    ) {
        (Ok(specifiers), Ok(version)) if specifiers.contains(&version) => return None,
        (Ok(_), _) => format!("requires-python is {wanted:?}, and Python {version} is embedded"),
        (Err(error), _) => {
            let error = error.to_string();
            let reason = error.lines().next().unwrap_or_default();
            format!("requires-python is {wanted:?}, expected a version specifier: {reason}")
        }
    };
    Some(Diagnostic::error(script.name(), problem))
}

fn compile_problem(py: Python<'_>, script: &Script, error: &PyErr) -> Diagnostic {
    let value = error.value(py);
    if error.is_instance_of::<PySyntaxError>(py) {
        let text = |name| {
            value
                .getattr(name)
                .and_then(|value| value.extract::<String>())
        };
        let number = |name| {
            value
                .getattr(name)
                .and_then(|value| value.extract::<u32>())
                .ok()
        };
        let message = text("msg").unwrap_or_else(|_| "invalid syntax".to_owned());
        let kind = error.get_type(py).name().map(|name| name.to_string());
        let kind = kind.unwrap_or_else(|_| "SyntaxError".to_owned());
        let mut diagnostic = Diagnostic::error(script.name(), format!("{kind}: {message}"));
        diagnostic.line = number("lineno").filter(|line| *line > 0);
        diagnostic.column = number("offset").filter(|column| *column > 0);
        return diagnostic;
    }
    if error.is_instance_of::<PyRecursionError>(py) || error.is_instance_of::<PyMemoryError>(py) {
        return Diagnostic::error(script.name(), "nested too deeply to be compiled");
    }
    Diagnostic::error(script.name(), format!("can't be compiled: {error}"))
}

fn entry_problems(py: Python<'_>, script: &Script) -> PyResult<Vec<Diagnostic>> {
    if script.metadata().entry == Entry::Plain {
        return Ok(Vec::new());
    }
    let (defined, guarded): (bool, bool) = Glue::get(py)
        .function(py, "entry_points")?
        .call1((&**script.source(),))?
        .extract()?;
    let mut problems = Vec::new();
    if !defined {
        let message = "entry is \"run\", expected a function `def run(ctx, **parameters)`";
        problems.push(Diagnostic::error(script.name(), message));
    }
    if !guarded {
        let message =
            "can't be run by hand: expected `if __name__ == \"__main__\":` that calls `run`";
        problems.push(Diagnostic::warning(script.name(), message));
    }
    Ok(problems)
}

fn absent_packages(
    py: Python<'_>,
    interpreter: &Interpreter,
    script: &Script,
) -> PyResult<Vec<Diagnostic>> {
    let requirements = &script.metadata().dependencies;
    if requirements.is_empty() {
        return Ok(Vec::new());
    }
    let absent: Vec<(String, Option<String>)> = Glue::get(py)
        .function(py, "absent")?
        .call1((requirements,))?
        .extract()?;
    let python = interpreter.executable();
    let problems = absent.into_iter().map(|(requirement, installed)| {
        let found = installed.map_or_else(
            || "is not installed".to_owned(),
            |version| format!("is needed and {version} is installed"),
        );
        let message = format!(
            "{requirement} {found}: {} -m pip install '{requirement}'",
            python.display()
        );
        Diagnostic::error(script.name(), message)
    });
    Ok(problems.collect())
}
