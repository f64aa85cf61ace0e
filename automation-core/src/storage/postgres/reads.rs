//! The reads. Those for a tenant are made in a transaction as the tenant, under Row Level Security; those of the
//! server's own affairs as the server.

use chrono::{DateTime, Utc};
use deadpool_postgres::{ClientWrapper, Object, Pool};
use serde_json::json;
use tokio_postgres::Row;

use super::error::Failure;
use super::lookup::seq;
use super::pipeline::{Param, Pipeline};
use super::row::{self, get, word};
use super::value::{Json, text};
use crate::execution::{Event, EventKind, Execution, ExecutionId, TenantId};
use crate::limits;
use crate::storage::cursor::Place;
use crate::storage::{ExecutionQuery, Record, RecordKind, held};

/// Begins a transaction in which all statements see one state.
const BEGIN_SQL: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
/// Turns the transaction, and it alone, into one of a tenant.
const TENANT_SQL: &str = "\
SELECT set_config('role', 'authenticated', true), set_config('request.jwt.claims', $1, true)";

/// A statement and its values.
pub(super) type Query = (String, Vec<Param<'static>>);

/// As whom to ask.
#[derive(Debug, Clone, Copy)]
pub(super) enum As<'a> {
    /// A tenant, under Row Level Security.
    Tenant(&'a TenantId),
    /// The server itself.
    Server,
}

/// Asks on one of the connections, and once more where the server had closed it meanwhile; returns the rows of each
/// query.
pub(super) async fn ask(
    pool: &Pool,
    who: As<'_>,
    queries: impl Fn() -> Vec<Query>,
) -> Result<Vec<Vec<Row>>, Failure> {
    let client = pool.get().await?;
    match ask_once(&client, who, queries()).await {
        Err(failure) if failure.is_lost() => {
            drop(Object::take(client));
            ask_once(&*pool.get().await?, who, queries()).await
        }
        answer => answer,
    }
}

/// Asks all in one journey.
async fn ask_once(
    client: &ClientWrapper,
    who: As<'_>,
    queries: Vec<Query>,
) -> Result<Vec<Vec<Row>>, Failure> {
    let mut pipeline = Pipeline::new(client);
    pipeline.add(BEGIN_SQL, vec![]).await?;
    if let As::Tenant(tenant) = who {
        let tenant = text(tenant.as_str());
        let claims = json!({ "role": "authenticated", "tenant_id": tenant }).to_string();
        pipeline.add(TENANT_SQL, vec![Box::new(claims)]).await?;
    }
    let first = pipeline.len();
    for (sql, params) in queries {
        pipeline.add(&sql, params).await?;
    }
    let behind = pipeline.add("COMMIT", vec![]).await?;
    let mut answers = pipeline.send().await.map_err(|failed| failed.failure)?;
    answers.truncate(behind);
    Ok(answers.split_off(first))
}

/// Conditions and their values, in order.
#[derive(Default)]
pub(super) struct Filter {
    conditions: Vec<String>,
    pub(super) values: Vec<Param<'static>>,
}

impl Filter {
    /// Adds a condition with one place `?`, if there is a value for it.
    pub(super) fn and<T>(&mut self, condition: &str, value: Option<T>)
    where
        T: tokio_postgres::types::ToSql + Sync + Send + 'static,
    {
        if let Some(value) = value {
            self.values.push(Box::new(value));
            let place = format!("${}", self.values.len());
            self.conditions.push(condition.replace('?', &place));
        }
    }

    /// Adds that a column has one of the words.
    pub(super) fn one_of<'w>(&mut self, column: &str, words: impl Iterator<Item = &'w str>) {
        let words: Vec<_> = words.map(|word| format!("'{word}'")).collect();
        self.fixed(format!("{column} IN ({})", words.join(", ")));
    }

    /// Adds a condition without a value.
    pub(super) fn fixed(&mut self, condition: impl Into<String>) {
        self.conditions.push(condition.into());
    }

    /// Returns the conditions as SQL.
    pub(super) fn sql(&self) -> String {
        if self.conditions.is_empty() {
            "TRUE".to_owned()
        } else {
            self.conditions.join(" AND ")
        }
    }
}

/// The condition of the index of open executions.
pub(super) const OPEN: &str = "status IN ('starting', 'running')";

/// Asks for an execution.
pub(super) fn execution(tenant: &TenantId, id: ExecutionId) -> Query {
    let sql = format!(
        "SELECT {} FROM automation_logs WHERE id = $1 AND tenant_id = $2",
        row::columns(false)
    );
    (sql, vec![Box::new(*id.as_uuid()), owned(tenant.as_str())])
}

/// Asks for up to `rows` executions that fit, newest first, from the one behind `after` on; for fewer where their
/// output fills a page, and then the last one is the first of the next page. The size of an output is known without
/// reading it.
pub(super) fn list(query: &ExecutionQuery, after: Option<Place>, rows: usize) -> Query {
    let mut filter = filter(query);
    if let Some((at, id)) = after {
        filter.values.push(Box::new(held::time(at)));
        filter.values.push(Box::new(*id.as_uuid()));
        let count = filter.values.len();
        filter.fixed(format!("(started_at, id) < (${}, ${count})", count - 1));
    }
    let page = format!(
        "SELECT {}, octet_length(output) + octet_length(stderr) AS bytes FROM automation_logs \
         WHERE {} ORDER BY started_at DESC, id DESC LIMIT {rows}",
        row::columns(query.without_output),
        filter.sql(),
    );
    let sql = if query.without_output {
        page
    } else {
        let newest_first = "ORDER BY started_at DESC, id DESC";
        format!(
            "SELECT * FROM (SELECT *, row_number() OVER newest AS place, sum(bytes) OVER newest - bytes AS before \
             FROM ({page}) AS page WINDOW newest AS ({newest_first})) AS sized \
             WHERE place <= 2 OR before <= {} {newest_first}",
            limits::PAGE_BYTES
        )
    };
    (sql, filter.values)
}

fn filter(query: &ExecutionQuery) -> Filter {
    let own = |value: &Option<String>| value.as_deref().map(|value| text(value).into_owned());
    let mut filter = Filter::default();
    let tenant = query
        .tenant_id
        .as_ref()
        .map(|id| text(id.as_str()).into_owned());
    filter.and("tenant_id = ?", tenant);
    filter.and("id = ?", query.id.map(|id| *id.as_uuid()));
    filter.and("ticket_id = ?", own(&query.ticket_id));
    filter.and("script_name = ?", own(&query.script_name));
    filter.and("actor = ?", own(&query.actor));
    if !query.statuses.is_empty() {
        let statuses = query.statuses.iter().map(|status| status.as_str());
        filter.one_of("status", statuses);
        if !query.statuses.iter().any(|status| status.is_terminal()) {
            filter.fixed(OPEN);
        }
    }
    let time = |at: Option<DateTime<Utc>>| at.map(held::time);
    filter.and("started_at >= ?", time(query.since));
    filter.and("started_at < ?", time(query.until));
    filter.and("idempotency_key = ?", own(&query.idempotency_key));
    filter.and("lease_until < ?", time(query.lease_before));
    filter
}

/// Asks for up to `rows` events of an execution, oldest first, from the one behind `after` on.
pub(super) fn events(tenant: &TenantId, id: ExecutionId, after: Option<u32>, rows: usize) -> Query {
    let sql = "SELECT seq, at, kind, data FROM automation_events \
         WHERE execution_id = $1 AND tenant_id = $2 AND seq > $3 ORDER BY seq LIMIT $4";
    let params: Vec<Param<'static>> = vec![
        Box::new(*id.as_uuid()),
        owned(tenant.as_str()),
        Box::new(after.map_or(-1, i64::from)),
        Box::new(i64::try_from(rows).unwrap_or(i64::MAX)),
    ];
    (sql.to_owned(), params)
}

/// Reads an event.
pub(super) fn event(row: &Row, tenant: &TenantId, id: ExecutionId) -> Result<Event, Failure> {
    Ok(Event::new(
        tenant.clone(),
        id,
        seq(row)?,
        get(row, "at")?,
        word(row, "kind", EventKind::from_word)?,
        get::<Json>(row, "data")?.0,
    ))
}

/// Asks for a keyed record.
pub(super) fn record(tenant: &TenantId, kind: RecordKind, key: &str) -> Query {
    let sql = "SELECT key, value, revision FROM automation_records \
         WHERE tenant_id = $1 AND kind = $2 AND key = $3";
    let params = vec![owned(tenant.as_str()), owned(kind.as_str()), owned(key)];
    (sql.to_owned(), params)
}

/// Asks for up to `rows` records of a kind, by key, from the one behind `after` on.
pub(super) fn records(
    tenant: &TenantId,
    kind: RecordKind,
    after: Option<&str>,
    rows: usize,
) -> Query {
    let mut filter = Filter::default();
    filter.and("tenant_id = ?", Some(text(tenant.as_str()).into_owned()));
    filter.and("kind = ?", Some(kind.as_str()));
    filter.and("key > ?", after.map(|key| text(key).into_owned()));
    let sql = format!(
        "SELECT key, value, revision FROM automation_records WHERE {} ORDER BY key LIMIT {rows}",
        filter.sql()
    );
    (sql, filter.values)
}

/// Reads a record.
pub(super) fn read_record(
    row: &Row,
    tenant: &TenantId,
    kind: RecordKind,
) -> Result<Record, Failure> {
    Ok(Record {
        tenant_id: tenant.clone(),
        kind,
        key: get(row, "key")?,
        value: get::<Json>(row, "value")?.0,
        revision: get::<i64>(row, "revision")?.unsigned_abs(),
    })
}

/// Reads executions.
pub(super) fn executions(rows: &[Row]) -> Result<Vec<Execution>, Failure> {
    row::read_all(rows)
}

/// A text as a value.
fn owned(value: &str) -> Param<'static> {
    Box::new(text(value).into_owned())
}
