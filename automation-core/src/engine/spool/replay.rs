//! Hands the ends that nobody looks after to the storage: those of an earlier process, before its runs are taken for
//! orphans, and those whose task gave up.

use serde_json::json;

use super::Spool;
use super::entry::Entry;
use crate::execution::{Completion, Event, EventKind, Execution};
use crate::limits;
use crate::request::Page;
use crate::storage::{Change, Storage, StorageError, Transition, Write, WriteError};

/// Hands over what it can; returns how many ends were recorded.
///
/// # Errors
/// That the storage does not take one; the others are tried all the same, and what is not taken stays.
pub(in crate::engine) async fn replay(
    spool: &Spool,
    storage: &dyn Storage,
) -> Result<usize, StorageError> {
    let (mut recorded, mut away) = (0, Ok(()));
    for entry in spool.left() {
        let id = entry.id;
        match settle(storage, entry).await {
            Ok(()) => {
                spool.settle(id);
                recorded += 1;
            }
            Err(error) if error.is_retryable() => return Err(error),
            Err(error) => {
                tracing::error!(execution = %id, %error, "a spooled end is not recorded yet");
                away = Err(error);
            }
        }
    }
    away.map(|()| recorded)
}

/// Records one end, or finds that the row has one.
async fn settle(storage: &dyn Storage, entry: Entry) -> Result<(), StorageError> {
    let transition = entry.into_transition();
    let write = Write::Transition(Box::new(transition.clone()));
    let answer = storage.commit(vec![write]).await.pop();
    let Some(Err(error)) = answer else {
        return Ok(());
    };
    match error {
        WriteError::Storage(error) => Err(error),
        WriteError::Missing { .. } => {
            tracing::error!(
                execution = %transition.id,
                "a spooled end is dropped: this storage has no such run, another one was in use before"
            );
            Ok(())
        }
        _ => tell_late(storage, &transition).await,
    }
}

/// Tells of an end whose run was given up meanwhile, as an event: its row stays as it is (promise P3).
async fn tell_late(storage: &dyn Storage, transition: &Transition) -> Result<(), StorageError> {
    let Change::End(end) = &transition.change else {
        return Ok(());
    };
    let (tenant, id) = (&transition.tenant_id, transition.id);
    let row = storage.get(tenant, id).await?;
    if !row.status.is_terminal() || is_recorded(&row, end) {
        return Ok(());
    }
    tracing::warn!(execution = %id, status = %row.status, end = %end.status, "a run ended otherwise than its row says");
    let seq = last_event(storage, transition).await? + 1;
    let data = json!({ "status": end.status, "reason": end.reason, "at": end.completed_at });
    let event = Event::new(
        tenant.clone(),
        id,
        seq,
        end.completed_at,
        EventKind::LateEnd,
        data,
    );
    match storage.commit(vec![Write::Append(event)]).await.pop() {
        Some(Err(WriteError::Storage(error))) => Err(error),
        _ => Ok(()),
    }
}

/// Returns whether the row has this very end: an earlier commit was applied, and its answer lost.
fn is_recorded(row: &Execution, end: &Completion) -> bool {
    row.status == end.status && row.completed_at == Some(end.completed_at)
}

async fn last_event(storage: &dyn Storage, of: &Transition) -> Result<u32, StorageError> {
    let (mut page, mut last) = (Page::first(limits::PAGE_ROWS_MAX), 0);
    loop {
        let rows = storage.events(&of.tenant_id, of.id, &page).await?;
        last = rows.items.last().map_or(last, |event| event.seq);
        let Some(next) = rows.next else {
            return Ok(last);
        };
        page = Page::first(limits::PAGE_ROWS_MAX).after(next);
    }
}
