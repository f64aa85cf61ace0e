//! An execution as a row: its columns, how they are written and how they are read.

use std::sync::Arc;

use tokio_postgres::Row;
use tokio_postgres::types::FromSql;

use super::error::Failure;
use super::pipeline::Columns;
use super::value::{Json, integer, small, text};
use crate::execution::{
    Completion, Concern, Context, Execution, ExecutionId, InstanceId, Isolation, Reason,
    ResourceUsage, TenantId, Trigger, whole_seconds,
};
use crate::status::Status;
use crate::storage::held;

/// The columns of a read.
const COLUMNS: &str = "id, tenant_id, ticket_id, script_name, script_version, trigger, status, reason, \
     started_at, completed_at, run_at, priority, claimed_by, lease_until, epoch, attempt, root_id, parent_id, \
     actor, idempotency_key, dry_run, queue_us, duration_us, cpu_us, memory_peak_bytes, exit_code, truncated, \
     output_bytes, still_running, error, parameters, isolation, children, threads, concern";

/// Returns the columns that [`read`] expects.
pub(super) fn columns(without_output: bool) -> String {
    let output = if without_output {
        "NULL::jsonb AS context, NULL::jsonb AS parsed_output, '' AS output, '' AS stderr"
    } else {
        "context, parsed_output, output, stderr"
    };
    format!("{COLUMNS}, {output}")
}

/// Returns new executions as columns.
pub(super) fn inserted<'a>(rows: &[&'a Execution]) -> Columns<'a> {
    let rows = || rows.iter().copied();
    let times = Columns::new()
        .with("id", "uuid", rows().map(|row| row.id.as_uuid()))
        .with(
            "started_at",
            "timestamptz",
            rows().map(|row| held::time(row.started_at)),
        )
        .with(
            "completed_at",
            "timestamptz",
            rows().map(|row| row.completed_at.map(held::time)),
        )
        .with(
            "run_at",
            "timestamptz",
            rows().map(|row| row.run_at.map(held::time)),
        )
        .with(
            "lease_until",
            "timestamptz",
            rows().map(|row| row.lease_until.map(held::time)),
        );
    let words = times
        .with(
            "tenant_id",
            "text",
            rows().map(|row| text(row.tenant_id.as_str())),
        )
        .with("ticket_id", "text", rows().map(|row| text(&row.ticket_id)))
        .with(
            "script_name",
            "text",
            rows().map(|row| text(&row.script_name)),
        )
        .with(
            "script_version",
            "text",
            rows().map(|row| text(&row.script_version)),
        )
        .with("trigger", "text", rows().map(|row| row.trigger.as_str()))
        .with("status", "text", rows().map(|row| row.status.as_str()))
        .with(
            "reason",
            "text",
            rows().map(|row| row.reason.map(Reason::as_str)),
        )
        .with(
            "isolation",
            "text",
            rows().map(|row| row.isolation.as_str()),
        )
        .with(
            "concern",
            "text",
            rows().map(|row| row.concern.map(Concern::as_str)),
        )
        .with(
            "execution_type",
            "text",
            rows().map(Execution::execution_type),
        )
        .with(
            "actor",
            "text",
            rows().map(|row| row.actor.as_deref().map(text)),
        )
        .with(
            "claimed_by",
            "text",
            rows().map(|row| row.claimed_by.as_ref().map(|by| text(by.as_str()))),
        )
        .with(
            "idempotency_key",
            "text",
            rows().map(|row| row.idempotency_key.as_deref().map(text)),
        );
    let numbers = words
        .with("priority", "int4", rows().map(|row| row.priority))
        .with("epoch", "int8", rows().map(|row| row.epoch))
        .with("attempt", "int4", rows().map(|row| row.attempt))
        .with(
            "root_id",
            "uuid",
            rows().map(|row| row.root_id.as_ref().map(ExecutionId::as_uuid)),
        )
        .with(
            "parent_id",
            "uuid",
            rows().map(|row| row.parent_id.as_ref().map(ExecutionId::as_uuid)),
        )
        .with("dry_run", "bool", rows().map(|row| row.dry_run))
        .with("success", "bool", rows().map(Execution::success))
        .with(
            "parameters",
            "jsonb",
            rows().map(|row| Json::new(&row.parameters)),
        )
        .with(
            "context",
            "jsonb",
            rows().map(|row| row.context.as_deref().map(Json::of)),
        );
    left_behind(numbers, rows)
}

/// Returns ends of executions as columns.
pub(super) fn ended<'a>(ends: &[(ExecutionId, &'a Completion)]) -> Columns<'a> {
    let ids: Vec<_> = ends.iter().map(|(id, _)| *id.as_uuid()).collect();
    let ends = || ends.iter().map(|(_, end)| *end);
    let columns = Columns::new()
        .with("id", "uuid", ids.into_iter())
        .with("status", "text", ends().map(|end| end.status.as_str()))
        .with(
            "success",
            "bool",
            ends().map(|end| end.status == Status::Completed),
        )
        .with(
            "reason",
            "text",
            ends().map(|end| end.reason.map(Reason::as_str)),
        )
        .with(
            "concern",
            "text",
            ends().map(|end| end.concern.map(Concern::as_str)),
        )
        .with(
            "completed_at",
            "timestamptz",
            ends().map(|end| held::time(end.completed_at)),
        );
    left_behind(columns, ends)
}

/// Ends executions; `{rows}` are those of [`ended`].
pub(super) const END_SQL: &str = "UPDATE automation_logs AS log SET status = given.status, success = given.success, \
     reason = given.reason, concern = given.concern, completed_at = given.completed_at, lease_until = NULL, \
     queue_us = given.queue_us, duration_us = given.duration_us, execution_time = given.execution_time, \
     cpu_us = given.cpu_us, memory_peak_bytes = given.memory_peak_bytes, children = given.children, \
     threads = given.threads, exit_code = given.exit_code, truncated = given.truncated, \
     output_bytes = given.output_bytes, still_running = given.still_running, error = given.error, \
     parsed_output = given.parsed_output, output = given.output, stderr = given.stderr \
     FROM {rows} WHERE log.id = given.id";

/// What has a run behind it: an execution, and its end.
trait HasRun {
    fn left(&self) -> Left<'_>;
}

/// What a run leaves behind.
struct Left<'a> {
    queue_us: Option<u64>,
    duration_us: Option<u64>,
    usage: ResourceUsage,
    exit_code: Option<i32>,
    truncated: bool,
    output_bytes: u64,
    still_running: bool,
    error: Option<&'a str>,
    parsed_output: Option<&'a serde_json::Value>,
    output: &'a str,
    stderr: &'a str,
}

macro_rules! has_run {
    ($($of:ty),+) => {
        $(impl HasRun for $of {
            fn left(&self) -> Left<'_> {
                Left {
                    queue_us: self.queue_us,
                    duration_us: self.duration_us,
                    usage: held::usage(self.usage),
                    exit_code: self.exit_code,
                    truncated: self.truncated,
                    output_bytes: self.output_bytes,
                    still_running: self.still_running,
                    error: self.error.as_deref(),
                    parsed_output: self.parsed_output.as_ref(),
                    output: &self.output,
                    stderr: &self.stderr,
                }
            }
        })+
    };
}
has_run!(Execution, Completion);

/// Adds the columns of what runs leave behind.
fn left_behind<'a, T: HasRun + 'a, I: Iterator<Item = &'a T>>(
    columns: Columns<'a>,
    rows: impl Fn() -> I,
) -> Columns<'a> {
    let rows = || rows().map(HasRun::left);
    let seconds = |us: u64| small(whole_seconds(held::number(us)));
    columns
        .with(
            "queue_us",
            "int8",
            rows().map(|row| row.queue_us.map(integer)),
        )
        .with(
            "duration_us",
            "int8",
            rows().map(|row| row.duration_us.map(integer)),
        )
        .with(
            "execution_time",
            "int4",
            rows().map(|row| row.duration_us.map(seconds)),
        )
        .with(
            "cpu_us",
            "int8",
            rows().map(|row| row.usage.cpu_us.map(integer)),
        )
        .with(
            "memory_peak_bytes",
            "int8",
            rows().map(|row| row.usage.memory_peak_bytes.map(integer)),
        )
        .with(
            "children",
            "int8",
            rows().map(|row| row.usage.children.map(i64::from)),
        )
        .with(
            "threads",
            "int8",
            rows().map(|row| row.usage.threads.map(i64::from)),
        )
        .with("exit_code", "int4", rows().map(|row| row.exit_code))
        .with("truncated", "bool", rows().map(|row| row.truncated))
        .with(
            "output_bytes",
            "int8",
            rows().map(|row| integer(row.output_bytes)),
        )
        .with("still_running", "bool", rows().map(|row| row.still_running))
        .with("error", "text", rows().map(|row| row.error.map(text)))
        .with(
            "parsed_output",
            "jsonb",
            rows().map(|row| row.parsed_output.map(Json::new)),
        )
        .with("output", "text", rows().map(|row| text(row.output)))
        .with("stderr", "text", rows().map(|row| text(row.stderr)))
}

/// Reads an execution from a row with [`columns`].
pub(super) fn read(row: &Row) -> Result<Execution, Failure> {
    let number = |name| Ok::<_, Failure>(get::<Option<i64>>(row, name)?.map(i64::unsigned_abs));
    let count = |name| {
        let count = get::<Option<i64>>(row, name)?;
        Ok::<_, Failure>(count.and_then(|count| u32::try_from(count).ok()))
    };
    let id = |name| Ok::<_, Failure>(get::<Option<_>>(row, name)?.map(ExecutionId::from_uuid));
    let mut execution = Execution {
        tenant_id: TenantId::new(get::<&str>(row, "tenant_id")?),
        ticket_id: get(row, "ticket_id")?,
        status: word(row, "status", Status::from_word)?,
        reason: optional_word(row, "reason", Reason::from_word)?,
        isolation: word(row, "isolation", Isolation::from_word)?,
        concern: optional_word(row, "concern", Concern::from_word)?,
        completed_at: get(row, "completed_at")?,
        run_at: get(row, "run_at")?,
        priority: get(row, "priority")?,
        claimed_by: get::<Option<&str>>(row, "claimed_by")?.map(InstanceId::new),
        lease_until: get(row, "lease_until")?,
        epoch: get(row, "epoch")?,
        attempt: get(row, "attempt")?,
        root_id: id("root_id")?,
        parent_id: id("parent_id")?,
        actor: get(row, "actor")?,
        idempotency_key: get(row, "idempotency_key")?,
        dry_run: get(row, "dry_run")?,
        queue_us: number("queue_us")?,
        duration_us: number("duration_us")?,
        exit_code: get(row, "exit_code")?,
        truncated: get(row, "truncated")?,
        output_bytes: number("output_bytes")?.unwrap_or(0),
        still_running: get(row, "still_running")?,
        error: get(row, "error")?,
        parameters: get::<Json>(row, "parameters")?.0,
        context: context(row)?,
        parsed_output: get::<Option<Json>>(row, "parsed_output")?.map(|json| json.0),
        output: get(row, "output")?,
        stderr: get(row, "stderr")?,
        ..Execution::new(
            ExecutionId::from_uuid(get(row, "id")?),
            get::<String>(row, "script_name")?,
            get::<String>(row, "script_version")?,
            word(row, "trigger", Trigger::from_word)?,
            get(row, "started_at")?,
        )
    };
    execution.usage.cpu_us = number("cpu_us")?;
    execution.usage.memory_peak_bytes = number("memory_peak_bytes")?;
    execution.usage.children = count("children")?;
    execution.usage.threads = count("threads")?;
    Ok(execution)
}

fn context(row: &Row) -> Result<Option<Arc<Context>>, Failure> {
    let Some(Json(context)) = get(row, "context")? else {
        return Ok(None);
    };
    serde_json::from_value(context)
        .map(|context| Some(Arc::new(context)))
        .map_err(|error| Failure::Unusable(format!("column context can't be read: {error}")))
}

/// Reads all rows.
pub(super) fn read_all(rows: &[Row]) -> Result<Vec<Execution>, Failure> {
    rows.iter().map(read).collect()
}

/// Reads a column.
pub(super) fn get<'a, T: FromSql<'a>>(row: &'a Row, name: &str) -> Result<T, Failure> {
    row.try_get(name)
        .map_err(|error| Failure::Unusable(format!("column {name} can't be read: {error}")))
}

/// Reads a word of ours.
pub(super) fn word<T>(
    row: &Row,
    name: &str,
    parse: impl Fn(&str) -> Option<T>,
) -> Result<T, Failure> {
    optional_word(row, name, parse)?
        .ok_or_else(|| Failure::Unusable(format!("column {name} has no word")))
}

fn optional_word<T>(
    row: &Row,
    name: &str,
    parse: impl Fn(&str) -> Option<T>,
) -> Result<Option<T>, Failure> {
    let Some(word) = get::<Option<&str>>(row, name)? else {
        return Ok(None);
    };
    parse(word).map(Some).ok_or_else(|| {
        Failure::Unusable(format!(
            "column {name} has the word {word:?}, which this version does not know"
        ))
    })
}
