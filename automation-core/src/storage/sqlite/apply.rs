//! The conditional writes as SQL, inside a transaction that the writer began.

use rusqlite::{Connection, OptionalExtension, Row, Statement, ffi, params};

use super::error::Failure;
use super::prune;
use super::resolution::{Resolution, Resolutions};
use super::row;
use super::text;
use crate::execution::{Completion, Event, Execution, Reason, Trigger};
use crate::status::Status;
use crate::storage::tally::Ended;
use crate::storage::write::{self, Found};
use crate::storage::{Applied, Change, Claim, Record, Transition, Write, WriteError, held};

/// Why a write was not applied.
#[derive(Debug)]
pub(super) enum Refusal {
    /// Its condition does not hold; the write changed nothing.
    Condition(WriteError),
    /// The database broke; the transaction can't be used any more.
    Failure(Failure),
}

impl From<WriteError> for Refusal {
    fn from(error: WriteError) -> Self {
        Self::Condition(error)
    }
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        Self::Failure(failure)
    }
}

impl From<rusqlite::Error> for Refusal {
    fn from(error: rusqlite::Error) -> Self {
        Self::Failure(error.into())
    }
}

type Outcome = Result<Applied, Refusal>;

/// The prepared statements of the writes.
#[derive(Debug)]
pub(super) struct Writes<'c> {
    connection: &'c Connection,
    insert: Statement<'c>,
    find: Statement<'c>,
    run: Statement<'c>,
    wait: Statement<'c>,
    end: Statement<'c>,
    due: Statement<'c>,
    take: Statement<'c>,
    renew: Statement<'c>,
    append: Statement<'c>,
    revision: Statement<'c>,
    put: Statement<'c>,
    delete: Statement<'c>,
    pub(super) resolutions: Resolutions<'c>,
}

impl<'c> Writes<'c> {
    /// Prepares the statements and makes the resolutions table ready.
    pub(super) fn prepare(connection: &'c Connection) -> Result<Self, Failure> {
        let resolutions = Resolutions::prepare(connection)?;
        let prepare = |sql: &str| connection.prepare(sql);
        Ok(Self {
            connection,
            insert: prepare(&row::insert_sql())?,
            find: prepare(FIND_SQL)?,
            run: prepare(RUN_SQL)?,
            wait: prepare(WAIT_SQL)?,
            end: prepare(row::END_SQL)?,
            due: prepare(&due_sql())?,
            take: prepare(TAKE_SQL)?,
            renew: prepare(RENEW_SQL)?,
            append: prepare(APPEND_SQL)?,
            revision: prepare(REVISION_SQL)?,
            put: prepare(PUT_SQL)?,
            delete: prepare(DELETE_SQL)?,
            resolutions,
        })
    }

    /// Applies one write; adds what it ended to `ended`.
    pub(super) fn apply(&mut self, write: &Write, ended: &mut Vec<Ended>) -> Outcome {
        match write {
            Write::Insert(execution) => self.insert(execution),
            Write::Transition(transition) => self.transition(transition, ended),
            Write::Claim(claim) => self.claim(claim),
            Write::Renew {
                instance,
                lease_until,
            } => {
                let values = params![instance.as_str(), text::time(*lease_until)];
                Ok(Applied::Renewed(self.renew.execute(values)?))
            }
            Write::Append(event) => self.append(event),
            Write::Put { record, expected } => self.put(record, *expected),
            Write::Delete { record } => self.delete(record),
            Write::Prune(prune) => prune::prune(self.connection, prune),
        }
    }

    fn insert(&mut self, execution: &Execution) -> Outcome {
        write::check_first_status(execution)?;
        let Err(error) = row::write(&mut self.insert, execution) else {
            return Ok(Applied::Inserted);
        };
        Err(match (extended_code(&error), &execution.idempotency_key) {
            (Some(ffi::SQLITE_CONSTRAINT_PRIMARYKEY), _) => {
                write::existing_execution(execution.id).into()
            }
            // SQLite looks at the indexes in an order of its own; the id goes first.
            (Some(ffi::SQLITE_CONSTRAINT_UNIQUE), Some(_)) if self.exists(execution)? => {
                write::existing_execution(execution.id).into()
            }
            (Some(ffi::SQLITE_CONSTRAINT_UNIQUE), Some(key)) => write::existing_key(key).into(),
            _ => Refusal::from(error),
        })
    }

    fn exists(&self, execution: &Execution) -> Result<bool, Failure> {
        let sql = "SELECT 1 FROM automation_logs WHERE id = ?1";
        let mut statement = self.connection.prepare_cached(sql)?;
        Ok(statement.exists([text::id(execution.id)])?)
    }

    fn transition(&mut self, transition: &Transition, ended: &mut Vec<Ended>) -> Outcome {
        let key = params![text::id(transition.id), transition.tenant_id.as_str()];
        let there = self
            .find
            .query_row(key, There::read)
            .optional()?
            .ok_or_else(|| transition.missing())?;
        transition.check(there.found)?;
        match &transition.change {
            Change::Run {
                claimed_by,
                lease_until,
                isolation,
            } => {
                let lease_until = text::time(*lease_until);
                let (claimed_by, isolation) = (claimed_by.as_str(), isolation.as_str());
                self.run
                    .execute(params![there.rowid, claimed_by, lease_until, isolation])?;
            }
            Change::Wait { reason, run_at } => {
                let (reason, run_at) = (reason.map(Reason::as_str), run_at.map(text::time));
                self.wait.execute(params![there.rowid, reason, run_at])?;
            }
            Change::End(end) => {
                let parsed_output = end.parsed_output.as_ref().map(text::json);
                let parsed_output = parsed_output.as_deref();
                row::write_end(&mut self.end, there.rowid, end, parsed_output)?;
                self.resolve(transition, &there, end, parsed_output)?;
                let tenant = &transition.tenant_id;
                ended.extend(Ended::new(tenant, there.script_name, there.trigger, end));
            }
        }
        Ok(Applied::Transitioned)
    }

    /// Records the resolution of a ticket run that completed and was no dry run.
    fn resolve(
        &mut self,
        transition: &Transition,
        there: &There,
        end: &Completion,
        parsed_output: Option<&str>,
    ) -> Result<(), Failure> {
        if !there.of_ticket || end.status != Status::Completed || there.dry_run {
            return Ok(());
        }
        let resolution = Resolution {
            tenant: &transition.tenant_id,
            ticket_id: &there.ticket_id,
            script_name: &there.script_name,
            output: parsed_output,
            execution_id: transition.id,
            at: end.completed_at,
        };
        self.resolutions.record(self.connection, &resolution)
    }

    fn claim(&mut self, claim: &Claim) -> Outcome {
        let rows_max = i64::try_from(claim.rows_max).unwrap_or(i64::MAX);
        let values = params![claim.tenant_id.as_str(), text::time(claim.now), rows_max];
        let rows = self
            .due
            .query_map(values, |due| Ok((row::read(due)?, due.get("rowid")?)))?
            .collect::<Result<Vec<(Execution, i64)>, _>>()?;
        let mut taken = Vec::with_capacity(rows.len());
        for (mut row, rowid) in rows {
            row.claimed_by = Some(claim.instance.clone());
            row.lease_until = Some(held::time(claim.lease_until));
            row.epoch += 1;
            let lease_until = text::time(claim.lease_until);
            let values = params![rowid, claim.instance.as_str(), lease_until, row.epoch];
            self.take.execute(values)?;
            taken.push(row);
        }
        Ok(Applied::Claimed(taken))
    }

    fn append(&mut self, event: &Event) -> Outcome {
        let values = params![
            text::id(event.execution_id),
            event.tenant_id.as_str(),
            event.seq,
            text::time(event.at),
            event.kind.as_str(),
            text::json(&event.data),
        ];
        match self.append.execute(values) {
            Ok(0) => Err(write::missing_execution(event.execution_id).into()),
            Ok(_) => Ok(Applied::Appended),
            Err(error) if extended_code(&error) == Some(ffi::SQLITE_CONSTRAINT_PRIMARYKEY) => {
                Err(write::existing_event(event).into())
            }
            Err(error) => Err(error.into()),
        }
    }

    fn put(&mut self, record: &Record, expected: Option<u64>) -> Outcome {
        record.check_revision(self.revision(record)?, expected)?;
        let revision = expected.unwrap_or(0) + 1;
        let (tenant, kind) = (record.tenant_id.as_str(), record.kind.as_str());
        let value = text::json(&record.value);
        self.put.execute(params![
            tenant,
            kind,
            record.key,
            value,
            row::integer(revision)
        ])?;
        Ok(Applied::Stored { revision })
    }

    fn delete(&mut self, record: &Record) -> Outcome {
        record.check_revision(self.revision(record)?, Some(record.revision))?;
        let (tenant, kind) = (record.tenant_id.as_str(), record.kind.as_str());
        self.delete.execute(params![tenant, kind, record.key])?;
        Ok(Applied::Deleted)
    }

    fn revision(&mut self, record: &Record) -> Result<Option<u64>, Failure> {
        let (tenant, kind) = (record.tenant_id.as_str(), record.kind.as_str());
        let key = params![tenant, kind, record.key];
        let revision: Option<i64> = self.revision.query_row(key, |row| row.get(0)).optional()?;
        Ok(revision.map(i64::unsigned_abs))
    }
}

/// The row that a transition wants to move.
struct There {
    rowid: i64,
    found: Found,
    trigger: Trigger,
    dry_run: bool,
    ticket_id: String,
    script_name: String,
    /// Whether it is a ticket run, or repeats one.
    of_ticket: bool,
}

impl There {
    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            rowid: row.get(0)?,
            found: Found {
                epoch: row.get(1)?,
                status: row::word(row, 2, Status::from_word)?,
            },
            trigger: row::word(row, 3, Trigger::from_word)?,
            dry_run: row.get(4)?,
            ticket_id: row.get(5)?,
            script_name: row.get(6)?,
            of_ticket: row.get(7)?,
        })
    }
}

const FIND_SQL: &str = "\
SELECT rowid, epoch, status, trigger, dry_run, ticket_id, script_name,
    CASE trigger WHEN 'retry' THEN json_type(context, '$.ticket') IS NOT NULL ELSE trigger = 'ticket' END
FROM automation_logs WHERE id = ?1 AND tenant_id = ?2";

const RUN_SQL: &str = "\
UPDATE automation_logs SET status = 'running', reason = NULL, claimed_by = ?2, lease_until = ?3, isolation = ?4
WHERE rowid = ?1";

const WAIT_SQL: &str = "\
UPDATE automation_logs SET reason = ?2, run_at = ?3, claimed_by = NULL, lease_until = NULL, epoch = epoch + 1
WHERE rowid = ?1";

fn due_sql() -> String {
    format!(
        "SELECT {}, rowid FROM automation_logs \
         WHERE tenant_id = ?1 AND status = 'starting' AND run_at IS NOT NULL AND run_at <= ?2 \
         AND (lease_until IS NULL OR lease_until <= ?2) \
         ORDER BY priority DESC, run_at, id LIMIT ?3",
        row::columns(false)
    )
}

const TAKE_SQL: &str = "\
UPDATE automation_logs SET claimed_by = ?2, lease_until = ?3, epoch = ?4 WHERE rowid = ?1";

const RENEW_SQL: &str = "\
UPDATE automation_logs INDEXED BY automation_logs_open SET lease_until = ?2
WHERE status IN ('starting', 'running') AND claimed_by = ?1 AND lease_until < ?2";

const APPEND_SQL: &str = "\
INSERT INTO automation_events (tenant_id, execution_id, seq, at, kind, data)
SELECT tenant_id, id, ?3, ?4, ?5, ?6 FROM automation_logs WHERE id = ?1 AND tenant_id = ?2";

const REVISION_SQL: &str = "\
SELECT revision FROM automation_records WHERE tenant_id = ?1 AND kind = ?2 AND key = ?3";

pub(super) const PUT_SQL: &str = "\
INSERT INTO automation_records (tenant_id, kind, key, value, revision) VALUES (?1, ?2, ?3, ?4, ?5)
ON CONFLICT (tenant_id, kind, key) DO UPDATE SET value = excluded.value, revision = excluded.revision";

const DELETE_SQL: &str = "\
DELETE FROM automation_records WHERE tenant_id = ?1 AND kind = ?2 AND key = ?3";

fn extended_code(error: &rusqlite::Error) -> Option<i32> {
    error.sqlite_error().map(|error| error.extended_code)
}
