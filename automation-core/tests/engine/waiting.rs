//! Rows that wait: they survive processes, and whoever is there takes them up when they are due.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use automation_core::conformance::fault::{Fault, FaultyStorage};
use automation_core::executor::FnExecutor;
use automation_core::storage::{Record, RecordKind, Write};
use automation_core::{
    Automation, Context, Execution, ExecutionId, InstanceId, ManualClock, Reason, SqliteStorage,
    Status, Storage, TenantId, Trigger,
};
use chrono::{DateTime, TimeDelta, Utc};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::Notify;
use uuid::Uuid;

use crate::support::*;

fn noon() -> DateTime<Utc> {
    DateTime::from_timestamp(1_767_268_800, 0).unwrap()
}

/// A row of a script of `scripts()` that waits until so many seconds after noon.
fn waiting(script: &str, run_at: Option<i64>) -> Execution {
    let version = scripts()
        .index()
        .script(script)
        .unwrap()
        .version()
        .to_string();
    let id = ExecutionId::from_uuid(Uuid::now_v7());
    let mut row = Execution::new(id, script, version, Trigger::Manual, noon());
    row.run_at = run_at.map(|seconds| noon() + TimeDelta::seconds(seconds));
    row.reason = Some(Reason::Scheduled);
    row
}

async fn insert(storage: &Arc<dyn Storage>, row: &Execution) {
    let insert = Write::Insert(Box::new(row.clone()));
    storage.commit(vec![insert]).await.remove(0).unwrap();
}

async fn ended(storage: &Arc<dyn Storage>, row: &Execution) -> Execution {
    until(async || {
        let row = storage.get(&row.tenant_id, row.id).await.unwrap();
        row.status.is_terminal().then_some(row)
    })
    .await
}

fn at_noon(executor: FnExecutor, storage: &Arc<dyn Storage>) -> (Automation, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::new(noon()));
    let builder = builder(executor, storage).clock(Arc::clone(&clock) as _);
    (builder.build().unwrap(), clock)
}

/// What an executor was handed: source, parameters, ticket.
type Seen = Arc<Mutex<Vec<(String, Value, Option<Value>)>>>;

fn seeing(seen: &Seen) -> FnExecutor {
    let seen = Arc::clone(seen);
    FnExecutor::new(move |invocation| {
        seen.lock().push((
            invocation.script.source().to_string(),
            Value::Object(invocation.parameters.clone()),
            invocation.ticket.as_deref().cloned(),
        ));
        async { printing("{}") }
    })
}

#[tokio::test]
async fn p5_what_waits_survives_the_process_and_runs_when_it_is_due() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.db");
    let earlier: Arc<dyn Storage> = Arc::new(SqliteStorage::open(&file).await.unwrap());
    let (first, _) = at_noon(counting(&Arc::default()), &earlier);
    let mut row = waiting("disk.py", Some(60));
    row.parameters = json!({"min_free_space_gb": 7, "dry_run": false});
    row.context = Some(Arc::new(Context::of_ticket(json!({"id": "T-9"}))));
    insert(&earlier, &row).await;
    first.shutdown(Duration::from_secs(5)).await.unwrap();

    let storage: Arc<dyn Storage> = Arc::new(SqliteStorage::open(&file).await.unwrap());
    let seen = Seen::default();
    let (_automation, clock) = at_noon(seeing(&seen), &storage);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(
        look(&storage, &row).await,
        (Status::Starting, Some(Reason::Scheduled))
    );
    clock.advance(Duration::from_secs(60));
    let done = ended(&storage, &row).await;
    assert_eq!(
        (done.status, done.reason, done.epoch),
        (Status::Completed, None, 2)
    );
    let (_, parameters, ticket) = seen.lock().pop().unwrap();
    assert_eq!(
        (parameters, ticket),
        (row.parameters, Some(json!({"id": "T-9"})))
    );
}

#[tokio::test]
async fn what_was_accepted_is_executed_though_the_script_has_changed() {
    let (storage, seen) = (memory(), Seen::default());
    let mut row = waiting("plain.py", Some(0));
    row.script_version = "f".repeat(64);
    let record = Record {
        tenant_id: TenantId::default(),
        kind: RecordKind::ScriptVersion,
        key: row.script_version.clone(),
        value: json!({"name": "plain.py", "source": "print('former')\n"}),
        revision: 0,
    };
    let expected = None;
    storage
        .commit(vec![Write::Put { record, expected }])
        .await
        .remove(0)
        .unwrap();
    insert(&storage, &row).await;
    let (_automation, _) = at_noon(seeing(&seen), &storage);
    assert_eq!(ended(&storage, &row).await.status, Status::Completed);
    assert_eq!(seen.lock()[0].0, "print('former')\n");
}

#[tokio::test]
async fn a_version_that_is_not_kept_is_said_to_be_missing() {
    let storage = memory();
    let mut row = waiting("plain.py", Some(0));
    row.script_version = "0".repeat(64);
    insert(&storage, &row).await;
    let (_automation, _) = at_noon(counting(&Arc::default()), &storage);
    let row = ended(&storage, &row).await;
    assert_eq!(
        (row.status, row.reason),
        (Status::Failed, Some(Reason::ExecutorError))
    );
    let error = row.error.unwrap();
    assert!(
        error.contains("is not kept") && error.starts_with("not started: "),
        "{error}"
    );
}

#[tokio::test]
async fn several_engines_share_what_is_due() {
    let (storage, runs) = (memory(), Arc::new(AtomicUsize::new(0)));
    let rows: Vec<_> = (0..200).map(|n| waiting("plain.py", Some(n % 3))).collect();
    for row in &rows {
        insert(&storage, row).await;
    }
    let engines: Vec<_> = (0..4).map(|_| at_noon(counting(&runs), &storage)).collect();
    for (_, clock) in &engines {
        clock.advance(Duration::from_secs(3));
    }
    for row in &rows {
        assert_eq!(ended(&storage, row).await.status, Status::Completed);
    }
    assert_eq!(runs.load(Ordering::SeqCst), 200);
}

#[tokio::test]
async fn what_is_due_waits_for_its_place_and_holds_none_before() {
    let (storage, release) = (memory(), Arc::new(Notify::new()));
    let clock = Arc::new(ManualClock::new(noon()));
    let automation = builder(holding(&release), &storage)
        .clock(clock)
        .executions_max(1)
        .queue_max(0)
        .build()
        .unwrap();
    let rows: Vec<_> = (0..3).map(|n| waiting("plain.py", Some(-n))).collect();
    for row in &rows {
        insert(&storage, row).await;
    }
    // Recovery of another engine does not take them for orphans, whatever the time.
    for row in rows.iter().rev() {
        until(async || (look(&storage, row).await.0 == Status::Running).then_some(())).await;
        assert_eq!(automation.health().await.running, 1);
        release.notify_one();
        ended(&storage, row).await;
    }
}

#[tokio::test]
async fn a_claim_whose_holder_died_is_taken_up_when_it_ends() {
    let (storage, runs) = (memory(), Arc::default());
    let mut row = waiting("plain.py", Some(-5));
    row.claimed_by = Some(InstanceId::new("dead (claim)"));
    row.lease_until = Some(noon() + TimeDelta::seconds(20));
    insert(&storage, &row).await;
    let (_automation, clock) = at_noon(counting(&runs), &storage);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(look(&storage, &row).await.0, Status::Starting);
    clock.advance(Duration::from_secs(20));
    assert_eq!(ended(&storage, &row).await.status, Status::Completed);
    assert_eq!(runs.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn cancelling_what_waits_ends_it_at_once() {
    let (storage, runs) = (memory(), Arc::default());
    let rows = [waiting("plain.py", Some(60)), waiting("plain.py", None)];
    let (automation, clock) = at_noon(counting(&runs), &storage);
    for row in &rows {
        insert(&storage, row).await;
        let cancelled = automation.cancel(row.id, Some("ann")).await.unwrap();
        let found = (cancelled.status, cancelled.reason, cancelled.error);
        let error = Some("not started: cancelled by ann".to_owned());
        let reason = Some(Reason::CancelledByRequest);
        assert_eq!(found, (Status::Cancelled, reason, error));
    }
    clock.advance(Duration::from_secs(100));
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(runs.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_cancel_ends_a_run_that_was_just_taken_up() {
    let storage = memory();
    let (automation, _) = at_noon(holding(&Arc::default()), &storage);
    for _ in 0..50 {
        let row = waiting("plain.py", Some(0));
        insert(&storage, &row).await;
        let cancelled = automation.cancel(row.id, None).await.unwrap();
        assert_eq!(cancelled.status, Status::Cancelled);
    }
}

#[tokio::test]
async fn an_approval_that_nobody_gave_is_over_in_time() {
    let (storage, runs) = (memory(), Arc::default());
    let mut row = waiting("plain.py", Some(60));
    row.reason = Some(Reason::AwaitingApproval);
    insert(&storage, &row).await;
    let (automation, clock) = at_noon(counting(&runs), &storage);
    let watch = automation.watch(row.id).await.unwrap();
    clock.advance(Duration::from_secs(60));
    let row = watch.end().await.unwrap();
    assert_eq!(
        (row.status, row.reason),
        (Status::Cancelled, Some(Reason::ApprovalExpired))
    );
    assert_eq!(runs.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn whatever_call_fails_what_waits_runs_once() {
    for fault in [Fault::Refused, Fault::AnswerLost] {
        for fails_at in 1..12 {
            let (inner, runs) = (memory(), Arc::default());
            let row = waiting("plain.py", Some(1));
            insert(&inner, &row).await;
            let faulty = FaultyStorage::new(Arc::clone(&inner), fails_at, fault);
            let storage: Arc<dyn Storage> = Arc::new(faulty);
            let (_automation, clock) = at_noon(counting(&runs), &storage);
            let done = until(async || {
                clock.advance(Duration::from_secs(1));
                let row = inner.get(&row.tenant_id, row.id).await.unwrap();
                row.status.is_terminal().then_some(row)
            })
            .await;
            let found = (done.status, runs.load(Ordering::SeqCst));
            assert_eq!(
                found,
                (Status::Completed, 1),
                "{fault:?} of call {fails_at}"
            );
        }
    }
}
