//! One run from its row to its terminal status, in the order of promises P1 to P4.

use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
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
use crate::execution::{Completion, Event, Execution, ExecutionId, Reason, TenantId};
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

/// Tries with the output, where the storage breaks and does not say that it is away.
const BROKEN_TRIES: usize = 8;
/// Tries to record an event by itself.
const EVENT_TRIES: usize = 5;
/// First and longest pause before a commit that failed is tried again.
const RETRY_PAUSES: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

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
    engine: Arc<Engine>,
    plan: Plan,
    executor: Arc<dyn Executor>,
    execution: Execution,
    run: Arc<LiveRun>,
    redactor: Redactor,
}

impl Life {
    pub(super) fn new(
        engine: Arc<Engine>,
        tenant: TenantId,
        plan: Plan,
        executor: Arc<dyn Executor>,
    ) -> Self {
        let run = Arc::new(LiveRun::new(tenant.clone()));
        let redactor = Redactor::new(plan.script.parameters().secrets(&plan.parameters));
        let execution = describe(&engine, tenant, &plan, &redactor);
        Self {
            engine,
            plan,
            executor,
            execution,
            run,
            redactor,
        }
    }

    pub(super) async fn run(mut self, place: Place) -> Result<Execution> {
        let _live = Live::new(&self.engine, self.execution.id, &self.run);
        self.until_recorded_end(place).await?;
        Ok(self.execution)
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
                self.end(completion, self.run.unrecorded()).await
            }
            Err(error) => {
                let mut completion = self.completion(Status::Failed, Reason::ExecutorError);
                let text = error.to_string();
                completion.error =
                    Some(host.redacted(|redactor| redactor.text(&text).into_owned()));
                self.end(completion, self.run.unrecorded()).await?;
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
            // The outcome may be unknown: the row says whether the run was accepted. Where it can't be read, the
            // run counts as refused; should the row be there after all, `recovery` finds that no task has it.
            Err(WriteError::Storage(error)) => {
                match self
                    .engine
                    .get(&self.execution.tenant_id, self.execution.id)
                    .await
                {
                    Ok(_) => Ok(()),
                    Err(_) => Err(error.into()),
                }
            }
            Err(error) => Err(storage_error(error)),
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
            None => {
                self.execution.status = Status::Running;
                self.execution.lease_until = Some(lease_until);
                Ok(true)
            }
            Some(row) => {
                let ours =
                    row.status == Status::Running && row.claimed_by == self.execution.claimed_by;
                self.execution = *row;
                Ok(ours)
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

    fn host(&mut self) -> Host {
        let parts = &self.engine.parts;
        Host::new(HostParts {
            run: Arc::clone(&self.run),
            id: self.execution.id,
            timeout: self.plan.script.metadata().timeout,
            dry_run: self.plan.dry_run,
            redactor: std::mem::take(&mut self.redactor),
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

    async fn record_until_closed(&self, host: &Host) {
        while host.flush_due().await {
            let events = self.run.unrecorded();
            let count = events.len();
            let writes = events.iter().cloned().map(Write::Append).collect();
            match self.commit(writes).await {
                Ok(_) => {}
                Err(WriteError::Storage(error)) => {
                    tracing::warn!(execution = %self.execution.id, %error, "events are not recorded yet");
                    continue;
                }
                Err(_) => self.append_each(events).await,
            }
            self.run.recorded(count);
        }
    }

    /// Records events one by one, since an earlier commit of unknown outcome may have recorded some of them.
    async fn append_each(&self, events: Vec<Event>) {
        for event in events {
            for pause in pauses().take(EVENT_TRIES) {
                match self.commit(vec![Write::Append(event.clone())]).await {
                    Ok(_) | Err(WriteError::Exists { .. }) => break,
                    Err(error) => {
                        tracing::warn!(execution = %self.execution.id, %error, "an event is not recorded yet");
                        tokio::time::sleep(pause).await;
                    }
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
            let error = host.redacted(|redactor| redactor.text(&error.to_string()).into_owned());
            tracing::warn!(execution = %self.execution.id, %error, "the output's JSON breaks the profile");
        }
        if host.dropped() > 0 {
            tracing::warn!(execution = %self.execution.id, dropped = host.dropped(), "events were dropped");
        }
        let (status, reason, error) = self.verdict(ending, still_running);
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
            let own_words = parsed
                .value
                .as_ref()
                .and_then(own_words)
                .filter(|_| reason == Some(Reason::ExitCode));
            let error = match (error, own_words) {
                (Some(error), Some(own)) => Some(format!("{own} ({error})")),
                (error, _) => error,
            };
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

    /// `cancelled` is said of runs that truly ended (promise P6).
    fn verdict(
        &self,
        ending: Ending,
        still_running: bool,
    ) -> (Status, Option<Reason>, Option<String>) {
        let (asked, by) = match self.run.stopped_by() {
            Some(Stop::Shutdown) => (Reason::Shutdown, "the engine was shut down".to_owned()),
            Some(Stop::Cancel { actor }) => {
                (Reason::CancelledByRequest, cancelled_by(actor.as_deref()))
            }
            None => (Reason::CancelledByRequest, cancelled_by(None)),
        };
        match ending {
            Ending::Completed => (Status::Completed, None, None),
            Ending::Cancelled if still_running => (Status::Failed, Some(asked), Some(by)),
            Ending::Cancelled => (Status::Cancelled, Some(asked), Some(by)),
            Ending::Failed(Failure {
                reason: Reason::CancelledByRequest,
                message,
            }) => (
                Status::Failed,
                Some(asked),
                Some(format!("{by}: {message}")),
            ),
            Ending::Failed(Failure { reason, message }) => {
                (Status::Failed, Some(reason), Some(message))
            }
        }
    }

    /// Records the end, however long the storage takes, and takes over what the row says.
    async fn end(&mut self, completion: Completion, events: Vec<Event>) -> Result<()> {
        let transition = self.transition(Change::End(completion.clone()));
        match self.commit_until_known(&transition, events).await? {
            None => self.execution.end(completion),
            Some(row) => self.execution = *row,
        }
        Ok(())
    }

    /// Commits a transition until it stands (`None`), or the row turns out to be another one: because an earlier
    /// try of ours was applied after all, or because the run was taken from us.
    async fn commit_until_known(
        &self,
        transition: &Transition,
        mut events: Vec<Event>,
    ) -> Result<Option<Box<Execution>>> {
        let (mut transition, mut leftover) = (transition.clone(), Vec::new());
        let mut broken = 0;
        for pause in pauses() {
            let mut writes = vec![Write::Transition(Box::new(transition.clone()))];
            writes.extend(events.iter().cloned().map(Write::Append));
            match self.commit(writes).await {
                Ok(_) => {
                    self.append_each(leftover).await;
                    return Ok(None);
                }
                // An event that an earlier commit of unknown outcome has recorded must not hold up the end.
                Err(WriteError::Aborted) => leftover = std::mem::take(&mut events),
                Err(WriteError::Storage(
                    error @ (StorageError::Closed | StorageError::Unusable { .. }),
                )) => {
                    return Err(error.into());
                }
                Err(WriteError::Storage(error)) => {
                    tracing::warn!(execution = %self.execution.id, %error, "a transition is not recorded yet");
                    broken += usize::from(!error.is_retryable());
                    if broken == BROKEN_TRIES {
                        without_output(&mut transition);
                    }
                    tokio::time::sleep(pause).await;
                }
                Err(error) => match self
                    .engine
                    .get(&self.execution.tenant_id, self.execution.id)
                    .await
                {
                    Ok(row) => {
                        tracing::warn!(execution = %self.execution.id, %error, status = %row.status, "the row is taken as it is");
                        self.append_each(leftover).await;
                        return Ok(Some(Box::new(row)));
                    }
                    Err(Error::Storage(StorageError::Closed) | Error::Closed) => {
                        return Err(Error::Closed);
                    }
                    Err(unreadable) => {
                        tracing::warn!(execution = %self.execution.id, error = %unreadable, "the row can't be read yet");
                        tokio::time::sleep(pause).await;
                    }
                },
            }
        }
        Err(Error::Closed)
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
        if writes.is_empty() {
            return Ok(Applied::Appended);
        }
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

/// Drops what a storage may be unable to take, so that the run gets its terminal status.
fn without_output(transition: &mut Transition) {
    if let Change::End(completion) = &mut transition.change {
        completion.output = String::new();
        completion.stderr = String::new();
        completion.parsed_output = None;
        completion.truncated = true;
    }
}

fn pauses() -> impl Iterator<Item = Duration> {
    std::iter::successors(Some(RETRY_PAUSES.0), |pause| {
        Some((*pause * 2).min(RETRY_PAUSES.1))
    })
}

fn describe(engine: &Engine, tenant: TenantId, plan: &Plan, redactor: &Redactor) -> Execution {
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
    execution.claimed_by = Some(engine.instance.clone());
    execution.lease_until = Some(engine.lease_until(now));
    execution
}

/// Returns what a script that exited with a failure says of it: `{"error": {"message": ...}}` or `{"error": ...}`.
fn own_words(result: &Map<String, Value>) -> Option<&str> {
    let error = result.get("error")?;
    error
        .get("message")
        .unwrap_or(error)
        .as_str()
        .filter(|words| !words.trim().is_empty())
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
