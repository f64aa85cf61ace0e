//! Pruning as SQL, inside a transaction that the writer began. Rare, so its statements are prepared when needed.

use std::collections::HashSet;

use rusqlite::types::Value as SqlValue;
use rusqlite::{Connection, params};

use super::apply::Refusal;
use super::error::Failure;
use super::reads::{self, OPEN, all};
use super::row;
use super::text::{self, Id};
use crate::execution::{Execution, ExecutionId, TenantId};
use crate::stats::ScriptStats;
use crate::storage::cursor::place;
use crate::storage::prune::{self, Stretch};
use crate::storage::tally::Day;
use crate::storage::{Applied, Prune, RecordKind, WriteError};

/// Deletes executions that fit, and counts them as pruned.
pub(super) fn prune(connection: &Connection, prune: &Prune) -> Result<Applied, Refusal> {
    let begin = prune.begin().map_err(WriteError::from)?;
    let begin = match begin {
        None => next_tenant(connection, None)?.map(Stretch::of),
        begin => begin,
    };
    let Some(stretch) = begin else {
        return Ok(Applied::Pruned {
            rows: 0,
            next: None,
        });
    };
    let looked_at = oldest_ended(connection, &stretch, prune)?;
    let kept = named_by_open(connection, &stretch.tenant)?;
    let fits = |row: &&(Execution, i64)| !kept.contains(&row.0.id) && prune.takes(&row.0);
    let rows: Vec<_> = looked_at.iter().filter(fits).collect();
    let counted = prune::counted(rows.iter().map(|(row, _)| row));
    for (day, sums) in counted.days() {
        add_total(connection, day, sums)?;
    }
    for (row, rowid) in &rows {
        forget(connection, row, *rowid)?;
    }
    let places: Vec<_> = looked_at.iter().map(|(row, _)| place(row)).collect();
    let next = match prune.goes_on(&stretch, &places) {
        None if prune.tenant_id.is_none() => {
            next_tenant(connection, Some(&stretch.tenant))?.map(Stretch::cursor_of)
        }
        next => next,
    };
    Ok(Applied::Pruned {
        rows: rows.len(),
        next,
    })
}

/// Returns the first tenant with executions behind another.
fn next_tenant(
    connection: &Connection,
    behind: Option<&TenantId>,
) -> Result<Option<TenantId>, Failure> {
    // Nobody's name is empty, so every tenant is behind the empty text. A place in the index, not a walk.
    let sql = "SELECT min(tenant_id) FROM automation_logs WHERE tenant_id > ?1";
    let behind = behind.map_or("", TenantId::as_str);
    let mut statement = connection.prepare_cached(sql)?;
    let tenant: Option<String> = statement.query_row([behind], |row| row.get(0))?;
    Ok(tenant.map(TenantId::new))
}

fn oldest_ended(
    connection: &Connection,
    stretch: &Stretch,
    prune: &Prune,
) -> Result<Vec<(Execution, i64)>, Failure> {
    let sql = format!(
        "SELECT {}, rowid FROM automation_logs INDEXED BY automation_logs_newest \
         WHERE tenant_id = ?1 AND (started_at, id) > (?2, ?3) AND started_at < ?4 AND NOT {OPEN} \
         ORDER BY started_at, id LIMIT ?5",
        row::columns(true)
    );
    let nowhere = || (SqlValue::from(String::new()), SqlValue::from(String::new()));
    let place = |(at, id)| (text::time(at).into(), text::id(id).into());
    let (at, id) = stretch.after.map_or_else(nowhere, place);
    let rows_max = i64::try_from(prune.rows_max()).unwrap_or(i64::MAX);
    let tenant = stretch.tenant.as_str();
    let values = params![tenant, at, id, text::time(prune.until()), rows_max];
    all(connection, &sql, values, |found| {
        Ok((row::read(found)?, found.get("rowid")?))
    })
}

/// Returns the executions that open ones name as root or parent.
fn named_by_open(
    connection: &Connection,
    tenant: &TenantId,
) -> Result<HashSet<ExecutionId>, Failure> {
    let sql = format!(
        "SELECT root_id, parent_id FROM automation_logs INDEXED BY automation_logs_open \
         WHERE {OPEN} AND tenant_id = ?1 AND (root_id IS NOT NULL OR parent_id IS NOT NULL)"
    );
    let named = all(connection, &sql, [tenant.as_str()], |row| {
        Ok([row.get::<_, Option<Id>>(0)?, row.get(1)?])
    })?;
    Ok(named
        .into_iter()
        .flatten()
        .flatten()
        .map(|id| id.0)
        .collect())
}

fn add_total(connection: &Connection, day: &Day, sums: &ScriptStats) -> Result<(), Failure> {
    let (kind, key) = (RecordKind::Pruned, prune::key(day));
    let old = reads::record(connection, &day.0, kind, &key)?;
    let value = prune::add(old.as_ref().map(|old| &old.value), sums).map_err(Failure::Unusable)?;
    let revision = row::integer(old.map_or(0, |old| old.revision) + 1);
    let mut statement = connection.prepare_cached(super::apply::PUT_SQL)?;
    let tenant = day.0.as_str();
    statement.execute(params![
        tenant,
        kind.as_str(),
        key,
        value.to_string(),
        revision
    ])?;
    Ok(())
}

/// Deletes an execution, and what belongs to it: its events go with the row.
fn forget(connection: &Connection, row: &Execution, rowid: i64) -> Result<(), Failure> {
    let (first, behind) = prune::own_keys(row.id);
    let mut records = connection.prepare_cached(
        "DELETE FROM automation_records WHERE tenant_id = ?1 AND kind = ?2 AND key >= ?3 AND key < ?4",
    )?;
    for kind in prune::kinds() {
        records.execute(params![row.tenant_id.as_str(), kind, first, behind])?;
    }
    let sql = "DELETE FROM automation_logs WHERE rowid = ?1";
    connection.prepare_cached(sql)?.execute([rowid])?;
    Ok(())
}
