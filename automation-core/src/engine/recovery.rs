//! Ends what an earlier process left open, and keeps the leases of this one (promise P5).

use std::sync::{Arc, Weak};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use super::Engine;
use crate::execution::{Completion, Execution, Reason};
use crate::limits;
use crate::request::Page;
use crate::status::Status;
use crate::storage::{Change, ExecutionQuery, StorageError, Transition, Write, WriteError};

/// Pause after a storage that did not answer.
const RETRY: Duration = Duration::from_millis(500);

/// Starts the task that recovers now and, as long as the engine lives, renews leases and recovers again.
pub(super) fn spawn(engine: &Arc<Engine>) {
    let weak = Arc::downgrade(engine);
    // Not tracked: it has no run of its own, so nobody waits for it.
    drop(engine.parts.runtime.spawn(keep(weak)));
}

async fn keep(engine: Weak<Engine>) {
    loop {
        let pause = {
            let Some(engine) = engine.upgrade() else {
                return;
            };
            match tick(&engine).await {
                Ok(()) => engine.settings.lease / 3,
                Err(StorageError::Closed) => return,
                Err(error) => {
                    tracing::warn!(%error, "leases are not renewed yet");
                    RETRY
                }
            }
        };
        tokio::time::sleep(pause).await;
    }
}

async fn tick(engine: &Engine) -> Result<(), StorageError> {
    let now = engine.now();
    if !engine.live.lock().is_empty() {
        let renew = Write::Renew {
            instance: engine.instance.clone(),
            lease_until: engine.lease_until(now),
        };
        if let Some(Err(WriteError::Storage(error))) =
            engine.parts.storage.commit(vec![renew]).await.pop()
        {
            return Err(error);
        }
    }
    let recovered = recover(engine, now).await?;
    if recovered > 0 {
        tracing::warn!(
            recovered,
            "executions that an earlier process left open are ended"
        );
    }
    Ok(())
}

/// Ends every open execution whose holder is gone; returns how many.
async fn recover(engine: &Engine, now: DateTime<Utc>) -> Result<usize, StorageError> {
    // Nobody else can use an exclusive storage: what this process does not hold has no holder.
    let exclusive = engine.parts.storage.capabilities().exclusive;
    let query = ExecutionQuery {
        statuses: vec![Status::Starting, Status::Running],
        lease_before: Some(if exclusive {
            now + TimeDelta::days(36_500)
        } else {
            now
        }),
        without_output: true,
        ..ExecutionQuery::default()
    };
    let (mut page, mut recovered) = (Page::first(limits::PAGE_ROWS_MAX), 0);
    loop {
        let rows = engine.parts.storage.list(&query, &page).await?;
        for row in rows
            .items
            .iter()
            .filter(|row| row.claimed_by.as_ref() != Some(&engine.instance))
        {
            recovered += usize::from(end_orphan(engine, row, now).await?);
        }
        let Some(next) = rows.next else {
            return Ok(recovered);
        };
        page = Page::first(limits::PAGE_ROWS_MAX).after(next);
    }
}

async fn end_orphan(
    engine: &Engine,
    row: &Execution,
    now: DateTime<Utc>,
) -> Result<bool, StorageError> {
    let (reason, error) = if row.status == Status::Starting {
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
    let transition = Transition {
        tenant_id: row.tenant_id.clone(),
        id: row.id,
        epoch: row.epoch,
        from: row.status,
        change: Change::End(completion),
    };
    match engine
        .parts
        .storage
        .commit(vec![Write::Transition(Box::new(transition))])
        .await
        .pop()
    {
        Some(Err(WriteError::Storage(error))) => Err(error),
        // Its holder was faster.
        Some(Err(_)) | None => Ok(false),
        Some(Ok(_)) => Ok(true),
    }
}
