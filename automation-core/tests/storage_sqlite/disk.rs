//! A disk and a file that fail: callers are told which file and why, nothing is half written, and it goes on by itself
//! when the cause is gone.

use std::path::Path;
use std::process::Command;

use automation_core::storage::{Applied, StorageError, WriteError};
use automation_core::{Durability, Execution, SqliteStorage, Status, Storage};

use crate::rows::{append, beside, insert, is_unavailable, one, record, ticket_run, value};
use crate::tables::differences;
use crate::tmpfs::Tmpfs;

/// Names the file that a child process, whose files may not grow, commits to.
const LIMITED_FILE: &str = "STORAGE_LIMITED_FILE";

async fn open(path: &Path) -> SqliteStorage {
    let builder = SqliteStorage::builder(path).durability(Durability::Normal);
    builder.open().await.unwrap()
}

fn large(ticket: &str) -> Execution {
    let mut run = ticket_run(ticket);
    run.output = "x".repeat(50_000);
    run
}

fn told(answer: &Result<Applied, WriteError>) -> String {
    match answer {
        Err(error) => error.to_string(),
        Ok(applied) => panic!("{applied:?}"),
    }
}

/// Commits runs with their events until one is refused, and returns how many were not.
async fn until_refused(storage: &SqliteStorage) -> (usize, Result<Applied, WriteError>) {
    for kept in 0.. {
        let run = large(&format!("T-{kept}"));
        let mut answers = storage.commit(vec![insert(&run), append(&run)]).await;
        if answers[0].is_err() {
            assert!(storage.get(&run.tenant_id, run.id).await.is_err());
            return (kept, answers.remove(0));
        }
    }
    unreachable!("no disk is endless")
}

/// Looks at the file: sound, and with these runs, each whole.
fn check(path: &Path, runs: usize) {
    let connection = beside(path);
    let sound: String = value(&connection, "PRAGMA integrity_check");
    assert_eq!(sound, "ok");
    let whole: i64 = value(
        &connection,
        "SELECT count(*) FROM automation_logs JOIN automation_events ON execution_id = id",
    );
    let all: i64 = value(&connection, "SELECT count(*) FROM automation_logs");
    assert_eq!((whole, all), (i64::try_from(runs).unwrap(), whole));
    drop(connection);
    assert_eq!(differences(path), 0);
}

#[tokio::test]
async fn a_full_disk_is_named_and_harms_nothing() {
    let Some(disk) = Tmpfs::mount(4096) else {
        return;
    };
    let path = disk.path().join("a.db");
    let storage = open(&path).await;
    let mut all = 0;
    for _ in 0..3 {
        let ballast = disk.fill();
        let (kept, refused) = until_refused(&storage).await;
        all += kept;
        assert!(is_unavailable(&refused), "{refused:?}");
        let sentence = told(&refused);
        assert!(sentence.contains("a.db "), "{sentence}");
        assert!(
            sentence.contains("the disk is full") || sentence.contains("can't be"),
            "{sentence}"
        );
        check(&path, all);
        std::fs::remove_file(ballast).unwrap();
        let run = large("T-after");
        let answers = storage.commit(vec![insert(&run), append(&run)]).await;
        assert!(answers.iter().all(Result::is_ok), "{answers:?}");
        all += 1;
    }
    storage.close().await.unwrap();
    check(&path, all);
}

#[tokio::test]
#[ignore = "a child process of another test"]
async fn child_commits_until_a_file_may_not_grow() {
    let path = std::env::var_os(LIMITED_FILE).unwrap();
    let path = Path::new(&path);
    let storage = open(path).await;
    let (kept, refused) = until_refused(&storage).await;
    assert!(is_unavailable(&refused), "{refused:?}");
    let sentence = told(&refused);
    assert!(
        sentence.contains("a.db can't be read or written"),
        "{sentence}"
    );
    let lifted = Command::new("prlimit")
        .args(["--fsize=unlimited:unlimited", "--pid"])
        .arg(std::process::id().to_string())
        .status();
    assert!(lifted.unwrap().success());
    let (run, mut all) = (large("T-after"), kept);
    let answers = storage.commit(vec![insert(&run), append(&run)]).await;
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    all += 1;
    storage.close().await.unwrap();
    check(path, all);
}

/// A limit of the process makes writes fail as a broken disk does.
#[test]
fn a_write_that_fails_is_named_and_harms_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new("sh")
        .arg("-c")
        .arg("trap '' XFSZ; ulimit -S -f 3000; exec \"$0\" --exact disk::child_commits_until_a_file_may_not_grow --ignored")
        .arg(std::env::current_exe().unwrap())
        .env(LIMITED_FILE, folder.path().join("a.db"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.contains("1 passed"),
        "{said}"
    );
}

fn remount(disk: &Path, how: &str) {
    let done = Command::new("mount")
        .args(["-o", &format!("remount,{how}")])
        .arg(disk)
        .status();
    assert!(done.unwrap().success(), "{how}");
}

#[tokio::test]
async fn a_disk_that_may_only_be_read_is_named() {
    let Some(disk) = Tmpfs::mount(4096) else {
        return;
    };
    let path = disk.path().join("a.db");
    open(&path).await.close().await.unwrap();
    remount(disk.path(), "ro");
    let error = SqliteStorage::open(&path).await.unwrap_err().to_string();
    assert!(
        error.contains("a.db") && error.contains("Read-only"),
        "{error}"
    );
    remount(disk.path(), "rw");
    record(&open(&path).await, &ticket_run("T-1"), Status::Completed).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_that_is_held_too_long_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let storage = open(&path).await;
    let tool = beside(&path);
    tool.execute_batch("BEGIN IMMEDIATE").unwrap();
    let answer = one(&storage, insert(&ticket_run("T-1"))).await;
    assert!(is_unavailable(&answer), "{answer:?}");
    assert!(
        told(&answer).ends_with("a.db is locked by another program"),
        "{}",
        told(&answer)
    );
    tool.execute_batch("COMMIT").unwrap();
    record(&storage, &ticket_run("T-1"), Status::Completed).await;
}

/// Overwrites all pages but the first; by another program, since closing the file here would drop SQLite's locks.
fn spoil(path: &Path) {
    let pages = std::fs::metadata(path).unwrap().len() / 4096;
    let spoilt = Command::new("dd")
        .args([
            "if=/dev/urandom",
            "bs=4096",
            "seek=1",
            "conv=notrunc",
            "status=none",
        ])
        .arg(format!("count={}", pages - 1))
        .arg(format!("of={}", path.display()))
        .status();
    assert!(spoilt.unwrap().success());
}

#[tokio::test]
async fn a_damaged_file_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let storage = open(&path).await;
    let runs: Vec<_> = (0..200).map(|n| large(&format!("T-{n}"))).collect();
    for run in &runs {
        one(&storage, insert(run)).await.unwrap();
    }
    storage.close().await.unwrap();
    let storage = open(&path).await;
    spoil(&path);
    let error = storage
        .get(&runs[7].tenant_id, runs[7].id)
        .await
        .unwrap_err();
    assert!(matches!(error, StorageError::Unusable { .. }), "{error:?}");
    assert!(error.to_string().contains("a.db is damaged"), "{error}");
    let mut written = Vec::new();
    for n in 0..50 {
        written.push(one(&storage, insert(&large(&format!("U-{n}")))).await);
    }
    let refused = written.iter().find(|answer| answer.is_err()).unwrap();
    assert!(told(refused).contains("a.db is damaged"), "{refused:?}");
}

#[tokio::test]
async fn a_file_that_was_removed_or_replaced_is_not_written_to() {
    let folder = tempfile::tempdir().unwrap();
    let (path, aside) = (folder.path().join("a.db"), folder.path().join("b.db"));
    let storage = open(&path).await;
    record(&storage, &ticket_run("T-1"), Status::Completed).await;
    std::fs::rename(&path, &aside).unwrap();
    let answer = one(&storage, insert(&ticket_run("T-2"))).await;
    assert!(
        told(&answer).contains("a.db was removed while it was in use"),
        "{answer:?}"
    );
    assert!(storage.health().await.is_err());
    std::fs::write(&path, "another").unwrap();
    let answer = one(&storage, insert(&ticket_run("T-2"))).await;
    assert!(
        told(&answer).contains("a.db was replaced while it was in use"),
        "{answer:?}"
    );
    let read = storage.stats(&automation_core::StatsQuery::default()).await;
    assert!(
        matches!(read, Err(StorageError::Unusable { .. })),
        "{read:?}"
    );
    assert_eq!(std::fs::read(&path).unwrap(), b"another");
    std::fs::rename(&aside, &path).unwrap();
    record(&storage, &ticket_run("T-2"), Status::Completed).await;
    let count: i64 = value(&beside(&path), "SELECT count(*) FROM automation_logs");
    assert_eq!(count, 2);
}
