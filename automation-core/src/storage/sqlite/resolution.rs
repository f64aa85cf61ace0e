//! The `resolutions` table: how a ticket was resolved. It may be the customer's own, so a failure here never
//! fails a run: it is an event of the run.

use chrono::{DateTime, Utc};
use rusqlite::{Connection, ErrorCode, Statement, params};
use serde_json::json;

use super::error::Failure;
use super::schema::has_table;
use super::text;
use crate::execution::{EventKind, ExecutionId, TenantId};

/// Records the resolutions of tickets, or says why it can't.
#[derive(Debug)]
pub(super) struct Resolutions<'c> {
    /// Or why the table can't be used.
    statements: Result<Statements<'c>, String>,
    tell: Statement<'c>,
    /// What is to be told of the call in progress.
    refused: Vec<Refused>,
    /// The transaction in progress holds a resolution.
    touched: bool,
}

#[derive(Debug)]
struct Statements<'c> {
    find: Statement<'c>,
    update: Statement<'c>,
    insert: Statement<'c>,
}

/// That a resolution is not recorded.
#[derive(Debug)]
struct Refused {
    execution_id: ExecutionId,
    at: DateTime<Utc>,
    data: String,
}

/// A ticket run that completed.
#[derive(Debug)]
pub(super) struct Resolution<'a> {
    pub(super) tenant: &'a TenantId,
    pub(super) ticket_id: &'a str,
    pub(super) script_name: &'a str,
    pub(super) output: Option<&'a str>,
    pub(super) execution_id: ExecutionId,
    pub(super) at: DateTime<Utc>,
}

/// Behind all events of the run that are there: its own of the same call among them.
const TELL_SQL: &str = "\
INSERT INTO automation_events (tenant_id, execution_id, seq, at, kind, data)
SELECT tenant_id, id, 1 + (SELECT coalesce(max(seq), 0) FROM automation_events WHERE execution_id = ?1), ?2, ?3, ?4
FROM automation_logs WHERE id = ?1";

const CREATE_SQL: &str = "\
CREATE TABLE resolutions (
    id TEXT NOT NULL PRIMARY KEY,
    tenant_id TEXT NOT NULL DEFAULT 'default',
    ticket_id TEXT NOT NULL,
    automation_script TEXT,
    automation_output JSONB,
    automation_log_id TEXT
)";

/// The columns that a customer's table may lack.
const ADDED: [(&str, &str); 4] = [
    ("tenant_id", "TEXT NOT NULL DEFAULT 'default'"),
    ("automation_script", "TEXT"),
    ("automation_output", "JSONB"),
    ("automation_log_id", "TEXT"),
];

impl<'c> Resolutions<'c> {
    /// Makes the table ready; one that can't be used is left alone, with a line in the log.
    pub(super) fn prepare(connection: &'c Connection) -> Result<Self, Failure> {
        let statements = make_ready(connection)
            .and_then(|()| Statements::prepare(connection))
            .inspect_err(|failure| {
                tracing::warn!(%failure, "resolutions are not recorded: the table can't be used");
            })
            .map_err(|failure| failure.to_string());
        Ok(Self {
            statements,
            tell: connection.prepare(TELL_SQL)?,
            refused: Vec::new(),
            touched: false,
        })
    }

    /// Forgets the transaction before.
    pub(super) fn begin(&mut self) {
        self.touched = false;
        self.refused.clear();
    }

    /// Forgets what is to be told: the call is not applied.
    pub(super) fn forget(&mut self) {
        self.refused.clear();
    }

    /// Makes events of what was refused in the call.
    pub(super) fn tell(&mut self) -> Result<(), Failure> {
        for refused in self.refused.drain(..) {
            let (id, at) = (text::id(refused.execution_id), text::time(refused.at));
            let kind = EventKind::Resolution.as_str();
            self.tell.execute(params![id, at, kind, refused.data])?;
        }
        Ok(())
    }

    fn refuse(&mut self, resolution: &Resolution<'_>, why: &str) {
        let data = json!({ "ticket_id": resolution.ticket_id, "error": why });
        self.refused.push(Refused {
            execution_id: resolution.execution_id,
            at: resolution.at,
            data: data.to_string(),
        });
    }

    /// Records a resolution. A refusal by the customer's table is told and else ignored.
    ///
    /// # Errors
    /// That the whole transaction is lost.
    pub(super) fn record(
        &mut self,
        connection: &Connection,
        resolution: &Resolution<'_>,
    ) -> Result<(), Failure> {
        let statements = match &mut self.statements {
            Ok(statements) => statements,
            Err(why) => {
                let why = why.clone();
                self.refuse(resolution, &why);
                return Ok(());
            }
        };
        self.touched = true;
        let Err(error) = statements.record(resolution) else {
            return Ok(());
        };
        let failure = Failure::from(error);
        if connection.is_autocommit() || failure.is_of_the_file() {
            return Err(failure);
        }
        tracing::warn!(
            %failure, execution_id = %resolution.execution_id, ticket_id = resolution.ticket_id,
            "the resolution is not recorded: the table refused it"
        );
        self.refuse(resolution, &failure.to_string());
        Ok(())
    }

    /// Stops recording when the customer's table may be why a transaction failed; returns whether it did, so
    /// that the transaction can be tried again.
    pub(super) fn give_up(&mut self, failure: &Failure) -> bool {
        let suspect = self.touched && failure.code() == Some(ErrorCode::ConstraintViolation);
        if suspect && self.statements.is_ok() {
            self.statements = Err(failure.to_string());
            tracing::error!(%failure, "resolutions are no longer recorded: the table breaks transactions");
            return true;
        }
        false
    }
}

fn make_ready(connection: &Connection) -> Result<(), Failure> {
    if !has_table(connection, "resolutions")? {
        connection.execute_batch(CREATE_SQL)?;
    }
    for (name, definition) in ADDED {
        if !connection.column_exists(None, "resolutions", name)? {
            let sql = format!("ALTER TABLE resolutions ADD COLUMN {name} {definition}");
            connection.execute_batch(&sql)?;
        }
    }
    Ok(connection.execute_batch(
        "CREATE INDEX IF NOT EXISTS resolutions_automation_ticket ON resolutions (tenant_id, ticket_id)",
    )?)
}

impl<'c> Statements<'c> {
    fn prepare(connection: &'c Connection) -> Result<Self, Failure> {
        Ok(Self {
            find: connection.prepare(
                "SELECT 1 FROM resolutions WHERE tenant_id = ?1 AND ticket_id = ?2 LIMIT 1",
            )?,
            update: connection.prepare(
                "UPDATE resolutions SET automation_script = ?3, automation_output = ?4, \
                 automation_log_id = ?5 WHERE tenant_id = ?1 AND ticket_id = ?2",
            )?,
            // One execution resolves one ticket once, so its id serves as the resolution's.
            insert: connection.prepare(
                "INSERT INTO resolutions (id, tenant_id, ticket_id, automation_script, \
                 automation_output, automation_log_id) VALUES (?5, ?1, ?2, ?3, ?4, ?5)",
            )?,
        })
    }

    fn record(&mut self, resolution: &Resolution<'_>) -> rusqlite::Result<()> {
        let (tenant, ticket) = (resolution.tenant.as_str(), resolution.ticket_id);
        let (script, output) = (resolution.script_name, resolution.output);
        let log = text::id(resolution.execution_id);
        let values = params![tenant, ticket, script, output, log];
        // An update that finds nothing is dearer than a look.
        if self.find.exists([tenant, ticket])? {
            self.update.execute(values)?;
        } else {
            self.insert.execute(values)?;
        }
        Ok(())
    }
}
