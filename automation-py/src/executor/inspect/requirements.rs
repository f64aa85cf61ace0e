//! What a script needs of its surroundings: the version of Python, and packages.

use std::str::FromStr;

use automation_core::Script;
use automation_core::script::Diagnostic;
use pep440_rs::{Version, VersionSpecifiers};
use pyo3::prelude::*;

use crate::interpreter::Interpreter;
use crate::run::Glue;

/// Says whether the version of Python fits.
pub(super) fn version_problem(version: &str, script: &Script) -> Option<Diagnostic> {
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

/// Names the packages that are absent or have another version, with the command that installs them.
pub(super) fn absent_packages(
    py: Python<'_>,
    interpreter: &Interpreter,
    script: &Script,
) -> PyResult<Vec<Diagnostic>> {
    let requirements = &script.metadata().dependencies;
    if requirements.is_empty() {
        return Ok(Vec::new());
    }
    let absent: Vec<(String, Option<String>, Option<String>)> = Glue::get(py)
        .function(py, "absent")?
        .call1((requirements,))?
        .extract()?;
    let python = interpreter.executable().display();
    let problems = absent.into_iter().map(|(requirement, installed, fault)| {
        let message = match (fault, installed) {
            (Some(fault), _) => {
                format!("dependencies holds {requirement:?}, expected a requirement: {fault}")
            }
            (None, Some(version)) => format!(
                "{requirement} is needed and {version} is installed: {python} -m pip install '{requirement}'"
            ),
            (None, None) => format!(
                "{requirement} is not installed: {python} -m pip install '{requirement}'"
            ),
        };
        Diagnostic::error(script.name(), message)
    });
    Ok(problems.collect())
}
