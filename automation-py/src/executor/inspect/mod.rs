//! What can be said of a script without executing it: syntax, entry, signature, harm, Python version, packages.
//!
//! Python's parser never sees what would be too much for it, works on a stack of its own, and has bounded time.

mod nesting;
mod requirements;
mod tree;

use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

use automation_core::Script;
use automation_core::executor::{ExecutorError, Inspection};
use automation_core::script::Diagnostic;
use pyo3::exceptions::{PyMemoryError, PyRecursionError, PySyntaxError};
use pyo3::prelude::*;

use self::requirements::{absent_packages, version_problem};
use self::tree::Tree;
use super::code::CodeCache;
use super::perform::panicked;
use crate::interpreter::{Interpreter, without_gil};

/// Stack of the thread that parses: Python 3.9 and 3.10 build trees of any depth by recursion.
const STACK_BYTES: usize = 64 * 1024 * 1024;
/// Longest time for one call of the parser or the compiler, during which the GIL is held; scripts take milliseconds.
const PARSE_TIME_MAX: Duration = Duration::from_secs(5);

/// What the thread that inspects tells while it does.
enum Step {
    /// A call that holds the GIL begins. Nothing else can slow it down.
    Begins,
    /// It has ended, whatever came of it.
    Ended,
}

/// Inspects a script. The code of one that is a file is kept for its runs.
///
/// A thread of its own does it: when its time is over, the script is invalid, and the thread is left to end by itself.
pub(in crate::executor) fn inspect(
    codes: &Arc<CodeCache>,
    interpreter: &Arc<Interpreter>,
    script: &Script,
) -> Result<Inspection, ExecutorError> {
    if let Err(deep) = nesting::check(script.source()) {
        let problem = Diagnostic::error(script.name(), deep.message);
        return Ok(vec![problem.at(deep.line, deep.column)].into());
    }
    let (steps, progress) = mpsc::channel();
    let (codes, interpreter) = (Arc::clone(codes), Arc::clone(interpreter));
    let inspected = script.clone();
    let thread = thread::Builder::new()
        .name("python-inspect".to_owned())
        .stack_size(STACK_BYTES)
        .spawn(move || Python::attach(|py| findings(py, &codes, &interpreter, &inspected, &steps)))
        .map_err(|error| ExecutorError::Unavailable {
            detail: format!("no thread for an inspection: {error}"),
        })?;
    without_gil(move || {
        if is_over_time(&progress, PARSE_TIME_MAX) {
            let message = format!("not parsed within {} s", PARSE_TIME_MAX.as_secs());
            return Ok(vec![Diagnostic::error(script.name(), message)].into());
        }
        thread.join().map_err(|panic| panicked(&*panic))
    })
}

/// Waits until the inspection has ended. Returns whether one of its steps takes longer than `limit`.
fn is_over_time(progress: &Receiver<Step>, limit: Duration) -> bool {
    while let Ok(step) = progress.recv() {
        if matches!(step, Step::Begins)
            && matches!(progress.recv_timeout(limit), Err(RecvTimeoutError::Timeout))
        {
            return true;
        }
    }
    false
}

/// Tells who waits, who may have left, when a call that holds the GIL begins and ends.
fn told<R>(steps: &Sender<Step>, call: impl FnOnce() -> R) -> R {
    let _ = steps.send(Step::Begins);
    let result = call();
    let _ = steps.send(Step::Ended);
    result
}

fn findings(
    py: Python<'_>,
    codes: &CodeCache,
    interpreter: &Interpreter,
    script: &Script,
    steps: &Sender<Step>,
) -> Inspection {
    let syntax = || -> PyResult<Inspection> {
        let root = told(steps, || tree::parse(py, script))?;
        let tree = Tree::new(script, &root)?;
        if let Some(problem) = tree.problem(script)? {
            return Ok(vec![problem].into());
        }
        told(steps, || codes.compile(py, script, &root))?;
        tree.findings(script)
    };
    let mut inspection =
        syntax().unwrap_or_else(|error| vec![compile_problem(py, script, &error)].into());
    let version = version_problem(&interpreter.version, script);
    inspection.diagnostics.splice(0..0, version);
    match absent_packages(py, interpreter, script) {
        Ok(absent) => inspection.diagnostics.extend(absent),
        Err(error) => inspection
            .diagnostics
            .push(Diagnostic::error(script.name(), error.to_string())),
    }
    inspection
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

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::{Step, is_over_time};

    #[test]
    fn only_a_call_that_began_can_be_over_time() {
        let limit = Duration::from_millis(50);
        let (steps, progress) = mpsc::channel();
        for step in [Step::Begins, Step::Ended, Step::Begins] {
            steps.send(step).unwrap();
        }
        assert!(is_over_time(&progress, limit), "the last one never ends");

        let (steps, progress) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            // Between two calls others may have the GIL for as long as they like.
            steps.send(Step::Begins).unwrap();
            steps.send(Step::Ended).unwrap();
            std::thread::sleep(2 * limit);
            // Ends by a panic, say.
            steps.send(Step::Begins).unwrap();
        });
        assert!(!is_over_time(&progress, limit));
        thread.join().unwrap();
    }
}
