//! The `resolutions` table: how a ticket was resolved. It may be the customer's own, with columns of types of their
//! choice, so a failure here never fails a run: it is an event of the run.

use std::collections::HashMap;

use deadpool_postgres::ClientWrapper;
use serde_json::json;
use uuid::Uuid;

use super::changes::Resolution;
use super::error::Failure;
use super::pipeline::{Columns, Pipeline};
use super::row::get;
use super::value::{Json, text};
use crate::execution::EventKind;
use crate::storage::held;

/// How resolutions are recorded on one connection; nothing is, where the table can't be used.
#[derive(Debug)]
pub(super) struct Resolutions {
    sql: Option<String>,
    /// Tickets are UUIDs there, so others can't be recorded.
    only_uuids: bool,
}

/// A resolution that is not recorded, and why.
#[derive(Debug)]
pub(super) struct Refused<'r, 'w> {
    resolution: &'r Resolution<'w>,
    why: String,
}

/// What can be recorded, the last of each ticket, and what can't.
type Sorted<'r, 'w> = (Vec<&'r Resolution<'w>>, Vec<Refused<'r, 'w>>);

/// Behind all events of the run that are there: its own of the same round among them.
const TELL_SQL: &str = "\
INSERT INTO automation_events (tenant_id, execution_id, seq, at, kind, data)
SELECT log.tenant_id, log.id, 1 + coalesce((SELECT max(seq) FROM automation_events AS event
    WHERE event.execution_id = log.id), 0), given.at, given.kind, given.data
FROM {rows} JOIN automation_logs AS log ON log.id = given.execution_id";

/// Adds the statement that makes events of what is not recorded.
pub(super) async fn tell<'a>(
    refused: &[Refused<'_, '_>],
    pipeline: &mut Pipeline<'a>,
) -> Result<(), Failure> {
    if refused.is_empty() {
        return Ok(());
    }
    let rows = || refused.iter();
    let data =
        |row: &Refused<'_, '_>| json!({ "ticket_id": row.resolution.ticket_id, "error": row.why });
    let columns = Columns::new()
        .with(
            "execution_id",
            "uuid",
            rows().map(|row| *row.resolution.execution_id.as_uuid()),
        )
        .with(
            "at",
            "timestamptz",
            rows().map(|row| held::time(row.resolution.at)),
        )
        .with(
            "kind",
            "text",
            rows().map(|_| EventKind::Resolution.as_str()),
        )
        .with("data", "jsonb", rows().map(|row| Json::new(&data(row))));
    pipeline.add_rows(TELL_SQL, columns).await?;
    Ok(())
}

const DESCRIBE_SQL: &str = "\
SELECT attname, format_type(atttypid, atttypmod) AS type FROM pg_attribute
JOIN pg_class ON pg_class.oid = attrelid AND relkind IN ('r', 'p')
WHERE attrelid = to_regclass('resolutions') AND attnum > 0 AND NOT attisdropped";

impl Resolutions {
    /// Looks at the table.
    pub(super) async fn describe(client: &ClientWrapper) -> Result<Self, Failure> {
        let mut types = HashMap::new();
        for column in client.query(DESCRIBE_SQL, &[]).await? {
            types.insert(get(&column, "attname")?, get(&column, "type")?);
        }
        Ok(Self {
            only_uuids: types.get("ticket_id").is_some_and(|found| found == "uuid"),
            sql: sql(&types),
        })
    }

    /// Sorts out what can be recorded.
    pub(super) fn of<'r, 'w>(&self, all: &'r [Resolution<'w>]) -> Sorted<'r, 'w> {
        let (mut last, mut refused) = (HashMap::new(), Vec::new());
        for resolution in all {
            if self.sql.is_none() {
                // Said once in the log, when the table was looked at.
                let why = "the table can't be used".to_owned();
                refused.push(Refused { resolution, why });
            } else if self.only_uuids && Uuid::try_parse(&resolution.ticket_id).is_err() {
                refused.push(refuse(
                    resolution,
                    "tickets are UUIDs there and this is none",
                ));
            } else {
                last.insert((&resolution.tenant_id, &resolution.ticket_id), resolution);
            }
        }
        // In one order for all servers, so that they never wait for each other.
        let mut last: Vec<_> = last.into_iter().collect();
        last.sort_unstable_by_key(|(key, _)| *key);
        let last = last.into_iter().map(|(_, resolution)| resolution);
        (last.collect(), refused)
    }

    /// Adds the statement that records resolutions.
    pub(super) async fn add<'a>(
        &self,
        resolutions: &[&'a Resolution<'_>],
        pipeline: &mut Pipeline<'a>,
    ) -> Result<(), Failure> {
        let Some(sql) = self.sql.as_ref().filter(|_| !resolutions.is_empty()) else {
            return Ok(());
        };
        let rows = || resolutions.iter().copied();
        let columns = Columns::new()
            .with(
                "execution_id",
                "uuid",
                rows().map(|row| row.execution_id.as_uuid()),
            )
            .with(
                "tenant_id",
                "text",
                rows().map(|row| text(row.tenant_id.as_str())),
            )
            .with("ticket_id", "text", rows().map(|row| text(&row.ticket_id)))
            .with("script", "text", rows().map(|row| text(&row.script_name)))
            .with(
                "output",
                "jsonb",
                rows().map(|row| row.output.map(Json::new)),
            );
        pipeline.add_rows(sql, columns).await?;
        Ok(())
    }

    /// Records resolutions one by one, each with a way back, so that one that the table refuses harms no other.
    ///
    /// Returns what the table refused.
    pub(super) async fn record_each<'r, 'w>(
        &self,
        resolutions: &[&'r Resolution<'w>],
        client: &ClientWrapper,
    ) -> Result<Vec<Refused<'r, 'w>>, Failure> {
        let mut refused = Vec::new();
        let mut rest = resolutions.iter();
        for resolution in rest.by_ref() {
            let mut pipeline = Pipeline::new(client);
            pipeline.add("SAVEPOINT resolution", vec![]).await?;
            self.add(&[*resolution], &mut pipeline).await?;
            // What is checked at the end of the transaction is checked here, while there is a way back.
            pipeline
                .add("SET CONSTRAINTS ALL IMMEDIATE", vec![])
                .await?;
            pipeline.add("RELEASE resolution", vec![]).await?;
            let Err(failed) = pipeline.send().await else {
                continue;
            };
            if failed.failure.is_lost() {
                return Err(failed.failure);
            }
            client.batch_execute("ROLLBACK TO resolution").await?;
            let why = failed.failure.to_string();
            refused.push(refuse(resolution, &why));
            if failed.failure.is_timeout() {
                // Somebody holds the table; the others would wait as long, and all runs of the round with them.
                refused.extend(rest.map(|resolution| refuse(resolution, &why)));
                break;
            }
        }
        Ok(refused)
    }
}

fn refuse<'r, 'w>(resolution: &'r Resolution<'w>, failure: &str) -> Refused<'r, 'w> {
    tracing::warn!(
        %failure, execution_id = %resolution.execution_id, ticket_id = resolution.ticket_id,
        "the resolution is not recorded: the table refused it"
    );
    let why = failure.to_owned();
    Refused { resolution, why }
}

/// Updates the ticket's row, or inserts one. `None`, with a line in the log, where a column is missing.
fn sql(types: &HashMap<String, String>) -> Option<String> {
    let needed = [
        "tenant_id",
        "ticket_id",
        "automation_script",
        "automation_output",
        "automation_log_id",
    ];
    if let Some(missing) = needed.iter().find(|name| !types.contains_key(**name)) {
        tracing::warn!("resolutions are not recorded: the table has no column {missing}");
        return None;
    }
    let cast = |value: &str, column: &str| format!("given.{value}::text::{}", types[column]);
    let output = cast("output", "automation_output");
    let log = cast("execution_id", "automation_log_id");
    let ticket = cast("ticket_id", "ticket_id");
    // One execution resolves one ticket once, so its id serves as the resolution's.
    let (id, id_value) = match types.get("id").map(String::as_str) {
        Some("uuid" | "text") => ("id, ", format!("{}, ", cast("execution_id", "id"))),
        _ => ("", String::new()),
    };
    Some(format!(
        "WITH given AS MATERIALIZED (SELECT * FROM {{rows}}), updated AS (
             UPDATE resolutions AS old SET automation_script = given.script, automation_output = {output},
                 automation_log_id = {log}
             FROM given WHERE old.tenant_id = given.tenant_id AND old.ticket_id::text = given.ticket_id
             RETURNING given.execution_id
         )
         INSERT INTO resolutions ({id}tenant_id, ticket_id, automation_script, automation_output, automation_log_id)
         SELECT {id_value}given.tenant_id, {ticket}, given.script, {output}, {log} FROM given
         WHERE given.execution_id NOT IN (SELECT execution_id FROM updated)"
    ))
}
