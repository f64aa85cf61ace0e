//! Crashes, full disks, locks of others and broken calls: what was acknowledged stays, the rest goes on.

use std::collections::HashSet;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use automation_core::storage::WriteError;
use automation_core::{Durability, SqliteStorage, Status, Storage};

use crate::rows::{append, beside, end, insert, is_unavailable, one, record, ticket_run, value};
use crate::tables::differences;

/// Names the file that a child process commits to.
const CRASH_FILE: &str = "STORAGE_CRASH_FILE";

/// The body of the child process of [`acknowledged_writes_survive_sigkill`]: commits until it is killed, and
/// prints what was acknowledged.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a child process of another test"]
async fn child_commits_until_killed() {
    let path = std::env::var_os(CRASH_FILE).unwrap();
    let storage = Arc::new(SqliteStorage::open(path).await.unwrap());
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..16 {
        let storage = Arc::clone(&storage);
        callers.spawn(async move {
            loop {
                let run = ticket_run(&uuid::Uuid::now_v7().to_string());
                let answers = storage.commit(vec![insert(&run), append(&run)]).await;
                answers.into_iter().for_each(|answer| drop(answer.unwrap()));
                println!("open {}", run.id);
                one(&storage, end(&run, Status::Completed)).await.unwrap();
                println!("done {}", run.id);
            }
        });
    }
    callers.join_all().await;
}

#[tokio::test]
async fn acknowledged_writes_survive_sigkill() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    for lines in [1, 37, 400, 1_501] {
        let acknowledged = commit_and_kill(&path, lines);
        assert!(acknowledged.len() >= lines);
        let storage = SqliteStorage::open(&path).await.unwrap();
        drop(storage);
        check(&path, &acknowledged);
    }
}

/// Starts a child, kills it after so many acknowledgements, and returns all that it printed.
fn commit_and_kill(path: &Path, lines: usize) -> HashSet<String> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "faults::child_commits_until_killed",
            "--ignored",
            "--nocapture",
        ])
        .env(CRASH_FILE, path)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let output = BufReader::new(child.stdout.take().unwrap());
    let mut acknowledged = HashSet::new();
    for line in output.lines().map_while(Result::ok) {
        if line.starts_with("open ") || line.starts_with("done ") {
            acknowledged.insert(line);
        }
        if acknowledged.len() == lines {
            child.kill().unwrap();
        }
    }
    child.wait().unwrap();
    // The last line may be cut; it names no run then.
    acknowledged.retain(|line| line.len() == "open ".len() + 36);
    acknowledged
}

fn check(path: &Path, acknowledged: &HashSet<String>) {
    let connection = beside(path);
    let sound: String = value(&connection, "PRAGMA integrity_check");
    assert_eq!(sound, "ok");
    for line in acknowledged {
        let (status, id) = line.split_once(' ').unwrap();
        let sql = format!("SELECT status FROM automation_logs WHERE id = '{id}'");
        let found: String = value(&connection, &sql);
        assert!(status == "open" || found == "completed", "{line}: {found}");
    }
    let torn: i64 = value(
        &connection,
        "SELECT count(*) FROM automation_logs AS log LEFT JOIN automation_events AS event
             ON event.execution_id = log.id WHERE event.seq IS NULL",
    );
    assert_eq!(torn, 0, "a call is applied as a whole");
    let unresolved: i64 = value(
        &connection,
        "SELECT count(*) FROM automation_logs WHERE status = 'completed'
             AND id NOT IN (SELECT automation_log_id FROM resolutions)",
    );
    assert_eq!(unresolved, 0);
    assert_eq!(differences(path), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_refuses_runs_until_there_is_space() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let storage = SqliteStorage::builder(&path)
        .durability(Durability::Normal)
        .file_bytes_max(512 * 1024)
        .open()
        .await
        .unwrap();
    for _ in 0..3 {
        let mut kept = 0;
        let refused = loop {
            let mut run = ticket_run(&format!("T-{kept}"));
            run.output = "x".repeat(20_000);
            let answer = one(&storage, insert(&run)).await;
            if answer.is_err() {
                break (run, answer);
            }
            kept += 1;
        };
        assert!(is_unavailable(&refused.1), "{:?}", refused.1);
        let missing = storage.get(&refused.0.tenant_id, refused.0.id).await;
        assert!(missing.is_err());
        let count: i64 = value(&beside(&path), "SELECT count(*) FROM automation_logs");
        assert_eq!(count, kept, "what was acknowledged is there");
        assert!(kept > 10, "{kept}");

        beside(&path)
            .execute("DELETE FROM automation_logs", [])
            .unwrap();
        record(&storage, &ticket_run("T-1"), Status::Completed).await;
        beside(&path)
            .execute("DELETE FROM automation_logs", [])
            .unwrap();
    }
    let sound: String = value(&beside(&path), "PRAGMA integrity_check");
    assert_eq!(sound, "ok");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_lock_of_a_persons_tool_is_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let storage = SqliteStorage::open(&path).await.unwrap();
    let tool = beside(&path);
    tool.execute_batch("BEGIN IMMEDIATE").unwrap();
    let run = ticket_run("T-1");
    let commit = one(&storage, insert(&run));
    tokio::pin!(commit);
    let wait = Duration::from_millis(100);
    assert!(
        tokio::time::timeout(wait, &mut commit).await.is_err(),
        "it waits"
    );
    let query = automation_core::StatsQuery::default();
    storage.stats(&query).await.expect("readers do not wait");
    tool.execute_batch("COMMIT").unwrap();
    commit.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_that_wait_are_committed_together() {
    let folder = tempfile::tempdir().unwrap();
    let storage = SqliteStorage::open(folder.path().join("a.db"))
        .await
        .unwrap();
    let storage = Arc::new(storage);
    let mut callers = tokio::task::JoinSet::new();
    for n in 0..64 {
        let storage = Arc::clone(&storage);
        callers.spawn(async move {
            record(&storage, &ticket_run(&format!("T-{n}")), Status::Completed).await;
        });
    }
    callers.join_all().await;
    let (calls, transactions) = storage.commit_counts();
    assert_eq!(calls, 128);
    assert!(transactions <= 64, "{transactions} transactions");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_calls_than_places_are_all_answered() {
    let folder = tempfile::tempdir().unwrap();
    let storage = SqliteStorage::builder(folder.path().join("a.db"))
        .durability(Durability::Normal)
        .open()
        .await;
    let storage = Arc::new(storage.unwrap());
    let mut callers = tokio::task::JoinSet::new();
    for n in 0..3_000 {
        let storage = Arc::clone(&storage);
        let run = ticket_run(&format!("T-{n}"));
        callers.spawn(async move { one(&storage, insert(&run)).await.is_ok() });
    }
    let answers = callers.join_all().await;
    assert!(answers.len() == 3_000 && answers.into_iter().all(|applied| applied));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_breaks_the_transaction_is_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let storage = Arc::new(SqliteStorage::open(&path).await.unwrap());
    for kind in ["ABORT", "ROLLBACK", "FAIL"] {
        let sql = format!(
            "DROP TRIGGER IF EXISTS guard; CREATE TRIGGER guard BEFORE INSERT ON automation_logs
             WHEN NEW.script_name = 'bad.py' BEGIN SELECT raise({kind}, 'bad'); END"
        );
        beside(&path).execute_batch(&sql).unwrap();
        let mut callers = tokio::task::JoinSet::new();
        for n in 0..40 {
            let storage = Arc::clone(&storage);
            callers.spawn(async move {
                let mut run = ticket_run(&format!("T-{n}"));
                let bad = n % 8 == 0;
                if bad {
                    run.script_name = "bad.py".to_owned();
                }
                let answers = storage.commit(vec![insert(&run), append(&run)]).await;
                let broken = answers
                    .iter()
                    .all(|answer| matches!(answer, Err(WriteError::Storage(_))));
                assert_eq!(broken, bad, "{kind} {n}: {answers:?}");
                assert_eq!(answers.iter().all(Result::is_ok), !bad);
                let there = storage.get(&run.tenant_id, run.id).await.is_ok();
                assert_eq!(there, !bad, "{kind} {n}");
            });
        }
        callers.join_all().await;
    }
}
