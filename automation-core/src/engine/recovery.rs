//! Ends what an earlier process left open, and keeps the leases of this one (promise P5).

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Weak};
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::task::JoinSet;

use super::Engine;
use crate::execution::{Completion, Execution, Reason};
use crate::limits;
use crate::request::Page;
use crate::status::Status;
use crate::storage::{Change, ExecutionQuery, StorageError, Transition, Write, WriteError};

/// Pause after a storage that did not answer.
const RETRY: Duration = Duration::from_millis(500);

/// A time in which the storage did not work. Leases that ended in it say nothing of their holders, who could not renew
/// them: those get as long as a lease to come back.
#[derive(Debug, Clone, Copy)]
enum Outage {
    /// It goes on; leases that ended before `since` had nobody to renew them.
    Lasts { since: DateTime<Utc> },
    /// It is over, and holders have until `until`.
    Over {
        since: DateTime<Utc>,
        until: DateTime<Utc>,
    },
}

impl Outage {
    /// Returns what is to be minded once the storage has worked at `now`.
    fn after(before: Option<Self>, now: DateTime<Utc>, lease: Duration) -> Option<Self> {
        match before? {
            Self::Lasts { since } => Some(Self::Over {
                since,
                until: now + lease,
            }),
            Self::Over { until, .. } if until < now => None,
            over @ Self::Over { .. } => Some(over),
        }
    }

    /// Returns whether a row's holder had the time to come back, or was gone before.
    fn has_passed(&self, row: &Execution, now: DateTime<Utc>) -> bool {
        match self {
            Self::Lasts { since } => row.lease_until < Some(*since),
            Self::Over { since, until } => row.lease_until < Some(*since) || *until < now,
        }
    }
}

/// Starts the task that recovers now and, as long as the engine lives, renews leases and recovers again.
pub(super) fn spawn(engine: &Arc<Engine>) {
    let weak = Arc::downgrade(engine);
    // Not tracked: it has no run of its own, so nobody waits for it.
    drop(engine.parts.runtime.spawn(keep(weak)));
}

async fn keep(engine: Weak<Engine>) {
    let mut outage = None;
    loop {
        let pause = {
            let Some(engine) = engine.upgrade() else {
                return;
            };
            let begun = engine.now();
            match tick(&engine, outage).await {
                Ok(()) => {
                    outage = Outage::after(outage, begun, engine.settings.lease);
                    engine.settings.lease / 3
                }
                Err(StorageError::Closed) => return,
                Err(error) => {
                    engine.storage_failed(&error);
                    outage.get_or_insert(Outage::Lasts { since: begun });
                    tracing::warn!(%error, "leases are not renewed yet");
                    RETRY
                }
            }
        };
        tokio::time::sleep(pause).await;
    }
}

/// Does all three even if one fails, beside each other: what can't be read does not hold up what can be ended.
async fn tick(engine: &Arc<Engine>, outage: Option<Outage>) -> Result<(), StorageError> {
    let now = engine.now();
    // First: what ended is no orphan.
    let replayed = engine.replay_spool().await;
    let (renewed, known, recovered) = tokio::join!(
        renew(engine, now),
        engine.refresh_notices(),
        recover(engine, now, outage)
    );
    if let Ok(recovered @ 1..) = recovered {
        tracing::warn!(recovered, "executions that were left open are ended");
    }
    replayed.and(renewed).and(known).and(recovered)?;
    // Not before the rows of those runs say it too.
    engine.forget_crashes();
    Ok(())
}

/// Renews the leases of this instance's runs, if there are any.
async fn renew(engine: &Engine, now: DateTime<Utc>) -> Result<(), StorageError> {
    if engine.live.lock().is_empty() {
        return Ok(());
    }
    let renew = Write::Renew {
        instance: engine.instance.clone(),
        lease_until: engine.lease_until(now),
    };
    match engine.parts.storage.commit(vec![renew]).await.pop() {
        Some(Err(WriteError::Storage(error))) => Err(error),
        _ => Ok(()),
    }
}

/// Ends every open execution that nobody looks after any more; returns how many.
///
/// That is one whose lease has ended, and one of our own that none of our tasks has: its insert was of unknown
/// outcome and counted as refused, or its task panicked. A storage that belongs to one process ends the leases of
/// earlier ones when it is opened, so that nobody waits for them.
async fn recover(
    engine: &Arc<Engine>,
    now: DateTime<Utc>,
    outage: Option<Outage>,
) -> Result<usize, StorageError> {
    let query = ExecutionQuery {
        statuses: vec![Status::Starting, Status::Running],
        without_output: true,
        ..ExecutionQuery::default()
    };
    let (mut page, mut recovered) = (Page::first(limits::PAGE_ROWS_MAX), 0);
    loop {
        let rows = engine.parts.storage.list(&query, &page).await?;
        rows.items
            .iter()
            .for_each(|row| engine.waiting.expect_row(row));
        let rows_left = rows.items.iter();
        let orphans = rows_left.filter(|row| is_orphan(engine, row, now, outage));
        recovered += end_orphans(engine, orphans, now).await?;
        let Some(next) = rows.next else {
            return Ok(recovered);
        };
        page = Page::first(limits::PAGE_ROWS_MAX).after(next);
    }
}

/// A row that waits is held by nobody, or by a claim that ends by itself: whoever takes it up next lets it run.
fn is_orphan(engine: &Engine, row: &Execution, now: DateTime<Utc>, outage: Option<Outage>) -> bool {
    let waits = row.is_waiting() || (row.status == Status::Starting && row.run_at.is_some());
    if waits || engine.is_spooled(row.id) {
        return false;
    }
    let expired = row.lease_until.is_some_and(|lease_until| lease_until < now);
    if row.claimed_by.as_ref() == Some(&engine.instance) {
        return !engine.live.lock().contains_key(&row.id);
    }
    expired && outage.is_none_or(|outage| outage.has_passed(row, now))
}

/// Ends rows, each in a call of its own so that one whose holder was faster does not hold up the others, and all
/// at the same time so that the storage commits them together.
async fn end_orphans(
    engine: &Arc<Engine>,
    rows: impl Iterator<Item = &Execution>,
    now: DateTime<Utc>,
) -> Result<usize, StorageError> {
    let mut commits = JoinSet::new();
    // A kept version is read once for all rows of it.
    let mut scripts = HashMap::new();
    for row in rows {
        let storage = Arc::clone(&engine.parts.storage);
        let mut completion = orphaned(row.status, now);
        completion.concern = engine.quarantine.concern_of_run(row.id);
        let version = (&row.tenant_id, &row.script_name, &row.script_version);
        let script = match scripts.entry(version) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(unknown) => unknown.insert(engine.script_after_crash(row).await?),
        };
        let next = match script {
            Some(script) => engine.attempt_after_crash(script, row, &completion).await?,
            None => None,
        };
        let end = Write::Transition(Box::new(Transition {
            tenant_id: row.tenant_id.clone(),
            id: row.id,
            epoch: row.epoch,
            from: row.status,
            change: Change::End(completion),
        }));
        next.iter().for_each(|next| engine.waiting.expect_row(next));
        let next = next.map(|next| Write::Insert(Box::new(next)));
        let writes = std::iter::once(end).chain(next).collect();
        commits.spawn(async move { storage.commit(writes).await.into_iter().next() });
    }
    let mut ended = 0;
    for answer in commits.join_all().await {
        match answer {
            Some(Err(WriteError::Storage(error))) => return Err(error),
            Some(Ok(_)) => ended += 1,
            Some(Err(_)) | None => {}
        }
    }
    Ok(ended)
}

fn orphaned(status: Status, now: DateTime<Utc>) -> Completion {
    let (reason, error) = if status == Status::Starting {
        (
            Reason::NotStarted,
            "the process ended before the script started",
        )
    } else {
        (
            Reason::Orphaned,
            "the process ended while the script ran; what the script did is unknown",
        )
    };
    let mut completion = Completion::new(Status::Failed, Some(reason), now);
    completion.error = Some(error.to_owned());
    completion
}
