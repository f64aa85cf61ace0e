//! Back-ups: whole, of one moment, and never in the way.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use automation_core::storage::{ExecutionQuery, StorageError};
use automation_core::{Page, SqliteStorage, Stats, StatsQuery, Status, Storage, TenantId};

use crate::rows::{beside, record, ticket_run, value};
use crate::tables::differences;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_back_up_under_load_is_whole_and_of_one_moment() {
    let folder = tempfile::tempdir().unwrap();
    let storage = Arc::new(
        SqliteStorage::open(folder.path().join("a.db"))
            .await
            .unwrap(),
    );
    let stop = Arc::new(AtomicBool::new(false));
    let mut callers = tokio::task::JoinSet::new();
    for caller in 0..8 {
        let (storage, stop) = (Arc::clone(&storage), Arc::clone(&stop));
        callers.spawn(async move {
            let mut runs = 0;
            while !stop.load(Ordering::Relaxed) {
                let run = ticket_run(&format!("T-{caller}"));
                record(
                    &storage,
                    &run,
                    [Status::Completed, Status::Failed][runs % 2],
                )
                .await;
                runs += 1;
            }
            runs
        });
    }
    let mut totals = Vec::new();
    for n in 0..5 {
        while total(&storage).await < 50 * (n + 1) {
            tokio::task::yield_now().await;
        }
        let least = total(&storage).await;
        let copy = folder.path().join(format!("copy-{n}.db"));
        let bytes = storage.back_up(&copy).await.unwrap();
        let most = total(&storage).await;
        assert_eq!(bytes, copy.metadata().unwrap().len());
        let checked: String = value(&beside(&copy), "PRAGMA integrity_check");
        assert_eq!(checked, "ok");
        assert_eq!(differences(&copy), 0);
        let opened = SqliteStorage::open(&copy).await.unwrap();
        let found = total(&opened).await;
        assert!((least..=most).contains(&found), "{least} {found} {most}");
        let all = ExecutionQuery::of(TenantId::default());
        let rows = opened.list(&all, &Page::first(500)).await.unwrap();
        if rows.next.is_none() {
            let stats = opened.stats(&StatsQuery::default()).await.unwrap();
            assert_eq!(stats, Stats::fold(&rows.items, 10));
        }
        opened.close().await.unwrap();
        totals.push(found);
    }
    stop.store(true, Ordering::Relaxed);
    let runs: usize = callers.join_all().await.into_iter().sum();
    assert_eq!(total(&storage).await, runs as u64);

    // When nothing is written, the copy has the same.
    let copy = folder.path().join("last.db");
    storage.back_up(&copy).await.unwrap();
    let opened = SqliteStorage::open(&copy).await.unwrap();
    let everything = StatsQuery::default();
    assert_eq!(
        opened.stats(&everything).await.unwrap(),
        storage.stats(&everything).await.unwrap()
    );
}

async fn total(storage: &SqliteStorage) -> u64 {
    let stats = storage.stats(&StatsQuery::default()).await;
    stats.unwrap().all.total
}

#[tokio::test]
async fn a_file_that_is_there_is_not_overwritten_and_a_failure_leaves_none() {
    let folder = tempfile::tempdir().unwrap();
    let storage = SqliteStorage::open(folder.path().join("a.db"))
        .await
        .unwrap();
    let taken = folder.path().join("taken");
    std::fs::write(&taken, "mine").unwrap();
    for (to, word) in [
        (taken.clone(), "exists"),
        (folder.path().join("a.db"), "exists"),
        (folder.path().join("no/folder/b.db"), "No such file"),
    ] {
        let error = storage.back_up(&to).await.unwrap_err();
        let StorageError::Unusable { detail, .. } = &error else {
            panic!("{error:?}");
        };
        assert!(detail.contains(word), "{detail}");
    }
    assert_eq!(std::fs::read(&taken).unwrap(), b"mine");
    storage.close().await.unwrap();
    let left = std::fs::read_dir(folder.path()).unwrap();
    let mut left: Vec<_> = left.map(|file| file.unwrap().file_name()).collect();
    left.sort();
    left.retain(|name| name != "a.db.lock");
    assert_eq!(left, ["a.db", "taken"]);
}

#[tokio::test]
async fn a_file_in_use_is_copied_by_its_name_and_only_its_owner_reads_the_copy() {
    let folder = tempfile::tempdir().unwrap();
    let (path, copy) = (folder.path().join("a.db"), folder.path().join("b.db"));
    let missing = SqliteStorage::back_up_file(&path, &copy).unwrap_err();
    assert!(missing.to_string().contains("can't be read"), "{missing}");
    assert!(!path.exists(), "it is not made either");
    let storage = SqliteStorage::open(&path).await.unwrap();
    record(&storage, &ticket_run("T-1"), Status::Completed).await;
    SqliteStorage::back_up_file(&path, &copy).unwrap();
    record(&storage, &ticket_run("T-2"), Status::Completed).await;
    assert_eq!(total(&SqliteStorage::open(&copy).await.unwrap()).await, 1);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = copy.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{mode:o}");
    }
}
