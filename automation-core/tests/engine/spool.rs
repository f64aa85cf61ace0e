//! The ends of runs that the storage does not take: on the disk until it does, in this process or the next one.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use automation_core::conformance::fault::{Fault, FaultyStorage};
use automation_core::executor::{FnExecutor, Invocation};
use automation_core::storage::{Change, Transition, Write};
use automation_core::{
    Automation, BuildError, Completion, ErrorKind, EventKind, Execution, ManualRequest, Page,
    Reason, SqliteStorage, Status, Storage, TenantId,
};
use tokio::runtime::Runtime;
use tokio::sync::Notify;

use crate::support::*;

/// An engine whose storage is away when it is told to be.
struct Outage {
    inner: Arc<dyn Storage>,
    storage: Arc<FaultyStorage>,
    automation: Automation,
    release: Arc<Notify>,
}

impl Outage {
    fn new(file: &Path) -> Self {
        Self::on(memory(), file)
    }

    fn on(inner: Arc<dyn Storage>, file: &Path) -> Self {
        let storage = Arc::new(FaultyStorage::switched(Arc::clone(&inner)));
        let shared: Arc<dyn Storage> = Arc::<FaultyStorage>::clone(&storage);
        let release = Arc::new(Notify::new());
        let automation = builder(holding(&release), &shared).spool(file).build();
        Self {
            inner,
            storage,
            automation: automation.unwrap(),
            release,
        }
    }

    /// Lets a run end while the storage is away, and waits until its end is spooled.
    async fn run_into_it(&self) -> (tokio::task::JoinHandle<Execution>, Execution) {
        let before = self.automation.health().await.spooled;
        let automation = self.automation.clone();
        let run = tokio::spawn(async move {
            let run = automation.manual(ManualRequest::new("plain.py")).await;
            run.unwrap()
        });
        let running = async || {
            all(&self.inner)
                .await
                .into_iter()
                .find(|row| !row.status.is_terminal())
        };
        let row = until(running).await;
        self.storage.set_away(true);
        until(async || {
            self.release.notify_waiters();
            (self.automation.health().await.spooled == before + 1).then_some(())
        })
        .await;
        (run, row)
    }
}

#[tokio::test]
async fn an_end_that_is_not_taken_is_spooled_and_runs_are_refused_until_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let outage = Outage::new(&folder.path().join("a.spool"));
    assert!(outage.automation.health().await.is_ready());
    let (run, row) = outage.run_into_it().await;
    let health = outage.automation.health().await;
    assert!(!health.is_ready() && health.accepting);
    assert_eq!(
        health.storage_error.as_deref(),
        Some("storage faulty is unavailable: on purpose")
    );
    let refused = outage
        .automation
        .manual(ManualRequest::new("plain.py"))
        .await;
    let refused = refused.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Storage);
    assert!(refused.retry_after().is_some());
    let before = outage.storage.calls();
    for _ in 0..200 {
        let refused = outage
            .automation
            .manual(ManualRequest::new("plain.py"))
            .await;
        assert!(refused.is_err());
    }
    let asked = outage.storage.calls() - before;
    assert!(
        asked < 50,
        "a storage that does not work is not asked: {asked}"
    );
    assert_eq!(look(&outage.inner, &row).await.0, Status::Running);

    outage.storage.set_away(false);
    assert_eq!(run.await.unwrap().status, Status::Completed);
    assert_eq!(look(&outage.inner, &row).await.0, Status::Completed);
    until(async || outage.automation.health().await.is_ready().then_some(())).await;
    assert_eq!(outage.automation.health().await.spooled, 0);
}

#[test]
fn an_end_outlives_the_process_and_is_recorded_before_recovery_looks() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.spool");
    let inner = memory();
    let first = Runtime::new().unwrap();
    let row = first.block_on(async {
        let outage = Outage::on(Arc::clone(&inner), &file);
        outage.run_into_it().await.1
    });
    // As at a crash: nothing is told that it ends.
    first.shutdown_background();
    let second = Runtime::new().unwrap();
    second.block_on(async {
        let still_away = until(async || {
            let storage = Arc::new(FaultyStorage::switched(Arc::clone(&inner)));
            storage.set_away(true);
            let shared: Arc<dyn Storage> = Arc::<FaultyStorage>::clone(&storage);
            let built = builder(counting(&Arc::default()), &shared)
                .spool(&file)
                .build();
            built.ok().map(|automation| (automation, storage))
        });
        let (automation, storage) = still_away.await;
        assert_eq!(automation.health().await.spooled, 1);
        let error = automation.manual(ManualRequest::new("plain.py")).await;
        assert_eq!(error.unwrap_err().kind(), ErrorKind::Storage);
        storage.set_away(false);
        until(async || (automation.health().await.spooled == 0).then_some(())).await;
        let kept = inner.get(&TenantId::default(), row.id).await.unwrap();
        assert_eq!(
            (kept.status, kept.output.as_str()),
            (Status::Completed, "{}")
        );
    });
}

/// Shuts an engine down while a run's end is spooled; returns its storage, opened again, and the row.
async fn shut_down_in_an_outage(folder: &Path, file: &Path) -> (Arc<dyn Storage>, Execution) {
    let open = async || {
        let storage = SqliteStorage::open(folder.join("a.db")).await;
        Arc::new(storage.unwrap()) as Arc<dyn Storage>
    };
    let outage = Outage::on(open().await, file);
    let (_run, row) = outage.run_into_it().await;
    tokio::time::pause();
    outage.automation.shutdown(Duration::ZERO).await.unwrap();
    tokio::time::resume();
    (open().await, row)
}

#[tokio::test]
async fn a_shutdown_leaves_the_ends_to_the_next_start() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.spool");
    let (storage, row) = shut_down_in_an_outage(folder.path(), &file).await;
    assert_eq!(look(&storage, &row).await.0, Status::Running);
    let automation = builder(counting(&Arc::default()), &storage)
        .spool(&file)
        .build();
    let _automation = automation.expect("a shutdown gives the file back");
    until(async || (look(&storage, &row).await.0 == Status::Completed).then_some(())).await;
}

#[tokio::test]
async fn an_end_whose_run_was_given_up_meanwhile_is_an_event() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.spool");
    let (storage, row) = shut_down_in_an_outage(folder.path(), &file).await;
    let end = Completion::new(Status::Failed, Some(Reason::Orphaned), row.started_at);
    let given_up = Write::Transition(Box::new(Transition {
        tenant_id: row.tenant_id.clone(),
        id: row.id,
        epoch: row.epoch,
        from: Status::Running,
        change: Change::End(end),
    }));
    storage.commit(vec![given_up]).await.remove(0).unwrap();
    let automation = builder(counting(&Arc::default()), &storage)
        .spool(&file)
        .build();
    let automation = automation.unwrap();
    until(async || (automation.health().await.spooled == 0).then_some(())).await;
    assert_eq!(
        look(&storage, &row).await,
        (Status::Failed, Some(Reason::Orphaned)),
        "one terminal status"
    );
    let page = Page::default();
    let events = storage.events(&row.tenant_id, row.id, &page).await.unwrap();
    let told: Vec<_> = events
        .items
        .iter()
        .map(|event| (event.kind, &event.data["status"]))
        .collect();
    assert_eq!(
        told,
        [(EventKind::LateEnd, &serde_json::json!("completed"))]
    );
}

#[tokio::test]
async fn as_many_ends_as_runs_may_be_dispatched_find_room() {
    let folder = tempfile::tempdir().unwrap();
    let (inner, release) = (memory(), Arc::new(Notify::new()));
    let storage = Arc::new(FaultyStorage::switched(Arc::clone(&inner)));
    let shared: Arc<dyn Storage> = Arc::<FaultyStorage>::clone(&storage);
    let automation = builder(holding(&release), &shared)
        .executions_max(40)
        .spool(folder.path().join("a.spool"))
        .build()
        .unwrap();
    for _ in 0..50 {
        let automation = automation.clone();
        tokio::spawn(async move { automation.manual(ManualRequest::new("plain.py")).await });
    }
    until(async || (all(&inner).await.len() == 50).then_some(())).await;
    storage.set_away(true);
    until(async || {
        release.notify_waiters();
        (automation.health().await.spooled == 40).then_some(())
    })
    .await;
    storage.set_away(false);
    until(async || {
        release.notify_waiters();
        let rows = all(&inner).await;
        rows.iter()
            .all(|row| row.status == Status::Completed)
            .then_some(())
    })
    .await;
    until(async || (automation.health().await.spooled == 0).then_some(())).await;
}

#[tokio::test]
async fn the_file_has_its_bytes_is_the_owners_and_serves_one() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.spool");
    let build = |places| {
        builder(counting(&Arc::default()), &memory())
            .executions_max(places)
            .spool(&file)
            .build()
    };
    let first = build(4).unwrap();
    let metadata = std::fs::metadata(&file).unwrap();
    assert_eq!(metadata.len(), 4096 + 4 * 32 * 1024);
    assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
    let blocks = std::os::unix::fs::MetadataExt::blocks(&metadata);
    assert!(
        blocks * 512 >= metadata.len(),
        "{blocks} blocks are on the disk"
    );
    let error = build(4).unwrap_err().to_string();
    assert!(
        error.ends_with("a.spool is in use by another process or handle"),
        "{error}"
    );
    first.shutdown(Duration::ZERO).await.unwrap();
    build(8).unwrap().shutdown(Duration::ZERO).await.unwrap();
    assert_eq!(
        std::fs::metadata(&file).unwrap().len(),
        4096 + 8 * 32 * 1024
    );

    std::fs::write(&file, "something else").unwrap();
    let error = build(4).unwrap_err();
    assert!(matches!(error, BuildError::Spool { .. }));
    assert!(error.to_string().contains("damaged or no spool"), "{error}");
    assert_eq!(std::fs::read(&file).unwrap(), b"something else");
}

/// Lets the storage fail at its n-th call and ever after, ends the process, and starts the next one on what is left:
/// for each n until nothing fails any more.
#[test]
fn whenever_the_storage_fails_for_good_the_next_start_knows_every_end() {
    for fault in [Fault::Refused, Fault::AnswerLost] {
        for n in 1.. {
            if !fails_for_good(n, fault) {
                assert!(n > 4, "the loop must reach the end of a run");
                break;
            }
        }
    }
}

/// Returns whether the fault happened before the run was over.
fn fails_for_good(n: usize, fault: Fault) -> bool {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.spool");
    let (inner, count) = (memory(), Arc::new(AtomicUsize::new(0)));
    let faulty = FaultyStorage::new(Arc::clone(&inner), n, fault).for_calls(usize::MAX);
    let faulty = Arc::new(faulty);
    let first = Runtime::new().unwrap();
    let done = first.block_on(async {
        let shared: Arc<dyn Storage> = Arc::<FaultyStorage>::clone(&faulty);
        let automation = builder(ending(&count), &shared)
            .spool(&file)
            .build()
            .unwrap();
        let running = automation.clone();
        let run = tokio::spawn(async move { running.manual(ManualRequest::new("plain.py")).await });
        until(async || {
            let spooled = automation.health().await.spooled > 0;
            (run.is_finished() || spooled).then_some(())
        })
        .await;
        run.is_finished() && run.await.unwrap().is_ok()
    });
    first.shutdown_background();
    let second = Runtime::new().unwrap();
    second.block_on(async {
        let start = async || {
            builder(counting(&Arc::default()), &inner)
                .spool(&file)
                .build()
                .ok()
        };
        let automation = until(start).await;
        let is_over = async || {
            let rows = all(&inner).await;
            rows.iter()
                .all(|row| row.status.is_terminal())
                .then_some(rows)
        };
        // A first start's leases have to end, unless its ends are here.
        let ran = count.load(Ordering::SeqCst);
        let rows = match ran {
            0 => all(&inner).await,
            _ => until(is_over).await,
        };
        let completed = rows
            .iter()
            .filter(|row| row.status == Status::Completed)
            .count();
        assert_eq!(
            completed, ran,
            "{fault:?} {n}: every end of a script is known: {rows:?}"
        );
        until(async || (automation.health().await.spooled == 0).then_some(())).await;
    });
    !done
}

fn ending(count: &Arc<AtomicUsize>) -> FnExecutor {
    let count = Arc::clone(count);
    FnExecutor::new(move |_: Invocation| {
        count.fetch_add(1, Ordering::SeqCst);
        async { printing("{}") }
    })
}
