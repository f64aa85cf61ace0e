//! [`ProcessExecutor`]: runs each script in a process of its own.
//!
//! A zygote (`automation/_zygote.py`) is an interpreter that has loaded what scripts import; it forks a child a run.
//! Nothing here forks this process, and nothing needs an interpreter in it.

mod answers;
mod builder;
mod inspect;
mod job;
mod ladder;
mod memory;
mod order;
mod perform;
mod pipe;
mod pool;
mod tree;
mod verdict;
mod wire;
mod zygote;
mod zygotes;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use automation_core::Script;
use automation_core::executor::{
    CancelToken, Ending, Executor, ExecutorCapabilities, ExecutorError, ExecutorHealth, Inspection,
    Invocation, Outcome,
};
use automation_core::script::Diagnostic;

pub use self::builder::ProcessExecutorBuilder;
use self::builder::Settings;
use self::job::Job;
use self::pool::Pool;

/// Runs each script in a process of its own, forked from an interpreter that is warm.
///
/// A script has the main thread of its process, with its own working directory, environment, descriptors, signal
/// handlers and limits. What it does to them, and how it ends, is nobody else's business: a segmentation fault or
/// `os._exit` ends its run alone.
///
/// # Deadlines
/// At its deadline, or when it is cancelled, an exception is raised in the script. What it started is asked to end
/// after half the grace, the process itself after three quarters; at the end of the grace the process and all of its
/// descendants are killed. What a script that ends by itself leaves running goes on, as after a start by hand, with
/// its output closed.
///
/// # Limits
/// Memory is limited for each process and watched for all of a run's together; so is processor time.
///
/// # Accounting
/// The kernel counts the processor time of the process and of programs that it waited for. Memory, and what it
/// starts, is looked at every 50 ms; `usage.children` of a run that could not say its last words is what was seen then.
/// `usage.threads` of such a run is `None`.
///
/// # Examples
/// ```
/// use std::time::Duration;
///
/// use automation_core::Executor;
/// use automation_py::ProcessExecutor;
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let executor = ProcessExecutor::builder().workers(2).build()?;
/// assert!(executor.capabilities().hard_kill);
/// executor.shutdown(Duration::from_secs(1)).await?;
/// # Ok(())
/// # }
/// ```
pub struct ProcessExecutor {
    pool: Arc<Pool>,
}

impl ProcessExecutor {
    /// Returns a builder with the defaults.
    pub const fn builder() -> ProcessExecutorBuilder {
        ProcessExecutorBuilder::new()
    }

    fn start(settings: Settings) -> Result<Self, ExecutorError> {
        let pool = Arc::new(Pool::new(settings));
        Ok(Self { pool })
    }
}

impl fmt::Debug for ProcessExecutor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProcessExecutor")
            .field("settings", &self.pool.settings)
            .finish_non_exhaustive()
    }
}

impl Drop for ProcessExecutor {
    fn drop(&mut self) {
        self.pool.close();
    }
}

#[async_trait]
impl Executor for ProcessExecutor {
    fn name(&self) -> &'static str {
        "process"
    }

    fn capabilities(&self) -> ExecutorCapabilities {
        let mut capabilities = ExecutorCapabilities::default();
        capabilities.hard_kill = true;
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
        let (job, mut answer) = Job::new(invocation)?;
        let job = Arc::new(job);
        self.pool.submit(&job)?;
        let received = tokio::select! {
            biased;
            answer = &mut answer => answer,
            () = cancel.cancelled() => {
                self.pool.cancel(&job);
                answer.await
            }
        };
        received.unwrap_or_else(|_| {
            let detail = "a run was forgotten".to_owned();
            Err(ExecutorError::Internal { detail })
        })
    }

    fn inspect(&self, script: &Script) -> Result<Inspection, ExecutorError> {
        match &self.pool.settings.inspector {
            Some(inspector) => inspector.inspect(script),
            None => inspect::inspect(&self.pool, script),
        }
    }

    fn probe(&self, script: &Script) -> Result<Option<Diagnostic>, ExecutorError> {
        inspect::probe(&self.pool, script)
    }

    async fn health(&self) -> ExecutorHealth {
        let mut health = ExecutorHealth::default();
        let (has_zygote, version, details) = self.pool.zygotes.health();
        health.available = has_zygote && !self.pool.is_closed();
        health.version = version;
        health.workers = self.pool.settings.workers;
        health.busy = self.pool.busy();
        health.details = details;
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
