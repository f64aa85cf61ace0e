//! The reads of executions, events and records as SQL.

use rusqlite::types::Value as SqlValue;
use rusqlite::{Connection, OptionalExtension, Params, Row, params, params_from_iter};

use super::error::Failure;
use super::row;
use super::text::{self, Json, Time};
use crate::execution::{Event, EventKind, Execution, ExecutionId, TenantId};
use crate::status::Status;
use crate::storage::cursor::Place;
use crate::storage::held::PageBytes;
use crate::storage::{ExecutionQuery, Record, RecordKind};

/// Conditions and their values, in order.
#[derive(Debug, Default)]
pub(super) struct Filter {
    conditions: Vec<String>,
    pub(super) values: Vec<SqlValue>,
}

impl Filter {
    /// Adds a condition with one place `?`, if there is a value for it.
    pub(super) fn and<T: Into<SqlValue>>(&mut self, condition: &str, value: Option<T>) {
        if let Some(value) = value {
            self.conditions.push(condition.to_owned());
            self.values.push(value.into());
        }
    }

    /// Adds a condition with two places `?`.
    fn pair(&mut self, condition: &str, first: impl Into<SqlValue>, second: impl Into<SqlValue>) {
        self.fixed(condition);
        self.values.extend([first.into(), second.into()]);
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

/// Reads all rows of a query.
pub(super) fn all<T>(
    connection: &Connection,
    sql: &str,
    values: impl Params,
    read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
) -> Result<Vec<T>, Failure> {
    let mut statement = connection.prepare_cached(sql)?;
    let rows = statement.query_map(values, read)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Reads an execution.
pub(super) fn execution(
    connection: &Connection,
    tenant: &TenantId,
    id: ExecutionId,
) -> Result<Option<Execution>, Failure> {
    let sql = format!(
        "SELECT {} FROM automation_logs WHERE id = ?1 AND tenant_id = ?2",
        row::columns(false)
    );
    let key = params![text::id(id), tenant.as_str()];
    let mut statement = connection.prepare_cached(&sql)?;
    Ok(statement.query_row(key, row::read).optional()?)
}

/// Reads up to `rows` executions that fit, newest first, from the one behind `after` on; fewer where their output
/// fills a page, and then the last one is the first of the next page.
pub(super) fn list(
    connection: &Connection,
    query: &ExecutionQuery,
    after: Option<Place>,
    rows: usize,
) -> Result<Vec<Execution>, Failure> {
    let (sql, values) = list_sql(query, after, rows);
    let mut statement = connection.prepare_cached(&sql)?;
    let (mut page, mut list) = (PageBytes::default(), Vec::new());
    for execution in statement.query_map(params_from_iter(values), row::read)? {
        let execution = execution?;
        let takes = page.takes(&execution);
        list.push(execution);
        if !takes {
            break;
        }
    }
    Ok(list)
}

fn list_sql(query: &ExecutionQuery, after: Option<Place>, rows: usize) -> (String, Vec<SqlValue>) {
    let mut filter = filter(query);
    if let Some((at, id)) = after {
        filter.pair("(started_at, id) < (?, ?)", text::time(at), text::id(id));
    }
    let sql = format!(
        "SELECT {} FROM automation_logs {} WHERE {} ORDER BY started_at DESC, id DESC LIMIT {rows}",
        row::columns(query.without_output),
        index(query),
        filter.sql(),
    );
    (sql, filter.values)
}

fn filter(query: &ExecutionQuery) -> Filter {
    let mut filter = Filter::default();
    let tenant = query.tenant_id.as_ref().map(|id| id.as_str().to_owned());
    filter.and("tenant_id = ?", tenant);
    filter.and("id = ?", query.id.map(text::id));
    filter.and("ticket_id = ?", query.ticket_id.clone());
    filter.and("script_name = ?", query.script_name.clone());
    filter.and("actor = ?", query.actor.clone());
    if !query.statuses.is_empty() {
        filter.one_of(
            "status",
            query.statuses.iter().map(|status| status.as_str()),
        );
    }
    if asks_for_open(query) {
        filter.fixed(OPEN);
    }
    if asks_for_unsuccessful(query) {
        filter.fixed(UNSUCCESSFUL);
    }
    filter.and("started_at >= ?", query.since.map(text::time));
    filter.and("started_at < ?", query.until.map(text::time));
    filter.and("idempotency_key = ?", query.idempotency_key.clone());
    filter.and("lease_until < ?", query.lease_before.map(text::time));
    filter
}

/// The condition of the index of open executions, word for word.
pub(super) const OPEN: &str = "status IN ('starting', 'running')";
/// The condition of the index of what went wrong, word for word.
const UNSUCCESSFUL: &str = "status IN ('failed', 'cancelled')";

fn asks_for_open(query: &ExecutionQuery) -> bool {
    !query.statuses.is_empty() && !query.statuses.iter().any(|status| status.is_terminal())
}

fn asks_for_unsuccessful(query: &ExecutionQuery) -> bool {
    let is_unsuccessful = |status| [Status::Failed, Status::Cancelled].contains(status);
    !query.statuses.is_empty() && query.statuses.iter().all(is_unsuccessful)
}

/// Names the index that leads to the fewest rows: the planner has no statistics, and would take any.
fn index(query: &ExecutionQuery) -> &'static str {
    let of_tenant = query.tenant_id.is_some();
    if query.id.is_some() {
        ""
    } else if of_tenant && query.ticket_id.is_some() {
        "INDEXED BY automation_logs_ticket"
    } else if asks_for_open(query) {
        "INDEXED BY automation_logs_open"
    } else if !of_tenant {
        ""
    } else if query.actor.is_some() {
        "INDEXED BY automation_logs_actor"
    } else if asks_for_unsuccessful(query) && query.script_name.is_some() {
        "INDEXED BY automation_logs_unsuccessful_script"
    } else if asks_for_unsuccessful(query) {
        "INDEXED BY automation_logs_unsuccessful"
    } else if query.script_name.is_some() {
        "INDEXED BY automation_logs_script"
    } else {
        "INDEXED BY automation_logs_newest"
    }
}

/// Reads up to `rows` events of an execution, oldest first, from the one behind `after` on.
pub(super) fn events(
    connection: &Connection,
    tenant: &TenantId,
    id: ExecutionId,
    after: Option<u32>,
    rows: usize,
) -> Result<Vec<Event>, Failure> {
    let sql = "SELECT seq, at, kind, data FROM automation_events \
         WHERE execution_id = ?1 AND tenant_id = ?2 AND seq > ?3 ORDER BY seq LIMIT ?4";
    let after = after.map_or(-1, i64::from);
    let rows = i64::try_from(rows).unwrap_or(i64::MAX);
    let values = params![text::id(id), tenant.as_str(), after, rows];
    all(connection, sql, values, |row| {
        Ok(Event::new(
            tenant.clone(),
            id,
            row.get(0)?,
            row.get::<_, Time>(1)?.0,
            row::word(row, 2, EventKind::from_word)?,
            row.get::<_, Json>(3)?.0,
        ))
    })
}

/// Reads a keyed record.
pub(super) fn record(
    connection: &Connection,
    tenant: &TenantId,
    kind: RecordKind,
    key: &str,
) -> Result<Option<Record>, Failure> {
    let sql = "SELECT value, revision FROM automation_records \
         WHERE tenant_id = ?1 AND kind = ?2 AND key = ?3";
    let mut statement = connection.prepare_cached(sql)?;
    let found = statement.query_row(params![tenant.as_str(), kind.as_str(), key], |row| {
        Ok(Record {
            tenant_id: tenant.clone(),
            kind,
            key: key.to_owned(),
            value: row.get::<_, Json>(0)?.0,
            revision: row.get::<_, i64>(1)?.unsigned_abs(),
        })
    });
    Ok(found.optional()?)
}

/// Reads up to `rows` records of a kind, by key, from the one behind `after` on.
pub(super) fn records(
    connection: &Connection,
    tenant: &TenantId,
    kind: RecordKind,
    after: Option<&str>,
    rows: usize,
) -> Result<Vec<Record>, Failure> {
    let sql = "SELECT key, value, revision FROM automation_records \
         WHERE tenant_id = ?1 AND kind = ?2 AND (?3 IS NULL OR key > ?3) ORDER BY key LIMIT ?4";
    let rows = i64::try_from(rows).unwrap_or(i64::MAX);
    let values = params![tenant.as_str(), kind.as_str(), after, rows];
    all(connection, sql, values, |row| {
        Ok(Record {
            tenant_id: tenant.clone(),
            kind,
            key: row.get(0)?,
            value: row.get::<_, Json>(1)?.0,
            revision: row.get::<_, i64>(2)?.unsigned_abs(),
        })
    })
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use rusqlite::{Connection, params_from_iter};
    use uuid::Uuid;

    use super::super::schema::migrate;
    use super::list_sql;
    use crate::execution::{ExecutionId, TenantId};
    use crate::status::Status;
    use crate::storage::ExecutionQuery;

    /// Returns how SQLite would find the second page.
    fn plan(query: &ExecutionQuery) -> String {
        let mut connection = Connection::open_in_memory().unwrap();
        migrate(&mut connection).unwrap();
        let after = (DateTime::UNIX_EPOCH, ExecutionId::from_uuid(Uuid::nil()));
        let (sql, values) = list_sql(query, Some(after), 50);
        let mut statement = connection
            .prepare(&format!("EXPLAIN QUERY PLAN {sql}"))
            .unwrap();
        let steps = statement
            .query_map(params_from_iter(values), |row| row.get::<_, String>(3))
            .unwrap();
        steps.collect::<Result<Vec<_>, _>>().unwrap().join("; ")
    }

    #[test]
    fn lists_walk_an_index_from_their_cursor_and_never_sort_the_table() {
        let mine = ExecutionQuery::of(TenantId::default());
        let of_ticket = ExecutionQuery {
            ticket_id: Some("T-1".to_owned()),
            ..mine.clone()
        };
        let of_script = ExecutionQuery {
            script_name: Some("a.py".to_owned()),
            ..mine.clone()
        };
        let of_actor = ExecutionQuery {
            actor: Some("ann".to_owned()),
            ..mine.clone()
        };
        let failed = ExecutionQuery {
            statuses: vec![Status::Failed],
            ..mine.clone()
        };
        let failed_of_script = ExecutionQuery {
            statuses: vec![Status::Failed],
            ..of_script.clone()
        };
        let newest = "automation_logs_newest (tenant_id=? AND started_at<?)";
        let ticket = "automation_logs_ticket (tenant_id=? AND ticket_id=? AND started_at<?)";
        let script = "automation_logs_script (tenant_id=? AND script_name=? AND started_at<?)";
        let actor = "automation_logs_actor (tenant_id=? AND actor=? AND started_at<?)";
        let unsuccessful = "automation_logs_unsuccessful (tenant_id=? AND started_at<?)";
        let unsuccessful_script =
            "automation_logs_unsuccessful_script (tenant_id=? AND script_name=? AND started_at<?)";
        for (query, index) in [
            (mine, newest),
            (of_ticket, ticket),
            (of_script, script),
            (of_actor, actor),
            (failed, unsuccessful),
            (failed_of_script, unsuccessful_script),
        ] {
            let plan = plan(&query);
            assert!(plan.contains(index), "{plan}");
            assert!(!plan.contains("B-TREE FOR ORDER BY"), "{plan}");
        }
    }

    #[test]
    fn open_executions_are_found_without_the_ended_ones() {
        for tenant_id in [None, Some(TenantId::default())] {
            let query = ExecutionQuery {
                tenant_id,
                statuses: vec![Status::Running],
                ..ExecutionQuery::default()
            };
            let plan = plan(&query);
            assert!(plan.contains("automation_logs_open"), "{plan}");
        }
    }
}
