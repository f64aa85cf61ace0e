//! Rows, and short ways to write them.

use std::path::Path;

use automation_core::storage::{Applied, Change, StorageError, Transition, Write, WriteError};
use automation_core::{
    Completion, Event, EventKind, Execution, ExecutionId, SqliteStorage, Status, Storage, Trigger,
};
use chrono::{DateTime, TimeDelta, Utc};
use rusqlite::Connection;
use serde_json::json;
use uuid::Uuid;

/// Noon of a day.
pub(crate) fn noon() -> DateTime<Utc> {
    DateTime::from_timestamp(1_767_268_800, 0).unwrap()
}

/// A ticket run that is dispatched.
pub(crate) fn ticket_run(ticket: &str) -> Execution {
    let id = ExecutionId::from_uuid(Uuid::now_v7());
    let mut run = Execution::new(id, "disk_cleanup.py", "v1", Trigger::Ticket, noon());
    run.ticket_id = ticket.to_owned();
    run.status = Status::Running;
    run
}

pub(crate) fn insert(run: &Execution) -> Write {
    Write::Insert(Box::new(run.clone()))
}

pub(crate) fn append(run: &Execution) -> Write {
    let data = json!("begun");
    let tenant = run.tenant_id.clone();
    Write::Append(Event::new(tenant, run.id, 1, noon(), EventKind::Log, data))
}

/// The write that ends a run after 1.5 seconds.
pub(crate) fn end(run: &Execution, status: Status) -> Write {
    let mut end = Completion::new(status, None, noon() + TimeDelta::milliseconds(1_500));
    end.duration_us = Some(1_500_000);
    end.queue_us = Some(300);
    end.usage.children = Some(2);
    end.usage.threads = Some(1);
    end.output_bytes = 5;
    end.output = "freed".to_owned();
    end.parsed_output = Some(json!({"freed_gb": 2.5}));
    Write::Transition(Box::new(Transition {
        tenant_id: run.tenant_id.clone(),
        id: run.id,
        epoch: run.epoch,
        from: run.status,
        change: Change::End(end),
    }))
}

/// Commits one write.
pub(crate) async fn one(storage: &SqliteStorage, write: Write) -> Result<Applied, WriteError> {
    storage.commit(vec![write]).await.remove(0)
}

/// Records a run and its end.
pub(crate) async fn record(storage: &SqliteStorage, run: &Execution, status: Status) {
    for write in [insert(run), end(run, status)] {
        one(storage, write).await.unwrap();
    }
}

/// Returns whether the backend says that the same call may succeed later.
pub(crate) fn is_unavailable(answer: &Result<Applied, WriteError>) -> bool {
    matches!(
        answer,
        Err(WriteError::Storage(StorageError::Unavailable { .. }))
    )
}

/// Opens the file beside the backend, as a person's tool would.
pub(crate) fn beside(path: &Path) -> Connection {
    Connection::open(path).unwrap()
}

/// Reads one value with SQL.
pub(crate) fn value<T: rusqlite::types::FromSql>(connection: &Connection, sql: &str) -> T {
    connection.query_row(sql, [], |row| row.get(0)).unwrap()
}
