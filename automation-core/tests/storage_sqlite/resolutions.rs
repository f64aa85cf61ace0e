//! The `resolutions` table, ours or the customer's. Nothing in it may fail a run.

use std::path::PathBuf;

use automation_core::{EventKind, Page, SqliteStorage, Status, Storage, Trigger};
use rusqlite::Connection;
use tempfile::TempDir;

use crate::rows::{append, beside, end, insert, one, record, ticket_run, value};

/// Opens a storage over a file that was prepared with SQL.
async fn over(sql: &str) -> (TempDir, PathBuf, SqliteStorage) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    beside(&path).execute_batch(sql).unwrap();
    let storage = SqliteStorage::open(&path).await.unwrap();
    (folder, path, storage)
}

fn resolutions(connection: &Connection) -> Vec<String> {
    let sql = "SELECT concat_ws('|', tenant_id, ticket_id, automation_script, automation_output, \
         automation_log_id) FROM resolutions ORDER BY ticket_id";
    let mut statement = connection.prepare(sql).unwrap();
    let rows = statement.query_map([], |row| row.get(0)).unwrap();
    rows.collect::<Result<_, _>>().unwrap()
}

fn expected(ticket: &str, id: impl std::fmt::Display) -> String {
    format!("default|{ticket}|disk_cleanup.py|{{\"freed_gb\":2.5}}|{id}")
}

#[tokio::test]
async fn a_completed_ticket_run_resolves_its_ticket() {
    let (_folder, path, storage) = over("").await;
    let (first, second, other) = (ticket_run("T-1"), ticket_run("T-1"), ticket_run("T-2"));
    for run in [&first, &second, &other] {
        record(&storage, run, Status::Completed).await;
    }
    assert_eq!(
        resolutions(&beside(&path)),
        [expected("T-1", second.id), expected("T-2", other.id)]
    );
}

#[tokio::test]
async fn nothing_else_resolves_a_ticket() {
    let (_folder, path, storage) = over("").await;
    record(&storage, &ticket_run("T-1"), Status::Failed).await;
    record(&storage, &ticket_run("T-2"), Status::Cancelled).await;
    let mut dry = ticket_run("T-3");
    dry.dry_run = true;
    record(&storage, &dry, Status::Completed).await;
    for trigger in Trigger::ALL
        .iter()
        .filter(|trigger| **trigger != Trigger::Ticket)
    {
        let mut run = ticket_run("T-4");
        run.trigger = *trigger;
        record(&storage, &run, Status::Completed).await;
    }
    assert_eq!(resolutions(&beside(&path)), [""; 0]);
}

#[tokio::test]
async fn a_customers_table_gets_our_columns_and_keeps_its_own() {
    let (_folder, path, storage) = over(
        "CREATE TABLE resolutions (id TEXT PRIMARY KEY, ticket_id TEXT, solution TEXT);
         INSERT INTO resolutions VALUES ('r-1', 'T-1', 'by hand')",
    )
    .await;
    let run = ticket_run("T-1");
    record(&storage, &run, Status::Completed).await;
    let connection = beside(&path);
    assert_eq!(resolutions(&connection), [expected("T-1", run.id)]);
    let kept: String = value(&connection, "SELECT id || solution FROM resolutions");
    assert_eq!(kept, "r-1by hand");
    storage.close().await.unwrap();
    SqliteStorage::open(&path).await.unwrap();
}

/// Records a run over a customer's table that can't take its resolution; the run is recorded all the same.
async fn run_over(sql: &str) {
    let (_folder, path, storage) = over(sql).await;
    for n in 1..=2 {
        let run = ticket_run("T-1");
        record(&storage, &run, Status::Completed).await;
        let found = storage.get(&run.tenant_id, run.id).await.unwrap();
        assert_eq!(found.status, Status::Completed, "{sql}");
        let events = storage
            .events(&run.tenant_id, run.id, &Page::default())
            .await;
        let events = events.unwrap().items;
        let told: Vec<_> = events.iter().map(|event| (event.seq, event.kind)).collect();
        assert_eq!(told, [(1, EventKind::Resolution)], "{sql}");
        assert_eq!(events[0].data["ticket_id"], "T-1", "{sql}");
        assert!(events[0].data["error"].is_string(), "{sql}");
        let counted: i64 = value(
            &beside(&path),
            "SELECT total_executions FROM automation_stats",
        );
        assert_eq!(counted, n, "{sql}");
    }
    let stored: i64 = value(
        &beside(&path),
        "SELECT count(*) FROM resolutions WHERE ticket_id = 'T-1'",
    );
    assert_eq!(stored, 0, "{sql}");
}

#[tokio::test]
async fn a_table_that_asks_for_more_refuses_the_resolution_not_the_run() {
    run_over("CREATE TABLE resolutions (id TEXT, ticket_id TEXT, agent TEXT NOT NULL)").await;
    run_over("CREATE TABLE resolutions (id INTEGER PRIMARY KEY, ticket_id TEXT)").await;
    run_over(
        "CREATE TABLE tickets (id TEXT PRIMARY KEY);
         CREATE TABLE resolutions (id TEXT, ticket_id TEXT REFERENCES tickets (id))",
    )
    .await;
}

#[tokio::test]
async fn a_table_that_breaks_transactions_is_no_longer_written() {
    run_over(
        "CREATE TABLE tickets (id TEXT PRIMARY KEY);
         CREATE TABLE resolutions (id TEXT,
             ticket_id TEXT REFERENCES tickets (id) DEFERRABLE INITIALLY DEFERRED)",
    )
    .await;
    run_over(
        "CREATE TABLE resolutions (id TEXT, ticket_id TEXT);
         CREATE TRIGGER guard BEFORE INSERT ON resolutions
         BEGIN SELECT raise(ROLLBACK, 'not by machines'); END",
    )
    .await;
}

#[tokio::test]
async fn a_table_that_changes_under_us_does_not_fail_runs() {
    let (_folder, path, storage) = over("").await;
    record(&storage, &ticket_run("T-1"), Status::Completed).await;
    beside(&path)
        .execute_batch("DROP TABLE resolutions")
        .unwrap();
    let run = ticket_run("T-1");
    record(&storage, &run, Status::Completed).await;
    let found = storage.get(&run.tenant_id, run.id).await.unwrap();
    assert_eq!(found.status, Status::Completed);
}

#[tokio::test]
async fn something_else_of_that_name_is_left_alone() {
    run_over("CREATE VIEW resolutions AS SELECT 'x' AS ticket_id").await;
    let (_folder, path, storage) = over("CREATE TABLE resolutions (subject TEXT)").await;
    record(&storage, &ticket_run("T-1"), Status::Completed).await;
    let rows: i64 = value(&beside(&path), "SELECT count(*) FROM resolutions");
    assert_eq!(rows, 0);
}

#[tokio::test]
async fn a_refusal_is_told_behind_the_events_of_its_call_and_once() {
    let (_folder, path, storage) =
        over("CREATE TABLE resolutions (id TEXT, ticket_id TEXT, agent TEXT NOT NULL)").await;
    let run = ticket_run("T-1");
    one(&storage, insert(&run)).await.unwrap();
    let twice = vec![end(&run, Status::Completed), end(&run, Status::Completed)];
    // While somebody holds the lock, the two calls behind come into one round.
    let tool = beside(&path);
    tool.execute_batch("BEGIN IMMEDIATE").unwrap();
    let (other, round) = (ticket_run("T-2"), ticket_run("T-3"));
    let release = async {
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        tool.execute_batch("COMMIT").unwrap();
    };
    let first = one(&storage, insert(&round));
    let behind = async {
        tokio::time::sleep(std::time::Duration::from_millis(30)).await;
        tokio::join!(storage.commit(twice), one(&storage, insert(&other)))
    };
    let (first, (answers, other), ()) = tokio::join!(first, behind, release);
    assert!(first.is_ok() && other.is_ok());
    assert!(answers.iter().all(Result::is_err), "{answers:?}");
    let events: i64 = value(&beside(&path), "SELECT count(*) FROM automation_events");
    assert_eq!(events, 0, "what is not applied is not told");
    let answers = storage
        .commit(vec![end(&run, Status::Completed), append(&run)])
        .await;
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    let told: String = value(
        &beside(&path),
        "SELECT group_concat(seq || kind) FROM (SELECT * FROM automation_events ORDER BY seq)",
    );
    assert_eq!(told, "1log,2resolution");
}
