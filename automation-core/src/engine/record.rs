//! How one run is recorded: tried until the storage answers, settled where an answer is lost, events on the way.

use std::time::Duration;

use serde_json::json;

use super::host::Host;
use super::late;
use super::life::Life;
use super::spool::Note;
use crate::error::{Error, Result};
use crate::execution::{Event, EventKind, Execution};
use crate::storage::{
    Applied, Change, Record, RecordKind, StorageError, Transition, Write, WriteError,
};
use std::sync::Arc;

/// Tries with the output, where the storage breaks and does not say that it is away.
const BROKEN_TRIES: usize = 8;
/// Tries to record an event by itself.
const EVENT_TRIES: usize = 5;
/// First and longest pause before a commit that failed is tried again.
const RETRY_PAUSES: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

impl Life {
    /// Stores the script's source when a version is executed for the first time: undo and retries need it later.
    pub(super) async fn store_version(&self) -> Result<()> {
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
            Err(error) => return Err(self.refused(error)),
        }
        self.engine.stored_versions.lock().insert(key);
        Ok(())
    }

    pub(super) async fn insert(&self) -> Result<()> {
        let mut writes = vec![Write::Insert(Box::new(self.execution.clone()))];
        writes.extend(self.forced_event().map(Write::Append));
        match self.commit(writes).await {
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
                    Err(_) => Err(self.engine.refused(error)),
                }
            }
            Err(error) => Err(storage_error(error)),
        }
    }

    /// Reports that somebody forces the run, and returns the event that says so.
    fn forced_event(&self) -> Option<Event> {
        let decided = self
            .plan
            .decision
            .forced
            .as_ref()?
            .decided(self.execution.id);
        self.engine.decided(&decided);
        let mut data = decided.event();
        self.redactor.value(&mut data);
        let (tenant, id, at) = (
            self.execution.tenant_id.clone(),
            self.execution.id,
            self.execution.started_at,
        );
        Some(Event::new(tenant, id, 1, at, EventKind::Decision, data))
    }

    pub(super) async fn record_until_closed(&self, host: &Host) {
        while host.flush_due().await {
            let events = self.run.unrecorded();
            let count = events.len();
            let writes = events.iter().cloned().map(Write::Append).collect();
            match self.commit(writes).await {
                Ok(_) => {}
                Err(WriteError::Storage(error)) => {
                    self.engine.storage_failed(&error);
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

    /// Commits a transition, and what belongs to it, until it stands (`None`), or the row turns out to be another one: because an earlier
    /// try of ours was applied after all, or because the run was taken from us.
    pub(super) async fn commit_until_known(
        &self,
        transition: &Transition,
        also: Vec<Write>,
        events: Vec<Event>,
    ) -> Result<Option<Box<Execution>>> {
        let mut note = None;
        let known = self
            .try_until_known(transition, also, events, &mut note)
            .await;
        if let (Ok(_), Some(note)) = (&known, note) {
            note.settle();
        }
        if let Ok(Some(_)) = &known {
            let told = late::tell(&*self.engine.parts.storage, transition).await;
            if let Err(error) = told {
                tracing::warn!(execution = %self.execution.id, %error, "a late end is not told");
            }
        }
        known
    }

    /// Refuses further runs, and brings an end to the disk that the storage did not take.
    async fn not_taken(
        &self,
        error: &StorageError,
        transition: &Transition,
        note: &mut Option<Note>,
    ) {
        self.engine.intake.wait_for_space(transition);
        self.engine.storage_failed(error);
        if let (None, Some(spool)) = (&note, &self.engine.spool) {
            *note = Note::of(spool, transition).await;
        }
    }

    async fn try_until_known(
        &self,
        whole: &Transition,
        mut also: Vec<Write>,
        mut events: Vec<Event>,
        note: &mut Option<Note>,
    ) -> Result<Option<Box<Execution>>> {
        let (mut leftover, mut broken) = (Vec::new(), 0);
        for pause in pauses() {
            let mut transition = Box::new(whole.clone());
            if broken >= BROKEN_TRIES {
                without_output(&mut transition);
            }
            let mut writes = vec![Write::Transition(transition)];
            writes.extend(also.iter().cloned());
            writes.extend(events.iter().cloned().map(Write::Append));
            match self.commit(writes).await {
                Ok(_) => {
                    if !leftover.is_empty() {
                        Box::pin(self.append_each(leftover)).await;
                    }
                    return Ok(None);
                }
                // What is there already must not hold up the end: events that an earlier commit of unknown outcome has
                // recorded, then an attempt that somebody else made.
                Err(WriteError::Aborted) if events.is_empty() => also.clear(),
                Err(WriteError::Aborted) => leftover = std::mem::take(&mut events),
                Err(WriteError::Storage(
                    error @ (StorageError::Closed | StorageError::Unusable { .. }),
                )) => {
                    self.not_taken(&error, whole, note).await;
                    return Err(error.into());
                }
                Err(WriteError::Storage(error)) => {
                    tracing::warn!(execution = %self.execution.id, %error, "a transition is not recorded yet");
                    self.not_taken(&error, whole, note).await;
                    broken += usize::from(!error.is_retryable());
                    tokio::time::sleep(pause).await;
                }
                Err(error) => match self
                    .engine
                    .get(&self.execution.tenant_id, self.execution.id)
                    .await
                {
                    Ok(row) => {
                        tracing::warn!(execution = %self.execution.id, %error, status = %row.status, "the row is taken as it is");
                        Box::pin(self.append_each(leftover)).await;
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

    fn refused(&self, error: WriteError) -> Error {
        match error {
            WriteError::Storage(error) => self.engine.refused(error),
            error => storage_error(error),
        }
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

pub(super) fn storage_error(error: WriteError) -> Error {
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
