//! Pruning as SQL, inside a transaction that the writer began.

use std::collections::{HashMap, HashSet};

use deadpool_postgres::ClientWrapper;
use serde_json::Value;
use tokio_postgres::Row;
use uuid::Uuid;

use super::apply;
use super::changes::{Changes, RecordKey};
use super::error::Failure;
use super::pipeline::{Columns, Param, Pipeline};
use super::reads::OPEN;
use super::row::{self, get};
use super::value::{Json, text};
use crate::execution::{Execution, ExecutionId, TenantId};
use crate::storage::cursor::place;
use crate::storage::prune::{self, Stretch};
use crate::storage::tally::Tally;
use crate::storage::{Applied, Prune, RecordKind, WriteError, held};

/// The totals that are there, locked until the commit.
const TOTALS_SQL: &str = "\
SELECT key, value, revision FROM automation_records
WHERE tenant_id = $1 AND kind = 'pruned' AND key = ANY ($2) ORDER BY key FOR UPDATE";

const RECORDS_SQL: &str = "\
DELETE FROM automation_records AS record USING {rows}
WHERE record.tenant_id = given.tenant_id AND record.kind = ANY (array[{kinds}])
    AND record.key >= given.first AND record.key < given.behind";

/// Their events go with them.
const EXECUTIONS_SQL: &str = "DELETE FROM automation_logs WHERE id = ANY ($1)";

/// Deletes executions that fit, and counts them as pruned.
pub(super) async fn prune(
    client: &ClientWrapper,
    prune: &Prune,
) -> Result<Result<Applied, WriteError>, Failure> {
    let begin = match prune.begin() {
        Err(error) => return Ok(Err(error.into())),
        Ok(None) => next_tenant(client, None).await?.map(Stretch::of),
        Ok(begin) => begin,
    };
    let Some(stretch) = begin else {
        return Ok(Ok(Applied::Pruned {
            rows: 0,
            next: None,
        }));
    };
    let (looked_at, kept) = look(client, &stretch, prune).await?;
    let fits = |row: &&Execution| !kept.contains(&row.id) && prune.takes(row);
    let rows: Vec<_> = looked_at.iter().filter(fits).collect();
    if !rows.is_empty() {
        count(
            client,
            &stretch.tenant,
            &prune::counted(rows.iter().copied()),
        )
        .await?;
        forget(client, &rows).await?;
    }
    let places: Vec<_> = looked_at.iter().map(place).collect();
    let next = match prune.goes_on(&stretch, &places) {
        None if prune.tenant_id.is_none() => next_tenant(client, Some(&stretch.tenant))
            .await?
            .map(Stretch::cursor_of),
        next => next,
    };
    Ok(Ok(Applied::Pruned {
        rows: rows.len(),
        next,
    }))
}

/// Returns the first tenant with executions behind another.
async fn next_tenant(
    client: &ClientWrapper,
    behind: Option<&TenantId>,
) -> Result<Option<TenantId>, Failure> {
    // Nobody's name is empty, so every tenant is behind the empty text. A place in the index, not a walk.
    let sql = "SELECT min(tenant_id) AS tenant FROM automation_logs WHERE tenant_id > $1";
    let behind = behind.map_or("", TenantId::as_str).to_owned();
    let mut pipeline = Pipeline::new(client);
    pipeline.add(sql, vec![Box::new(behind)]).await?;
    let answers = send(pipeline).await?;
    let tenant: Option<&str> = match &answers[0][..] {
        [row] => get(row, "tenant")?,
        _ => None,
    };
    Ok(tenant.map(TenantId::new))
}

async fn send(mut pipeline: Pipeline<'_>) -> Result<Vec<Vec<Row>>, Failure> {
    pipeline.send().await.map_err(|failed| failed.failure)
}

/// Returns the oldest ended executions of a stretch, locked, and those that open ones name as root or parent.
async fn look(
    client: &ClientWrapper,
    stretch: &Stretch,
    prune: &Prune,
) -> Result<(Vec<Execution>, HashSet<ExecutionId>), Failure> {
    let tenant = text(stretch.tenant.as_str()).into_owned();
    let mut params: Vec<Param<'_>> = vec![
        Box::new(tenant.clone()),
        Box::new(prune.until()),
        Box::new(i64::try_from(prune.rows_max()).unwrap_or(i64::MAX)),
    ];
    let mut behind = "";
    if let Some((at, id)) = stretch.after {
        behind = "AND (started_at, id) > ($4, $5)";
        params.push(Box::new(held::time(at)));
        params.push(Box::new(*id.as_uuid()));
    }
    let ended = format!(
        "SELECT {} FROM automation_logs WHERE tenant_id = $1 AND started_at < $2 {behind} AND NOT {OPEN} \
         ORDER BY started_at, id LIMIT $3 FOR UPDATE",
        row::columns(true)
    );
    let named = format!(
        "SELECT root_id, parent_id FROM automation_logs WHERE {OPEN} AND tenant_id = $1 \
         AND (root_id IS NOT NULL OR parent_id IS NOT NULL)"
    );
    let mut pipeline = Pipeline::new(client);
    pipeline.add(&ended, params).await?;
    pipeline.add(&named, vec![Box::new(tenant)]).await?;
    let answers = send(pipeline).await?;
    let mut kept = HashSet::new();
    for row in &answers[1] {
        for name in ["root_id", "parent_id"] {
            kept.extend(get::<Option<Uuid>>(row, name)?.map(ExecutionId::from_uuid));
        }
    }
    Ok((row::read_all(&answers[0])?, kept))
}

/// Adds what was counted to the pruned totals.
async fn count(client: &ClientWrapper, tenant: &TenantId, counted: &Tally) -> Result<(), Failure> {
    let keys = counted.days().map(|(day, _)| prune::key(day));
    let keys: Vec<_> = keys.map(|key| text(&key).into_owned()).collect();
    let owner = text(tenant.as_str()).into_owned();
    let mut pipeline = Pipeline::new(client);
    let params: Vec<Param<'_>> = vec![Box::new(owner), Box::new(keys.clone())];
    pipeline.add(TOTALS_SQL, params).await?;
    let old = totals(&send(pipeline).await?[0])?;

    let mut new = Vec::with_capacity(keys.len());
    for (key, (_, sums)) in keys.iter().zip(counted.days()) {
        let (value, revision) = old
            .get(key)
            .map_or((None, 0), |(value, n)| (Some(value), *n));
        let value = prune::add(value, sums).map_err(Failure::Unusable)?;
        new.push((key, value, revision));
    }
    let mut changes = Changes::default();
    for (key, value, revision) in &new {
        let key: RecordKey = (tenant.clone(), RecordKind::Pruned, (*key).clone());
        let change = (Some((value, revision + 1)), *revision > 0);
        changes.records.insert(key, change);
    }
    let mut pipeline = Pipeline::new(client);
    apply::records(&changes, &mut pipeline).await?;
    send(pipeline).await?;
    Ok(())
}

fn totals(rows: &[Row]) -> Result<HashMap<String, (Value, u64)>, Failure> {
    let total = |row: &Row| {
        let revision = get::<i64>(row, "revision")?.unsigned_abs();
        Ok((get(row, "key")?, (get::<Json>(row, "value")?.0, revision)))
    };
    rows.iter().map(total).collect()
}

/// Deletes executions and what belongs to them.
async fn forget(client: &ClientWrapper, rows: &[&Execution]) -> Result<(), Failure> {
    let own = || rows.iter().map(|row| (row, prune::own_keys(row.id)));
    let columns = Columns::new()
        .with(
            "tenant_id",
            "text",
            own().map(|(row, _)| text(row.tenant_id.as_str())),
        )
        .with("first", "text", own().map(|(_, keys)| keys.0))
        .with("behind", "text", own().map(|(_, keys)| keys.1));
    let kinds: Vec<_> = prune::kinds().map(|kind| format!("'{kind}'")).collect();
    let records = RECORDS_SQL.replace("{kinds}", &kinds.join(", "));
    let ids: Vec<_> = rows.iter().map(|row| *row.id.as_uuid()).collect();
    let mut pipeline = Pipeline::new(client);
    pipeline.add_rows(&records, columns).await?;
    pipeline.add(EXECUTIONS_SQL, vec![Box::new(ids)]).await?;
    send(pipeline).await?;
    Ok(())
}
