//! How a [`PythonExecutor`] is set up.

use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use automation_core::executor::ExecutorError;
use automation_core::limits;
use pyo3::prelude::*;

use super::PythonExecutor;
use super::crash::CrashFile;
use super::injector::Injector;
use super::pool::{Pool, Settings};
use super::pulse::Pulse;
use super::watchdog::Watchdog;
use crate::ffi;
use crate::interpreter::Interpreter;
use crate::run::{self, MemoryMode};

/// As many as the engine dispatches: a script that waits never keeps another from its turn. Threads are started when
/// they are needed.
const WORKERS: usize = limits::EXECUTIONS_MAX;
/// Time that a run gets to end after its deadline or a cancel.
const GRACE: Duration = Duration::from_millis(700);
/// Each costs a stack and what its script holds; a process with more of them needs a restart.
const ABANDONED_MAX: usize = 16;

/// Builds a [`PythonExecutor`].
#[derive(Debug, Clone)]
#[must_use]
pub struct PythonExecutorBuilder {
    python: Option<PathBuf>,
    crash_file: Option<PathBuf>,
    settings: Settings,
}

impl PythonExecutorBuilder {
    pub(super) const fn new() -> Self {
        Self {
            python: None,
            crash_file: None,
            settings: Settings {
                workers: WORKERS,
                grace: GRACE,
                abandoned_max: ABANDONED_MAX,
                memory: MemoryMode::Limited,
                contamination_checks: true,
                traces: None,
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
    /// Default 700 ms, so that every run is answered for within a second of its deadline.
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

    /// Sets whether a script that asks for more memory than its limit is refused it. Without, memory is still
    /// counted. Default: yes.
    pub const fn memory_limits(mut self, limited: bool) -> Self {
        if !matches!(self.settings.memory, MemoryMode::Off) {
            self.settings.memory = if limited {
                MemoryMode::Limited
            } else {
                MemoryMode::Measured
            };
        }
        self
    }

    /// Sets whether the memory of runs is counted, for which the interpreter's allocators are hooked. Without,
    /// there are no memory limits either. Default: yes.
    pub const fn accounting(mut self, counted: bool) -> Self {
        if !counted {
            self.settings.memory = MemoryMode::Off;
        } else if matches!(self.settings.memory, MemoryMode::Off) {
            self.settings.memory = MemoryMode::Limited;
        }
        self
    }

    /// Sets whether it is found out what a script changes for the whole process: patched modules and classes, and
    /// settings such as `gc.disable`. It is put back when the run ends, or reported as
    /// [`Contamination`](automation_core::executor::RunEvent::Contamination) where other runs could have seen it.
    /// On by default; it costs nanoseconds a run, and before Python 3.12, where a sample of the runs is looked at,
    /// less than one in a hundred of their time.
    pub const fn contamination_checks(mut self, on: bool) -> Self {
        self.settings.contamination_checks = on;
        self
    }

    /// Sets a file in which this process, should a run end it by a fatal signal, leaves the run's id: the next
    /// process finds it by [`crashed_runs`](automation_core::Executor::crashed_runs). Default: none.
    ///
    /// Handlers of `SIGSEGV`, `SIGBUS`, `SIGFPE`, `SIGILL` and `SIGABRT` that are there at [`build`](Self::build)
    /// are called afterwards. The last executor of a process that sets a file has it.
    pub fn crash_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.crash_file = Some(path.into());
        self
    }

    /// Sets whether a script that catches every interruption is ended by a trace function that raises at each line, on
    /// its own threads only. Default: where this process has started Python; a host's debugger may not expect it.
    pub const fn trace_loops(mut self, trace_loops: bool) -> Self {
        self.settings.traces = Some(trace_loops);
        self
    }

    /// Starts the executor, and the interpreter if this process has none. Blocks for some tens of milliseconds.
    ///
    /// # Errors
    /// [`ExecutorError::Start`] that says what is expected: the interpreter is missing, free-threaded, of another
    /// version than the library, or not the one that this process runs already. Also that a crash file can't be
    /// opened, or is set where a host runs Python, whose signals are its own.
    pub fn build(mut self) -> Result<PythonExecutor, ExecutorError> {
        let interpreter = Interpreter::start(self.python.as_deref())?;
        let crash_file = self.open_crash_file(&interpreter)?;
        let accounting = self.count_memory();
        let injector = Injector::start()?;
        let pool = Pool::start(self.settings, interpreter.hosted)?;
        let pulse = Pulse::start(Arc::clone(&pool))?;
        let watchdog = Watchdog::new(Arc::clone(&pool), injector, Arc::clone(&pulse));
        let executor = PythonExecutor {
            traces: self.settings.traces.unwrap_or(!interpreter.hosted),
            interpreter,
            pool,
            pulse,
            accounting,
            crash_file,
        };
        thread::Builder::new()
            .name("python-watch".to_owned())
            .spawn(move || watchdog.watch())
            .map_err(|error| ExecutorError::Start {
                detail: format!("no thread for the watchdog: {error}"),
            })?;
        Ok(executor)
    }

    /// Installs what counting memory needs, if it is wanted. Returns how memory is counted, in a word or a sentence.
    fn count_memory(&mut self) -> String {
        if self.settings.memory != MemoryMode::Off
            && let Err(problem) = count_memory()
        {
            self.settings.memory = MemoryMode::Off;
            tracing::warn!(problem, "memory is not counted, and has no limits");
            return format!("off: {problem}");
        }
        match self.settings.memory {
            MemoryMode::Off => "off",
            MemoryMode::Measured => "measured",
            MemoryMode::Limited => "limited",
        }
        .to_owned()
    }

    fn open_crash_file(
        &self,
        interpreter: &Interpreter,
    ) -> Result<Option<CrashFile>, ExecutorError> {
        let Some(path) = &self.crash_file else {
            return Ok(None);
        };
        let start_error = |why: String| ExecutorError::Start {
            detail: format!("the crash file {}: {why}", path.display()),
        };
        if interpreter.is_hosted() {
            let why = "the program that runs Python here handles its signals itself".to_owned();
            return Err(start_error(why));
        }
        let opened = CrashFile::open(path).map_err(|error| start_error(error.to_string()))?;
        Ok(Some(opened))
    }
}

/// Hooks the interpreter's allocators, and what must not be refused memory.
fn count_memory() -> Result<(), String> {
    Python::attach(|py| {
        ffi::install_allocators(py)?;
        run::exempt_imports(py).map_err(|error| error.to_string())
    })
}
