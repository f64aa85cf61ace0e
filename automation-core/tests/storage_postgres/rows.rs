//! Rows, and short ways to write them.

use automation_core::storage::{Applied, Change, StorageError, Transition, Write, WriteError};
use automation_core::{
    Completion, Event, EventKind, Execution, ExecutionId, PostgresStorage, Status, Storage, Trigger,
};
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::json;
use tokio_postgres::Client;
use tokio_postgres::types::FromSqlOwned;
use uuid::Uuid;

use crate::cluster::shared;

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
pub(crate) async fn one(storage: &PostgresStorage, write: Write) -> Result<Applied, WriteError> {
    storage.commit(vec![write]).await.remove(0)
}

/// Records a run and its end.
pub(crate) async fn record(storage: &PostgresStorage, run: &Execution, status: Status) {
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

/// Opens a storage on a database of the shared server.
pub(crate) async fn open(database: &str) -> PostgresStorage {
    PostgresStorage::connect(shared().url(database))
        .await
        .unwrap()
}

/// Reads one value with SQL.
pub(crate) async fn value<T: FromSqlOwned>(client: &Client, sql: &str) -> T {
    client.query_one(sql, &[]).await.unwrap().get(0)
}

/// Returns how many rows of the statistics and of a recount are not in the other.
pub(crate) async fn differences(client: &Client) -> i64 {
    let sql = "WITH recount AS (
            SELECT tenant_id, script_name, (completed_at AT TIME ZONE 'UTC')::date AS day,
                count(*) FILTER (WHERE status <> 'cancelled') AS total,
                count(*) FILTER (WHERE status = 'completed') AS successful,
                count(*) FILTER (WHERE status = 'failed') AS failed,
                count(*) FILTER (WHERE status = 'cancelled') AS cancelled,
                coalesce(sum(duration_us) FILTER (WHERE status <> 'cancelled'), 0)::bigint AS duration_us
            FROM automation_logs
            WHERE status IN ('completed', 'failed', 'cancelled')
                AND trigger IN ('ticket', 'manual', 'schedule', 'retry')
            GROUP BY 1, 2, 3),
        kept AS (
            SELECT tenant_id, script_name, execution_date, total_executions::bigint, successful_executions::bigint,
                failed_executions::bigint, cancelled_executions::bigint, duration_us
            FROM automation_stats),
        kept_durations AS (
            SELECT tenant_id, script_name, execution_date, sum(executions)::bigint AS total
            FROM automation_durations GROUP BY 1, 2, 3)
        SELECT (SELECT count(*) FROM (SELECT * FROM recount EXCEPT SELECT * FROM kept) AS a)
            + (SELECT count(*) FROM (SELECT * FROM kept EXCEPT SELECT * FROM recount) AS b)
            + (SELECT count(*) FROM (
                SELECT tenant_id, script_name, day, total FROM recount WHERE total > 0
                EXCEPT SELECT * FROM kept_durations) AS c)";
    value(client, sql).await
}
