//! The handle: one method a verb, each delegates to the engine.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use crate::builder::AutomationBuilder;
use crate::engine::{Engine, Quarantined, Watch};
use crate::error::Result;
use crate::execution::{Execution, ExecutionId, TenantId};
use crate::executor::{ExecutorHealth, RunLimits};
use crate::metrics::Metrics;
use crate::request::{
    Classification, ExecuteRequest, ExecutionsQuery, Listing, LogsQuery, ManualRequest, Page,
    PruneRequest, Route, StatsQuery, TestRequest, Ticket,
};
use crate::script::{Script, ScriptIndex, Validation};
use crate::stats::Stats;

/// The handle that applications hold. Clones are cheap and share everything.
///
/// Once a run is accepted it belongs to the engine: dropping the future of a verb detaches from the run and
/// never cancels it.
#[derive(Debug, Clone)]
pub struct Automation {
    engine: Arc<Engine>,
    tenant: TenantId,
}

impl Automation {
    /// Starts to build a handle.
    pub fn builder() -> AutomationBuilder {
        AutomationBuilder::new()
    }

    pub(crate) const fn new(engine: Arc<Engine>, tenant: TenantId) -> Self {
        Self { engine, tenant }
    }

    /// Returns a handle that acts for another tenant; everything else is shared.
    #[must_use]
    pub fn for_tenant(&self, tenant: TenantId) -> Self {
        Self {
            engine: Arc::clone(&self.engine),
            tenant,
        }
    }

    /// Runs the script that the ticket's classification selects, and waits for its end.
    ///
    /// # Errors
    /// Kinds `invalid_request`, `automation_not_possible`, `no_script_for_category`, `invalid_parameters`,
    /// `unsupported` when the script needs what this set-up lacks, `conflict`, `overloaded`, `closed`, `storage`,
    /// `executor`. A script that ran and failed is `Ok`.
    ///
    /// # Cancel safety
    /// Dropping the future detaches from the run, which goes on.
    pub async fn execute(&self, request: ExecuteRequest) -> Result<Execution> {
        self.engine.execute(&self.tenant, request).await
    }

    /// Runs a script by its name, and waits for its end.
    ///
    /// # Errors
    /// Kinds `invalid_request`, `script_not_found`, `invalid_script`, `invalid_parameters`, `unsupported` when the
    /// script needs what this set-up lacks, `conflict`, `overloaded`, `closed`, `storage`, `executor`. A script
    /// that ran and failed is `Ok`.
    ///
    /// # Cancel safety
    /// Dropping the future detaches from the run, which goes on.
    pub async fn manual(&self, request: ManualRequest) -> Result<Execution> {
        self.engine.manual(&self.tenant, request).await
    }

    /// Makes a dry run through the whole path: registry, storage, executor, parser.
    ///
    /// # Errors
    /// As [`manual`](Self::manual), and `unsupported` when no script has a `dry_run` parameter.
    ///
    /// # Cancel safety
    /// Dropping the future detaches from the run, which goes on.
    pub async fn test(&self, request: TestRequest) -> Result<Execution> {
        self.engine.test(&self.tenant, request).await
    }

    /// Returns which script would run for a ticket, and why, without running it.
    ///
    /// # Errors
    /// Kinds `invalid_request`, `automation_not_possible`, `no_script_for_category`.
    pub fn route(&self, ticket: &Ticket, classification: &Classification) -> Result<Route> {
        self.engine
            .route(ticket, classification)
            .map(|(route, _)| route)
    }

    /// Returns an execution.
    ///
    /// # Errors
    /// Kinds `execution_not_found`, `storage`.
    pub async fn get(&self, id: ExecutionId) -> Result<Execution> {
        self.engine.get(&self.tenant, id).await
    }

    /// Asks an execution to end, waits for its terminal status, and returns it.
    ///
    /// The answer is honest: an execution that had ended by itself keeps its status, and one that could not be
    /// stopped is `failed` with `still_running`.
    ///
    /// # Errors
    /// Kinds `execution_not_found`, `conflict` when another instance holds the run, `storage`.
    pub async fn cancel(&self, id: ExecutionId, actor: Option<&str>) -> Result<Execution> {
        self.engine.cancel(&self.tenant, id, actor).await
    }

    /// Runs once more what an execution ran that did not complete, with the same parameters and ticket, at the script's
    /// present version, and waits for the end. The new run is the next attempt of the same chain. Of several who ask at
    /// the same time, and while it runs, one run answers all; an execution that was repeated already stands for the last
    /// of its chain.
    ///
    /// # Errors
    /// Kinds `execution_not_found`, `conflict` when it is open or completed, or when what it did is unknown and its
    /// script is not idempotent; `invalid_parameters` when the script takes others now, or took secret ones, which are
    /// not kept; and those of [`manual`](Self::manual).
    ///
    /// # Cancel safety
    /// Dropping the future detaches from the run, which goes on.
    pub async fn retry(&self, id: ExecutionId, actor: Option<&str>) -> Result<Execution> {
        self.engine.retry(&self.tenant, id, actor).await
    }

    /// Follows an execution: its events, then its end.
    ///
    /// # Errors
    /// Kinds `execution_not_found`, `storage`.
    pub async fn watch(&self, id: ExecutionId) -> Result<Watch> {
        self.engine.watch(&self.tenant, id).await
    }

    /// Returns a page of a ticket's executions, newest first.
    ///
    /// # Errors
    /// Kinds `invalid_request`, `ticket_not_found` when the ticket has no execution at all, `storage`.
    pub async fn logs(
        &self,
        query: impl Into<LogsQuery> + Send,
        page: Page,
    ) -> Result<Listing<Execution>> {
        self.engine.logs(&self.tenant, query.into(), page).await
    }

    /// Returns a page of the executions that fit, of any ticket, newest first.
    ///
    /// # Errors
    /// Kinds `invalid_request`, `storage`.
    pub async fn executions(
        &self,
        query: ExecutionsQuery,
        page: Page,
    ) -> Result<Listing<Execution>> {
        self.engine.executions(&self.tenant, query, &page).await
    }

    /// Deletes executions that ended before a day, with their events, in small batches beside other work; returns how
    /// many. The statistics keep what they counted of them. Open executions, and those that an open one follows, are
    /// never deleted.
    ///
    /// # Errors
    /// Kinds `invalid_request`, `storage`; what went before stays deleted.
    ///
    /// # Cancel safety
    /// Dropping the future ends it behind a batch.
    pub async fn prune(&self, request: PruneRequest) -> Result<u64> {
        self.engine.prune(&self.tenant, request).await
    }

    /// Copies everything that is recorded, of every tenant, into a new file at one moment, beside runs and reads;
    /// returns its size in bytes. SQLite only: PostgreSQL has `pg_dump`.
    ///
    /// # Errors
    /// Kinds `unsupported` for other storages, `invalid_request` when the file is there already or its folder can't be
    /// written, `storage`; then no file is left.
    pub async fn back_up(&self, to: impl Into<PathBuf> + Send) -> Result<u64> {
        self.engine.back_up(to.into()).await
    }

    /// Returns the statistics.
    ///
    /// # Errors
    /// Kind `storage`.
    pub async fn stats(&self, query: StatsQuery) -> Result<Stats> {
        self.engine
            .stats(StatsQuery {
                tenant_id: self.tenant.clone(),
                ..query
            })
            .await
    }

    /// Returns the scripts as they are now, the invalid ones among them.
    #[must_use]
    pub fn scripts(&self) -> Arc<ScriptIndex> {
        self.engine.scripts()
    }

    /// Returns a script that can run.
    ///
    /// # Errors
    /// Kinds `script_not_found`, `invalid_script`.
    pub fn script(&self, name: &str) -> Result<Arc<Script>> {
        self.engine.script(name)
    }

    /// Returns what a run of a script may use: what its metadata states, filled in and bounded by the builder's
    /// [`limits`](AutomationBuilder::limits).
    #[must_use]
    pub fn limits(&self, script: &Script) -> RunLimits {
        self.engine.limits(script)
    }

    /// Says what is wrong or doubtful about a source, and what it would be as a script: metadata block, parameters,
    /// syntax, packages, and what is refused in a run or reaches other runs. It is never executed, registered or kept.
    ///
    /// # Errors
    /// Kinds `overloaded` when others are validated for too long, `executor` when the source can't be inspected. A faulty source is in the [`Validation`].
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing; an inspection that began goes on for its bounded time.
    ///
    /// # Examples
    /// ```
    /// use automation_core::{Automation, ScriptRegistry};
    /// # use automation_core::executor::{Ending, FnExecutor, Outcome};
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let executor = FnExecutor::new(|_| async { Outcome::new(Ending::Completed) });
    /// let automation = Automation::builder()
    ///     .scripts(ScriptRegistry::from_scripts([]))
    ///     .executor(executor) // automation_py's PythonExecutor knows Python
    ///     .build()?;
    /// let found = automation.validate("greet.py", "# /// script\n# order = 1\n# ///\n").await?;
    /// assert!(!found.is_valid());
    /// assert!(found.diagnostics[0].to_string().starts_with("greet.py:2:3: "));
    /// let found = automation.validate("greet.py", "print('{}')\n").await?;
    /// assert!(found.script.is_some_and(|script| script.metadata().category.is_none()));
    /// # Ok(())
    /// # }
    /// ```
    pub async fn validate(
        &self,
        name: impl Into<String> + Send,
        source: impl Into<Vec<u8>> + Send,
    ) -> Result<Validation> {
        self.engine.validate(name.into(), source.into()).await
    }

    /// Reads the scripts folder again. Runs that were accepted keep their version.
    ///
    /// # Errors
    /// Kind `unsupported` when the folder can't be read, `executor` when scripts can't be inspected; the former
    /// scripts stay.
    pub async fn reload(&self) -> Result<Arc<ScriptIndex>> {
        self.engine.reload().await
    }

    /// Returns the script versions that are kept out of this process, by script: a run of theirs could not be stopped,
    /// ended the process, changed it for all others, or met its memory limit where the interpreter may not survive
    /// that. They run in the isolated executor, where there is one. Other versions of the same scripts are not affected.
    ///
    /// # Errors
    /// Kind `storage`, as long as what is recorded could not be read since the start.
    pub async fn quarantined(&self) -> Result<Vec<Quarantined>> {
        self.engine.quarantined().await
    }

    /// Releases a script from quarantine: every version, by the script's name, or one, by its version. Returns what is
    /// released. It is kept out again by the next run that is a cause.
    ///
    /// # Errors
    /// Kinds `invalid_request` for a malformed actor, `script_not_found`, `conflict` when the script is not in
    /// quarantine, `storage`; then what could not be released stays where it is.
    ///
    /// # Cancel safety
    /// Dropping the future leaves it open which versions are released.
    pub async fn release(&self, script: &str, actor: Option<&str>) -> Result<Vec<Quarantined>> {
        self.engine.release(script, actor).await
    }

    /// Returns how everything is. Never fails: what does not answer is shown as such.
    pub async fn health(&self) -> Health {
        self.engine.health().await
    }

    /// Returns what this process has counted since its start, of every tenant, and how it is now. Never fails.
    pub async fn metrics(&self) -> Metrics {
        self.engine.metrics().await
    }

    /// Refuses further runs, waits up to `grace` for the present ones, cancels the rest, and closes the storage.
    ///
    /// # Errors
    /// Kind `executor`, with everything that went wrong: what was accepted is recorded all the same, or found at
    /// the next start, and the storage is released. A second call gets the answer of the first.
    pub async fn shutdown(&self, grace: Duration) -> Result<()> {
        self.engine.shutdown(grace).await
    }
}

/// How everything is.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Health {
    /// The executor.
    pub executor: ExecutorHealth,
    /// The isolated executor, where there is one.
    pub isolated_executor: Option<ExecutorHealth>,
    /// Where the storage keeps its data; `None` when it does not answer.
    pub storage: Option<String>,
    /// Why the storage does not answer, or does not take what is written; runs are refused until it does.
    pub storage_error: Option<String>,
    /// Script versions that are kept out of this process, as far as they are known: nothing runs before they are.
    pub quarantined: Vec<Quarantined>,
    /// Executions that are dispatched.
    pub running: usize,
    /// Executions that wait to be dispatched.
    pub queued: usize,
    /// Runs that have ended, and whose ends the storage has not taken yet: they are in the spool.
    pub spooled: usize,
    /// Whether runs are accepted, as far as the storage works.
    pub accepting: bool,
}

impl Health {
    /// Returns whether runs can be accepted and executed now.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.obstacles().is_empty()
    }

    /// Returns why runs can't be accepted and executed now, part by part; empty when they can. What lies behind it is
    /// in the fields: it may name paths and hosts.
    #[must_use]
    pub fn obstacles(&self) -> Vec<&'static str> {
        let isolated = self.isolated_executor.as_ref();
        let storage = self.storage.is_some() && self.storage_error.is_none();
        [
            (self.accepting, "the engine is shut down"),
            (self.executor.available, "the executor takes no runs"),
            (
                isolated.is_none_or(|isolated| isolated.available),
                "the isolated executor takes no runs",
            ),
            (storage, "the storage does not work"),
        ]
        .into_iter()
        .filter_map(|(fine, obstacle)| (!fine).then_some(obstacle))
        .collect()
    }
}
