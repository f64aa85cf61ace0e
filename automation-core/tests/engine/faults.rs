//! Storages and executors that fail: nothing is lost, nothing runs twice.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use automation_core::conformance::fault::{Fault, FaultyStorage};
use automation_core::executor::{ExecutorError, FnExecutor, Invocation, RunEvent};
use automation_core::{
    Error, ErrorKind, ManualRequest, Page, Reason, SqliteStorage, Stats, StatsQuery, Status,
    Storage, TenantId,
};

use crate::support::*;

#[tokio::test]
async fn p1_no_row_no_run() {
    let (inner, count) = (memory(), Arc::new(AtomicUsize::new(0)));
    let down = FaultyStorage::new(Arc::clone(&inner), 1, Fault::Refused).for_calls(usize::MAX);
    let storage: Arc<dyn Storage> = Arc::new(down);
    let automation = builder(counting(&count), &storage).build().unwrap();
    let error = automation
        .manual(ManualRequest::new("plain.py"))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Storage);
    assert!(error.retry_after().is_some());
    assert!(all(&inner).await.is_empty());
    assert_eq!(count.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn an_end_waits_for_a_storage_that_is_away() {
    let inner = memory();
    // The quarantine, the stops, the recovery, the version and the row pass; the end and its first repetitions do not.
    let away = FaultyStorage::new(Arc::clone(&inner), 6, Fault::Refused).for_calls(5);
    let storage: Arc<dyn Storage> = Arc::new(away);
    let automation = builder(counting(&Arc::default()), &storage)
        .build()
        .unwrap();
    tokio::time::sleep(Duration::from_millis(20)).await;
    let execution = automation
        .manual(ManualRequest::new("plain.py"))
        .await
        .unwrap();
    assert_eq!(
        inner.get(&TenantId::default(), execution.id).await.unwrap(),
        execution
    );
}

/// Fails the n-th call of the storage, for each n until nothing fails any more, in both ways.
#[tokio::test]
async fn every_call_of_a_storage_in_memory_may_fail_and_nothing_is_lost_or_run_twice() {
    every_call_may_fail(async || memory()).await;
}

#[tokio::test]
async fn every_call_of_sqlite_may_fail_and_nothing_is_lost_or_run_twice() {
    let folder = tempfile::tempdir().unwrap();
    let files = AtomicUsize::new(0);
    every_call_may_fail(async || {
        let file = folder
            .path()
            .join(format!("{}.db", files.fetch_add(1, Ordering::SeqCst)));
        Arc::new(SqliteStorage::open(file).await.unwrap()) as Arc<dyn Storage>
    })
    .await;
}

async fn every_call_may_fail(fresh: impl AsyncFn() -> Arc<dyn Storage>) {
    for fault in [Fault::Refused, Fault::AnswerLost] {
        let mut n = 0;
        loop {
            n += 1;
            let inner = fresh().await;
            let faulty = Arc::new(FaultyStorage::new(Arc::clone(&inner), n, fault));
            one_call_fails(&inner, &faulty, &format!("{fault:?} {n}")).await;
            if !faulty.has_failed() {
                assert!(n > 4, "the loop must reach the end of a run");
                break;
            }
        }
    }
}

async fn one_call_fails(inner: &Arc<dyn Storage>, faulty: &Arc<FaultyStorage>, case: &str) {
    let storage: Arc<dyn Storage> = Arc::<FaultyStorage>::clone(faulty);
    let count = Arc::new(AtomicUsize::new(0));
    let automation = builder(reporting(&count), &storage).build().unwrap();
    let first = automation.manual(ManualRequest::new("plain.py")).await;
    let ran = count.load(Ordering::SeqCst);
    match &first {
        Ok(execution) => {
            assert_eq!((ran, execution.status), (1, Status::Completed), "{case}");
            let row = inner.get(&TenantId::default(), execution.id).await.unwrap();
            assert_eq!(&row, execution, "{case}: the answer is the row");
            let events = inner
                .events(&TenantId::default(), execution.id, &Page::default())
                .await;
            let numbers: Vec<_> = events
                .unwrap()
                .items
                .iter()
                .map(|event| event.seq)
                .collect();
            assert_eq!(numbers, [1, 2], "{case}: every event is recorded");
        }
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Storage, "{case}: {error}");
            assert_eq!(ran, 0, "{case}: what is refused did not run");
        }
    }
    let closed = async || {
        all(inner)
            .await
            .iter()
            .all(|row| row.status.is_terminal())
            .then_some(())
    };
    until(closed).await;
    let again = async || automation.manual(ManualRequest::new("plain.py")).await.ok();
    assert_eq!(
        until(again).await.status,
        Status::Completed,
        "{case}: the handle is still usable"
    );
    let rows = all(inner).await;
    let completed = rows
        .iter()
        .filter(|row| row.status == Status::Completed)
        .count();
    assert_eq!(
        completed,
        count.load(Ordering::SeqCst),
        "{case}: one completed row a run"
    );
    let stats = inner.stats(&StatsQuery::default()).await.unwrap();
    assert_eq!(
        stats,
        Stats::fold(&rows, 10),
        "{case}: statistics equal a recount"
    );
}

/// An executor that counts, reports, and takes long enough for the reports to be recorded before its end.
fn reporting(count: &Arc<AtomicUsize>) -> FnExecutor {
    let count = Arc::clone(count);
    FnExecutor::new(move |invocation: Invocation| {
        count.fetch_add(1, Ordering::SeqCst);
        async move {
            invocation.host.emit(RunEvent::Log {
                text: "one".to_owned(),
            });
            tokio::time::sleep(Duration::from_millis(250)).await;
            invocation.host.emit(RunEvent::Log {
                text: "two".to_owned(),
            });
            printing("{}")
        }
    })
}

#[tokio::test]
async fn a_run_whose_task_is_gone_is_ended() {
    let storage = memory();
    // After the quarantine, the stops, the recovery and the version comes the row; its answer is lost, and so is the look at it.
    let faulty = FaultyStorage::new(Arc::clone(&storage), 5, Fault::AnswerLost).for_calls(2);
    let faulty: Arc<dyn Storage> = Arc::new(faulty);
    let count = Arc::new(AtomicUsize::new(0));
    let automation = builder(counting(&count), &faulty)
        .lease(Duration::from_secs(1))
        .build()
        .unwrap();
    tokio::time::sleep(Duration::from_millis(20)).await;
    let error = automation
        .manual(ManualRequest::new("plain.py"))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Storage);
    assert_eq!(
        count.load(Ordering::SeqCst),
        0,
        "what is refused does not run"
    );
    let row = until(async || all(&storage).await.pop()).await;
    until(async || (look(&storage, &row).await.0 == Status::Failed).then_some(())).await;
}

#[tokio::test]
async fn an_executor_that_breaks_leaves_a_failed_row() {
    let storage = memory();
    let executor = FnExecutor::new(|invocation: Invocation| async move {
        assert!(invocation.script.name() != "plain.py", "on purpose");
        pending().await
    });
    let automation = builder(executor, &storage).build().unwrap();
    let error = automation
        .manual(ManualRequest::new("plain.py"))
        .await
        .unwrap_err();
    assert!(
        matches!(error, Error::Executor(ExecutorError::Internal { .. })),
        "{error}"
    );
    let row = all(&storage).await.remove(0);
    assert_eq!(
        (row.status, row.reason),
        (Status::Failed, Some(Reason::ExecutorError))
    );
}
