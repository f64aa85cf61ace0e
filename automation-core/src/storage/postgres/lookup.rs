//! Reads and locks the rows that writes are about, so that what follows from them holds until the commit.

use std::collections::BTreeSet;

use tokio_postgres::Row;

use super::changes::{Known, RecordKey, Rows, record_key};
use super::error::Failure;
use super::pipeline::{Columns, Pipeline};
use super::row::{get, word};
use super::value::text;
use crate::execution::{ExecutionId, TenantId, Trigger};
use crate::status::Status;
use crate::storage::write::Found;
use crate::storage::{RecordKind, Write};

/// Which rows writes are about.
#[derive(Debug, Default)]
pub(super) struct Lookup {
    executions: BTreeSet<ExecutionId>,
    keys: BTreeSet<(TenantId, String)>,
    events: BTreeSet<(ExecutionId, u32)>,
    records: BTreeSet<RecordKey>,
}

/// The places of the answers in a pipeline.
#[derive(Debug, Default)]
pub(super) struct Places {
    executions: Option<usize>,
    keys: Option<usize>,
    events: Option<usize>,
    records: Option<usize>,
}

/// Locks in the order of ids, as every other server does.
const EXECUTIONS_SQL: &str = "\
SELECT id, tenant_id, epoch, status, trigger, dry_run, ticket_id, script_name,
    CASE trigger WHEN 'retry' THEN coalesce(context ? 'ticket', FALSE) ELSE trigger = 'ticket' END AS of_ticket
FROM automation_logs
WHERE id = ANY ($1) ORDER BY id FOR NO KEY UPDATE";

const KEYS_SQL: &str = "\
SELECT tenant_id, idempotency_key FROM automation_logs JOIN {rows} USING (tenant_id, idempotency_key)";

const EVENTS_SQL: &str = "\
SELECT execution_id, seq FROM automation_events JOIN {rows} USING (execution_id, seq)";

const RECORDS_SQL: &str = "\
SELECT record.tenant_id, record.kind, record.key, record.revision FROM automation_records AS record
JOIN {rows} USING (tenant_id, kind, key) ORDER BY 1, 2, 3 FOR UPDATE OF record";

impl Lookup {
    /// Adds what a write is about.
    pub(super) fn add(&mut self, write: &Write) {
        match write {
            Write::Insert(execution) => {
                self.executions.insert(execution.id);
                let key = execution.idempotency_key.as_deref().map(text);
                let key = key.map(|key| (execution.tenant_id.clone(), key.into_owned()));
                self.keys.extend(key);
            }
            Write::Transition(transition) => {
                self.executions.insert(transition.id);
            }
            Write::Append(event) => {
                self.executions.insert(event.execution_id);
                self.events.insert((event.execution_id, event.seq));
            }
            Write::Put { record, .. } | Write::Delete { record } => {
                self.records.insert(record_key(record));
            }
            Write::Claim(_) | Write::Renew { .. } | Write::Prune(_) => {}
        }
    }

    /// Adds the statements to a pipeline.
    pub(super) async fn ask(&self, pipeline: &mut Pipeline<'_>) -> Result<Places, Failure> {
        let mut places = Places::default();
        if !self.executions.is_empty() {
            let ids: Vec<_> = self.executions.iter().map(|id| *id.as_uuid()).collect();
            places.executions = Some(pipeline.add(EXECUTIONS_SQL, vec![Box::new(ids)]).await?);
        }
        if !self.keys.is_empty() {
            let keys = || self.keys.iter();
            let columns = Columns::new()
                .with("tenant_id", "text", keys().map(|key| key.0.to_string()))
                .with("idempotency_key", "text", keys().map(|key| key.1.clone()));
            places.keys = Some(pipeline.add_rows(KEYS_SQL, columns).await?);
        }
        if !self.events.is_empty() {
            let events = || self.events.iter();
            let columns = Columns::new()
                .with(
                    "execution_id",
                    "uuid",
                    events().map(|event| *event.0.as_uuid()),
                )
                .with("seq", "int8", events().map(|event| i64::from(event.1)));
            places.events = Some(pipeline.add_rows(EVENTS_SQL, columns).await?);
        }
        if !self.records.is_empty() {
            let keys = || self.records.iter();
            let columns = Columns::new()
                .with("tenant_id", "text", keys().map(|key| key.0.to_string()))
                .with("kind", "text", keys().map(|key| key.1.as_str()))
                .with("key", "text", keys().map(|key| key.2.clone()));
            places.records = Some(pipeline.add_rows(RECORDS_SQL, columns).await?);
        }
        Ok(places)
    }
}

impl Places {
    /// Reads the answers.
    pub(super) fn read(&self, answers: &[Vec<Row>]) -> Result<Rows, Failure> {
        let of = |place: Option<usize>| place.map_or(&[][..], |place| &answers[place][..]);
        let mut rows = Rows::default();
        for row in of(self.executions) {
            let id = ExecutionId::from_uuid(get(row, "id")?);
            rows.executions.insert(id, known(row)?);
        }
        for row in of(self.keys) {
            rows.keys
                .insert((tenant(row)?, get(row, "idempotency_key")?));
        }
        for row in of(self.events) {
            let id = ExecutionId::from_uuid(get(row, "execution_id")?);
            rows.events.insert((id, seq(row)?));
        }
        for row in of(self.records) {
            let kind = word(row, "kind", RecordKind::from_word)?;
            let revision = get::<i64>(row, "revision")?.unsigned_abs();
            let key = (tenant(row)?, kind, get(row, "key")?);
            rows.records.insert(key, revision);
        }
        Ok(rows)
    }
}

fn known(row: &Row) -> Result<Known, Failure> {
    Ok(Known {
        tenant_id: tenant(row)?,
        found: Found {
            epoch: get(row, "epoch")?,
            status: word(row, "status", Status::from_word)?,
        },
        trigger: word(row, "trigger", Trigger::from_word)?,
        dry_run: get(row, "dry_run")?,
        ticket_id: get(row, "ticket_id")?,
        script_name: get(row, "script_name")?,
        of_ticket: get(row, "of_ticket")?,
    })
}

fn tenant(row: &Row) -> Result<TenantId, Failure> {
    Ok(TenantId::new(get::<&str>(row, "tenant_id")?))
}

/// Reads the number of an event.
pub(super) fn seq(row: &Row) -> Result<u32, Failure> {
    let seq: i64 = get(row, "seq")?;
    u32::try_from(seq).map_err(|_| Failure::Unusable(format!("an event has the number {seq}")))
}
