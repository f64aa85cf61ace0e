//! Functions as scripts, for tests and documentation.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;

use super::{
    CancelToken, Ending, Executor, ExecutorCapabilities, ExecutorError, ExecutorHealth, Failure,
    Inspection, Invocation, Outcome,
};
use crate::execution::Reason;
use crate::script::Script;

type Function = dyn Fn(Invocation) -> Pin<Box<dyn Future<Output = Outcome> + Send>> + Send + Sync;

/// Runs a Rust function in place of every script. Deadlines and cancels end it by dropping its future.
///
/// ```
/// use automation_core::executor::{Ending, FnExecutor, Outcome};
/// let executor = FnExecutor::new(|invocation| async move {
///     assert_eq!(invocation.script.name(), "hello.py");
///     Outcome::new(Ending::Completed)
/// });
/// # drop(executor);
/// ```
#[derive(Clone)]
pub struct FnExecutor {
    function: Arc<Function>,
    busy: Arc<AtomicUsize>,
    closed: Arc<AtomicBool>,
}

impl FnExecutor {
    /// Creates an executor that calls `function` for each run.
    pub fn new<F, R>(function: F) -> Self
    where
        F: Fn(Invocation) -> R + Send + Sync + 'static,
        R: Future<Output = Outcome> + Send + 'static,
    {
        Self {
            function: Arc::new(move |invocation| Box::pin(function(invocation))),
            busy: Arc::default(),
            closed: Arc::default(),
        }
    }
}

impl fmt::Debug for FnExecutor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FnExecutor")
            .field("busy", &self.busy)
            .finish_non_exhaustive()
    }
}

/// Counts a run as long as it lives.
struct Busy(Arc<AtomicUsize>);

impl Busy {
    fn new(busy: &Arc<AtomicUsize>) -> Self {
        busy.fetch_add(1, Ordering::AcqRel);
        Self(Arc::clone(busy))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

#[async_trait]
impl Executor for FnExecutor {
    fn name(&self) -> &'static str {
        "function"
    }

    fn capabilities(&self) -> ExecutorCapabilities {
        ExecutorCapabilities {
            hard_kill: true,
            python: false,
        }
    }

    async fn execute(
        &self,
        invocation: Invocation,
        cancel: CancelToken,
    ) -> Result<Outcome, ExecutorError> {
        if self.closed.load(Ordering::Acquire) {
            return Err(ExecutorError::Closed);
        }
        let _busy = Busy::new(&self.busy);
        let timeout = invocation.limits.timeout;
        let started = Instant::now();
        invocation.host.started();
        let mut outcome = tokio::select! {
            biased;
            () = cancel.cancelled() => interrupted(Ending::Cancelled),
            outcome = (self.function)(invocation) => outcome,
            () = tokio::time::sleep(timeout) => interrupted(Ending::Failed(Failure::new(
                Reason::Timeout,
                format!("timed out after {} s", timeout.as_secs_f64()),
            ))),
        };
        outcome.duration = started.elapsed();
        Ok(outcome)
    }

    fn inspect(&self, _script: &Script) -> Result<Inspection, ExecutorError> {
        Ok(Inspection::default())
    }

    async fn health(&self) -> ExecutorHealth {
        ExecutorHealth {
            available: !self.closed.load(Ordering::Acquire),
            busy: self.busy.load(Ordering::Acquire),
            ..ExecutorHealth::default()
        }
    }

    async fn shutdown(&self, grace: Duration) -> Result<(), ExecutorError> {
        self.closed.store(true, Ordering::Release);
        let deadline = Instant::now() + grace;
        while self.busy.load(Ordering::Acquire) > 0 {
            if Instant::now() >= deadline {
                let detail = format!(
                    "{} runs were left behind",
                    self.busy.load(Ordering::Acquire)
                );
                return Err(ExecutorError::Internal { detail });
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }
}

fn interrupted(ending: Ending) -> Outcome {
    let mut outcome = Outcome::new(ending);
    outcome.output.interrupted = true;
    outcome
}
