//! Attempts: runs that repeat a failed one, by its script's policy or because somebody asks.
//!
//! Attempts are executions of their own in one chain: `root_id` is the first, `parent_id` the one before, `attempt` the
//! number. The key of an attempt names the one before, so that each has one successor at most, whoever makes it and how
//! often. One that the policy wants is recorded in the same commit as the failure, and waits (`backoff`).

mod backoff;

use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::Value;

use super::Engine;
use super::decision::About;
use super::keys::Key;
use super::plan::{Plan, validate};
use crate::error::{Error, Problem, Result};
use crate::execution::{Completion, Context, Execution, ExecutionId, Reason, TenantId, Trigger};
use crate::request::check_only_actor;
use crate::script::Script;
use crate::status::Status;
use crate::storage::StorageError;

/// The place of an attempt in its chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Links {
    pub(super) attempt: i32,
    pub(super) root: ExecutionId,
    pub(super) parent: ExecutionId,
}

impl Links {
    fn after(row: &Execution) -> Self {
        Self {
            attempt: row.attempt.saturating_add(1),
            root: row.root(),
            parent: row.id,
        }
    }

    pub(super) fn apply(self, execution: &mut Execution) {
        execution.attempt = self.attempt;
        execution.root_id = Some(self.root);
        execution.parent_id = Some(self.parent);
    }
}

/// Returns whether nobody knows what a run did that ended so, so that only an idempotent script may run again (P4).
const fn is_unknown(reason: Option<Reason>, still_running: bool) -> bool {
    still_running || matches!(reason, Some(Reason::Orphaned))
}

/// Returns whether the script's policy wants another attempt after such an end.
pub(super) fn wants_another(script: &Script, row: &Execution, end: &Completion) -> bool {
    let metadata = script.metadata();
    let Some(policy) = &metadata.retry else {
        return false;
    };
    let repeats = !matches!(row.trigger, Trigger::Test | Trigger::Rollback);
    let is_left = u32::try_from(row.attempt).is_ok_and(|attempt| attempt <= policy.max);
    let is_meant = end.reason.is_some_and(|reason| policy.on.contains(&reason));
    let is_safe = metadata.idempotent || !is_unknown(end.reason, end.still_running);
    repeats && end.status == Status::Failed && is_left && is_meant && is_safe
}

impl Engine {
    /// Returns the attempt that follows such an end, if the script's policy wants one.
    pub(super) fn next_attempt(
        &self,
        script: &Script,
        row: &Execution,
        end: &Completion,
    ) -> Option<Execution> {
        let policy = script.metadata().retry.as_ref();
        let policy = policy.filter(|_| wants_another(script, row, end))?;
        let now = self.now();
        let id = self.next_id(now);
        let pause = backoff::pause(policy, row.attempt, backoff::draw(id.as_uuid()));
        let pause = TimeDelta::from_std(pause).unwrap_or(TimeDelta::MAX);
        Some(following(row, id, now, now + pause))
    }

    /// Returns the script of a run whose process ended; one that can't be read any more can't run either.
    pub(super) async fn script_after_crash(
        self: &Arc<Self>,
        row: &Execution,
    ) -> Result<Option<Arc<Script>>, StorageError> {
        match self.accepted_script(row).await {
            Ok(script) => Ok(Some(script)),
            Err(Error::Storage(error)) => Err(error),
            Err(_) => Ok(None),
        }
    }

    /// Returns the attempt that follows a run whose process ended, if its script's policy wants one.
    pub(super) async fn attempt_after_crash(
        &self,
        script: &Script,
        row: &Execution,
        end: &Completion,
    ) -> Result<Option<Execution>, StorageError> {
        if !wants_another(script, row, end) {
            return Ok(None);
        }
        // Recovery's list is without what the run was asked with.
        let whole = self.parts.storage.get(&row.tenant_id, row.id).await?;
        Ok(self.next_attempt(script, &whole, end))
    }

    /// Waits for the end of a run and of the attempts that its script's policy adds. One that waits for somebody's
    /// decision or for its time is returned as it is, and so is every one when the engine is shut down.
    pub(super) async fn until_end(self: &Arc<Self>, mut run: Execution) -> Result<Execution> {
        loop {
            if run.is_waiting() && run.reason != Some(Reason::Backoff) {
                return Ok(run);
            }
            if !run.status.is_terminal() {
                run = match self.end_of(&run).await {
                    Err(Error::Closed) => return Ok(run),
                    ended => ended?,
                };
            }
            match self.successor(&run).await {
                Ok(Some(next)) => run = next,
                Ok(None) | Err(Error::Closed) => return Ok(run),
                Err(error) => return Err(error),
            }
        }
    }

    async fn end_of(self: &Arc<Self>, run: &Execution) -> Result<Execution> {
        self.watch(&run.tenant_id, run.id).await?.end().await
    }

    pub(super) async fn successor(&self, run: &Execution) -> Result<Option<Execution>> {
        if run.status == Status::Completed {
            return Ok(None);
        }
        self.of_key(&run.tenant_id, &Key::after(run.id)).await
    }

    /// Runs once more what an execution ran, and waits for the end.
    pub(crate) async fn retry(
        self: &Arc<Self>,
        tenant: &TenantId,
        id: ExecutionId,
        actor: Option<&str>,
    ) -> Result<Execution> {
        check_only_actor(actor)?;
        let mut last = self.get(tenant, id).await?;
        while let Some(next) = self.successor(&last).await? {
            last = next;
        }
        if !last.status.is_terminal() && last.id != id {
            return self.until_end(last).await;
        }
        let plan = self.plan_retry(&last, actor)?;
        self.accept(tenant, plan, None).await
    }

    fn plan_retry(&self, row: &Execution, actor: Option<&str>) -> Result<Plan> {
        let script = self.script(&row.script_name)?;
        check_repeatable(row, &script)?;
        let parameters = match &row.parameters {
            Value::Object(parameters) => parameters.clone(),
            _ => serde_json::Map::new(),
        };
        let secrets = script.parameters().secret_names(&parameters).join(", ");
        if !secrets.is_empty() {
            let detail =
                format!("is secret and was not kept ({secrets}), so run the script by its name");
            return Err(Error::InvalidParameters {
                script: row.script_name.clone(),
                problems: vec![Problem::new("", detail)],
            });
        }
        let parameters = validate(&script, parameters)?;
        let plan = Plan {
            parameters,
            trigger: Trigger::Retry,
            actor: actor.map(ToOwned::to_owned),
            ticket_id: (row.ticket_id != row.id.to_string()).then(|| row.ticket_id.clone()),
            links: Some(Links::after(row)),
            key: Some(Key::after(row.id)),
            decision: self.decide_about(About::named(&script, row.dry_run, None))?,
            ..Plan::of_row(row, script)
        };
        plan.checked()
    }
}

/// Returns the execution that follows another, waiting until `run_at`.
fn following(
    row: &Execution,
    id: ExecutionId,
    now: DateTime<Utc>,
    run_at: DateTime<Utc>,
) -> Execution {
    let (name, version) = (row.script_name.clone(), row.script_version.clone());
    let mut next = Execution::new(id, name, version, Trigger::Retry, now);
    Links::after(row).apply(&mut next);
    next.tenant_id = row.tenant_id.clone();
    // A run without a ticket has its own id in its place, and so have those that follow it.
    next.ticket_id.clone_from(&row.ticket_id);
    next.actor.clone_from(&row.actor);
    next.parameters = row.parameters.clone();
    next.dry_run = row.dry_run;
    next.context = row.context.as_deref().and_then(Context::of_next);
    next.isolation = row.isolation;
    next.priority = row.priority;
    next.decision.clone_from(&row.decision);
    next.reason = Some(Reason::Backoff);
    next.run_at = Some(run_at);
    next.idempotency_key = Some(Key::after(row.id).text().to_owned());
    next
}

fn check_repeatable(row: &Execution, script: &Script) -> Result<()> {
    let id = row.id;
    let detail = match row.status {
        Status::Starting | Status::Running => format!("execution {id} has not ended"),
        Status::Completed => format!("execution {id} completed, and only what did not is repeated"),
        _ if matches!(row.trigger, Trigger::Test | Trigger::Rollback) => {
            format!("execution {id} is a {}, which is not repeated", row.trigger)
        }
        _ if is_unknown(row.reason, row.still_running) && !script.metadata().idempotent => {
            let name = script.name();
            format!(
                "what execution {id} did is unknown, and script {name:?} does not say idempotent = true: see what it \
                 did, then run the script by its name"
            )
        }
        _ => return Ok(()),
    };
    Err(Error::Conflict { detail })
}
