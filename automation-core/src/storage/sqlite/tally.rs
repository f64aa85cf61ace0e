//! The statements that write the sums of a round.

use rusqlite::{Connection, Statement, params};
use uuid::Uuid;

use super::error::Failure;
use super::row::integer;
use super::text;
use crate::storage::tally::Tally;

/// The statements that write sums.
#[derive(Debug)]
pub(super) struct TallyStatements<'c> {
    day: Statement<'c>,
    duration: Statement<'c>,
}

impl<'c> TallyStatements<'c> {
    /// Prepares them.
    pub(super) fn prepare(connection: &'c Connection) -> Result<Self, Failure> {
        Ok(Self {
            day: connection.prepare(DAY_SQL)?,
            duration: connection.prepare(DURATION_SQL)?,
        })
    }

    /// Adds the sums to those that are there.
    pub(super) fn write(&mut self, tally: &Tally) -> Result<(), Failure> {
        for ((tenant, script, day), stats) in tally.days() {
            let day = text::day(*day);
            self.day.execute(params![
                text::uuid(&Uuid::now_v7()),
                tenant.as_str(),
                script,
                day,
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
            ])?;
            for (bucket, count) in stats.durations.buckets() {
                let count = integer(count);
                self.duration
                    .execute(params![tenant.as_str(), script, day, bucket, count])?;
            }
        }
        Ok(())
    }
}

const DAY_SQL: &str = "\
INSERT INTO automation_stats AS old (id, tenant_id, script_name, execution_date, total_executions,
    successful_executions, failed_executions, cancelled_executions, duration_us, cpu_us,
    memory_peak_bytes, queue_us, output_bytes, children, threads, avg_execution_time)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15,
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
    avg_execution_time = round((old.duration_us + excluded.duration_us) / 1000000.0
        / max(old.total_executions + excluded.total_executions, 1), 2)";

const DURATION_SQL: &str = "\
INSERT INTO automation_durations AS old (tenant_id, script_name, execution_date, bucket, executions)
VALUES (?1, ?2, ?3, ?4, ?5)
ON CONFLICT DO UPDATE SET executions = old.executions + excluded.executions";
