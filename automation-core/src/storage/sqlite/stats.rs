//! The statistics as SQL: sums of sums, in one snapshot.

use std::collections::BTreeMap;

use chrono::{Months, NaiveDate};
use rusqlite::{Connection, Row, TransactionBehavior, params_from_iter};

use super::durations;
use super::error::Failure;
use super::reads::{Filter, OPEN, all};
use super::row;
use super::tally::{first_of_month, unreadable};
use super::text;
use crate::execution::{Execution, Trigger};
use crate::limits::RECENT_MAX;
use crate::request::StatsQuery;
use crate::stats::{Histogram, ScriptStats, Stats};
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
    let mut sql = String::new();
    if let Some(since) = query.since {
        // The days up to the first whole month, and the months from then on.
        let month = first_of_month(since).checked_add_months(Months::new(1));
        let month = month.unwrap_or(NaiveDate::MAX);
        filter.and("execution_date >= ?", Some(text::day(since)));
        filter.and("execution_date < ?", Some(text::day(month)));
        sql = format!(
            "{} FROM automation_stats WHERE {} UNION ALL ",
            SUMS_SQL,
            filter.sql()
        );
        let mut months = of_script(query);
        months.and("execution_date >= ?", Some(text::day(month)));
        sql += &format!("{} FROM automation_months WHERE {}", SUMS_SQL, months.sql());
        filter.values.extend(months.values);
    } else {
        sql += &format!("{} FROM automation_months WHERE {}", SUMS_SQL, filter.sql());
    }
    let mut statement = connection.prepare_cached(&format!("{sql} ORDER BY 1"))?;
    let mut days = statement.query(params_from_iter(&filter.values))?;
    let (mut by_script, mut sums) = (BTreeMap::new(), Sums::default());
    while let Some(day) = days.next()? {
        let script = day.get_ref(0)?.as_str().map_err(rusqlite::Error::from)?;
        if sums.script != script {
            sums.finish(&mut by_script);
            script.clone_into(&mut sums.script);
        }
        sums.add(day)?;
    }
    sums.finish(&mut by_script);
    Ok(by_script)
}

/// The sums of one script's days. Lengths are counted in an array: there are many, and few buckets.
struct Sums {
    script: String,
    days: usize,
    sums: ScriptStats,
    durations: [u64; BUCKETS],
}

/// One more than the largest bucket.
const BUCKETS: usize = Histogram::bucket(u64::MAX) as usize + 1;

impl Default for Sums {
    fn default() -> Self {
        Self {
            script: String::new(),
            days: 0,
            sums: ScriptStats::default(),
            durations: [0; BUCKETS],
        }
    }
}

impl Sums {
    /// Adds a day, a row of [`SUMS_SQL`].
    fn add(&mut self, day: &Row<'_>) -> Result<(), Failure> {
        let sums = &mut self.sums;
        let added = [
            &mut sums.total,
            &mut sums.successful,
            &mut sums.failed,
            &mut sums.cancelled,
            &mut sums.duration_us,
            &mut sums.cpu_us,
            &mut sums.queue_us,
            &mut sums.output_bytes,
            &mut sums.children,
            &mut sums.threads,
        ];
        for (column, sum) in (1..).zip(added) {
            *sum += day.get::<_, i64>(column)?.unsigned_abs();
        }
        let peak = day.get::<_, i64>(11)?.unsigned_abs();
        sums.memory_peak_bytes = sums.memory_peak_bytes.max(peak);
        self.days += 1;
        let text = day.get_ref(12)?.as_str().map_err(rusqlite::Error::from)?;
        let mut known = true;
        let read = durations::read(text, |bucket, count| {
            match self.durations.get_mut(usize::from(bucket)) {
                Some(sum) => *sum += count,
                None => known = false,
            }
        });
        read.filter(|()| known).ok_or_else(|| unreadable(text))
    }

    /// Moves the sums to those of their script, if there are any, and begins anew.
    fn finish(&mut self, by_script: &mut BTreeMap<String, ScriptStats>) {
        let sums = std::mem::take(self);
        if sums.days == 0 {
            return;
        }
        let mut stats = sums.sums;
        for (bucket, count) in (0..).zip(sums.durations).filter(|(_, count)| *count > 0) {
            stats.durations.add(bucket, count);
        }
        by_script.insert(sums.script, stats);
    }
}

const SUMS_SQL: &str = "\
SELECT script_name, total_executions, successful_executions, failed_executions, cancelled_executions,
    duration_us, cpu_us, queue_us, output_bytes, children, threads, memory_peak_bytes, durations";

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
