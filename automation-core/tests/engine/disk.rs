//! A SQLite file whose disk fails under the engine: what ran is known, what can't be recorded does not run, and runs
//! are accepted again by themselves.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use automation_core::executor::FnExecutor;
use automation_core::{
    Automation, Durability, ErrorKind, ManualRequest, SqliteStorage, Stats, StatsQuery, Status,
    Storage,
};

use crate::support::*;
use crate::tmpfs::Tmpfs;

async fn sqlite(path: &Path) -> Arc<dyn Storage> {
    let builder = SqliteStorage::builder(path).durability(Durability::Normal);
    Arc::new(builder.open().await.unwrap())
}

/// Scripts that print a lot, and meanwhile something happens to the disk.
fn printing_while(
    count: &Arc<AtomicUsize>,
    happens: impl Fn() + Send + Sync + 'static,
) -> FnExecutor {
    let (count, happens) = (Arc::clone(count), Arc::new(happens));
    FnExecutor::new(move |_| {
        count.fetch_add(1, Ordering::SeqCst);
        happens();
        async { printing("x".repeat(600_000)) }
    })
}

/// Runs until the storage refuses, and returns how the handle says why.
async fn until_refused(automation: &Automation) -> String {
    until(async || {
        let run = automation.clone();
        tokio::spawn(async move { run.manual(ManualRequest::new("plain.py")).await });
        let health = automation.health().await;
        health.storage_error.filter(|_| health.spooled > 0)
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_a_full_disk_ends_are_spooled_and_runs_refused_until_there_is_space() {
    let Some(disk) = Tmpfs::mount(16 * 1024) else {
        return;
    };
    let disk = Arc::new(disk);
    let storage = sqlite(&disk.path().join("a.db")).await;
    let count = Arc::new(AtomicUsize::new(0));
    let (filled, is_due) = (Arc::clone(&disk), Arc::new(AtomicBool::new(false)));
    // Once a round: a run that comes late must neither fill the disk again nor make its ballast anew.
    let due = Arc::clone(&is_due);
    let executor = printing_while(&count, move || {
        if due.swap(false, Ordering::SeqCst) {
            filled.fill();
        }
    });
    let automation = builder(executor, &storage).executions_max(64);
    let automation = automation
        .spool(disk.path().join("a.db.spool"))
        .build()
        .unwrap();
    for _ in 0..3 {
        is_due.store(true, Ordering::SeqCst);
        let why = until_refused(&automation).await;
        assert!(why.contains("a.db "), "{why}");
        let ran = count.load(Ordering::SeqCst);
        let refused = automation.manual(ManualRequest::new("plain.py")).await;
        let refused = refused.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Storage, "{refused}");
        assert!(refused.retry_after().is_some(), "{refused}");
        assert!(!automation.health().await.is_ready());

        let begun = std::time::Instant::now();
        std::fs::remove_file(disk.path().join("ballast")).unwrap();
        until(async || automation.health().await.is_ready().then_some(())).await;
        assert!(
            begun.elapsed() < Duration::from_secs(5),
            "{:?}",
            begun.elapsed()
        );
        println!("accepted again after {:?}", begun.elapsed());
        assert!(count.load(Ordering::SeqCst) >= ran);
        until(async || (automation.health().await.spooled == 0).then_some(())).await;
    }
    automation.shutdown(Duration::from_secs(5)).await.unwrap();
    let _ = std::fs::remove_file(disk.path().join("ballast"));
    let storage = sqlite(&disk.path().join("a.db")).await;
    let rows = all(&storage).await;
    let completed = rows.iter().filter(|row| row.status == Status::Completed);
    assert_eq!(
        completed.count(),
        count.load(Ordering::SeqCst),
        "every end is known"
    );
    let stats = storage.stats(&StatsQuery::default()).await.unwrap();
    assert_eq!(stats.all, Stats::fold(&rows, 10).all);
}

/// Text that no compression makes shorter.
fn dense(bytes: usize) -> String {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let words = (0..bytes / 16).map(|n| {
        let mut hasher = DefaultHasher::new();
        n.hash(&mut hasher);
        format!("{:016x}", hasher.finish())
    });
    words.collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_an_end_does_not_fit_no_run_is_taken_on_though_a_few_bytes_would() {
    let Some(disk) = Tmpfs::mount(16 * 1024) else {
        return;
    };
    let disk = Arc::new(disk);
    let storage = sqlite(&disk.path().join("a.db")).await;
    let (count, filled) = (Arc::new(AtomicUsize::new(0)), Arc::clone(&disk));
    let counted = Arc::clone(&count);
    let executor = FnExecutor::new(move |_| {
        if counted.fetch_add(1, Ordering::SeqCst) == 0 {
            let ballast = std::fs::File::options()
                .write(true)
                .open(filled.fill())
                .unwrap();
            let bytes = ballast.metadata().unwrap().len();
            ballast.set_len(bytes - 128 * 1024).unwrap();
        }
        async { printing(dense(600_000)) }
    });
    let automation = builder(executor, &storage).executions_max(16);
    let automation = automation
        .spool(disk.path().join("a.db.spool"))
        .build()
        .unwrap();
    let first = automation.clone();
    let first = tokio::spawn(async move { first.manual(ManualRequest::new("plain.py")).await });
    until(async || automation.health().await.storage_error).await;
    for _ in 0..60 {
        let asked = automation.clone();
        tokio::spawn(async move { asked.manual(ManualRequest::new("plain.py")).await });
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    assert_eq!(
        count.load(Ordering::SeqCst),
        1,
        "runs whose ends do not fit"
    );
    std::fs::remove_file(disk.path().join("ballast")).unwrap();
    until(async || automation.health().await.is_ready().then_some(())).await;
    assert_eq!(first.await.unwrap().unwrap().status, Status::Completed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_is_removed_and_put_back_is_used_again() {
    let folder = tempfile::tempdir().unwrap();
    let (path, aside) = (folder.path().join("a.db"), folder.path().join("b.db"));
    let storage = sqlite(&path).await;
    let (from, to) = (path.clone(), aside.clone());
    let count = Arc::new(AtomicUsize::new(0));
    let executor = printing_while(&count, move || drop(std::fs::rename(&from, &to)));
    let automation = builder(executor, &storage);
    let automation = automation
        .spool(folder.path().join("a.spool"))
        .build()
        .unwrap();
    let failed = automation
        .manual(ManualRequest::new("plain.py"))
        .await
        .unwrap_err();
    assert!(failed.to_string().contains("a.db was removed"), "{failed}");
    let refused = automation
        .manual(ManualRequest::new("plain.py"))
        .await
        .unwrap_err();
    assert!(refused.retry_after().is_some(), "{refused}");
    assert_eq!(count.load(Ordering::SeqCst), 1);
    std::fs::rename(&aside, &path).unwrap();
    until(async || automation.health().await.is_ready().then_some(())).await;
    let row = all(&storage).await.remove(0);
    assert_eq!(row.status, Status::Completed, "its end was spooled");
    assert!(row.truncated && row.output.contains("omitted: the storage was away"));
}
