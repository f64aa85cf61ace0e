//! [`PythonExecutor`]: runs scripts in this process.

mod builder;
mod code;
mod cpu_clock;
mod crash;
mod exit;
mod injector;
mod inspect;
mod perform;
mod pool;
mod pulse;
mod soundness;
mod turns;
mod watchdog;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use automation_core::executor::{
    CancelToken, Ending, Executor, ExecutorCapabilities, ExecutorError, ExecutorHealth, Inspection,
    Invocation, Outcome,
};
use automation_core::{ExecutionId, Script};
use serde_json::json;
use tokio::sync::oneshot;

pub use self::builder::PythonExecutorBuilder;
use self::crash::CrashFile;
pub(crate) use self::perform::panicked;
use self::pool::Pool;
use self::pulse::Pulse;
use crate::interpreter::Interpreter;
use crate::run::{Answer, Place, Run};

/// Runs scripts on the CPython of this process.
///
/// Scripts that run at the same time see none of each other's `sys.argv`, streams, `os.environ`, `__main__`, modules
/// of their folder and configuration of `logging` and `warnings`. They do share all other modules: what one changes in
/// them is put back when it ends, or [reported](PythonExecutorBuilder::contamination_checks).
///
/// # Deadlines
/// A script that executes Python code or waits (a sleep, a socket, a lock, a program that it started) is interrupted
/// within milliseconds. C code that computes can't be: after the grace the run is answered with
/// [`still_running`](Outcome::still_running), its thread is abandoned and replaced, and what it still writes is
/// counted and dropped.
///
/// # Limits
/// A script that asks for more memory than its limit gets a `MemoryError`, and its run fails with
/// [`MemoryLimit`](automation_core::Reason::MemoryLimit), whatever it makes of that. Hooks in the interpreter's
/// allocators see to it, which charge each block to its run; what C libraries allocate by themselves and what `mmap`
/// maps escapes them. Modules that a run is the first to import are not charged to it.
///
/// Processor time is that of the run's threads and of its programs that have ended.
///
/// # Examples
/// ```
/// use std::time::Duration;
///
/// use automation_core::Executor;
/// use automation_py::PythonExecutor;
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let executor = PythonExecutor::builder().workers(2).build()?;
/// assert!(executor.health().await.version.is_some_and(|version| version.starts_with("Python 3.")));
/// executor.shutdown(Duration::from_secs(1)).await?;
/// # Ok(())
/// # }
/// ```
pub struct PythonExecutor {
    interpreter: Arc<Interpreter>,
    pool: Arc<Pool>,
    /// How memory is counted, as health shows it.
    accounting: String,
    crash_file: Option<CrashFile>,
    pulse: Arc<Pulse>,
    traces: bool,
}

impl PythonExecutor {
    /// Returns a builder with the defaults.
    pub const fn builder() -> PythonExecutorBuilder {
        PythonExecutorBuilder::new()
    }
}

impl fmt::Debug for PythonExecutor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PythonExecutor")
            .field("version", &self.interpreter.version)
            .field("settings", &self.pool.settings)
            .finish_non_exhaustive()
    }
}

impl Drop for PythonExecutor {
    fn drop(&mut self) {
        self.pool.close();
    }
}

#[async_trait]
impl Executor for PythonExecutor {
    fn name(&self) -> &'static str {
        "in-process"
    }

    fn capabilities(&self) -> ExecutorCapabilities {
        let mut capabilities = ExecutorCapabilities::default();
        capabilities.python = true;
        capabilities
    }

    async fn execute(
        &self,
        invocation: Invocation,
        cancel: CancelToken,
    ) -> Result<Outcome, ExecutorError> {
        if cancel.is_cancelled() {
            return Ok(Outcome::new(Ending::Cancelled));
        }
        let (run, mut answer) = Run::new(
            invocation,
            &self.pool.late,
            self.pool.settings.memory,
            self.traces,
        );
        self.pool.submit(&run)?;
        tokio::select! {
            biased;
            answer = &mut answer => received(answer),
            () = cancel.cancelled() => {
                self.pool.cancel(&run);
                received(answer.await)
            }
        }
    }

    fn inspect(&self, script: &Script) -> Result<Inspection, ExecutorError> {
        inspect::inspect(&self.pool.codes, &self.interpreter, script)
    }

    fn crashed_runs(&self) -> Vec<ExecutionId> {
        let Some(file) = &self.crash_file else {
            return Vec::new();
        };
        file.runs().unwrap_or_else(|error| {
            tracing::error!(%error, "the crash file can't be read");
            Vec::new()
        })
    }

    fn forget_crashes(&self, runs: &[ExecutionId]) {
        let forgotten = self.crash_file.as_ref().map(|file| file.forget(runs));
        if let Some(Err(error)) = forgotten {
            tracing::error!(%error, "the crash file can't be written, its runs are reported again");
        }
    }

    async fn health(&self) -> ExecutorHealth {
        let mut health = ExecutorHealth::default();
        health.version = Some(self.interpreter.name());
        health.details = self.interpreter.details();
        let late = json!(self.pool.late.get());
        health.details.insert("late_output_bytes".to_owned(), late);
        health
            .details
            .insert("memory".to_owned(), json!(self.accounting));
        if let Some(problem) = self.pool.soundness.problem() {
            health.details.insert("problem".to_owned(), json!(problem));
        }
        let place = json!(Place::described());
        health.details.insert("working_directory".to_owned(), place);
        health
            .details
            .insert("gil_held".to_owned(), self.pulse.held(&self.pool));
        let state = self.pool.lock();
        health.available = !state.closed && self.pool.check_available(&state).is_ok();
        health.workers = state.workers.len();
        health.busy = state.busy();
        health.quarantined_threads = state.quarantined.len();
        health
    }

    async fn shutdown(&self, grace: Duration) -> Result<(), ExecutorError> {
        self.pool.close();
        match self.pool.drain(grace).await {
            0 => Ok(()),
            left => Err(ExecutorError::Unavailable {
                detail: format!("{left} runs did not end within {} s", grace.as_secs_f64()),
            }),
        }
    }
}

fn received(answer: Result<Answer, oneshot::error::RecvError>) -> Answer {
    answer.unwrap_or_else(|_| {
        Err(ExecutorError::Internal {
            detail: "a worker thread ended without an answer".to_owned(),
        })
    })
}
