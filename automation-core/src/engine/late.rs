//! Ends that come after their run was given up: by another instance that found its lease over, while this one was paused
//! or cut off from the storage. The epoch and the status keep them out of the row; they are told as an event.

use serde_json::json;

use crate::execution::{Completion, Event, EventKind, Execution};
use crate::limits;
use crate::request::Page;
use crate::storage::{Change, Storage, StorageError, Transition, Write, WriteError};

/// Tells of an end whose run was given up meanwhile, as an event: its row stays as it is (promise P3).
pub(super) async fn tell(
    storage: &dyn Storage,
    transition: &Transition,
) -> Result<(), StorageError> {
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
