//! Which files are opened, and which are refused and why.

use std::path::Path;

use automation_core::storage::{ExecutionQuery, StorageError};
use automation_core::{Isolation, Page, SqliteStorage, Stats, StatsQuery, Status, Storage};

use crate::rows::{beside, insert, noon, one, record, ticket_run, value};

async fn refused(path: impl AsRef<Path>) -> String {
    match SqliteStorage::open(path).await {
        Err(StorageError::Unusable { detail, .. }) => detail,
        other => panic!("opened or refused in another way: {other:?}"),
    }
}

#[tokio::test]
async fn a_second_handle_is_refused_until_the_first_is_closed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let first = SqliteStorage::open(&path).await.unwrap();
    let in_use = format!("is in use by process {}", std::process::id());
    assert!(refused(&path).await.ends_with(&in_use));

    #[cfg(unix)]
    {
        let link = folder.path().join("link.db");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(
            refused(&link).await.ends_with(&in_use),
            "the same file by another name"
        );
    }

    first.close().await.unwrap();
    SqliteStorage::open(&path).await.unwrap();
}

#[tokio::test]
async fn dropping_without_close_keeps_everything_and_frees_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    for round in 0..10 {
        let storage = SqliteStorage::open(&path).await.unwrap();
        record(&storage, &ticket_run("T-1"), Status::Completed).await;
        drop(storage);
        let count: i64 = value(&beside(&path), "SELECT count(*) FROM automation_logs");
        assert_eq!(count, round + 1);
    }
}

#[tokio::test]
async fn leases_of_the_process_before_are_over() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let held = |ticket: &str, lease| {
        let mut run = ticket_run(ticket);
        run.lease_until = lease;
        run
    };
    let later = Some(noon() + chrono::TimeDelta::days(3_650));
    let (open, waiting, ended) = (held("T-1", later), held("T-2", None), held("T-3", later));
    let storage = SqliteStorage::open(&path).await.unwrap();
    for run in [&open, &waiting] {
        one(&storage, insert(run)).await.unwrap();
    }
    record(&storage, &ended, Status::Completed).await;
    storage.close().await.unwrap();

    let storage = SqliteStorage::open(&path).await.unwrap();
    let mut query = ExecutionQuery::of(open.tenant_id.clone());
    query.lease_before = Some(noon());
    let over = storage.list(&query, &Page::default()).await.unwrap();
    let over: Vec<_> = over.items.iter().map(|run| run.id).collect();
    assert_eq!(over, [open.id]);
}

#[tokio::test]
async fn a_closed_file_is_one_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let storage = SqliteStorage::open(&path).await.unwrap();
    record(&storage, &ticket_run("T-1"), Status::Completed).await;
    storage.close().await.unwrap();
    assert!(
        !folder.path().join("a.db-wal").exists(),
        "all is in the database"
    );
}

#[cfg(unix)]
#[tokio::test]
async fn only_the_owner_can_read_a_new_file() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let storage = SqliteStorage::open(folder.path().join("a.db"))
        .await
        .unwrap();
    record(&storage, &ticket_run("T-1"), Status::Completed).await;
    for name in ["a.db", "a.db-wal", "a.db-shm"] {
        let mode = folder
            .path()
            .join(name)
            .metadata()
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o077, 0, "{name}: {mode:o}");
    }
}

#[tokio::test]
async fn tables_of_a_later_version_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    SqliteStorage::open(&path)
        .await
        .unwrap()
        .close()
        .await
        .unwrap();
    beside(&path)
        .execute("INSERT INTO automation_schema VALUES (99)", [])
        .unwrap();
    let detail = refused(&path).await;
    assert_eq!(
        detail,
        "its tables have version 99, which a later version of this program made"
    );
    let version: i64 = value(&beside(&path), "SELECT max(version) FROM automation_schema");
    assert_eq!(version, 99, "nothing was changed");
}

#[tokio::test]
async fn tables_of_another_program_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    beside(&path)
        .execute_batch("CREATE TABLE automation_logs (id INTEGER, text TEXT)")
        .unwrap();
    let detail = refused(&path).await;
    assert_eq!(
        detail,
        "it has a table automation_logs that is not of this program"
    );
    let tables: i64 = value(&beside(&path), "SELECT count(*) FROM sqlite_schema");
    assert_eq!(tables, 1, "nothing was added");
}

#[tokio::test]
async fn tables_beside_ours_are_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    beside(&path)
        .execute_batch("CREATE TABLE tickets (id TEXT); INSERT INTO tickets VALUES ('T-1')")
        .unwrap();
    let storage = SqliteStorage::open(&path).await.unwrap();
    record(&storage, &ticket_run("T-1"), Status::Completed).await;
    let tickets: i64 = value(&beside(&path), "SELECT count(*) FROM tickets");
    assert_eq!(tickets, 1);
}

#[tokio::test]
async fn what_is_no_database_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let text = "this is a letter and no database\n".repeat(200);
    std::fs::write(&path, &text).unwrap();
    let detail = refused(&path).await;
    assert!(detail.contains("not a database"), "{detail}");
    assert!(
        !folder.path().join("a.db.lock").exists(),
        "nothing is left beside it"
    );
    assert_eq!(
        std::fs::read_to_string(&path).unwrap(),
        text,
        "it is left as it was"
    );

    let detail = refused(folder.path()).await;
    assert!(detail.ends_with(" is a folder"), "{detail}");
    let detail = refused(folder.path().join("nowhere/a.db")).await;
    assert!(detail.contains("nowhere/a.db: "), "{detail}");
}

#[tokio::test]
async fn a_damaged_file_is_reported_as_unusable() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let storage = SqliteStorage::open(&path).await.unwrap();
    for n in 0..50 {
        record(&storage, &ticket_run(&format!("T-{n}")), Status::Completed).await;
    }
    storage.close().await.unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[4096..].fill(0x5a);
    std::fs::write(&path, bytes).unwrap();
    let detail = refused(&path).await;
    assert!(detail.contains("malformed"), "{detail}");
}

#[tokio::test]
async fn debug_and_health_name_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let storage = SqliteStorage::open(folder.path().join("a.db"))
        .await
        .unwrap();
    assert!(storage.health().await.unwrap().ends_with("/a.db"));
    assert!(format!("{storage:?}").contains("a.db"));
}

/// A file as the first version of the tables left it.
const FIRST_VERSION: &str = concat!(
    "CREATE TABLE automation_schema (version INTEGER PRIMARY KEY);
     INSERT INTO automation_schema VALUES (1);",
    include_str!("../../src/storage/sqlite/migrations/0001_first.sql"),
    "INSERT INTO automation_logs (id, ticket_id, script_name, script_version, trigger, status, started_at,
         completed_at, queue_us, duration_us, output_bytes, success, output)
     VALUES ('01900000-0000-7000-8000-000000000001', 'T-1', 'a.py', 'v1', 'ticket', 'completed',
             '2026-01-01T12:00:00.000000Z', '2026-01-01T12:00:01.000000Z', 7, 1000000, 5, TRUE, 'freed'),
         ('01900000-0000-7000-8000-000000000002', 'T-1', 'a.py', 'v1', 'ticket', 'failed',
             '2026-01-01T12:00:02.000000Z', '2026-01-01T12:00:03.000000Z', NULL, 1000000, 6, FALSE, ''),
         ('01900000-0000-7000-8000-000000000003', 'T-1', 'a.py', 'v1', 'ticket', 'cancelled',
             '2026-01-01T12:00:04.000000Z', '2026-01-01T12:00:05.000000Z', 9, 1000000, 7, FALSE, ''),
         ('01900000-0000-7000-8000-000000000004', 'T-1', 'a.py', 'v1', 'test', 'completed',
             '2026-01-01T12:00:04.000000Z', '2026-01-01T12:00:05.000000Z', 9, 1000000, 7, TRUE, '');
     INSERT INTO automation_stats (id, script_name, execution_date, total_executions, successful_executions,
         failed_executions, cancelled_executions, duration_us, durations)
     VALUES ('s', 'a.py', '2026-01-01', 2, 1, 1, 1, 2000000, '143:2');
     INSERT INTO automation_months SELECT * FROM automation_stats;
     CREATE INDEX customers_own ON automation_logs (actor);",
);

#[tokio::test]
async fn tables_of_the_first_version_are_brought_up_to_date() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    beside(&path).execute_batch(FIRST_VERSION).unwrap();
    let storage = SqliteStorage::open(&path).await.unwrap();
    let all = ExecutionQuery::of(automation_core::TenantId::default());
    let rows = storage.list(&all, &Page::default()).await.unwrap().items;
    assert_eq!(rows.len(), 4);
    for row in &rows {
        assert_eq!(row.isolation, Isolation::InProcess);
        assert_eq!(
            (row.concern, row.usage.children, row.usage.threads),
            (None, None, None)
        );
    }
    assert_eq!(
        (rows[3].output.as_str(), rows[3].output_bytes),
        ("freed", 5)
    );

    let stats = storage.stats(&StatsQuery::default()).await.unwrap();
    assert_eq!(
        stats.all,
        Stats::fold(&rows, 10).all,
        "the sums are a recount of the log"
    );
    assert_eq!((stats.all.queue_us, stats.all.output_bytes), (7, 11));

    record(&storage, &ticket_run("T-2"), Status::Completed).await;
    storage.close().await.unwrap();
    SqliteStorage::open(&path).await.unwrap();
    let own: i64 = value(
        &beside(&path),
        "SELECT count(*) FROM sqlite_schema WHERE name = 'customers_own'",
    );
    assert_eq!(own, 1, "what the customer added stays");
}
