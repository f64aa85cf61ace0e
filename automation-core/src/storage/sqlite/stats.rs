//! The statistics as SQL: sums of sums, in one snapshot.

use std::collections::BTreeMap;

use rusqlite::{Connection, TransactionBehavior, params_from_iter};

use super::error::Failure;
use super::reads::{Filter, OPEN, all};
use super::row;
use super::text;
use crate::execution::{Execution, Trigger};
use crate::limits::RECENT_MAX;
use crate::request::StatsQuery;
use crate::stats::{ScriptStats, Stats};
use crate::status::Status;

/// Reads the statistics.
pub(super) fn stats(connection: &mut Connection, query: &StatsQuery) -> Result<Stats, Failure> {
    let snapshot = connection.transaction_with_behavior(TransactionBehavior::Deferred)?;
    let by_script = by_script(&snapshot, query)?;
    let stats = Stats::new(
        by_script,
        open(&snapshot, query)?,
        recent(&snapshot, query)?,
    );
    snapshot.commit()?;
    Ok(stats)
}

fn of_script(query: &StatsQuery) -> Filter {
    let mut filter = Filter::default();
    filter.and("tenant_id = ?", Some(query.tenant_id.as_str().to_owned()));
    filter.and("script_name = ?", query.script_name.clone());
    filter
}

fn by_script(
    connection: &Connection,
    query: &StatsQuery,
) -> Result<BTreeMap<String, ScriptStats>, Failure> {
    let mut filter = of_script(query);
    filter.and("execution_date >= ?", query.since.map(text::day));
    let sql = format!("{SUMS_SQL} WHERE {} GROUP BY script_name", filter.sql());
    let sums = all(connection, &sql, params_from_iter(&filter.values), |row| {
        let sum = |column| Ok::<_, rusqlite::Error>(row.get::<_, i64>(column)?.unsigned_abs());
        let stats = ScriptStats {
            total: sum(1)?,
            successful: sum(2)?,
            failed: sum(3)?,
            cancelled: sum(4)?,
            duration_us: sum(5)?,
            cpu_us: sum(6)?,
            memory_peak_bytes: sum(7)?,
            queue_us: sum(8)?,
            output_bytes: sum(9)?,
            children: sum(10)?,
            threads: sum(11)?,
            ..ScriptStats::default()
        };
        Ok((row.get::<_, String>(0)?, stats))
    })?;
    let mut by_script: BTreeMap<_, _> = sums.into_iter().collect();

    let sql = format!(
        "SELECT script_name, bucket, sum(executions) FROM automation_durations WHERE {} \
         GROUP BY script_name, bucket",
        filter.sql()
    );
    let buckets = all(connection, &sql, params_from_iter(&filter.values), |row| {
        let count = row.get::<_, i64>(2)?.unsigned_abs();
        Ok((row.get::<_, String>(0)?, row.get(1)?, count))
    })?;
    for (script, bucket, count) in buckets {
        let stats = by_script.entry(script).or_default();
        stats.durations.add(bucket, count);
    }
    Ok(by_script)
}

const SUMS_SQL: &str = "\
SELECT script_name, sum(total_executions), sum(successful_executions), sum(failed_executions),
    sum(cancelled_executions), sum(duration_us), sum(cpu_us), max(memory_peak_bytes), sum(queue_us),
    sum(output_bytes), sum(children), sum(threads)
FROM automation_stats";

fn counted(query: &StatsQuery) -> Filter {
    let mut filter = of_script(query);
    let counted = Trigger::ALL.iter().filter(|trigger| trigger.is_counted());
    filter.one_of("trigger", counted.map(|trigger| trigger.as_str()));
    filter
}

fn open(connection: &Connection, query: &StatsQuery) -> Result<u64, Failure> {
    let filter = counted(query);
    let sql = format!(
        "SELECT count(*) FROM automation_logs INDEXED BY automation_logs_open WHERE {OPEN} AND {}",
        filter.sql()
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let count: i64 = statement.query_row(params_from_iter(filter.values), |row| row.get(0))?;
    Ok(count.unsigned_abs())
}

fn recent(connection: &Connection, query: &StatsQuery) -> Result<Vec<Execution>, Failure> {
    let mut filter = counted(query);
    let ended = Status::ALL
        .into_iter()
        .filter(|status| status.is_terminal());
    filter.one_of("status", ended.map(Status::as_str));
    filter.and("completed_at >= ?", query.since.map(text::day));
    let sql = format!(
        "SELECT {} FROM automation_logs WHERE {} ORDER BY started_at DESC, id DESC LIMIT {RECENT_MAX}",
        row::columns(true),
        filter.sql()
    );
    all(connection, &sql, params_from_iter(filter.values), row::read)
}
