//! Engines on a server that goes away: what ended is known afterwards, what can't be recorded does not run, and a run
//! has one end whoever comes late.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use automation_core::storage::ExecutionQuery;
use automation_core::storage::StorageError;
use automation_core::{
    Automation, ErrorKind, Execution, ManualRequest, Page, PostgresStorage, Status, Storage,
    TenantId,
};
use tokio::runtime::Runtime;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::cluster::{Cluster, SUPERUSER, shared};
use crate::engines::{self, engine, eventually};
use crate::rows::{differences, open};

async fn connect(cluster: &Cluster, database: &str) -> Result<Arc<dyn Storage>, StorageError> {
    let storage = PostgresStorage::connect(cluster.url(database)).await?;
    Ok(Arc::new(storage))
}

/// Starts an engine and a run, kills the server, and lets the run end; returns when the end is spooled.
async fn ends_in_an_outage(
    cluster: &Cluster,
    database: &str,
    spool: &Path,
) -> (
    Automation,
    JoinHandle<automation_core::Result<Execution>>,
    Execution,
) {
    let (storage, release) = (
        connect(cluster, database).await.unwrap(),
        Arc::new(Notify::new()),
    );
    let automation = engine(&storage, &release).spool(spool).build().unwrap();
    let running = automation.clone();
    let run = tokio::spawn(async move { running.manual(ManualRequest::new("plain.py")).await });
    let query = ExecutionQuery::of(TenantId::default());
    let row = eventually(async || {
        storage
            .list(&query, &Page::first(1))
            .await
            .unwrap()
            .items
            .pop()
    })
    .await;
    cluster.kill();
    eventually(async || {
        release.notify_waiters();
        (automation.health().await.spooled == 1).then_some(())
    })
    .await;
    let refused = automation
        .manual(ManualRequest::new("plain.py"))
        .await
        .unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Storage, "{refused}");
    assert!(refused.retry_after().is_some(), "{refused}");
    let health = automation.health().await;
    assert!(!health.is_ready() && health.storage_error.is_some());
    (automation, run, row)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_ends_while_the_server_is_away_is_recorded_when_it_is_back() {
    let cluster = Cluster::start(&["fsync=off"]);
    let database = cluster.empty();
    let folder = tempfile::tempdir().unwrap();
    let spool = folder.path().join("a.spool");
    let (automation, run, row) = ends_in_an_outage(&cluster, &database, &spool).await;
    cluster.run();
    let ended = run.await.unwrap().unwrap();
    assert_eq!((ended.id, ended.status), (row.id, Status::Completed));
    eventually(async || automation.health().await.is_ready().then_some(())).await;
    assert_eq!(automation.health().await.spooled, 0);
    assert_eq!(automation.get(row.id).await.unwrap(), ended);
}

#[test]
fn an_end_outlives_a_restart_of_ours_while_the_server_is_away() {
    let cluster = Cluster::start(&["fsync=off"]);
    let database = cluster.empty();
    let folder = tempfile::tempdir().unwrap();
    let spool = folder.path().join("a.spool");
    let first = Runtime::new().unwrap();
    let (_, _, row) = first.block_on(ends_in_an_outage(&cluster, &database, &spool));
    // As at a crash: nothing is told that it ends.
    first.shutdown_background();
    let second = Runtime::new().unwrap();
    second.block_on(async {
        let away = connect(&cluster, &database).await.unwrap_err();
        assert!(away.is_retryable(), "{away:?}");
        cluster.run();
        let storage = eventually(async || connect(&cluster, &database).await.ok()).await;
        let start = || engine(&storage, &Arc::default()).spool(&spool).build().ok();
        let automation = eventually(async || start()).await;
        let ended = eventually(async || {
            let row = automation.get(row.id).await.unwrap();
            row.status.is_terminal().then_some(row)
        })
        .await;
        assert_eq!((ended.status, ended.reason), (Status::Completed, None));
        eventually(async || (automation.health().await.spooled == 0).then_some(())).await;
        let client = cluster.client(&database, SUPERUSER).await;
        assert_eq!(differences(&client).await, 0);
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_process_that_wakes_up_does_not_write_into_what_was_taken_from_it() {
    let database = shared().database();
    let storages = [open(&database).await, open(&database).await];
    let storages = storages.map(|storage| Arc::new(storage) as Arc<dyn Storage>);
    engines::paused_while_another_takes_its_run(storages).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p5_ten_thousand_orphans_are_ended_within_two_seconds() {
    let fresh = async || Arc::new(open(&shared().database()).await) as Arc<dyn Storage>;
    let took = engines::fastest_recovery(fresh).await;
    println!("PostgreSQL: 10,000 orphans are ended in {took:?}");
    assert!(took < Duration::from_secs(2), "{took:?}");
}
