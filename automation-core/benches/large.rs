//! What reads cost over many logged runs in SQLite: statistics, and the first page of each list.
//!
//! `make bench-large`, or `LARGE_ROWS=10000000 cargo bench -p automation-core --bench large`. The rows are written with
//! the true tables and indexes, of 20 scripts over a year, and the file is deleted at the end; it lies in
//! `LARGE_FOLDER`, or else among the build products. Medians of 101 reads, each through [`Storage`].
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a benchmark prints, and ends when it can't measure"
)]

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use automation_core::storage::ExecutionQuery;
use automation_core::{
    Histogram, Page, ScriptStats, SqliteStorage, StatsQuery, Status, Storage, TenantId,
};
use chrono::{DateTime, Datelike, Days, NaiveDate, SecondsFormat, TimeDelta, Utc};
use rusqlite::{Connection, params};
use uuid::Uuid;

const SCRIPTS: u64 = 20;
const DAYS: u64 = 365;
/// One run in so many is of a script that seldom runs; a quarter of those fail.
const RARE: u64 = 250_000;
const READS: usize = 101;

fn main() {
    let rows = std::env::var("LARGE_ROWS").map_or(100_000, |rows| rows.parse().unwrap());
    let folder = std::env::var("LARGE_FOLDER");
    let folder = folder.unwrap_or_else(|_| env!("CARGO_TARGET_TMPDIR").to_owned());
    let folder = tempfile::tempdir_in(folder).unwrap();
    let path = folder.path().join("large.db");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .build()
        .unwrap();
    let begin = Instant::now();
    runtime.block_on(async {
        SqliteStorage::open(&path)
            .await
            .unwrap()
            .close()
            .await
            .unwrap()
    });
    fill(&path, rows);
    let gigabytes = path.metadata().unwrap().len() / (1 << 20);
    let wrote = begin.elapsed().as_secs();
    println!(
        "{rows} runs of {SCRIPTS} scripts over {DAYS} days, {gigabytes} MiB, written in {wrote} s"
    );
    runtime.block_on(measure(&path, rows));
}

/// The first instant of the log.
fn start() -> DateTime<Utc> {
    DateTime::from_timestamp(1_735_689_600, 0).unwrap()
}

fn time(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Micros, true)
}

/// Writes the rows without the secondary indexes, which are made again from their own words.
fn fill(path: &Path, rows: u64) {
    let connection = Connection::open(path).unwrap();
    connection
        .execute_batch(
            "PRAGMA journal_mode = off; PRAGMA synchronous = off; PRAGMA cache_size = -500000;",
        )
        .unwrap();
    let indexes = indexes(&connection);
    for (name, _) in &indexes {
        connection
            .execute_batch(&format!("DROP INDEX {name}"))
            .unwrap();
    }
    connection.execute_batch("BEGIN").unwrap();
    let days = insert(&connection, rows);
    let mut months = Sums::new();
    for ((script, day), sums) in &days {
        count(&connection, "automation_stats", script, *day, sums);
        let month = (script.clone(), day.with_day(1).unwrap());
        months.entry(month).or_default().merge(sums);
    }
    for ((script, month), sums) in &months {
        count(&connection, "automation_months", script, *month, sums);
    }
    for (_, sql) in &indexes {
        connection.execute_batch(sql).unwrap();
    }
    connection.execute_batch("COMMIT").unwrap();
}

fn indexes(connection: &Connection) -> Vec<(String, String)> {
    let sql = "SELECT name, sql FROM sqlite_schema WHERE tbl_name = 'automation_logs' AND type = 'index' AND sql IS NOT NULL";
    let mut statement = connection.prepare(sql).unwrap();
    let found = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)));
    found.unwrap().collect::<Result<_, _>>().unwrap()
}

type Sums = BTreeMap<(String, NaiveDate), ScriptStats>;

/// Most runs are of the first scripts, one in 50 fails, one in 1000 has an actor who seldom asks.
fn insert(connection: &Connection, rows: u64) -> Sums {
    let mut statement = connection
        .prepare(
            "INSERT INTO automation_logs (id, ticket_id, script_name, script_version, trigger, status, reason,
                 started_at, completed_at, actor, duration_us, cpu_us, queue_us, output_bytes, execution_time,
                 success, parameters, parsed_output, output)
             VALUES (?1, ?2, ?3, '9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08', 'ticket', ?4, ?5,
                 ?6, ?7, ?8, ?9, 900, 40, 42, ?10, ?4 = 'completed', '{\"min_free_space_gb\":5,\"clear_temp\":true}',
                 '{\"actions_performed\":[\"CLEANED: temp files\"],\"space_freed_gb\":2.5}',
                 'cleaned temp files, cleaned browser cache\n')",
        )
        .unwrap();
    let step = TimeDelta::microseconds(i64::try_from(DAYS * 86_400_000_000 / rows).unwrap());
    let mut days = Sums::new();
    let mut at = start();
    for n in 0..rows {
        at += step;
        // A walk through all lengths and scripts that looks random and is the same each time.
        let walk = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        let script = format!("script_{}.py", (walk % SCRIPTS) * (walk % 7 % 2));
        let script = if n % RARE == 5 {
            "rare.py".to_owned()
        } else {
            script
        };
        let us = 2_000 + (walk * walk >> 20) % 3_000_000;
        let status = if n % 50 == 7 || n % (RARE * 4) == 5 {
            Status::Failed
        } else {
            Status::Completed
        };
        let reason = (status == Status::Failed).then_some("exception");
        let actor = if n % 1000 == 3 {
            format!("person {}", n % 7000)
        } else {
            "helpdesk".to_owned()
        };
        let id = Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0000 + u128::from(n));
        let ended = at + TimeDelta::microseconds(i64::try_from(us).unwrap());
        let values = params![
            id.to_string(),
            format!("TICKET-{}", n / 3),
            script,
            status.as_str(),
            reason,
            time(at),
            time(ended),
            actor,
            i64::try_from(us).unwrap(),
            i64::try_from(us / 1_000_000).unwrap(),
        ];
        statement.execute(values).unwrap();
        let sums = days.entry((script, ended.date_naive())).or_default();
        sums.total += 1;
        sums.successful += u64::from(status == Status::Completed);
        sums.failed += u64::from(status == Status::Failed);
        sums.duration_us += us;
        sums.durations.add(Histogram::bucket(us), 1);
    }
    days
}

fn count(connection: &Connection, table: &str, script: &str, day: NaiveDate, sums: &ScriptStats) {
    let durations = sums.durations.buckets();
    let durations: Vec<_> = durations
        .map(|(bucket, count)| format!("{bucket}:{count}"))
        .collect();
    let number = |n: u64| i64::try_from(n).unwrap();
    let mut statement = connection
        .prepare_cached(&format!(
            "INSERT INTO {table} (id, script_name, execution_date, total_executions, successful_executions,
                 failed_executions, duration_us, durations) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)"
        ))
        .unwrap();
    statement
        .execute(params![
            Uuid::now_v7().to_string(),
            script,
            day.to_string(),
            number(sums.total),
            number(sums.successful),
            number(sums.failed),
            number(sums.duration_us),
            durations.join(" "),
        ])
        .unwrap();
}

async fn measure(path: &Path, rows: u64) {
    let storage = SqliteStorage::open(path).await.unwrap();
    let all = StatsQuery::default();
    let month = StatsQuery {
        since: start().date_naive().checked_add_days(Days::new(DAYS - 30)),
        ..StatsQuery::default()
    };
    assert_eq!(storage.stats(&all).await.unwrap().all.total, rows);
    for (what, query) in [
        ("statistics of the year", all),
        ("statistics of 30 days", month),
    ] {
        let mut times = Vec::with_capacity(READS);
        for _ in 0..READS {
            let begin = Instant::now();
            storage.stats(&query).await.unwrap();
            times.push(begin.elapsed());
        }
        print(what, times);
    }
    for (what, query) in lists(rows) {
        let mut times = Vec::with_capacity(READS);
        for _ in 0..READS {
            let begin = Instant::now();
            let page = storage.list(&query, &Page::first(50)).await.unwrap();
            times.push(begin.elapsed());
            assert!(!page.items.is_empty(), "{what}");
        }
        print(what, times);
    }
    storage.close().await.unwrap();
}

fn lists(rows: u64) -> Vec<(&'static str, ExecutionQuery)> {
    let mine = || ExecutionQuery::of(TenantId::default());
    let list = |what: &'static str, change: fn(&mut ExecutionQuery)| {
        let mut query = mine();
        query.without_output = true;
        change(&mut query);
        (what, query)
    };
    let mut logs = mine();
    logs.ticket_id = Some(format!("TICKET-{}", rows / 6));
    vec![
        ("logs of a ticket, with output", logs),
        ("the newest", list("", |_| {}).1),
        list("of a script", |query| {
            query.script_name = Some("script_13.py".to_owned())
        }),
        list("failed", |query| query.statuses = vec![Status::Failed]),
        list("failed, of a script", |query| {
            query.statuses = vec![Status::Failed];
            query.script_name = Some("script_13.py".to_owned());
        }),
        list("of a script that seldom runs", |query| {
            query.script_name = Some("rare.py".to_owned())
        }),
        list("failed, of that script", |query| {
            query.statuses = vec![Status::Failed];
            query.script_name = Some("rare.py".to_owned());
        }),
        list("completed", |query| {
            query.statuses = vec![Status::Completed]
        }),
        list("of an actor who seldom asks", |query| {
            query.actor = Some("person 3".to_owned())
        }),
        list("before a time", |query| {
            query.until = Some(start() + TimeDelta::days(100))
        }),
    ]
}

fn print(what: &str, mut times: Vec<Duration>) {
    times.sort();
    let (median, worst) = (times[READS / 2], times[READS - 1]);
    println!(
        "{what:<32}{:>9.2} ms{:>9.2} ms at most",
        ms(median),
        ms(worst)
    );
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
