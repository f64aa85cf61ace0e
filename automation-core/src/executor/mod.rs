//! What runs a script: the trait, what it is handed, and what it answers.

mod capture;
mod function;
mod limits;
mod queue;

use std::fmt::{self, Debug};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use serde::Serialize;
use serde_json::{Map, Value};
use thiserror::Error as ThisError;

pub use self::capture::{Capture, CapturedText, for_display};
pub use self::function::FnExecutor;
pub use self::limits::{LimitCeilings, LimitPolicy, RunLimits};
pub use self::queue::RunQueue;
use crate::execution::{Concern, Effect, ExecutionId, Reason, ResourceUsage};
pub use crate::script::{Argument, Inspection, Signature};
use crate::script::{Diagnostic, Script};
use crate::secret::{Secret, SecretError};
use crate::storage::StorageError;

/// Runs scripts.
///
/// # Contract
/// - `execute` calls [`RunHost::started`] once, before the script's first byte; the deadline counts from there.
/// - A script that ran and failed is an [`Outcome`]; `Err` means that the executor could not do its part, and
///   that no byte of the script executed unless the error says otherwise.
/// - After a deadline or a cancel, `execute` answers within a bounded time in any case. When the script could
///   not be stopped, [`Outcome::still_running`] says so and nothing of that run reaches another run.
/// - Text and state of one run never reach another run.
///
/// # Cancel safety
/// Dropping the future of `execute` leaves the run to itself: the engine never does so.
#[async_trait]
pub trait Executor: Debug + Send + Sync + 'static {
    /// Returns the executor's name for logs and health.
    fn name(&self) -> &'static str;

    /// Returns what this executor can do.
    fn capabilities(&self) -> ExecutorCapabilities;

    /// Runs one script to its end.
    ///
    /// # Errors
    /// [`ExecutorError`] when the executor could not do its part.
    async fn execute(
        &self,
        invocation: Invocation,
        cancel: CancelToken,
    ) -> Result<Outcome, ExecutorError>;

    /// Reads a script without executing any of it: syntax, missing dependencies, signature.
    ///
    /// Blocks; call it where blocking is allowed.
    ///
    /// # Errors
    /// [`ExecutorError`] when the executor could not do its part; a faulty script is in the diagnostics.
    fn inspect(&self, script: &Script) -> Result<Inspection, ExecutorError>;

    /// Returns why a source that nobody vouches for must not be given to [`inspect`](Self::inspect), found out where
    /// that harms nobody: a source can be made to crash its compiler or to keep it busy. `None`: nothing speaks against
    /// it. Default: `None`.
    ///
    /// Blocks; call it where blocking is allowed.
    ///
    /// # Errors
    /// [`ExecutorError`] when the executor could not do its part.
    fn probe(&self, _script: &Script) -> Result<Option<Diagnostic>, ExecutorError> {
        Ok(None)
    }

    /// Returns the runs during which an earlier process of this executor died, so that their scripts run
    /// elsewhere from now on. Each is returned, also by later processes, until it is forgotten.
    fn crashed_runs(&self) -> Vec<ExecutionId> {
        Vec::new()
    }

    /// Forgets these of the runs that [`crashed_runs`](Self::crashed_runs) returned: what they showed is recorded
    /// elsewhere. Others among them change nothing. Returns soon; what can't be forgotten is returned again.
    fn forget_crashes(&self, _runs: &[ExecutionId]) {}

    /// Returns how the executor is.
    async fn health(&self) -> ExecutorHealth;

    /// Refuses further runs and waits up to `grace` for the present ones.
    ///
    /// # Errors
    /// [`ExecutorError`] when runs were left behind.
    async fn shutdown(&self, grace: Duration) -> Result<(), ExecutorError>;
}

/// What an executor can do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ExecutorCapabilities {
    /// Whether every script can be ended, whatever it does.
    pub hard_kill: bool,
    /// Whether scripts are Python source (a function executor ignores the source).
    pub python: bool,
}

/// What an executor is handed.
#[derive(Clone)]
#[non_exhaustive]
pub struct Invocation {
    /// The run.
    pub execution_id: ExecutionId,
    /// The script, as it was when the run was accepted.
    pub script: Arc<Script>,
    /// The validated parameters, secrets in the clear.
    pub parameters: Map<String, Value>,
    /// The ticket, for ticket runs.
    pub ticket: Option<Arc<Value>>,
    /// Its classification, for ticket runs.
    pub classification: Option<Arc<Value>>,
    /// Who asked for the run.
    pub actor: Option<String>,
    /// What it may use.
    pub limits: RunLimits,
    /// The way back to the engine.
    pub host: Arc<dyn RunHost>,
}

impl Invocation {
    /// Creates an invocation without parameters and ticket.
    #[must_use]
    pub fn new(execution_id: ExecutionId, script: Arc<Script>, host: Arc<dyn RunHost>) -> Self {
        let limits = RunLimits::of(script.metadata());
        Self {
            execution_id,
            script,
            parameters: Map::new(),
            ticket: None,
            classification: None,
            actor: None,
            limits,
            host,
        }
    }
}

impl Debug for Invocation {
    // Parameters may hold secrets, tickets hold personal data.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Invocation")
            .field("execution_id", &self.execution_id)
            .field("script", &self.script.name())
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

/// Through which a run talks back (one object, so that a later executor can forward it to another process).
///
/// Every other method may block, and is never called on the async runtime.
pub trait RunHost: Debug + Send + Sync + 'static {
    /// Tells that the script's first byte is about to execute; starts the deadline. Later calls do nothing.
    /// Returns at once: an executor may hold a lock of its interpreter meanwhile.
    fn started(&self);

    /// Reports something. Never fails: what can't be kept is counted.
    fn emit(&self, event: RunEvent);

    /// Returns the secret with this name, and remembers it for redaction.
    ///
    /// # Errors
    /// [`SecretError`] when it is not configured or can't be read.
    fn secret(&self, name: &str) -> Result<Secret, SecretError>;

    /// Records `entry`; returns when it is durable.
    ///
    /// # Errors
    /// [`StorageError`] when it may not be durable: the script must not go on with what the entry announces.
    fn journal(&self, entry: Value) -> Result<(), StorageError>;

    /// Returns when the run has to end; `None` before it started.
    fn deadline(&self) -> Option<Instant>;

    /// Returns whether the run was asked to end.
    fn is_cancelled(&self) -> bool;

    /// Returns whether the script is to change nothing.
    fn dry_run(&self) -> bool;
}

/// What a run reports while it runs.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
#[non_exhaustive]
pub enum RunEvent {
    /// A line of the script's log.
    Log {
        /// The text.
        text: String,
    },
    /// How far it is.
    Progress {
        /// From 0.0 to 1.0.
        fraction: f64,
        /// What it is doing.
        text: String,
    },
    /// The script did something to the world outside its own memory, or was kept from it.
    Effect {
        /// What sort of thing.
        effect: Effect,
        /// To what: a program, an address, a path.
        target: String,
        /// Whether it was kept from it.
        denied: bool,
    },
    /// The script changed something for the whole process, and it could not be undone.
    Contamination {
        /// What it changed, for instance `json.dumps was replaced`.
        text: String,
    },
    /// The script, that could not be stopped and was answered for as still running, has ended after all.
    LateEnd,
}

/// Asks a run to end. Clones share one state.
#[derive(Debug, Clone, Default)]
pub struct CancelToken(tokio_util::sync::CancellationToken);

impl CancelToken {
    /// Creates a token that is not cancelled.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks the run to end.
    pub fn cancel(&self) {
        self.0.cancel();
    }

    /// Returns whether the run was asked to end.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.0.is_cancelled()
    }

    /// Waits until the run is asked to end.
    ///
    /// # Cancel safety
    /// Safe: nothing is lost when the future is dropped.
    pub async fn cancelled(&self) {
        self.0.cancelled().await;
    }
}

/// What an executor answers.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Outcome {
    /// How it ended.
    pub ending: Ending,
    /// Whether the script could not be stopped and still runs.
    pub still_running: bool,
    /// What it wrote and returned.
    pub output: RawOutput,
    /// The exit code, where there was one.
    pub exit_code: Option<i32>,
    /// From being handed over to the script's first byte.
    pub queue: Duration,
    /// From the script's first byte to its end.
    pub duration: Duration,
    /// What it used.
    pub usage: ResourceUsage,
    /// Why this version of the script should not run in this process again, if so.
    pub concern: Option<Concern>,
}

impl Outcome {
    /// Creates an outcome without output.
    #[must_use]
    pub fn new(ending: Ending) -> Self {
        Self {
            ending,
            still_running: false,
            output: RawOutput::default(),
            exit_code: None,
            queue: Duration::ZERO,
            duration: Duration::ZERO,
            usage: ResourceUsage::default(),
            concern: None,
        }
    }
}

/// How a run ended. Comes from control flow and from our own deadline and cancel, never from output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// The script returned, or exited with 0.
    Completed,
    /// The script failed.
    Failed(Failure),
    /// The script was cancelled, and ended.
    Cancelled,
}

/// Why a script failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Failure {
    /// The cause.
    pub reason: Reason,
    /// The cause in a sentence: type and message of an exception, the exit code, the time that passed.
    pub message: String,
}

impl Failure {
    /// Creates a failure.
    #[must_use]
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
        }
    }
}

/// What a run wrote and returned.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RawOutput {
    /// Standard output.
    pub stdout: CapturedText,
    /// Standard error.
    pub stderr: CapturedText,
    /// The value that the script's function returned, if it has one.
    pub returned: Option<Value>,
    /// Whether the run was ended from outside, so that its last output may be half written.
    pub interrupted: bool,
}

/// How an executor is.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct ExecutorHealth {
    /// Whether it takes runs.
    pub available: bool,
    /// The interpreter, for instance `Python 3.11.7`.
    pub version: Option<String>,
    /// Worker threads.
    pub workers: usize,
    /// Worker threads that execute a script now.
    pub busy: usize,
    /// Threads whose script could not be stopped.
    pub quarantined_threads: usize,
    /// Further facts: build, prefix, shared library.
    pub details: Map<String, Value>,
}

/// That an executor could not do its part.
#[derive(Debug, ThisError)]
#[non_exhaustive]
pub enum ExecutorError {
    /// The interpreter could not be started.
    #[error("the interpreter could not be started: {detail}")]
    Start {
        /// Why, and what is expected.
        detail: String,
    },
    /// No worker can take the run.
    #[error("no worker is available: {detail}")]
    Unavailable {
        /// Why.
        detail: String,
    },
    /// The executor was shut down.
    #[error("the executor is shut down")]
    Closed,
    /// A defect of ours; no byte after it executed.
    #[error("the executor failed: {detail}")]
    Internal {
        /// What happened.
        detail: String,
    },
}

impl ExecutorError {
    /// Returns whether the same call may succeed later.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        matches!(self, Self::Unavailable { .. } | Self::Closed)
    }
}
