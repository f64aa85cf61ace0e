//! One run from its row to its terminal status, in the order of promises P1 to P4.

use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use serde_json::Value;

use super::Engine;
use super::gate::{Permit, Place};
use super::host::{Host, HostParts, LiveRun, Stop};
use super::keys::Key;
use super::patience::Impatient;
use super::plan::Plan;
use super::quotas::Share;
use super::venue::Venue;
use super::verdict::{bounded, cancelled_by};
use super::waiting::Wait;
use crate::error::{Error, Result};
use crate::execution::{Completion, Context, Event, Execution, ExecutionId, Reason, TenantId};
use crate::executor::{Executor, ExecutorError, Invocation, Outcome, RunHost, RunLimits};
use crate::redact::Redactor;
use crate::script::Script;
use crate::status::Status;
use crate::storage::{Change, Transition, Write};

/// Keeps a run findable while its task lives, and ends its watchers' wait when the task ends, even by a panic.
struct Live {
    engine: Arc<Engine>,
    id: ExecutionId,
    run: Arc<LiveRun>,
}

impl Live {
    fn new(engine: &Arc<Engine>, id: ExecutionId, run: &Arc<LiveRun>) -> Self {
        engine.live.lock().insert(id, Arc::clone(run));
        Self {
            engine: Arc::clone(engine),
            id,
            run: Arc::clone(run),
        }
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.engine.live.lock().remove(&self.id);
        self.run.end();
    }
}

/// A run that is about to be recorded.
pub(super) struct Life {
    pub(super) engine: Arc<Engine>,
    pub(super) plan: Plan,
    pub(super) execution: Execution,
    pub(super) run: Arc<LiveRun>,
    /// A caller who is told when the run is recorded.
    pub(super) impatient: Option<Impatient>,
    /// Its share of the quotas, which it has to its end.
    pub(super) share: Option<Share>,
    executor: Arc<dyn Executor>,
    pub(super) redactor: Redactor,
    /// The attempt that follows it, once it has ended.
    next: Option<Execution>,
}

impl Life {
    pub(super) fn new(
        engine: Arc<Engine>,
        tenant: TenantId,
        mut plan: Plan,
        Venue {
            isolation,
            executor,
        }: Venue,
    ) -> Self {
        let run = Arc::new(LiveRun::new(
            tenant.clone(),
            Arc::clone(&plan.script),
            plan.decision.category.take(),
        ));
        let redactor = Redactor::new(plan.script.parameters().secrets(&plan.parameters));
        let mut execution = describe(&engine, tenant, &mut plan, &redactor);
        execution.isolation = isolation;
        Self {
            engine,
            plan,
            executor,
            execution,
            run,
            impatient: None,
            share: None,
            redactor,
            next: None,
        }
    }

    /// Continues a row that waited and is claimed.
    pub(super) fn of_row(
        engine: Arc<Engine>,
        row: Execution,
        script: Arc<Script>,
        Venue { executor, .. }: Venue,
    ) -> Self {
        let mut plan = Plan::of_row(&row, script);
        let (script, category) = (Arc::clone(&plan.script), plan.decision.category.take());
        Self {
            run: Arc::new(LiveRun::new(row.tenant_id.clone(), script, category)),
            redactor: Redactor::new(plan.script.parameters().secrets(&plan.parameters)),
            engine,
            plan,
            executor,
            execution: row,
            impatient: None,
            share: None,
            next: None,
        }
    }

    /// Records the run as one that waits.
    pub(super) async fn wait(mut self, wait: Wait) -> Result<Execution> {
        self.store_version().await?;
        let execution = &mut self.execution;
        execution.reason = Some(wait.reason);
        execution.run_at = wait.run_at;
        (execution.claimed_by, execution.lease_until) = (None, None);
        self.insert().await?;
        self.engine.waiting.expect_row(&self.execution);
        Ok(self.execution)
    }

    /// Lets a row run that waited.
    pub(super) async fn resume(mut self, _permit: Permit) -> Result<Execution> {
        let _live = Live::new(&self.engine, self.execution.id, &self.run);
        // It may have been stopped while it waited.
        match self.may_start() {
            Ok(venue) => {
                if self.dispatch(venue).await? {
                    self.engine.waiting.tell_moved();
                    self.perform().await?;
                }
            }
            Err(error) => self.end_refused(&error).await?,
        }
        Ok(self.execution)
    }

    /// Records the run and lets it run; returns it at its end, or the attempt that follows it.
    pub(super) async fn run(mut self, place: Place) -> Result<Execution> {
        let _live = Live::new(&self.engine, self.execution.id, &self.run);
        self.until_recorded_end(place).await?;
        Ok(self.next.unwrap_or(self.execution))
    }

    async fn until_recorded_end(&mut self, place: Place) -> Result<()> {
        self.store_version().await?;
        let Some(_permit) = self.record_and_dispatch(place).await? else {
            return Ok(());
        };
        self.perform().await
    }

    /// Executes the script, whose row is `running`, and records the end.
    async fn perform(&mut self) -> Result<()> {
        let host = Arc::new(self.host());
        match self.call_executor(&host).await {
            Ok(outcome) => {
                let concern = outcome.concern;
                let completion = self.complete(outcome, &host);
                let quarantine = self.engine.put_in_quarantine(&self.execution, concern);
                let events = self.run.unrecorded();
                // Beside each other: the one that has to wait for the storage does not hold up the other.
                let (ended, ()) = tokio::join!(self.end(completion, events), quarantine);
                ended
            }
            Err(error) => {
                let mut completion = self.completion(Status::Failed, Reason::ExecutorError);
                let text = error.to_string();
                completion.error = Some(host.redacted(|redactor| bounded(&redactor.text(&text))));
                self.end(completion, self.run.unrecorded()).await?;
                Err(error.into())
            }
        }
    }

    /// Records the run; returns its place among the dispatched, or `None` when it ended while it waited.
    async fn record_and_dispatch(&mut self, place: Place) -> Result<Option<Permit>> {
        match place {
            Place::Free(permit) => {
                self.execution.status = Status::Running;
                self.insert().await?;
                self.tell_recorded();
                Ok(Some(permit))
            }
            Place::Queued(waiter) => {
                self.insert().await?;
                self.tell_recorded();
                let cancel = self.run.cancel_token().clone();
                let permit = tokio::select! {
                    permit = waiter.permit() => permit,
                    () = cancel.cancelled() => None,
                };
                let Some(permit) = permit else {
                    return self.end_before_start().await.map(|()| None);
                };
                // It may have been stopped, or come into quarantine, while it waited.
                match self.may_start() {
                    Ok(venue) => Ok(self.dispatch(venue).await?.then_some(permit)),
                    Err(error) => self.end_refused(&error).await.map(|()| None),
                }
            }
        }
    }

    fn may_start(&self) -> Result<Venue> {
        let (script, category) = self.run.subject();
        self.engine.check_stops(script, category)?;
        self.engine.venue(script)
    }

    /// Moves the row to `running`; false when it was taken from us, and then nothing may run.
    async fn dispatch(&mut self, venue: Venue) -> Result<bool> {
        let now = self.engine.now();
        let lease_until = self.engine.lease_until(now);
        let claimed_by = self.engine.instance.clone();
        let Venue {
            isolation,
            executor,
        } = venue;
        self.executor = executor;
        let transition = self.transition(Change::Run {
            claimed_by,
            lease_until,
            isolation,
        });
        match self
            .commit_until_known(&transition, Vec::new(), Vec::new())
            .await?
        {
            None => {
                self.execution.status = Status::Running;
                self.execution.reason = None;
                self.execution.claimed_by = Some(self.engine.instance.clone());
                self.execution.lease_until = Some(lease_until);
                self.execution.isolation = isolation;
                self.run.moved();
                Ok(true)
            }
            Some(row) => {
                let ours = row.status == Status::Running
                    && row.claimed_by.as_ref() == Some(&self.engine.instance)
                    && row.epoch == self.execution.epoch;
                self.execution = *row;
                Ok(ours)
            }
        }
    }

    async fn end_refused(&mut self, error: &Error) -> Result<()> {
        let reason = match error {
            Error::Stopped(_) => Reason::Stopped,
            _ => Reason::ExecutorError,
        };
        let mut completion = self.not_started(reason, &error.to_string());
        if reason == Reason::Stopped {
            completion.status = Status::Cancelled;
        }
        self.end(completion, Vec::new()).await
    }

    async fn end_before_start(&mut self) -> Result<()> {
        let mut completion = match self.run.stopped_by() {
            Some(Stop::Cancel { actor }) => {
                self.not_started(Reason::CancelledByRequest, &cancelled_by(actor.as_deref()))
            }
            Some(Stop::Shutdown) | None => {
                self.not_started(Reason::Shutdown, "the engine was shut down")
            }
        };
        completion.status = Status::Cancelled;
        self.end(completion, Vec::new()).await
    }

    fn host(&mut self) -> Host {
        let parts = &self.engine.parts;
        Host::new(HostParts {
            run: Arc::clone(&self.run),
            id: self.execution.id,
            timeout: self.limits().timeout,
            dry_run: self.plan.dry_run,
            last_event: u32::from(self.plan.decision.forced.is_some()),
            redactor: std::mem::take(&mut self.redactor),
            secrets: Arc::clone(&parts.secrets),
            storage: Arc::clone(&parts.storage),
            clock: Arc::clone(&parts.clock),
            runtime: parts.runtime.clone(),
        })
    }

    fn limits(&self) -> RunLimits {
        self.engine.limits(&self.plan.script)
    }

    /// Runs the script and meanwhile records what it reports.
    async fn call_executor(&mut self, host: &Arc<Host>) -> Result<Outcome, ExecutorError> {
        let invocation = Invocation {
            execution_id: self.execution.id,
            script: Arc::clone(&self.plan.script),
            parameters: std::mem::take(&mut self.plan.parameters),
            ticket: self.plan.ticket.take(),
            classification: self.plan.classification.take(),
            actor: self.execution.actor.clone(),
            limits: self.limits(),
            host: Arc::clone(host) as Arc<dyn RunHost>,
        };
        let executor = Arc::clone(&self.executor);
        let call = caught(executor.execute(invocation, self.run.cancel_token().clone()));
        let outcome = async {
            let outcome = call.await;
            host.close();
            outcome
        };
        // Beside each other: a storage that is slow delays neither the executor's deadline nor a cancel.
        let (outcome, ()) = tokio::join!(outcome, self.record_until_closed(host));
        outcome
    }

    /// Records the end, however long the storage takes, and takes over what the row says.
    async fn end(&mut self, completion: Completion, events: Vec<Event>) -> Result<()> {
        let transition = self.transition(Change::End(completion.clone()));
        let script = &self.plan.script;
        let next = self
            .engine
            .next_attempt(script, &self.execution, &completion);
        let also = next
            .iter()
            .map(|next| Write::Insert(Box::new(next.clone())));
        let also = also.collect();
        match self.commit_until_known(&transition, also, events).await? {
            None => {
                self.execution.end(completion);
                self.engine.meter.count(&self.execution);
                next.iter()
                    .for_each(|next| self.engine.waiting.expect_row(next));
                self.next = next;
            }
            Some(row) => self.execution = *row,
        }
        Ok(())
    }

    fn transition(&self, change: Change) -> Transition {
        Transition {
            tenant_id: self.execution.tenant_id.clone(),
            id: self.execution.id,
            epoch: self.execution.epoch,
            from: self.execution.status,
            change,
        }
    }

    fn completion(&self, status: Status, reason: Reason) -> Completion {
        Completion::new(status, Some(reason), self.engine.now())
    }

    fn not_started(&self, reason: Reason, detail: &str) -> Completion {
        let mut completion = self.completion(Status::Failed, reason);
        completion.error = Some(format!("not started: {detail}"));
        completion
    }
}

/// Turns a panic of an executor into its error: the row must become terminal in any case.
async fn caught<F>(mut future: Pin<Box<F>>) -> Result<Outcome, ExecutorError>
where
    F: Future<Output = Result<Outcome, ExecutorError>> + ?Sized,
{
    poll_fn(|context| {
        catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context))).unwrap_or_else(|_| {
            Poll::Ready(Err(ExecutorError::Internal {
                detail: "the executor panicked".to_owned(),
            }))
        })
    })
    .await
}

fn describe(engine: &Engine, tenant: TenantId, plan: &mut Plan, redactor: &Redactor) -> Execution {
    let now = engine.now();
    let id = engine.next_id(now);
    let script: &Script = &plan.script;
    let mut execution = Execution::new(
        id,
        script.name(),
        script.version().to_string(),
        plan.trigger,
        now,
    );
    execution.tenant_id = tenant;
    if let Some(ticket_id) = &plan.ticket_id {
        execution.ticket_id.clone_from(ticket_id);
    }
    execution.actor = plan
        .actor
        .as_deref()
        .map(|actor| redactor.text(actor).into_owned());
    execution.parameters = Value::Object(script.parameters().mask(&plan.parameters));
    redactor.value(&mut execution.parameters);
    execution.dry_run = plan.dry_run;
    execution.priority = plan.decision.priority;
    execution.decision = plan
        .decision
        .sentence
        .take()
        .map(|sentence| match plan.decision.forced {
            Some(_) => redactor.text(&sentence).into_owned(),
            None => sentence,
        });
    execution.context = context(plan).map(Arc::new);
    execution.idempotency_key = plan.key.as_ref().map(|key| key.text().to_owned());
    if let Some(links) = plan.links {
        links.apply(&mut execution);
    }
    execution.claimed_by = Some(engine.instance.clone());
    execution.lease_until = Some(engine.lease_until(now));
    execution
}

/// Returns what the run is asked with besides its parameters, if there is anything.
fn context(plan: &Plan) -> Option<Context> {
    let context = Context {
        ticket: plan.ticket.clone(),
        classification: plan.classification.clone(),
        digest: plan.key.as_ref().and_then(Key::digest).cloned(),
    };
    (!context.is_empty()).then_some(context)
}
