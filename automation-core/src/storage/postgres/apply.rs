//! The changes of a transaction as SQL: one statement a kind, whatever the number of rows.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::changes::{Changes, RecordKey, Run, Stored, Wait};
use super::error::Failure;
use super::pipeline::{Columns, Pipeline};
use super::row;
use super::value::{Json, integer, small, text};
use crate::execution::{Event, Execution, ExecutionId, Reason};
use crate::stats::ScriptStats;
use crate::storage::held;
use crate::storage::tally::{Day, Tally};

const INSERT_SQL: &str = "INSERT INTO automation_logs ({names}) SELECT {names} FROM {rows}";

const RUN_SQL: &str = "\
UPDATE automation_logs AS log SET status = 'running', reason = NULL, claimed_by = given.claimed_by,
    lease_until = given.lease_until, isolation = given.isolation
FROM {rows} WHERE log.id = given.id";

const WAIT_SQL: &str = "\
UPDATE automation_logs AS log SET reason = given.reason, run_at = given.run_at, epoch = given.epoch,
    claimed_by = NULL, lease_until = NULL
FROM {rows} WHERE log.id = given.id";

const EVENT_SQL: &str = "\
INSERT INTO automation_events (tenant_id, execution_id, seq, at, kind, data)
SELECT tenant_id, execution_id, seq, at, kind, data FROM {rows}";

const RECORD_INSERT_SQL: &str = "\
INSERT INTO automation_records (tenant_id, kind, key, value, revision)
SELECT tenant_id, kind, key, value, revision FROM {rows}";

const RECORD_UPDATE_SQL: &str = "\
UPDATE automation_records AS record SET value = given.value, revision = given.revision FROM {rows}
WHERE (record.tenant_id, record.kind, record.key) = (given.tenant_id, given.kind, given.key)";

const RECORD_DELETE_SQL: &str = "\
DELETE FROM automation_records AS record USING {rows}
WHERE (record.tenant_id, record.kind, record.key) = (given.tenant_id, given.kind, given.key)";

const DAY_SQL: &str = "\
INSERT INTO automation_stats AS old (id, tenant_id, script_name, execution_date, total_executions,
    successful_executions, failed_executions, cancelled_executions, queue_us, duration_us, cpu_us,
    memory_peak_bytes, children, threads, output_bytes, avg_execution_time)
SELECT id, tenant_id, script_name, execution_date, total_executions, successful_executions,
    failed_executions, cancelled_executions, queue_us, duration_us, cpu_us, memory_peak_bytes, children,
    threads, output_bytes, least(round(duration_us / 1000000.0 / greatest(total_executions, 1), 2), 99999999.99)
FROM {rows}
ON CONFLICT (tenant_id, script_name, execution_date) DO UPDATE SET
    total_executions = old.total_executions + excluded.total_executions,
    successful_executions = old.successful_executions + excluded.successful_executions,
    failed_executions = old.failed_executions + excluded.failed_executions,
    cancelled_executions = old.cancelled_executions + excluded.cancelled_executions,
    queue_us = old.queue_us + excluded.queue_us,
    duration_us = old.duration_us + excluded.duration_us,
    cpu_us = old.cpu_us + excluded.cpu_us,
    memory_peak_bytes = greatest(old.memory_peak_bytes, excluded.memory_peak_bytes),
    children = old.children + excluded.children,
    threads = old.threads + excluded.threads,
    output_bytes = old.output_bytes + excluded.output_bytes,
    avg_execution_time = least(round((old.duration_us + excluded.duration_us) / 1000000.0
        / greatest(old.total_executions + excluded.total_executions, 1), 2), 99999999.99)";

const DURATION_SQL: &str = "\
INSERT INTO automation_durations AS old (tenant_id, script_name, execution_date, bucket, executions)
SELECT tenant_id, script_name, execution_date, bucket, executions FROM {rows}
ON CONFLICT (tenant_id, script_name, execution_date, bucket)
DO UPDATE SET executions = old.executions + excluded.executions";

/// Adds the statements that make the changes, but for resolutions. The rows of the statistics, which all servers
/// share, come last: they are locked from here to the commit.
pub(super) async fn add<'a>(
    changes: &'a Changes<'_>,
    pipeline: &mut Pipeline<'a>,
) -> Result<(), Failure> {
    if !changes.inserts.is_empty() {
        insert(&changes.inserts, pipeline).await?;
    }
    if !changes.waits.is_empty() {
        wait(&changes.waits, pipeline).await?;
    }
    if !changes.runs.is_empty() {
        run(&changes.runs, pipeline).await?;
    }
    if !changes.ends.is_empty() {
        let columns = row::ended(&changes.ends);
        pipeline.add_rows(row::END_SQL, columns).await?;
    }
    if !changes.events.is_empty() {
        events(&changes.events, pipeline).await?;
    }
    records(changes, pipeline).await?;
    statistics(&changes.tally, pipeline).await
}

async fn insert<'a>(rows: &[&'a Execution], pipeline: &mut Pipeline<'a>) -> Result<(), Failure> {
    let columns = row::inserted(rows);
    let sql = INSERT_SQL.replace("{names}", &columns.names());
    pipeline.add_rows(&sql, columns).await?;
    Ok(())
}

async fn wait<'a>(
    waits: &'a BTreeMap<ExecutionId, Wait>,
    pipeline: &mut Pipeline<'a>,
) -> Result<(), Failure> {
    let waits = || waits.values();
    let columns = Columns::new()
        .with("id", "uuid", waits().map(|wait| wait.id.as_uuid()))
        .with(
            "reason",
            "text",
            waits().map(|wait| wait.reason.map(Reason::as_str)),
        )
        .with(
            "run_at",
            "timestamptz",
            waits().map(|wait| wait.run_at.map(held::time)),
        )
        .with("epoch", "int8", waits().map(|wait| wait.epoch));
    pipeline.add_rows(WAIT_SQL, columns).await?;
    Ok(())
}

async fn run<'a>(runs: &'a [Run<'_>], pipeline: &mut Pipeline<'a>) -> Result<(), Failure> {
    let columns = Columns::new()
        .with("id", "uuid", runs.iter().map(|run| run.id.as_uuid()))
        .with(
            "claimed_by",
            "text",
            runs.iter().map(|run| text(run.claimed_by.as_str())),
        )
        .with(
            "lease_until",
            "timestamptz",
            runs.iter().map(|run| held::time(run.lease_until)),
        )
        .with(
            "isolation",
            "text",
            runs.iter().map(|run| run.isolation.as_str()),
        );
    pipeline.add_rows(RUN_SQL, columns).await?;
    Ok(())
}

async fn events<'a>(events: &[&'a Event], pipeline: &mut Pipeline<'a>) -> Result<(), Failure> {
    let events = || events.iter().copied();
    let columns = Columns::new()
        .with(
            "tenant_id",
            "text",
            events().map(|event| text(event.tenant_id.as_str())),
        )
        .with(
            "execution_id",
            "uuid",
            events().map(|event| event.execution_id.as_uuid()),
        )
        .with("seq", "int8", events().map(|event| i64::from(event.seq)))
        .with(
            "at",
            "timestamptz",
            events().map(|event| held::time(event.at)),
        )
        .with("kind", "text", events().map(|event| event.kind.as_str()))
        .with(
            "data",
            "jsonb",
            events().map(|event| Json::new(&event.data)),
        );
    pipeline.add_rows(EVENT_SQL, columns).await?;
    Ok(())
}

/// A record that was not there is inserted, and so fails where another server did the same meanwhile.
pub(super) async fn records<'a>(
    changes: &'a Changes<'_>,
    pipeline: &mut Pipeline<'a>,
) -> Result<(), Failure> {
    let (mut gone, mut new, mut changed) = (Vec::new(), Vec::new(), Vec::new());
    for (key, (stored, was_there)) in &changes.records {
        match (stored, was_there) {
            (Some(_), false) => new.push((key, stored)),
            (Some(_), true) => changed.push((key, stored)),
            (None, true) => gone.push((key, stored)),
            (None, false) => {}
        }
    }
    for (sql, rows) in [
        (RECORD_DELETE_SQL, gone),
        (RECORD_INSERT_SQL, new),
        (RECORD_UPDATE_SQL, changed),
    ] {
        if !rows.is_empty() {
            pipeline.add_rows(sql, record_columns(&rows)).await?;
        }
    }
    Ok(())
}

fn record_columns<'a>(rows: &[(&'a RecordKey, &'a Stored<'a>)]) -> Columns<'a> {
    let keys = || rows.iter().map(|(key, _)| *key);
    let stored = || rows.iter().map(|(_, stored)| **stored);
    Columns::new()
        .with("tenant_id", "text", keys().map(|key| text(key.0.as_str())))
        .with("kind", "text", keys().map(|key| key.1.as_str()))
        .with("key", "text", keys().map(|key| key.2.as_str()))
        .with(
            "value",
            "jsonb",
            stored().map(|stored| stored.map(|(value, _)| Json::new(value))),
        )
        .with(
            "revision",
            "int8",
            stored().map(|stored| stored.map(|(_, n)| integer(n))),
        )
}

async fn statistics<'a>(tally: &'a Tally, pipeline: &mut Pipeline<'a>) -> Result<(), Failure> {
    let days: Vec<_> = tally.days().collect();
    if days.is_empty() {
        return Ok(());
    }
    pipeline.add_rows(DAY_SQL, day_columns(&days)).await?;
    let buckets: Vec<_> = days
        .iter()
        .flat_map(|(day, stats)| stats.durations.buckets().map(move |bucket| (*day, bucket)))
        .collect();
    if buckets.is_empty() {
        return Ok(());
    }
    let day = || buckets.iter().map(|(day, _)| *day);
    let bucket = || buckets.iter().map(|(_, bucket)| *bucket);
    let columns = key_columns(day)
        .with(
            "bucket",
            "int4",
            bucket().map(|(bucket, _)| i32::from(bucket)),
        )
        .with(
            "executions",
            "int8",
            bucket().map(|(_, count)| integer(count)),
        );
    pipeline.add_rows(DURATION_SQL, columns).await?;
    Ok(())
}

fn day_columns<'a>(days: &[(&'a Day, &'a ScriptStats)]) -> Columns<'a> {
    let stats = || days.iter().map(|(_, stats)| *stats);
    key_columns(|| days.iter().map(|(day, _)| *day))
        .with("id", "uuid", stats().map(|_| Uuid::now_v7()))
        .with(
            "total_executions",
            "int4",
            stats().map(|stats| small(stats.total)),
        )
        .with(
            "successful_executions",
            "int4",
            stats().map(|stats| small(stats.successful)),
        )
        .with(
            "failed_executions",
            "int4",
            stats().map(|stats| small(stats.failed)),
        )
        .with(
            "cancelled_executions",
            "int4",
            stats().map(|stats| small(stats.cancelled)),
        )
        .with(
            "queue_us",
            "int8",
            stats().map(|stats| integer(stats.queue_us)),
        )
        .with(
            "duration_us",
            "int8",
            stats().map(|stats| integer(stats.duration_us)),
        )
        .with("cpu_us", "int8", stats().map(|stats| integer(stats.cpu_us)))
        .with(
            "memory_peak_bytes",
            "int8",
            stats().map(|stats| integer(stats.memory_peak_bytes)),
        )
        .with(
            "children",
            "int8",
            stats().map(|stats| integer(stats.children)),
        )
        .with(
            "threads",
            "int8",
            stats().map(|stats| integer(stats.threads)),
        )
        .with(
            "output_bytes",
            "int8",
            stats().map(|stats| integer(stats.output_bytes)),
        )
}

fn key_columns<'a, I: Iterator<Item = &'a Day>>(days: impl Fn() -> I) -> Columns<'a> {
    Columns::new()
        .with("tenant_id", "text", days().map(|day| text(day.0.as_str())))
        .with("script_name", "text", days().map(|day| text(&day.1)))
        .with("execution_date", "date", days().map(|day| day.2))
}
