//! An execution as a row: its columns, how they are written and how they are read.

use rusqlite::types::{FromSql, Type, ValueRef};
use rusqlite::{Row, Statement, ToSql};

use super::body::{Body, Unpacked};
use super::text::{self, Id, Json, Time};
use crate::execution::{
    Completion, Concern, Execution, InstanceId, Isolation, Reason, ResourceUsage, TenantId,
    Trigger, whole_seconds,
};
use crate::status::Status;
use crate::storage::held;

/// The columns of a read, in the order of [`read`].
const COLUMNS: &str = "id, tenant_id, ticket_id, script_name, script_version, trigger, status, reason, \
     started_at, completed_at, run_at, priority, claimed_by, lease_until, epoch, attempt, root_id, parent_id, \
     actor, idempotency_key, dry_run, queue_us, duration_us, cpu_us, memory_peak_bytes, exit_code, truncated, \
     output_bytes, still_running, error, parameters, isolation, children, threads, concern, decision";

/// Returns the columns that [`read`] expects.
pub(super) fn columns(without_output: bool) -> String {
    let output = if without_output {
        "NULL, NULL, '', ''"
    } else {
        "context, parsed_output, output, stderr"
    };
    format!("{COLUMNS}, {output}")
}

/// Writes a new execution; the order of values is that of [`write`].
pub(super) fn insert_sql() -> String {
    let columns = format!(
        "{}, execution_time, success, execution_type",
        columns(false)
    );
    let places = columns.split(',').map(|_| "?").collect::<Vec<_>>();
    format!(
        "INSERT INTO automation_logs ({columns}) VALUES ({})",
        places.join(",")
    )
}

/// Ends an execution; the order of values is that of [`write_end`].
pub(super) const END_SQL: &str = "UPDATE automation_logs SET status = ?2, reason = ?3, completed_at = ?4, \
     lease_until = NULL, queue_us = ?5, duration_us = ?6, cpu_us = ?7, memory_peak_bytes = ?8, \
     exit_code = ?9, truncated = ?10, output_bytes = ?11, still_running = ?12, execution_time = ?13, \
     success = ?14, error = ?15, parsed_output = ?16, output = ?17, stderr = ?18, children = ?19, \
     threads = ?20, concern = ?21 WHERE rowid = ?1";

/// Numbers the values of a statement.
struct Values<'s, 'c> {
    statement: &'s mut Statement<'c>,
    count: usize,
}

impl Values<'_, '_> {
    fn add(&mut self, value: impl ToSql) -> rusqlite::Result<()> {
        self.count += 1;
        self.statement.raw_bind_parameter(self.count, value)
    }
}

/// Executes the statement of [`insert_sql`].
pub(super) fn write(
    statement: &mut Statement<'_>,
    execution: &Execution,
) -> rusqlite::Result<usize> {
    let mut values = Values {
        statement,
        count: 0,
    };
    values.add(text::id(execution.id))?;
    values.add(execution.tenant_id.as_str())?;
    values.add(&execution.ticket_id)?;
    values.add(&execution.script_name)?;
    values.add(&execution.script_version)?;
    values.add(execution.trigger.as_str())?;
    values.add(execution.status.as_str())?;
    values.add(execution.reason.map(Reason::as_str))?;
    values.add(text::time(execution.started_at))?;
    values.add(execution.completed_at.map(text::time))?;
    values.add(execution.run_at.map(text::time))?;
    values.add(execution.priority)?;
    values.add(execution.claimed_by.as_ref().map(InstanceId::as_str))?;
    values.add(execution.lease_until.map(text::time))?;
    values.add(execution.epoch)?;
    values.add(execution.attempt)?;
    values.add(execution.root_id.map(text::id))?;
    values.add(execution.parent_id.map(text::id))?;
    values.add(&execution.actor)?;
    values.add(&execution.idempotency_key)?;
    values.add(execution.dry_run)?;
    values.add(execution.queue_us.map(integer))?;
    values.add(execution.duration_us.map(integer))?;
    values.add(execution.usage.cpu_us.map(integer))?;
    values.add(execution.usage.memory_peak_bytes.map(integer))?;
    values.add(execution.exit_code)?;
    values.add(execution.truncated)?;
    values.add(integer(execution.output_bytes))?;
    values.add(execution.still_running)?;
    values.add(&execution.error)?;
    values.add(text::json(&execution.parameters))?;
    values.add(execution.isolation.as_str())?;
    values.add(execution.usage.children)?;
    values.add(execution.usage.threads)?;
    values.add(execution.concern.map(Concern::as_str))?;
    values.add(&execution.decision)?;
    values.add(execution.context.as_deref().map(text::context))?;
    values.add(execution.parsed_output.as_ref().map(text::json))?;
    values.add(Body::from(&execution.output))?;
    values.add(Body::from(&execution.stderr))?;
    values.add(execution.duration_us.map(seconds))?;
    values.add(execution.success())?;
    values.add(execution.execution_type())?;
    values.statement.raw_execute()
}

/// Executes [`END_SQL`] on a row.
pub(super) fn write_end(
    statement: &mut Statement<'_>,
    rowid: i64,
    end: &Completion,
    parsed_output: Option<&str>,
) -> rusqlite::Result<usize> {
    let mut values = Values {
        statement,
        count: 0,
    };
    values.add(rowid)?;
    values.add(end.status.as_str())?;
    values.add(end.reason.map(Reason::as_str))?;
    values.add(text::time(end.completed_at))?;
    values.add(end.queue_us.map(integer))?;
    values.add(end.duration_us.map(integer))?;
    values.add(end.usage.cpu_us.map(integer))?;
    values.add(end.usage.memory_peak_bytes.map(integer))?;
    values.add(end.exit_code)?;
    values.add(end.truncated)?;
    values.add(integer(end.output_bytes))?;
    values.add(end.still_running)?;
    values.add(end.duration_us.map(seconds))?;
    values.add(end.status == Status::Completed)?;
    values.add(&end.error)?;
    values.add(parsed_output)?;
    values.add(Body::from(&end.output))?;
    values.add(Body::from(&end.stderr))?;
    values.add(end.usage.children)?;
    values.add(end.usage.threads)?;
    values.add(end.concern.map(Concern::as_str))?;
    values.statement.raw_execute()
}

/// Returns a number as SQLite has them; numbers are held below 2^53.
pub(super) fn integer(n: u64) -> i64 {
    i64::try_from(held::number(n)).unwrap_or(i64::MAX)
}

fn seconds(us: u64) -> i64 {
    integer(whole_seconds(held::number(us)))
}

/// Takes the columns of a row one after the other.
struct Columns<'r> {
    row: &'r Row<'r>,
    next: usize,
}

impl Columns<'_> {
    fn take<T: FromSql>(&mut self) -> rusqlite::Result<T> {
        self.next += 1;
        self.row.get(self.next - 1)
    }

    fn word<T>(&mut self, parse: impl Fn(&str) -> Option<T>) -> rusqlite::Result<T> {
        self.next += 1;
        word(self.row, self.next - 1, parse)
    }

    fn optional_word<T>(
        &mut self,
        parse: impl Fn(&str) -> Option<T>,
    ) -> rusqlite::Result<Option<T>> {
        if self.row.get_ref(self.next)? == ValueRef::Null {
            self.next += 1;
            return Ok(None);
        }
        self.word(parse).map(Some)
    }

    fn number(&mut self) -> rusqlite::Result<Option<u64>> {
        let number: Option<i64> = self.take()?;
        Ok(number.map(i64::unsigned_abs))
    }
}

/// Reads a word of ours.
pub(super) fn word<T>(
    row: &Row<'_>,
    column: usize,
    parse: impl Fn(&str) -> Option<T>,
) -> rusqlite::Result<T> {
    let word = row.get_ref(column)?.as_str()?;
    parse(word).ok_or_else(|| {
        let cause = UnknownWord(word.to_owned());
        rusqlite::Error::FromSqlConversionFailure(column, Type::Text, Box::new(cause))
    })
}

#[derive(Debug, thiserror::Error)]
#[error("unknown word {0:?}")]
struct UnknownWord(String);

/// Reads an execution from a row that begins with [`columns`].
pub(super) fn read(row: &Row<'_>) -> rusqlite::Result<Execution> {
    let mut columns = Columns { row, next: 0 };
    let columns = &mut columns;
    let id: Id = columns.take()?;
    let tenant_id: String = columns.take()?;
    let ticket_id = columns.take()?;
    let script_name: String = columns.take()?;
    let script_version: String = columns.take()?;
    let trigger = columns.word(Trigger::from_word)?;
    let status = columns.word(Status::from_word)?;
    let reason = columns.optional_word(Reason::from_word)?;
    let started_at: Time = columns.take()?;
    let mut time = || Ok::<_, rusqlite::Error>(columns.take::<Option<Time>>()?.map(|at| at.0));
    let (completed_at, run_at) = (time()?, time()?);
    let mut execution = Execution {
        tenant_id: TenantId::new(tenant_id),
        ticket_id,
        status,
        reason,
        completed_at,
        run_at,
        priority: columns.take()?,
        claimed_by: columns.take::<Option<String>>()?.map(InstanceId::new),
        lease_until: columns.take::<Option<Time>>()?.map(|at| at.0),
        epoch: columns.take()?,
        attempt: columns.take()?,
        root_id: columns.take::<Option<Id>>()?.map(|id| id.0),
        parent_id: columns.take::<Option<Id>>()?.map(|id| id.0),
        actor: columns.take()?,
        idempotency_key: columns.take()?,
        dry_run: columns.take()?,
        queue_us: columns.number()?,
        duration_us: columns.number()?,
        usage: ResourceUsage {
            cpu_us: columns.number()?,
            memory_peak_bytes: columns.number()?,
            ..ResourceUsage::default()
        },
        exit_code: columns.take()?,
        truncated: columns.take()?,
        output_bytes: columns.number()?.unwrap_or(0),
        still_running: columns.take()?,
        error: columns.take()?,
        parameters: columns.take::<Json>()?.0,
        isolation: columns.word(Isolation::from_word)?,
        ..Execution::new(id.0, script_name, script_version, trigger, started_at.0)
    };
    execution.usage.children = columns.take()?;
    execution.usage.threads = columns.take()?;
    execution.concern = columns.optional_word(Concern::from_word)?;
    execution.decision = columns.take()?;
    execution.context = columns.take::<Option<text::Context>>()?.map(|read| read.0);
    execution.parsed_output = columns.take::<Option<Json>>()?.map(|json| json.0);
    execution.output = columns.take::<Unpacked>()?.0;
    execution.stderr = columns.take::<Unpacked>()?.0;
    Ok(execution)
}
