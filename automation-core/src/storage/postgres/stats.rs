//! The statistics as SQL: sums of sums, in one snapshot and one journey.

use std::collections::BTreeMap;

use tokio_postgres::Row;

use super::error::Failure;
use super::reads::{self, Filter, OPEN, Query};
use super::row::{self, get};
use super::value::text;
use crate::execution::Trigger;
use crate::limits::RECENT_MAX;
use crate::request::StatsQuery;
use crate::stats::{ScriptStats, Stats};
use crate::status::Status;

/// Asks for all that the statistics are made of, in the order of [`read`].
pub(super) fn queries(query: &StatsQuery) -> Vec<Query> {
    vec![sums(query), durations(query), open(query), recent(query)]
}

/// Puts the answers together.
pub(super) fn read(answers: &[Vec<Row>]) -> Result<Stats, Failure> {
    let [sums, durations, open, recent] = answers else {
        return Err(Failure::Away(
            "the server left a question unanswered".to_owned(),
        ));
    };
    let mut by_script = BTreeMap::new();
    for row in sums {
        by_script.insert(get::<String>(row, "script_name")?, script(row)?);
    }
    for row in durations {
        let stats: &mut ScriptStats = by_script.entry(get(row, "script_name")?).or_default();
        let bucket = u16::try_from(get::<i32>(row, "bucket")?).unwrap_or(u16::MAX);
        stats.durations.add(bucket, sum(row, "executions")?);
    }
    let open = match &open[..] {
        [row] => sum(row, "open")?,
        _ => 0,
    };
    Ok(Stats::new(by_script, open, reads::executions(recent)?))
}

fn script(row: &Row) -> Result<ScriptStats, Failure> {
    Ok(ScriptStats {
        total: sum(row, "total")?,
        successful: sum(row, "successful")?,
        failed: sum(row, "failed")?,
        cancelled: sum(row, "cancelled")?,
        queue_us: sum(row, "queue_us")?,
        duration_us: sum(row, "duration_us")?,
        cpu_us: sum(row, "cpu_us")?,
        memory_peak_bytes: sum(row, "memory_peak_bytes")?,
        children: sum(row, "children")?,
        threads: sum(row, "threads")?,
        output_bytes: sum(row, "output_bytes")?,
        ..ScriptStats::default()
    })
}

fn sum(row: &Row, name: &str) -> Result<u64, Failure> {
    Ok(get::<i64>(row, name)?.unsigned_abs())
}

const SUMS_SQL: &str = "\
SELECT script_name, sum(total_executions) AS total, sum(successful_executions) AS successful,
    sum(failed_executions) AS failed, sum(cancelled_executions) AS cancelled,
    sum(queue_us)::bigint AS queue_us, sum(duration_us)::bigint AS duration_us, sum(cpu_us)::bigint AS cpu_us,
    max(memory_peak_bytes) AS memory_peak_bytes, sum(children)::bigint AS children,
    sum(threads)::bigint AS threads, sum(output_bytes)::bigint AS output_bytes
FROM automation_stats";

fn of_script(query: &StatsQuery) -> Filter {
    let mut filter = Filter::default();
    let tenant = text(query.tenant_id.as_str()).into_owned();
    filter.and("tenant_id = ?", Some(tenant));
    let script = query.script_name.as_deref();
    filter.and(
        "script_name = ?",
        script.map(|name| text(name).into_owned()),
    );
    filter
}

fn of_days(query: &StatsQuery) -> Filter {
    let mut filter = of_script(query);
    filter.and("execution_date >= ?", query.since);
    filter
}

fn sums(query: &StatsQuery) -> Query {
    let filter = of_days(query);
    let sql = format!("{SUMS_SQL} WHERE {} GROUP BY script_name", filter.sql());
    (sql, filter.values)
}

fn durations(query: &StatsQuery) -> Query {
    let filter = of_days(query);
    let sql = format!(
        "SELECT script_name, bucket, sum(executions)::bigint AS executions FROM automation_durations \
         WHERE {} GROUP BY script_name, bucket",
        filter.sql()
    );
    (sql, filter.values)
}

fn counted(query: &StatsQuery) -> Filter {
    let mut filter = of_script(query);
    let counted = Trigger::ALL.iter().filter(|trigger| trigger.is_counted());
    filter.one_of("trigger", counted.map(|trigger| trigger.as_str()));
    filter
}

fn open(query: &StatsQuery) -> Query {
    let filter = counted(query);
    let sql = format!(
        "SELECT count(*) AS open FROM automation_logs WHERE {OPEN} AND {}",
        filter.sql()
    );
    (sql, filter.values)
}

fn recent(query: &StatsQuery) -> Query {
    let mut filter = counted(query);
    let ended = Status::ALL
        .into_iter()
        .filter(|status| status.is_terminal());
    filter.one_of("status", ended.map(Status::as_str));
    let begin = query.since.and_then(|day| day.and_hms_opt(0, 0, 0));
    filter.and("completed_at >= ?", begin.map(|begin| begin.and_utc()));
    let sql = format!(
        "SELECT {} FROM automation_logs WHERE {} ORDER BY started_at DESC, id DESC LIMIT {RECENT_MAX}",
        row::columns(true),
        filter.sql()
    );
    (sql, filter.values)
}
