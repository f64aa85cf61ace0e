//! How a [`ProcessExecutor`] is set up.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use automation_core::Executor;
use automation_core::executor::ExecutorError;

use super::ProcessExecutor;

/// Each costs a process; isolated scripts are few, and wait for services and programs most of their time.
const WORKERS: usize = 16;
/// Time that a script gets to end after its deadline or a cancel: half of what it may take in all.
const GRACE: Duration = Duration::from_millis(500);

/// What is set when an executor is built.
#[derive(Debug, Clone)]
#[cfg_attr(
    not(target_os = "linux"),
    expect(dead_code, reason = "there is nothing to set elsewhere")
)]
pub(super) struct Settings {
    pub(super) python: Option<PathBuf>,
    pub(super) import_path: Option<Vec<PathBuf>>,
    pub(super) workers: usize,
    pub(super) grace: Duration,
    pub(super) inspector: Option<Arc<dyn Executor>>,
}

/// Builds a [`ProcessExecutor`].
#[derive(Debug, Clone)]
#[must_use]
pub struct ProcessExecutorBuilder {
    settings: Settings,
}

impl ProcessExecutorBuilder {
    pub(super) const fn new() -> Self {
        Self {
            settings: Settings {
                python: None,
                import_path: None,
                workers: WORKERS,
                grace: GRACE,
                inspector: None,
            },
        }
    }

    /// Sets the interpreter that scripts run on: the `python` of a virtual environment gives them its packages.
    /// Any CPython from 3.9 on. Default: the interpreter of the build, else `python3`.
    pub fn python(mut self, python: impl Into<PathBuf>) -> Self {
        self.settings.python = Some(python.into());
        self
    }

    /// Sets where scripts look for modules, after their own folder. Default: where the interpreter looks.
    pub fn import_path(mut self, folders: impl IntoIterator<Item = impl Into<PathBuf>>) -> Self {
        self.settings.import_path = Some(folders.into_iter().map(Into::into).collect());
        self
    }

    /// Sets how many scripts run at once. Default 16; at least 1.
    pub fn workers(mut self, workers: usize) -> Self {
        self.settings.workers = workers.max(1);
        self
    }

    /// Sets how long a script gets to end after its deadline or a cancel, before it is killed. Default 0.5 s.
    pub const fn grace(mut self, grace: Duration) -> Self {
        self.settings.grace = grace;
        self
    }

    /// Sets the executor that inspects scripts, so that both find the same. Default: none; then only the syntax
    /// is looked at.
    pub fn inspector(mut self, inspector: Arc<dyn Executor>) -> Self {
        self.settings.inspector = Some(inspector);
        self
    }

    /// Builds the executor. No process is started before the first run or inspection.
    ///
    /// # Errors
    /// [`ExecutorError::Start`] on systems other than Linux.
    pub fn build(self) -> Result<ProcessExecutor, ExecutorError> {
        ProcessExecutor::start(self.settings)
    }
}
