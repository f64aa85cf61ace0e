//! The exceptions, one a kind of error, and how an error becomes one. Knows nothing of verbs.

use std::error::Error as StdError;

use automation_core::{Error, ErrorKind};
use pyo3::exceptions::{PyException, PyLookupError, PyValueError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyTuple, PyType};

use super::execution::Execution;

/// What else an exception is, for code that knows nothing of ours.
#[derive(Debug, Clone, Copy)]
enum Also {
    Nothing,
    ValueError,
    LookupError,
}

impl Also {
    fn builtin(self, py: Python<'_>) -> Option<Bound<'_, PyType>> {
        match self {
            Self::Nothing => None,
            Self::ValueError => Some(py.get_type::<PyValueError>()),
            Self::LookupError => Some(py.get_type::<PyLookupError>()),
        }
    }
}

/// The exception of one kind.
struct Class {
    kind: ErrorKind,
    name: &'static str,
    also: Also,
    doc: &'static str,
}

const fn class(kind: ErrorKind, name: &'static str, also: Also, doc: &'static str) -> Class {
    Class {
        kind,
        name,
        also,
        doc,
    }
}

const CLASSES: [Class; 17] = [
    class(
        ErrorKind::InvalidRequest,
        "InvalidRequestError",
        Also::ValueError,
        "An argument has a value that can't be used; `problems` says which and why.",
    ),
    class(
        ErrorKind::InvalidParameters,
        "InvalidParametersError",
        Also::ValueError,
        "The parameters do not fit the script's schema; `problems` says which and why.",
    ),
    class(
        ErrorKind::AutomationNotPossible,
        "AutomationNotPossibleError",
        Also::Nothing,
        "The classification says that the ticket can't be automated.",
    ),
    class(
        ErrorKind::ScriptNotFound,
        "ScriptNotFoundError",
        Also::LookupError,
        "No script has this name.",
    ),
    class(
        ErrorKind::NoScriptForCategory,
        "NoScriptForCategoryError",
        Also::LookupError,
        "No script that can run serves this category.",
    ),
    class(
        ErrorKind::ExecutionNotFound,
        "ExecutionNotFoundError",
        Also::LookupError,
        "No execution has this id.",
    ),
    class(
        ErrorKind::TicketNotFound,
        "TicketNotFoundError",
        Also::LookupError,
        "No execution is recorded for this ticket.",
    ),
    class(
        ErrorKind::InvalidScript,
        "InvalidScriptError",
        Also::ValueError,
        "The script exists and is not fit to run; `problems` says why, with file and line.",
    ),
    class(
        ErrorKind::Conflict,
        "ConflictError",
        Also::Nothing,
        "The present state does not allow this.",
    ),
    class(
        ErrorKind::Overloaded,
        "OverloadedError",
        Also::Nothing,
        "Every place is taken and the queue is full; `retry_after` says when to try again.",
    ),
    class(
        ErrorKind::RefusedByPolicy,
        "RefusedByPolicyError",
        Also::Nothing,
        "The policy does not let the run start; `retry_after` says when it does, if that is known.",
    ),
    class(
        ErrorKind::Stopped,
        "StoppedError",
        Also::Nothing,
        "Somebody has stopped the script, its category or everything; the message says who.",
    ),
    class(
        ErrorKind::QuotaExceeded,
        "QuotaExceededError",
        Also::Nothing,
        "A quota has no share left; `retry_after` says when one frees.",
    ),
    class(
        ErrorKind::Unsupported,
        "UnsupportedError",
        Also::Nothing,
        "A capability that this set-up lacks.",
    ),
    class(
        ErrorKind::Closed,
        "ClosedError",
        Also::Nothing,
        "The handle was shut down.",
    ),
    class(
        ErrorKind::Storage,
        "StorageError",
        Also::Nothing,
        "The storage could not do its part.",
    ),
    class(
        ErrorKind::Executor,
        "ExecutorError",
        Also::Nothing,
        "The executor could not do its part.",
    ),
];

/// The exceptions as Python classes, made once.
struct Tree {
    base: Py<PyType>,
    script_failed: Py<PyType>,
    /// In the order of [`CLASSES`].
    kinds: Vec<Py<PyType>>,
}

static TREE: PyOnceLock<Tree> = PyOnceLock::new();

/// Adds the exceptions to the module.
pub(super) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    let tree = Tree::get(py)?;
    for class in [&tree.base, &tree.script_failed]
        .into_iter()
        .chain(&tree.kinds)
    {
        let class = class.bind(py);
        module.add(class.name()?, class)?;
    }
    Ok(())
}

/// Returns the exception for an error.
pub(super) fn exception(py: Python<'_>, error: &Error) -> PyErr {
    build(py, error).unwrap_or_else(|failure| failure)
}

/// Returns the exception for a run that did not complete.
pub(super) fn script_failed(execution: &Bound<'_, Execution>, message: &str) -> PyErr {
    let py = execution.py();
    let built = || {
        let exception = Tree::get(py)?.script_failed.bind(py).call1((message,))?;
        exception.setattr("execution", execution)?;
        Ok(PyErr::from_value(exception))
    };
    built().unwrap_or_else(|failure: PyErr| failure)
}

fn build(py: Python<'_>, error: &Error) -> PyResult<PyErr> {
    let exception = Tree::get(py)?
        .of(error.kind())
        .bind(py)
        .call1((message(error),))?;
    let problems = error.problems().into_iter().map(|problem| {
        let fields = PyDict::new(py);
        fields.set_item("pointer", problem.pointer)?;
        fields.set_item("detail", problem.detail)?;
        Ok(fields)
    });
    let problems: Vec<_> = problems.collect::<PyResult<_>>()?;
    exception.setattr("problems", PyTuple::new(py, problems)?)?;
    let retry_after = error.retry_after().map(|time| time.as_secs_f64());
    exception.setattr("retry_after", retry_after)?;
    Ok(PyErr::from_value(exception))
}

/// Returns an error in a sentence, with the causes that it does not name itself: whoever imports the module is
/// the one who has to find them.
fn message(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

impl Tree {
    fn get(py: Python<'_>) -> PyResult<&'static Self> {
        TREE.get_or_try_init(py, || Self::make(py))
    }

    fn make(py: Python<'_>) -> PyResult<Self> {
        let plain = py.get_type::<PyException>();
        let base = new_type(
            py,
            "AutomationError",
            "The base of every exception of this package.",
            &[plain],
            "error",
        )?;
        base.setattr("problems", PyTuple::empty(py))?;
        base.setattr("retry_after", py.None())?;
        let script_failed = new_type(
            py,
            "ScriptFailedError",
            "A run failed or was cancelled, and `raise_for_status` was asked to say so; `execution` is the run.",
            std::slice::from_ref(&base),
            "script_failed",
        )?;
        let kinds = CLASSES
            .iter()
            .map(|class| {
                let bases: Vec<_> = [Some(base.clone()), class.also.builtin(py)]
                    .into_iter()
                    .flatten()
                    .collect();
                new_type(py, class.name, class.doc, &bases, class.kind.as_str()).map(Bound::unbind)
            })
            .collect::<PyResult<_>>()?;
        Ok(Self {
            kinds,
            script_failed: script_failed.unbind(),
            base: base.unbind(),
        })
    }

    /// Returns the class of a kind; the base for one that is not in the table, which a test rules out.
    fn of(&self, kind: ErrorKind) -> &Py<PyType> {
        CLASSES
            .iter()
            .position(|class| class.kind == kind)
            .map_or(&self.base, |index| &self.kinds[index])
    }
}

fn new_type<'py>(
    py: Python<'py>,
    name: &str,
    doc: &str,
    bases: &[Bound<'py, PyType>],
    code: &str,
) -> PyResult<Bound<'py, PyType>> {
    let namespace = PyDict::new(py);
    namespace.set_item("__module__", "automation")?;
    namespace.set_item("__doc__", doc)?;
    namespace.set_item("code", code)?;
    let bases = PyTuple::new(py, bases)?;
    let made = py.get_type::<PyType>().call1((name, bases, namespace))?;
    Ok(made.cast_into::<PyType>()?)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use automation_core::storage::StorageError;
    use automation_core::{Error, ErrorKind};

    use super::{CLASSES, message};

    #[test]
    fn every_kind_has_an_exception_of_its_own() {
        for kind in ErrorKind::ALL {
            let classes = CLASSES.iter().filter(|class| class.kind == kind);
            assert_eq!(classes.count(), 1, "{kind}");
        }
        let names: HashSet<_> = CLASSES.iter().map(|class| class.name).collect();
        assert_eq!(names.len(), ErrorKind::ALL.len());
        assert!(names.iter().all(|name| name.ends_with("Error")));
    }

    #[test]
    fn a_message_has_its_causes_once() {
        let broke = Error::Storage(StorageError::Backend {
            backend: "sqlite",
            source: "disk I/O error".into(),
        });
        assert_eq!(message(&broke), "storage sqlite failed: disk I/O error");
        let full = Error::Storage(StorageError::Unavailable {
            backend: "sqlite",
            detail: "disk is full".to_owned(),
        });
        assert_eq!(message(&full), full.to_string());
    }
}
