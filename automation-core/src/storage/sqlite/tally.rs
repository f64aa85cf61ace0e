//! The sums of a round: kept in memory while its calls are applied, written once at its end.

use std::collections::HashMap;

use chrono::NaiveDate;
use rusqlite::{Connection, Statement, params};
use uuid::Uuid;

use super::error::Failure;
use super::row::integer;
use super::text;
use crate::execution::{Completion, TenantId, Trigger};
use crate::stats::{Counted, ScriptStats};
use crate::storage::held;

/// One counted execution that ended.
#[derive(Debug)]
pub(super) struct Ended {
    day: Day,
    counted: Counted,
}

/// Whose sums, of which script, on which day.
type Day = (TenantId, String, NaiveDate);

impl Ended {
    /// Returns what an end adds; `None` when it is not counted.
    pub(super) fn new(
        tenant: &TenantId,
        script_name: String,
        trigger: Trigger,
        end: &Completion,
    ) -> Option<Self> {
        trigger.is_counted().then(|| Self {
            day: (
                tenant.clone(),
                script_name,
                held::time(end.completed_at).date_naive(),
            ),
            counted: Counted {
                status: end.status,
                queue_us: end.queue_us.map(held::number),
                duration_us: end.duration_us.map(held::number),
                usage: held::usage(end.usage),
                output_bytes: held::number(end.output_bytes),
            },
        })
    }
}

/// The sums of a round.
#[derive(Debug, Default)]
pub(super) struct Tally(HashMap<Day, ScriptStats>);

impl Tally {
    /// Adds what the calls ended.
    pub(super) fn add(&mut self, ended: Ended) {
        let sums = self.0.entry(ended.day).or_default();
        sums.count(&ended.counted);
    }
}

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
        for ((tenant, script, day), stats) in &tally.0 {
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
