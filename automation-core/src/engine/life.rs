//! One run from its row to its terminal status, in the order of promises P1 to P4.

use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use serde_json::{Map, Value, json};
use tokio::sync::OwnedSemaphorePermit;

use super::Engine;
use super::gate::Place;
use super::host::{Host, HostParts, LiveRun, Stop};
use super::plan::Plan;
use crate::error::{Error, Result};
use crate::execution::{Completion, Event, Execution, Reason, TenantId};
use crate::executor::{
    Ending, Executor, ExecutorError, Failure, Invocation, Outcome, RawOutput, RunHost,
};
use crate::parser::{Found, ParsedOutput};
use crate::redact::Redactor;
use crate::script::Script;
use crate::status::Status;
use crate::storage::{
    Applied, Change, Record, RecordKind, StorageError, Transition, Write, WriteError,
};

/// First and longest pause before a commit that failed is tried again.
const RETRY_PAUSES: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

/// What became of a transition.
enum Known {
    /// It stands.
    Applied,
    /// Somebody else moved the row, which now is this.
    Taken(Box<Execution>),
}

/// A run that is about to be recorded.
pub(super) struct Life {
    engine: Arc<Engine>,
    plan: Plan,
    executor: Arc<dyn Executor>,
    execution: Execution,
    run: Arc<LiveRun>,
}

impl Life {
    pub(super) fn new(
        engine: Arc<Engine>,
        tenant: TenantId,
        plan: Plan,
        executor: Arc<dyn Executor>,
    ) -> Self {
        let run = Arc::new(LiveRun::new(tenant.clone()));
        let execution = describe(&engine, tenant, &plan);
        Self {
            engine,
            plan,
            executor,
            execution,
            run,
        }
    }

    pub(super) async fn run(mut self, place: Place) -> Result<Execution> {
        self.engine
            .live
            .lock()
            .insert(self.execution.id, Arc::clone(&self.run));
        let ended = self.until_recorded_end(place).await;
        self.engine.live.lock().remove(&self.execution.id);
        // Watchers learn of the end whatever it is; the row, not this copy, is the truth for later readers.
        self.run.end(&self.execution);
        ended.map(|()| self.execution)
    }

    async fn until_recorded_end(&mut self, place: Place) -> Result<()> {
        self.store_version().await?;
        let Some(_permit) = self.record_and_dispatch(place).await? else {
            return Ok(());
        };
        let host = Arc::new(self.host());
        match self.call_executor(&host).await {
            Ok(outcome) => {
                let completion = self.complete(outcome, &host);
                self.record_end(completion, &host).await
            }
            Err(error) => {
                let mut completion = self.completion(Status::Failed, Reason::ExecutorError);
                completion.error = Some(error.to_string());
                self.record_end(completion, &host).await?;
                Err(error.into())
            }
        }
    }

    /// Stores the script's source when a version is executed for the first time: undo and retries need it later.
    async fn store_version(&self) -> Result<()> {
        let key = (
            self.execution.tenant_id.clone(),
            Arc::clone(self.plan.script.version()),
        );
        if self.engine.stored_versions.lock().contains(&key) {
            return Ok(());
        }
        let script = &self.plan.script;
        let record = Record {
            tenant_id: key.0.clone(),
            kind: RecordKind::ScriptVersion,
            key: key.1.to_string(),
            value: json!({ "name": script.name(), "source": script.source().as_ref() }),
            revision: 0,
        };
        match self
            .commit(vec![Write::Put {
                record,
                expected: None,
            }])
            .await
        {
            Ok(_) | Err(WriteError::Mismatch { .. } | WriteError::Exists { .. }) => {}
            Err(error) => return Err(storage_error(error)),
        }
        self.engine.stored_versions.lock().insert(key);
        Ok(())
    }

    /// Records the run; returns its place among the dispatched, or `None` when it ended while it waited.
    async fn record_and_dispatch(&mut self, place: Place) -> Result<Option<OwnedSemaphorePermit>> {
        match place {
            Place::Free(permit) => {
                self.execution.status = Status::Running;
                self.insert().await?;
                Ok(Some(permit))
            }
            Place::Queued(waiter) => {
                self.insert().await?;
                let cancel = self.run.cancel_token().clone();
                let permit = tokio::select! {
                    permit = waiter.permit() => permit,
                    () = cancel.cancelled() => None,
                };
                match permit {
                    Some(permit) => Ok(self.dispatch().await?.then_some(permit)),
                    None => self.end_before_start().await.map(|()| None),
                }
            }
        }
    }

    async fn insert(&self) -> Result<()> {
        match self
            .commit(vec![Write::Insert(Box::new(self.execution.clone()))])
            .await
        {
            Ok(_) => Ok(()),
            Err(WriteError::Storage(error @ StorageError::Backend { .. })) => {
                self.settle_insert(error).await
            }
            Err(error) => Err(storage_error(error)),
        }
    }

    /// A commit whose outcome is unknown: the row says whether the run was accepted.
    async fn settle_insert(&self, error: StorageError) -> Result<()> {
        match self
            .engine
            .get(&self.execution.tenant_id, self.execution.id)
            .await
        {
            Ok(_) => Ok(()),
            Err(Error::ExecutionNotFound { .. }) => Err(error.into()),
            Err(_) => {
                // Nothing ran, and nothing will: if the row turns out to be there, it says so.
                let completion =
                    self.not_started(Reason::NotStarted, "its record could not be confirmed");
                let end = self.transition(Change::End(completion));
                let engine = Arc::clone(&self.engine);
                let settling = end_when_reachable(engine, end);
                drop(
                    self.engine
                        .tasks
                        .spawn_on(settling, &self.engine.parts.runtime),
                );
                Err(error.into())
            }
        }
    }

    /// Moves the row to `running`; false when it was taken from us, and then nothing may run.
    async fn dispatch(&mut self) -> Result<bool> {
        let now = self.engine.now();
        let lease_until = self.engine.lease_until(now);
        let claimed_by = self.engine.instance.clone();
        let transition = self.transition(Change::Run {
            claimed_by,
            lease_until,
        });
        match self.commit_until_known(&transition, Vec::new()).await? {
            Known::Applied => {
                self.execution.status = Status::Running;
                self.execution.lease_until = Some(lease_until);
                Ok(true)
            }
            Known::Taken(row) => {
                self.execution = *row;
                Ok(false)
            }
        }
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

    fn host(&self) -> Host {
        let parts = &self.engine.parts;
        let schema = self.plan.script.parameters();
        Host::new(HostParts {
            run: Arc::clone(&self.run),
            id: self.execution.id,
            timeout: self.plan.script.metadata().timeout,
            dry_run: self.plan.dry_run,
            redactor: Redactor::new(schema.secrets(&self.plan.parameters)),
            secrets: Arc::clone(&parts.secrets),
            storage: Arc::clone(&parts.storage),
            clock: Arc::clone(&parts.clock),
            runtime: parts.runtime.clone(),
        })
    }

    /// Runs the script and meanwhile records what it reports.
    async fn call_executor(&mut self, host: &Arc<Host>) -> Result<Outcome, ExecutorError> {
        let invocation = Invocation {
            execution_id: self.execution.id,
            script: Arc::clone(&self.plan.script),
            parameters: std::mem::take(&mut self.plan.parameters),
            ticket: self.plan.ticket.take(),
            classification: self.plan.classification.take(),
            timeout: self.plan.script.metadata().timeout,
            host: Arc::clone(host) as Arc<dyn RunHost>,
        };
        let executor = Arc::clone(&self.executor);
        let mut outcome = pin!(caught(
            executor.execute(invocation, self.run.cancel_token().clone())
        ));
        loop {
            tokio::select! {
                outcome = &mut outcome => return outcome,
                () = host.flush_due() => self.record_events(host).await,
            }
        }
    }

    async fn record_events(&self, host: &Host) {
        let events = host.take_pending();
        let writes = events.iter().cloned().map(Write::Append).collect();
        match self.commit(writes).await {
            Ok(_) => {}
            Err(WriteError::Storage(error)) => {
                tracing::warn!(execution = %self.execution.id, %error, "events are not recorded yet");
                host.put_back(events);
            }
            Err(_) => self.append_each(events).await,
        }
    }

    /// Records events one by one, since an earlier commit of unknown outcome may have recorded some of them.
    async fn append_each(&self, events: Vec<Event>) {
        for event in events {
            match self.commit(vec![Write::Append(event)]).await {
                Ok(_) | Err(WriteError::Exists { .. }) => {}
                Err(error) => {
                    tracing::warn!(execution = %self.execution.id, %error, "an event is lost")
                }
            }
        }
    }

    fn complete(&self, outcome: Outcome, host: &Host) -> Completion {
        let Outcome {
            ending,
            still_running,
            mut output,
            exit_code,
            queue,
            duration,
            usage,
        } = outcome;
        let parsed = self.parse(&output);
        if let Found::Rejected(error) = &parsed.found {
            tracing::warn!(execution = %self.execution.id, %error, "the output's JSON breaks the profile");
        }
        if host.dropped() > 0 {
            tracing::warn!(execution = %self.execution.id, dropped = host.dropped(), "events were dropped");
        }
        let (status, reason, error) = self.verdict(ending);
        let mut completion = Completion::new(status, reason, self.engine.now());
        completion.queue_us = Some(micros(queue));
        completion.duration_us = Some(micros(duration));
        completion.usage = usage;
        completion.exit_code = exit_code;
        completion.still_running = still_running;
        completion.truncated = output.stdout.gap.is_some() || output.stderr.gap.is_some();
        completion.output_bytes = output.stdout.bytes_total + output.stderr.bytes_total;
        host.redacted(|redactor| {
            redactor.captured(&mut output.stdout);
            redactor.captured(&mut output.stderr);
            completion.error = error.map(|error| redactor.text(&error).into_owned());
            completion.parsed_output = parsed.value.map(|value| {
                let mut value = Value::Object(value);
                redactor.value(&mut value);
                value
            });
        });
        completion.output = output.stdout.text;
        completion.stderr = output.stderr.text;
        completion
    }

    /// Parses the output; a parser that panics finds nothing, since the row must become terminal in any case.
    fn parse(&self, output: &RawOutput) -> ParsedOutput {
        let parser = &self.engine.parts.parser;
        catch_unwind(AssertUnwindSafe(|| parser.parse(output))).unwrap_or_else(|_| {
            tracing::error!(execution = %self.execution.id, "the output parser panicked");
            ParsedOutput::default()
        })
    }

    fn verdict(&self, ending: Ending) -> (Status, Option<Reason>, Option<String>) {
        match (ending, self.run.stopped_by()) {
            (Ending::Completed, _) => (Status::Completed, None, None),
            (
                Ending::Failed(Failure {
                    reason: Reason::CancelledByRequest,
                    message,
                }),
                Some(Stop::Shutdown),
            ) => (Status::Failed, Some(Reason::Shutdown), Some(message)),
            (Ending::Failed(Failure { reason, message }), _) => {
                (Status::Failed, Some(reason), Some(message))
            }
            (Ending::Cancelled, Some(Stop::Shutdown)) => (
                Status::Cancelled,
                Some(Reason::Shutdown),
                Some("the engine was shut down".to_owned()),
            ),
            (Ending::Cancelled, Some(Stop::Cancel { actor })) => (
                Status::Cancelled,
                Some(Reason::CancelledByRequest),
                Some(cancelled_by(actor.as_deref())),
            ),
            (Ending::Cancelled, None) => {
                (Status::Cancelled, Some(Reason::CancelledByRequest), None)
            }
        }
    }

    async fn record_end(&mut self, completion: Completion, host: &Host) -> Result<()> {
        self.end(completion, host.take_pending()).await
    }

    /// Records the end, however long the storage takes, and takes over what the row says.
    async fn end(&mut self, completion: Completion, events: Vec<Event>) -> Result<()> {
        let transition = self.transition(Change::End(completion.clone()));
        match self.commit_until_known(&transition, events).await? {
            Known::Applied => self.execution.end(completion),
            Known::Taken(row) => self.execution = *row,
        }
        Ok(())
    }

    /// Commits a transition until the storage says that it stands, or that somebody else moved the row.
    async fn commit_until_known(
        &mut self,
        transition: &Transition,
        mut events: Vec<Event>,
    ) -> Result<Known> {
        let (mut pauses, mut leftover) = (pauses(), Vec::new());
        loop {
            let mut writes = vec![Write::Transition(Box::new(transition.clone()))];
            writes.extend(events.iter().cloned().map(Write::Append));
            match self.commit(writes).await {
                Ok(_) => {
                    self.append_each(leftover).await;
                    return Ok(Known::Applied);
                }
                // An event that an earlier commit of unknown outcome has recorded must not hold up the end.
                Err(WriteError::Aborted) => leftover = std::mem::take(&mut events),
                Err(WriteError::Storage(error @ StorageError::Closed)) => return Err(error.into()),
                Err(WriteError::Storage(error)) => {
                    tracing::warn!(execution = %self.execution.id, %error, "a transition is not recorded yet");
                    tokio::time::sleep(pauses.next().unwrap_or(RETRY_PAUSES.1)).await;
                }
                Err(error) => return self.look_at_row(transition, &error).await,
            }
        }
    }

    /// The row is not as expected: an earlier try of ours was applied after all, or the run was taken from us.
    async fn look_at_row(&self, transition: &Transition, error: &WriteError) -> Result<Known> {
        let row = self
            .engine
            .get(&self.execution.tenant_id, self.execution.id)
            .await?;
        if row.status == transition.change.to() && row.epoch == transition.epoch {
            return Ok(Known::Applied);
        }
        tracing::error!(execution = %self.execution.id, %error, "the execution was taken from this instance");
        Ok(Known::Taken(Box::new(row)))
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

    /// Commits and returns the first answer, which is the one that matters.
    async fn commit(&self, writes: Vec<Write>) -> Result<Applied, WriteError> {
        let answers = self.engine.parts.storage.commit(writes).await;
        answers.into_iter().next().unwrap_or(Ok(Applied::Appended))
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

/// Ends a row that may or may not exist, once the storage answers.
async fn end_when_reachable(engine: Arc<Engine>, transition: Transition) {
    for pause in pauses().take(600) {
        let answer = engine
            .parts
            .storage
            .commit(vec![Write::Transition(Box::new(transition.clone()))])
            .await;
        match answer.into_iter().next() {
            Some(Err(WriteError::Storage(error))) if !matches!(error, StorageError::Closed) => {
                tokio::time::sleep(pause).await;
            }
            _ => return,
        }
    }
}

fn pauses() -> impl Iterator<Item = Duration> {
    std::iter::successors(Some(RETRY_PAUSES.0), |pause| {
        Some((*pause * 2).min(RETRY_PAUSES.1))
    })
}

fn describe(engine: &Engine, tenant: TenantId, plan: &Plan) -> Execution {
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
    execution.actor.clone_from(&plan.actor);
    execution.parameters = Value::Object(masked(script, &plan.parameters));
    execution.dry_run = plan.dry_run;
    execution.claimed_by = Some(engine.instance.clone());
    execution.lease_until = Some(engine.lease_until(now));
    execution
}

fn masked(script: &Script, parameters: &Map<String, Value>) -> Map<String, Value> {
    script.parameters().mask(parameters)
}

fn cancelled_by(actor: Option<&str>) -> String {
    actor.map_or_else(
        || "cancelled by request".to_owned(),
        |actor| format!("cancelled by {actor}"),
    )
}

fn storage_error(error: WriteError) -> Error {
    match error {
        WriteError::Storage(error) => error.into(),
        WriteError::Exists { .. } | WriteError::Mismatch { .. } => Error::Conflict {
            detail: error.to_string(),
        },
        other => StorageError::Backend {
            backend: "engine",
            source: other.into(),
        }
        .into(),
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
