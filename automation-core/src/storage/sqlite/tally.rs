//! The statements that write the sums of a round.

use chrono::{Datelike, NaiveDate};
use rusqlite::{Connection, Statement, params};
use uuid::Uuid;

use super::durations;
use super::error::Failure;
use super::row::integer;
use super::text;
use crate::stats::ScriptStats;
use crate::storage::tally::{Day, Tally};

/// The statements that write sums: those of days, and those of months.
#[derive(Debug)]
pub(super) struct TallyStatements<'c> {
    days: Sums<'c>,
    months: Sums<'c>,
}

/// The statements that write the sums of one table.
#[derive(Debug)]
struct Sums<'c> {
    durations: Statement<'c>,
    add: Statement<'c>,
}

impl<'c> TallyStatements<'c> {
    /// Prepares them.
    pub(super) fn prepare(connection: &'c Connection) -> Result<Self, Failure> {
        Ok(Self {
            days: Sums::prepare(connection, "automation_stats")?,
            months: Sums::prepare(connection, "automation_months")?,
        })
    }

    /// Adds the sums to those that are there.
    pub(super) fn write(&mut self, tally: &Tally) -> Result<(), Failure> {
        for (key, stats) in tally.days() {
            self.days.write(key, key.2, stats)?;
            self.months.write(key, first_of_month(key.2), stats)?;
        }
        Ok(())
    }
}

/// Returns the first day of a day's month.
pub(super) fn first_of_month(day: NaiveDate) -> NaiveDate {
    day.with_day(1).expect("every month has a first day")
}

impl<'c> Sums<'c> {
    fn prepare(connection: &'c Connection, table: &str) -> Result<Self, Failure> {
        Ok(Self {
            durations: connection.prepare(&DURATIONS_SQL.replace("{table}", table))?,
            add: connection.prepare(&ADD_SQL.replace("{table}", table))?,
        })
    }

    /// Adds sums to those of a script under a date.
    fn write(&mut self, key: &Day, date: NaiveDate, stats: &ScriptStats) -> Result<(), Failure> {
        let (tenant, script, date) = (key.0.as_str(), &key.1, text::day(date));
        let mut durations = stats.durations.clone();
        let mut rows = self.durations.query(params![tenant, script, date])?;
        if let Some(row) = rows.next()? {
            let kept = row.get_ref(0)?.as_str().map_err(rusqlite::Error::from)?;
            durations::read(kept, |bucket, count| durations.add(bucket, count))
                .ok_or_else(|| unreadable(kept))?;
        }
        drop(rows);
        self.add.execute(params![
            text::uuid(&Uuid::now_v7()),
            tenant,
            script,
            date,
            integer(stats.total),
            integer(stats.successful),
            integer(stats.failed),
            integer(stats.cancelled),
            integer(stats.duration_us),
            integer(stats.cpu_us),
            integer(stats.memory_peak_bytes),
            integer(stats.queue_us),
            integer(stats.output_bytes),
            integer(stats.children),
            integer(stats.threads),
            durations::write(&durations),
        ])?;
        Ok(())
    }
}

/// Says that lengths are not as they are written here.
pub(super) fn unreadable(durations: &str) -> Failure {
    Failure::Unusable(format!(
        "the durations {durations:?} of a day can't be read"
    ))
}

const DURATIONS_SQL: &str = "\
SELECT durations FROM {table} WHERE tenant_id = ?1 AND script_name = ?2 AND execution_date = ?3";

const ADD_SQL: &str = "\
INSERT INTO {table} AS old (id, tenant_id, script_name, execution_date, total_executions,
    successful_executions, failed_executions, cancelled_executions, duration_us, cpu_us,
    memory_peak_bytes, queue_us, output_bytes, children, threads, durations,
    avg_execution_time)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16,
    round(?9 / 1000000.0 / max(?5, 1), 2))
ON CONFLICT (tenant_id, script_name, execution_date) DO UPDATE SET
    total_executions = old.total_executions + excluded.total_executions,
    successful_executions = old.successful_executions + excluded.successful_executions,
    failed_executions = old.failed_executions + excluded.failed_executions,
    cancelled_executions = old.cancelled_executions + excluded.cancelled_executions,
    duration_us = old.duration_us + excluded.duration_us,
    cpu_us = old.cpu_us + excluded.cpu_us,
    memory_peak_bytes = max(old.memory_peak_bytes, excluded.memory_peak_bytes),
    queue_us = old.queue_us + excluded.queue_us,
    output_bytes = old.output_bytes + excluded.output_bytes,
    children = old.children + excluded.children,
    threads = old.threads + excluded.threads,
    durations = excluded.durations,
    avg_execution_time = round((old.duration_us + excluded.duration_us) / 1000000.0
        / max(old.total_executions + excluded.total_executions, 1), 2)";
