//! [`PythonExecutor`]: runs scripts in this process.

mod builder;
mod code;
mod cpu_clock;
mod injector;
mod inspect;
mod perform;
mod pool;
mod turns;
mod watchdog;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use automation_core::Script;
use automation_core::executor::{
    CancelToken, Ending, Executor, ExecutorCapabilities, ExecutorError, ExecutorHealth, Inspection,
    Invocation, Outcome,
};
use serde_json::json;
use tokio::sync::oneshot;

pub use self::builder::PythonExecutorBuilder;
pub(crate) use self::perform::panicked;
use self::pool::Pool;
use crate::interpreter::Interpreter;
use crate::run::{Answer, Run};

/// Runs scripts on the CPython of this process.
///
/// Scripts that run at the same time see none of each other's `sys.argv`, streams, `os.environ` and `__main__`.
/// They do share modules, the working directory and everything else that a process has one of.
///
/// # Deadlines
/// A script that executes Python code is interrupted within milliseconds. What waits in C code (a sleep, a
/// socket, a lock) can't be interrupted from here: after the grace the run is answered with
/// [`still_running`](Outcome::still_running), its thread is abandoned and replaced, and what it still writes is
/// counted and dropped.
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
        let (run, mut answer) = Run::new(invocation, &self.pool.late);
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
        inspect::inspect(&self.pool, &self.interpreter, script)
    }

    async fn health(&self) -> ExecutorHealth {
        let mut health = ExecutorHealth::default();
        health.version = Some(self.interpreter.name());
        health.details = self.interpreter.details();
        let late = json!(self.pool.late.get());
        health.details.insert("late_output_bytes".to_owned(), late);
        let state = self.pool.lock();
        health.available = !state.closed && self.pool.check_available(&state).is_ok();
        health.workers = state.workers.len();
        health.busy = state.busy();
        health.quarantined_threads = state.quarantined;
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
