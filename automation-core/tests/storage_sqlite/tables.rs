//! What people find who read the tables with SQL.

use std::collections::BTreeSet;

use automation_core::{SqliteStorage, Status, Storage, TenantId, Trigger};

use crate::rows::{beside, end, insert, one, record, ticket_run, value};

/// The columns of the owner's document.
const OWNERS_COLUMNS: [(&str, &[&str]); 3] = [
    (
        "automation_logs",
        &[
            "id",
            "ticket_id",
            "script_name",
            "status",
            "started_at",
            "completed_at",
            "execution_time",
            "output",
            "error",
            "success",
            "execution_type",
            "parameters",
        ],
    ),
    (
        "automation_stats",
        &[
            "id",
            "script_name",
            "execution_date",
            "total_executions",
            "successful_executions",
            "failed_executions",
            "avg_execution_time",
        ],
    ),
    (
        "resolutions",
        &[
            "id",
            "ticket_id",
            "automation_script",
            "automation_output",
            "automation_log_id",
        ],
    ),
];

#[tokio::test]
async fn the_owners_columns_are_there() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let _storage = SqliteStorage::open(&path).await.unwrap();
    let connection = beside(&path);
    for (table, columns) in OWNERS_COLUMNS {
        let sql = format!("SELECT name FROM pragma_table_info('{table}')");
        let mut statement = connection.prepare(&sql).unwrap();
        let found = statement.query_map([], |row| row.get(0)).unwrap();
        let found: BTreeSet<String> = found.collect::<Result<_, _>>().unwrap();
        for column in columns.iter().chain(&["tenant_id"]) {
            assert!(found.contains(*column), "{table}.{column}");
        }
    }
}

#[tokio::test]
async fn a_row_reads_as_the_owner_expects() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let storage = SqliteStorage::open(&path).await.unwrap();
    let run = ticket_run("T-1");
    record(&storage, &run, Status::Completed).await;
    let row: String = value(
        &beside(&path),
        "SELECT concat_ws('|', id, ticket_id, script_name, status, started_at, completed_at, \
         execution_time, output, success, execution_type, parameters, tenant_id) FROM automation_logs",
    );
    let expected = format!(
        "{}|T-1|disk_cleanup.py|completed|2026-01-01T12:00:00.000000Z|2026-01-01T12:00:01.500000Z|\
         2|freed|1|automated|{{}}|default",
        run.id
    );
    assert_eq!(row, expected);
}

#[tokio::test]
async fn a_status_that_is_none_is_refused_by_the_table() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let storage = SqliteStorage::open(&path).await.unwrap();
    record(&storage, &ticket_run("T-1"), Status::Completed).await;
    let connection = beside(&path);
    for status in Status::ALL {
        connection
            .execute("UPDATE automation_logs SET status = ?1", [status.as_str()])
            .unwrap();
    }
    let error = connection
        .execute("UPDATE automation_logs SET status = 'done'", [])
        .unwrap_err();
    assert!(error.to_string().contains("CHECK"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_stats_table_is_a_recount_of_the_log() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let storage = std::sync::Arc::new(SqliteStorage::open(&path).await.unwrap());
    let mut callers = tokio::task::JoinSet::new();
    for n in 0..120_usize {
        let storage = std::sync::Arc::clone(&storage);
        callers.spawn(async move {
            let mut run = ticket_run(&format!("T-{n}"));
            run.script_name = format!("script_{}.py", n % 3);
            run.tenant_id = TenantId::new(["default", "other"][n % 2]);
            run.trigger = Trigger::ALL[n % Trigger::ALL.len()];
            one(&storage, insert(&run)).await.unwrap();
            let outcomes = [Status::Completed, Status::Failed, Status::Cancelled];
            if let Some(status) = outcomes.get(n / 10 % 4) {
                one(&storage, end(&run, *status)).await.unwrap();
            }
        });
    }
    callers.join_all().await;
    storage.close().await.unwrap();
    assert_eq!(differences(&path), 0);
    let counted: i64 = value(
        &beside(&path),
        "SELECT sum(total_executions + cancelled_executions) FROM automation_stats",
    );
    assert_eq!(
        counted, 60,
        "two thirds of the triggers count, three quarters ended"
    );
}

/// Returns how many rows of the stats table and of a recount are not in the other.
pub(crate) fn differences(path: &std::path::Path) -> i64 {
    value(
        &beside(path),
        "WITH recount AS (
             SELECT tenant_id, script_name, date(completed_at) AS day,
                 sum(status <> 'cancelled') AS total, sum(status = 'completed') AS successful,
                 sum(status = 'failed') AS failed, sum(status = 'cancelled') AS cancelled,
                 sum(iif(status <> 'cancelled', duration_us, 0)) AS duration_us,
                 sum(iif(status <> 'cancelled', coalesce(queue_us, 0), 0)) AS queue_us,
                 sum(iif(status <> 'cancelled', output_bytes, 0)) AS output_bytes,
                 sum(iif(status <> 'cancelled', coalesce(children, 0), 0)) AS children,
                 sum(iif(status <> 'cancelled', coalesce(threads, 0), 0)) AS threads,
                 round(coalesce(sum(iif(status <> 'cancelled', duration_us, 0)) / 1000000.0
                     / nullif(sum(status <> 'cancelled'), 0), 0), 2) AS average
             FROM automation_logs
             WHERE status IN ('completed', 'failed', 'cancelled')
                 AND trigger IN ('ticket', 'manual', 'schedule', 'retry')
             GROUP BY 1, 2, 3),
         kept AS (
             SELECT tenant_id, script_name, execution_date, total_executions, successful_executions,
                 failed_executions, cancelled_executions, duration_us, queue_us, output_bytes, children, threads,
                 avg_execution_time
             FROM automation_stats),
         kept_durations AS (
             SELECT tenant_id, script_name, execution_date, sum(substr(pair.value, instr(pair.value, ':') + 1)) AS total
             FROM automation_stats, json_each('[\"' || replace(durations, ' ', '\",\"') || '\"]') AS pair
             GROUP BY 1, 2, 3)
         SELECT (SELECT count(*) FROM (SELECT * FROM recount EXCEPT SELECT * FROM kept))
             + (SELECT count(*) FROM (SELECT * FROM kept EXCEPT SELECT * FROM recount))
             + (SELECT count(*) FROM (
                 SELECT tenant_id, script_name, day, total FROM recount WHERE total > 0
                 EXCEPT SELECT * FROM kept_durations))",
    )
}

#[tokio::test]
async fn long_output_is_kept_compressed_and_short_output_as_text() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let storage = SqliteStorage::open(&path).await.unwrap();
    let mut long = ticket_run("T-1");
    long.output = "2026-01-01 12:00:00 INFO cleaned a folder\n".repeat(20_000);
    long.stderr = "short".to_owned();
    one(&storage, insert(&long)).await.unwrap();
    let kept: String = value(
        &beside(&path),
        "SELECT typeof(output) || ' ' || typeof(stderr) || ' ' || (length(output) < 40000) FROM automation_logs",
    );
    assert_eq!(kept, "blob text 1");
    let found = storage.get(&long.tenant_id, long.id).await.unwrap();
    assert_eq!((found.output, found.stderr), (long.output, long.stderr));
}
