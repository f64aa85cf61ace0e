//! How a [`PythonExecutor`] is set up.

use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use automation_core::executor::ExecutorError;
use automation_core::limits;

use super::PythonExecutor;
use super::injector::Injector;
use super::pool::{Pool, Settings};
use super::watchdog::Watchdog;
use crate::interpreter::Interpreter;

/// As many as the engine dispatches: a script that waits never keeps another from its turn. Threads are started when
/// they are needed.
const WORKERS: usize = limits::EXECUTIONS_MAX;
/// Time that a run gets to end after its deadline or a cancel.
const GRACE: Duration = Duration::from_secs(1);
/// Each costs a stack and what its script holds; a process with more of them needs a restart.
const ABANDONED_MAX: usize = 16;

/// Builds a [`PythonExecutor`].
#[derive(Debug, Clone)]
#[must_use]
pub struct PythonExecutorBuilder {
    python: Option<PathBuf>,
    settings: Settings,
}

impl PythonExecutorBuilder {
    pub(super) const fn new() -> Self {
        Self {
            python: None,
            settings: Settings {
                workers: WORKERS,
                grace: GRACE,
                abandoned_max: ABANDONED_MAX,
            },
        }
    }

    /// Sets the interpreter whose environment scripts get: the `python` of a virtual environment gives them its
    /// packages. Its version must be the linked library's. Default: the interpreter of the build, else `python3`.
    pub fn python(mut self, python: impl Into<PathBuf>) -> Self {
        self.python = Some(python.into());
        self
    }

    /// Sets how many scripts run at once, at most; at least 1. Threads are started when scripts wait while others
    /// run, and end when they are not needed. Default [`limits::EXECUTIONS_MAX`].
    pub fn workers(mut self, workers: usize) -> Self {
        self.settings.workers = workers.max(1);
        self
    }

    /// Sets how long a script gets to end after its deadline or a cancel, before its thread is abandoned.
    /// Default 1 s.
    pub const fn grace(mut self, grace: Duration) -> Self {
        self.settings.grace = grace;
        self
    }

    /// Sets how many abandoned threads are replaced. With more of them no run is taken until one ends.
    /// Default 16.
    pub const fn abandoned_max(mut self, abandoned_max: usize) -> Self {
        self.settings.abandoned_max = abandoned_max;
        self
    }

    /// Starts the executor, and the interpreter if this process has none. Blocks for some tens of milliseconds.
    ///
    /// # Errors
    /// [`ExecutorError::Start`] that says what is expected: the interpreter is missing, free-threaded, of another
    /// version than the library, or not the one that this process runs already.
    pub fn build(self) -> Result<PythonExecutor, ExecutorError> {
        let interpreter = Interpreter::start(self.python.as_deref())?;
        let injector = Injector::start()?;
        let pool = Pool::start(self.settings)?;
        let watchdog = Watchdog::new(Arc::clone(&pool), injector);
        let executor = PythonExecutor { interpreter, pool };
        thread::Builder::new()
            .name("python-watch".to_owned())
            .spawn(move || watchdog.watch())
            .map_err(|error| ExecutorError::Start {
                detail: format!("no thread for the watchdog: {error}"),
            })?;
        Ok(executor)
    }
}
