//! What an earlier process left open, and leases (P5).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use automation_core::conformance::fault::FaultyStorage;
use automation_core::storage::Write;
use automation_core::{
    Execution, ExecutionId, InstanceId, ManualRequest, Reason, SqliteStorage, Status, Storage,
    Trigger,
};
use tokio::sync::Notify;
use uuid::Uuid;

use crate::engines;
use crate::support::*;

fn left_open(status: Status, holder: Option<&str>, lease_in: Duration) -> Execution {
    let now = chrono::DateTime::parse_from_rfc3339("2026-01-01T00:00:00Z")
        .unwrap()
        .to_utc();
    let id = ExecutionId::from_uuid(Uuid::now_v7());
    let mut row = Execution::new(id, "plain.py", "0", Trigger::Manual, now);
    row.status = status;
    row.claimed_by = holder.map(InstanceId::new);
    row.lease_until = holder.map(|_| chrono::DateTime::from(std::time::UNIX_EPOCH) + lease_in);
    row
}

#[tokio::test]
async fn p5_what_an_earlier_process_left_open_is_ended() {
    let far = Duration::from_secs(4_000_000_000);
    let storage = memory();
    let rows = [
        left_open(Status::Starting, Some("other"), Duration::from_secs(1)),
        left_open(Status::Running, Some("other"), Duration::from_secs(1)),
        left_open(Status::Running, Some("other"), far),
        left_open(Status::Starting, None, far),
    ];
    insert_all(&storage, &rows).await;
    let _automation = builder(counting(&Arc::default()), &storage)
        .build()
        .unwrap();
    until(async || (look(&storage, &rows[1]).await.0 == Status::Failed).then_some(())).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(
        look(&storage, &rows[0]).await,
        (Status::Failed, Some(Reason::NotStarted))
    );
    assert_eq!(
        look(&storage, &rows[1]).await,
        (Status::Failed, Some(Reason::Orphaned))
    );
    assert_eq!(
        look(&storage, &rows[2]).await,
        (Status::Running, None),
        "its holder lives"
    );
    assert_eq!(
        look(&storage, &rows[3]).await,
        (Status::Starting, None),
        "a row that waits holds no lease"
    );
}

#[tokio::test]
async fn p5_sqlite_recovers_at_once_whatever_the_leases_say() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.db");
    let far = Duration::from_secs(4_000_000_000);
    let rows = [
        left_open(Status::Running, Some("other"), far),
        left_open(Status::Starting, None, far),
    ];
    let earlier = SqliteStorage::open(&file).await.unwrap();
    let earlier: Arc<dyn Storage> = Arc::new(earlier);
    insert_all(&earlier, &rows).await;
    earlier.close().await.unwrap();
    let storage: Arc<dyn Storage> = Arc::new(SqliteStorage::open(&file).await.unwrap());
    let _automation = builder(counting(&Arc::default()), &storage)
        .build()
        .unwrap();
    until(async || (look(&storage, &rows[0]).await.0 == Status::Failed).then_some(())).await;
    assert_eq!(
        look(&storage, &rows[0]).await,
        (Status::Failed, Some(Reason::Orphaned))
    );
    assert_eq!(
        look(&storage, &rows[1]).await,
        (Status::Starting, None),
        "a row that waits holds no lease"
    );
}

async fn insert_all(storage: &Arc<dyn Storage>, rows: &[Execution]) {
    for row in rows {
        storage
            .commit(vec![Write::Insert(Box::new(row.clone()))])
            .await
            .remove(0)
            .unwrap();
    }
}

#[tokio::test]
async fn two_engines_on_one_storage_leave_each_others_runs_alone_and_renew_their_leases() {
    let (storage, release) = (memory(), Arc::new(Notify::new()));
    let lease = Duration::from_secs(1);
    let automation = builder(holding(&release), &storage)
        .lease(lease)
        .build()
        .unwrap();
    tokio::spawn(async move { automation.manual(ManualRequest::new("plain.py")).await });
    let first = until(async || all(&storage).await.pop()).await;
    let other = builder(counting(&Arc::default()), &storage)
        .lease(lease)
        .build()
        .unwrap();
    tokio::time::sleep(Duration::from_millis(2500)).await;
    let row = other.get(first.id).await.unwrap();
    assert_eq!(
        row.status,
        Status::Running,
        "the other instance leaves it alone"
    );
    assert!(row.lease_until > first.lease_until);
}

/// Leases end while nobody can renew them. Who finds the storage again first must not take the runs of the others,
/// who are about to.
#[tokio::test]
async fn after_an_outage_holders_get_a_lease_to_come_back() {
    let (inner, release) = (memory(), Arc::new(Notify::new()));
    let lease = Duration::from_secs(1);
    let start = |executor| {
        let storage = Arc::new(FaultyStorage::switched(Arc::clone(&inner)));
        let shared: Arc<dyn Storage> = Arc::<FaultyStorage>::clone(&storage);
        let automation = builder(executor, &shared).lease(lease).build().unwrap();
        (automation, storage)
    };
    let (holder, holders) = start(holding(&release));
    let (_other, others) = start(counting(&Arc::default()));
    let long_gone = left_open(Status::Running, Some("gone"), Duration::from_secs(1));
    let run = tokio::spawn(async move { holder.manual(ManualRequest::new("plain.py")).await });
    until(async || all(&inner).await.pop()).await;
    holders.set_away(true);
    others.set_away(true);
    // Long enough for both to notice and for the lease to end.
    tokio::time::sleep(lease * 2).await;
    insert_all(&inner, std::slice::from_ref(&long_gone)).await;
    others.set_away(false);
    until(async || (look(&inner, &long_gone).await.0 == Status::Failed).then_some(())).await;
    holders.set_away(false);
    release.notify_waiters();
    let ended = run.await.unwrap().unwrap();
    assert_eq!(ended.status, Status::Completed, "the other waited for it");
}

#[tokio::test]
async fn a_paused_process_that_wakes_up_does_not_write_into_what_was_taken_from_it() {
    let storage = memory();
    engines::paused_while_another_takes_its_run([Arc::clone(&storage), storage]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p5_ten_thousand_orphans_of_sqlite_are_ended_within_two_seconds() {
    let folder = tempfile::tempdir().unwrap();
    let files = AtomicUsize::new(0);
    let took = engines::fastest_recovery(async || {
        let file = format!("{}.db", files.fetch_add(1, Ordering::SeqCst));
        let storage = SqliteStorage::open(folder.path().join(file)).await;
        Arc::new(storage.unwrap()) as Arc<dyn Storage>
    })
    .await;
    println!("SQLite: 10,000 orphans are ended in {took:?}");
    assert!(took < Duration::from_secs(2), "{took:?}");
}
