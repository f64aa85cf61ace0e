//! The syntax tree, by way of the Python files in `glue/`, and what they find in it as diagnostics.

use automation_core::Script;
use automation_core::executor::{Argument, Inspection, Signature};
use automation_core::script::{Diagnostic, Entry, Isolation, Severity};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyDict;
use serde_json::{Map, Value};

use crate::convert::to_json;
use crate::run::{Glue, Place, library};

/// Plain Python that parses and never executes what it reads; each file uses those before it.
const FILES: [&str; 4] = [
    include_str!("../../glue/syntax.py"),
    include_str!("../../glue/signature.py"),
    include_str!("../../glue/lints.py"),
    include_str!("../../glue/inspection.py"),
];

/// Whether it is an error, line, column, message.
type Finding = (bool, Option<u32>, Option<u32>, String);
/// Name, line, column, whether it is required, schema, why there is none.
type Read<'py> = (
    String,
    u32,
    u32,
    bool,
    Option<Bound<'py, PyDict>>,
    Option<String>,
);
/// Line, column, whether more is taken, arguments.
type Run<'py> = (u32, u32, bool, Vec<Read<'py>>);

/// `PyCF_ONLY_AST` of CPython: the parser's part of the work.
const ONLY_TREE: i32 = 0x400;

/// Parses a script, and no more. Holds the GIL all the while.
///
/// # Errors
/// What the parser raises.
pub(super) fn parse<'py>(py: Python<'py>, script: &Script) -> PyResult<Bound<'py, PyAny>> {
    let arguments = (&**script.source(), script.name(), "exec", ONLY_TREE, true);
    Glue::get(py).compile.bind(py).call1(arguments)
}

/// A script's source with its tree.
pub(super) struct Tree<'py>(Bound<'py, PyAny>);

impl<'py> Tree<'py> {
    /// Looks at a tree for the first time.
    pub(super) fn new(script: &Script, tree: &Bound<'py, PyAny>) -> PyResult<Self> {
        let source = function(tree.py(), "Source")?;
        source.call1((&**script.source(), tree)).map(Self)
    }

    /// Returns why the compiler must not see the tree, if so.
    pub(super) fn problem(&self, script: &Script) -> PyResult<Option<Diagnostic>> {
        let problem = function(self.0.py(), "too_much")?.call1((&self.0,))?;
        let problem: Option<Finding> = problem.extract()?;
        Ok(problem.map(|problem| diagnostic(script, problem)))
    }

    /// Returns what is wrong or doubtful, and what `run` takes.
    pub(super) fn findings(&self, script: &Script) -> PyResult<Inspection> {
        let metadata = script.metadata();
        let enters_run = metadata.entry == Entry::Run;
        let shared = metadata.isolation == Isolation::InProcess;
        let findings = function(self.0.py(), "findings")?;
        let found = findings.call1((&self.0, enters_run, shared, Place::is_own()))?;
        let (found, run): (Vec<Finding>, Option<Run<'_>>) = found.extract()?;
        let diagnostics: Vec<_> = found
            .into_iter()
            .map(|found| diagnostic(script, found))
            .collect();
        let mut inspection = Inspection::from(diagnostics);
        inspection.signature = run.map(signature);
        Ok(inspection)
    }
}

/// Returns a function of the files, which are executed once.
fn function<'py>(py: Python<'py>, name: &str) -> PyResult<Bound<'py, PyAny>> {
    static LIBRARY: PyOnceLock<Py<PyDict>> = PyOnceLock::new();
    let library = LIBRARY.get_or_try_init(py, || library(py, &FILES).map(Bound::unbind))?;
    library.bind(py).as_any().get_item(name)
}

fn diagnostic(script: &Script, (is_error, line, column, message): Finding) -> Diagnostic {
    let mut diagnostic = Diagnostic::error(script.name(), message);
    if !is_error {
        diagnostic.severity = Severity::Warning;
    }
    (diagnostic.line, diagnostic.column) = (line, column);
    diagnostic
}

fn signature((line, column, open, arguments): Run<'_>) -> Signature {
    Signature {
        line,
        column,
        open,
        arguments: arguments.into_iter().map(argument).collect(),
    }
}

fn argument((name, line, column, required, schema, problem): Read<'_>) -> Argument {
    let schema = match (schema, problem) {
        (Some(schema), _) => in_json(&schema),
        (None, problem) => Err(problem.unwrap_or_default()),
    };
    Argument {
        name,
        line,
        column,
        required,
        schema,
    }
}

/// Returns a schema in JSON, whose limits its default may break.
fn in_json(schema: &Bound<'_, PyDict>) -> Result<Map<String, Value>, String> {
    match to_json(schema) {
        Ok(Value::Object(schema)) => Ok(schema),
        Ok(_) => unreachable!("a dictionary is an object"),
        Err(problem) => Err(format!(
            "{}: {}",
            problem.pointer.trim_start_matches('/'),
            problem.detail
        )),
    }
}
