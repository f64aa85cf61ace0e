//! The engine's promises, with functions as scripts and executions in memory.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a helper of a test fails as the test does"
)]

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use automation_core::conformance::fault::{Fault, FaultyStorage};
use automation_core::executor::{
    CapturedText, Ending, ExecutorError, Failure, FnExecutor, Invocation, Outcome, RunEvent,
};
use automation_core::secret::{Secret, Secrets};
use automation_core::storage::{ExecutionQuery, RecordKind, Write};
use automation_core::{
    Automation, AutomationBuilder, BuildError, Classification, Error, ErrorKind, EventKind,
    ExecuteRequest, Execution, ExecutionId, InstanceId, ManualRequest, MemoryStorage, Page, Reason,
    Script, ScriptRegistry, SqliteStorage, Stats, StatsQuery, Status, Storage, TenantId,
    TestRequest, Ticket, Trigger, Update,
};
use serde_json::{Map, Value, json};
use tokio::sync::Notify;
use uuid::Uuid;

const DISK: &str = r#"# /// script
# requires-python = ">=3.9"
# [tool.automation]
# category = "Device Slow"
# description = "Disk cleanup"
# timeout_seconds = 60
# [tool.automation.parameters.min_free_space_gb]
# type = "number"
# default = 5
# [tool.automation.parameters.dry_run]
# type = "boolean"
# default = false
# ///
"#;

const LOGIN: &str = r#"# /// script
# [tool.automation]
# category = "Login"
# [tool.automation.parameters.password]
# type = "string"
# secret = true
# required = true
# ///
"#;

fn scripts() -> ScriptRegistry {
    let parse = |name: &str, source: &str| {
        Script::parse(name, source.as_bytes()).expect("the script is valid")
    };
    ScriptRegistry::from_scripts([
        parse("disk.py", DISK),
        parse("login.py", LOGIN),
        parse("plain.py", ""),
    ])
}

fn builder(executor: FnExecutor, storage: &Arc<dyn Storage>) -> AutomationBuilder {
    Automation::builder()
        .scripts(scripts())
        .executor(executor)
        .shared_storage(Arc::clone(storage))
}

fn memory() -> Arc<dyn Storage> {
    Arc::new(MemoryStorage::default())
}

fn printing(text: impl Into<String>) -> Outcome {
    let mut outcome = Outcome::new(Ending::Completed);
    outcome.output.stdout = CapturedText::new(text);
    outcome
}

fn ticket_request() -> ExecuteRequest {
    ExecuteRequest::new(
        Ticket::new("T-1").with("user_id", "jdoe"),
        Classification::new("device_slow"),
    )
}

/// An executor that counts its runs and prints a result.
fn counting(count: &Arc<AtomicUsize>) -> FnExecutor {
    let count = Arc::clone(count);
    FnExecutor::new(move |_| {
        count.fetch_add(1, Ordering::SeqCst);
        async { printing("{\"ok\": true}") }
    })
}

/// An executor whose runs go on until they are told to end, or are ended.
fn holding(release: &Arc<Notify>) -> FnExecutor {
    let release = Arc::clone(release);
    FnExecutor::new(move |_| {
        let release = Arc::clone(&release);
        async move {
            release.notified().await;
            printing("{}")
        }
    })
}

async fn all(storage: &Arc<dyn Storage>) -> Vec<Execution> {
    let query = ExecutionQuery::of(TenantId::default());
    storage.list(&query, &Page::first(500)).await.unwrap().items
}

async fn until<T>(mut look: impl AsyncFnMut() -> Option<T>) -> T {
    for _ in 0..2000 {
        if let Some(found) = look().await {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("it does not happen")
}

#[tokio::test]
async fn a_ticket_runs_the_script_of_its_category_and_is_recorded() {
    let storage = memory();
    let executor = FnExecutor::new(|invocation: Invocation| async move {
        assert_eq!(
            invocation.ticket,
            Some(json!({ "id": "T-1", "user_id": "jdoe" }))
        );
        assert_eq!(
            Value::Object(invocation.parameters),
            json!({ "min_free_space_gb": 5, "dry_run": false })
        );
        printing("cleaning\n{\"space_freed_gb\": 2.5}\n")
    });
    let automation = builder(executor, &storage).build().unwrap();
    let execution = automation
        .execute(ticket_request().with_actor("ana"))
        .await
        .unwrap();
    assert_eq!(execution.status, Status::Completed);
    assert_eq!(execution.script_name, "disk.py");
    assert_eq!(execution.ticket_id, "T-1");
    assert_eq!(execution.trigger, Trigger::Ticket);
    assert_eq!(execution.actor.as_deref(), Some("ana"));
    assert_eq!(
        execution.parsed_output,
        Some(json!({ "space_freed_gb": 2.5 }))
    );
    assert_eq!(
        automation.get(execution.id).await.unwrap(),
        execution,
        "the answer is the row"
    );
    assert_eq!(
        automation.logs("T-1", Page::default()).await.unwrap().items,
        [execution]
    );
    let stats = automation.stats(StatsQuery::default()).await.unwrap();
    assert_eq!(
        (stats.all.total, stats.all.successful, stats.open),
        (1, 1, 0)
    );
}

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
    // The recovery, the version and the row pass; the end and its first repetitions do not.
    let away = FaultyStorage::new(Arc::clone(&inner), 4, Fault::Refused).for_calls(5);
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

#[tokio::test]
async fn p2_the_row_says_running_before_the_scripts_first_byte() {
    let storage = memory();
    let seen = Arc::clone(&storage);
    let executor = FnExecutor::new(move |invocation: Invocation| {
        let seen = Arc::clone(&seen);
        async move {
            let row = seen
                .get(&TenantId::default(), invocation.execution_id)
                .await
                .unwrap();
            assert_eq!(row.status, Status::Running);
            printing("")
        }
    });
    let automation = builder(executor, &storage)
        .executions_max(1)
        .build()
        .unwrap();
    // One at once and others that wait: both ways to the executor.
    let runs = (0..3).map(|_| {
        let automation = automation.clone();
        tokio::spawn(async move {
            automation
                .manual(ManualRequest::new("plain.py"))
                .await
                .unwrap()
        })
    });
    for run in runs.collect::<Vec<_>>() {
        assert_eq!(run.await.unwrap().status, Status::Completed);
    }
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
async fn beyond_places_and_queue_it_is_overloaded() {
    let (storage, release) = (memory(), Arc::new(Notify::new()));
    let automation = builder(holding(&release), &storage)
        .executions_max(2)
        .queue_max(1)
        .build()
        .unwrap();
    let runs: Vec<_> = (0..3)
        .map(|_| {
            let automation = automation.clone();
            tokio::spawn(async move { automation.manual(ManualRequest::new("plain.py")).await })
        })
        .collect();
    until(async || (all(&storage).await.len() == 3).then_some(())).await;
    let mut statuses: Vec<_> = all(&storage).await.iter().map(|row| row.status).collect();
    statuses.sort_by_key(|status| status.as_str());
    assert_eq!(
        statuses,
        [Status::Running, Status::Running, Status::Starting]
    );
    let error = automation
        .manual(ManualRequest::new("plain.py"))
        .await
        .unwrap_err();
    assert!(
        matches!(
            error,
            Error::Overloaded {
                running: 2,
                queued: 1
            }
        ),
        "{error}"
    );
    assert_eq!(
        all(&storage).await.len(),
        3,
        "what is refused leaves no row"
    );
    for run in runs {
        release.notify_one();
        release.notify_one();
        assert_eq!(run.await.unwrap().unwrap().status, Status::Completed);
    }
}

#[tokio::test]
async fn a_dropped_future_leaves_the_run_alone() {
    let (storage, release) = (memory(), Arc::new(Notify::new()));
    let automation = builder(holding(&release), &storage).build().unwrap();
    let call = automation.manual(ManualRequest::new("plain.py"));
    assert!(
        tokio::time::timeout(Duration::from_millis(50), call)
            .await
            .is_err(),
        "the caller goes away"
    );
    let row = all(&storage).await.remove(0);
    assert_eq!(row.status, Status::Running);
    release.notify_one();
    let ended = automation.watch(row.id).await.unwrap().end().await.unwrap();
    assert_eq!(ended.status, Status::Completed);
}

#[tokio::test]
async fn cancel_ends_waiting_and_running_runs_and_leaves_ended_ones() {
    let (storage, release) = (memory(), Arc::new(Notify::new()));
    let automation = builder(holding(&release), &storage)
        .executions_max(1)
        .build()
        .unwrap();
    for _ in 0..2 {
        let automation = automation.clone();
        tokio::spawn(async move { automation.manual(ManualRequest::new("plain.py")).await });
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let rows = all(&storage).await;
    let (waiting, running) = (&rows[0], &rows[1]);
    assert_eq!(
        (waiting.status, running.status),
        (Status::Starting, Status::Running)
    );
    for (row, started) in [(waiting, false), (running, true)] {
        let ended = automation.cancel(row.id, Some("ana")).await.unwrap();
        assert_eq!(ended.status, Status::Cancelled);
        assert_eq!(ended.reason, Some(Reason::CancelledByRequest));
        assert!(
            ended
                .error
                .as_deref()
                .unwrap()
                .ends_with("cancelled by ana"),
            "{:?}",
            ended.error
        );
        assert_eq!(ended.duration_us.is_some(), started);
        assert_eq!(
            automation.cancel(row.id, None).await.unwrap(),
            ended,
            "a second cancel changes nothing"
        );
    }
    let unknown = ExecutionId::from_uuid(Uuid::now_v7());
    assert_eq!(
        automation.cancel(unknown, None).await.unwrap_err().kind(),
        ErrorKind::ExecutionNotFound
    );
    let stats = automation.stats(StatsQuery::default()).await.unwrap();
    assert_eq!((stats.all.total, stats.all.cancelled), (0, 2));
}

#[tokio::test]
async fn shutdown_lets_runs_end_then_ends_them_and_refuses_new_ones() {
    for released in [true, false] {
        let (storage, release) = (memory(), Arc::new(Notify::new()));
        let automation = builder(holding(&release), &storage)
            .executions_max(1)
            .build()
            .unwrap();
        let runs: Vec<_> = (0..2)
            .map(|_| {
                let automation = automation.clone();
                tokio::spawn(async move { automation.manual(ManualRequest::new("plain.py")).await })
            })
            .collect();
        until(async || (all(&storage).await.len() == 2).then_some(())).await;
        if released {
            release.notify_one();
        }
        automation
            .shutdown(Duration::from_millis(if released { 5000 } else { 50 }))
            .await
            .unwrap();
        let mut ends = Vec::new();
        for run in runs {
            let execution = run.await.unwrap().unwrap();
            ends.push((
                execution.status,
                execution.reason,
                execution.duration_us.is_some(),
            ));
        }
        ends.sort_by_key(|(_, _, started)| *started);
        assert_eq!(
            ends[0],
            (Status::Cancelled, Some(Reason::Shutdown), false),
            "it waited"
        );
        let running = if released {
            (Status::Completed, None, true)
        } else {
            (Status::Cancelled, Some(Reason::Shutdown), true)
        };
        assert_eq!(ends[1], running);
        let refused = automation
            .manual(ManualRequest::new("plain.py"))
            .await
            .unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Closed);
    }
}

#[tokio::test]
async fn a_watcher_sees_every_event_once_in_order_and_then_the_end() {
    let storage = memory();
    let gate = Arc::new(Notify::new());
    let wait = Arc::clone(&gate);
    let executor = FnExecutor::new(move |invocation: Invocation| {
        let wait = Arc::clone(&wait);
        async move {
            // More than a watcher may be behind, so that it has to catch up from the storage.
            for n in 0..700 {
                invocation.host.emit(RunEvent::Log {
                    text: n.to_string(),
                });
            }
            wait.notified().await;
            invocation.host.emit(RunEvent::Progress {
                fraction: 7.0,
                text: "done".to_owned(),
            });
            printing("")
        }
    });
    let automation = builder(executor, &storage).build().unwrap();
    let caller = automation.clone();
    tokio::spawn(async move { caller.manual(ManualRequest::new("plain.py")).await });
    let id = until(async || all(&storage).await.first().map(|row| row.id)).await;
    let mut early = automation.watch(id).await.unwrap();
    let first = early.next().await.unwrap();
    gate.notify_one();
    let mut seen = vec![first.unwrap()];
    while let Some(update) = early.next().await.unwrap() {
        seen.push(update);
    }
    let mut late = automation.watch(id).await.unwrap();
    let mut again = Vec::new();
    while let Some(update) = late.next().await.unwrap() {
        again.push(update);
    }
    assert_eq!(seen.len(), 702);
    assert!(seen == again, "the same live and from the storage");
    for (n, update) in seen[..701].iter().enumerate() {
        let Update::Event(event) = update else {
            panic!("{update:?}")
        };
        assert_eq!(usize::try_from(event.seq).unwrap(), n + 1);
    }
    let Update::Event(progress) = &seen[700] else {
        panic!()
    };
    assert_eq!(
        (progress.kind, &progress.data),
        (
            EventKind::Progress,
            &json!({ "fraction": 1.0, "text": "done" })
        )
    );
    assert!(
        matches!(&seen[701], Update::Ended(execution) if execution.status == Status::Completed)
    );
}

#[tokio::test]
async fn secrets_are_masked_wherever_they_are_recorded() {
    let storage = memory();
    let executor = FnExecutor::new(|invocation: Invocation| async move {
        let token = invocation.host.secret("api_token").unwrap();
        let password = invocation.parameters["password"]
            .as_str()
            .unwrap()
            .to_owned();
        let both = format!("{} {password}", token.expose());
        invocation.host.emit(RunEvent::Log {
            text: format!("log {both}"),
        });
        let mut outcome =
            printing(json!({ "both": both, "hex": "746f6b656e2d38373635" }).to_string());
        outcome.output.stderr = CapturedText::new(format!("stderr {both}"));
        outcome.ending = Ending::Failed(Failure::new(Reason::Exception, format!("error {both}")));
        outcome
    });
    let secrets = Secrets::new().with("API_TOKEN", Secret::new("token-8765"));
    let automation = builder(executor, &storage)
        .secrets(secrets)
        .build()
        .unwrap();
    let parameters = Map::from_iter([("password".to_owned(), json!("hunter2!"))]);
    let request = ManualRequest::new("login.py").with_parameters(parameters);
    let execution = automation.manual(request).await.unwrap();
    let events = storage
        .events(&TenantId::default(), execution.id, &Page::default())
        .await
        .unwrap()
        .items;
    let recorded = format!("{execution:?} {events:?}");
    for secret in ["hunter2!", "token-8765", "746f6b656e2d38373635"] {
        assert!(!recorded.contains(secret), "{secret} in {recorded}");
    }
    assert_eq!(execution.parameters["password"], "***");
    assert_eq!(execution.error.as_deref(), Some("error *** ***"));
    assert_eq!(events[0].data["text"], "log *** ***");
}

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

async fn look(storage: &Arc<dyn Storage>, row: &Execution) -> (Status, Option<Reason>) {
    let row = storage.get(&TenantId::default(), row.id).await.unwrap();
    (row.status, row.reason)
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

/// An executor that reports a run that it could not stop.
fn unstoppable(ending: Ending) -> FnExecutor {
    FnExecutor::new(move |_| {
        let mut outcome = Outcome::new(ending.clone());
        outcome.still_running = true;
        async { outcome }
    })
}

#[tokio::test]
async fn p6_what_could_not_be_stopped_is_never_called_cancelled() {
    for ending in [
        Ending::Cancelled,
        Ending::Failed(Failure::new(
            Reason::CancelledByRequest,
            "its thread is given up",
        )),
        Ending::Failed(Failure::new(Reason::Timeout, "timed out")),
    ] {
        let storage = memory();
        let automation = builder(unstoppable(ending.clone()), &storage)
            .build()
            .unwrap();
        let execution = automation
            .manual(ManualRequest::new("plain.py"))
            .await
            .unwrap();
        assert_eq!(execution.status, Status::Failed, "{ending:?}");
        assert!(execution.still_running);
        let timed_out =
            matches!(&ending, Ending::Failed(failure) if failure.reason == Reason::Timeout);
        let reason = if timed_out {
            Reason::Timeout
        } else {
            Reason::CancelledByRequest
        };
        assert_eq!(execution.reason, Some(reason));
    }
}

#[tokio::test]
async fn a_run_whose_task_is_gone_is_ended() {
    let storage = memory();
    // The third commit is the row's; its answer is lost, and so is the look at the row.
    let faulty = FaultyStorage::new(Arc::clone(&storage), 3, Fault::AnswerLost).for_calls(2);
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
async fn a_script_that_needs_an_approval_does_not_run_without_one() {
    let source =
        b"# /// script\n# [tool.automation]\n# category = \"Danger\"\n# risk = \"high\"\n# ///\n";
    let script = Script::parse("danger.py", source).unwrap();
    let automation = Automation::builder()
        .scripts(ScriptRegistry::from_scripts([script]))
        .executor(counting(&Arc::default()))
        .build()
        .unwrap();
    let error = automation
        .manual(ManualRequest::new("danger.py"))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(
        error.to_string().contains("danger.py") && error.to_string().contains("approval"),
        "{error}"
    );
}

#[tokio::test]
async fn a_script_that_exits_with_a_failure_gives_its_own_reason() {
    for (result, error) in [
        (
            json!({"error": {"code": "x", "message": "no such user"}}),
            "no such user (exit code 1)",
        ),
        (
            json!({"error": "no such user"}),
            "no such user (exit code 1)",
        ),
        (json!({"error": {"code": 7}}), "exit code 1"),
        (json!({"ok": false}), "exit code 1"),
    ] {
        let storage = memory();
        let executor = FnExecutor::new(move |_| {
            let mut outcome = printing(result.to_string());
            outcome.ending = Ending::Failed(Failure::new(Reason::ExitCode, "exit code 1"));
            async { outcome }
        });
        let automation = builder(executor, &storage).build().unwrap();
        let execution = automation
            .manual(ManualRequest::new("plain.py"))
            .await
            .unwrap();
        assert_eq!(execution.error.as_deref(), Some(error));
    }
}

#[tokio::test]
async fn values_beyond_the_json_profile_are_refused_at_the_door() {
    let storage = memory();
    let automation = builder(counting(&Arc::default()), &storage)
        .build()
        .unwrap();
    let deep = (0..40).fold(json!(1), |inner, _| json!([inner]));
    let ticket = Ticket::new("T-1").with("deep", deep.clone());
    let request = ExecuteRequest::new(ticket, Classification::new("Device Slow"));
    let error = automation.execute(request).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidRequest);
    assert!(
        error.problems()[0].pointer.starts_with("/ticket/deep/0"),
        "{error}"
    );
    let parameters = Map::from_iter([("min_free_space_gb".to_owned(), deep)]);
    let request = ManualRequest::new("disk.py").with_parameters(parameters);
    assert_eq!(
        automation.manual(request).await.unwrap_err().kind(),
        ErrorKind::InvalidParameters
    );
}

#[tokio::test]
async fn a_secret_at_the_cut_of_a_long_line_is_masked_too() {
    let storage = memory();
    let executor = FnExecutor::new(|invocation: Invocation| async move {
        let token = invocation.host.secret("api_token").unwrap();
        let text = format!("{}{}", "x".repeat(16 * 1024 - 5), token.expose());
        invocation.host.emit(RunEvent::Log { text });
        printing("")
    });
    let secrets = Secrets::new().with("API_TOKEN", Secret::new("token-8765"));
    let automation = builder(executor, &storage)
        .secrets(secrets)
        .build()
        .unwrap();
    let execution = automation
        .manual(ManualRequest::new("plain.py"))
        .await
        .unwrap();
    let events = storage
        .events(&TenantId::default(), execution.id, &Page::default())
        .await
        .unwrap();
    assert!(
        events.items[0].data["text"]
            .as_str()
            .unwrap()
            .ends_with("x***")
    );
}

#[tokio::test]
async fn a_version_is_stored_with_its_source_when_it_is_first_executed() {
    let storage = memory();
    let automation = builder(counting(&Arc::default()), &storage)
        .build()
        .unwrap();
    for _ in 0..2 {
        automation.execute(ticket_request()).await.unwrap();
    }
    let script = automation.script("disk.py").unwrap();
    let record = storage
        .record(
            &TenantId::default(),
            RecordKind::ScriptVersion,
            script.version(),
        )
        .await
        .unwrap();
    let record = record.unwrap();
    assert_eq!(record.value, json!({ "name": "disk.py", "source": DISK }));
    assert_eq!(record.revision, 1);
}

#[tokio::test]
async fn a_test_is_a_dry_run_that_does_not_count() {
    let storage = memory();
    let executor = FnExecutor::new(|invocation: Invocation| async move {
        assert!(invocation.host.dry_run());
        assert_eq!(invocation.parameters["dry_run"], true);
        printing("")
    });
    let automation = builder(executor, &storage).build().unwrap();
    let execution = automation.test(TestRequest::default()).await.unwrap();
    assert_eq!(
        (execution.script_name.as_str(), execution.trigger),
        ("disk.py", Trigger::Test)
    );
    assert!(execution.dry_run);
    assert_eq!(
        automation
            .stats(StatsQuery::default())
            .await
            .unwrap()
            .all
            .total,
        0
    );
    let request = ManualRequest::new("plain.py").with_dry_run(true);
    assert_eq!(
        automation.manual(request).await.unwrap_err().kind(),
        ErrorKind::Unsupported
    );
}

#[tokio::test]
async fn a_journal_entry_is_durable_before_the_script_goes_on() {
    let storage = memory();
    let seen = Arc::clone(&storage);
    let executor = FnExecutor::new(move |invocation: Invocation| {
        let seen = Arc::clone(&seen);
        async move {
            let (host, id) = (Arc::clone(&invocation.host), invocation.execution_id);
            tokio::task::spawn_blocking(move || host.journal(json!({ "undo": "restore" })))
                .await
                .unwrap()
                .unwrap();
            let events = seen
                .events(&TenantId::default(), id, &Page::default())
                .await
                .unwrap()
                .items;
            assert_eq!(
                (events[0].kind, &events[0].data),
                (EventKind::Journal, &json!({ "undo": "restore" }))
            );
            printing("")
        }
    });
    let automation = builder(executor, &storage).build().unwrap();
    assert_eq!(
        automation
            .manual(ManualRequest::new("plain.py"))
            .await
            .unwrap()
            .status,
        Status::Completed
    );
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

#[tokio::test]
async fn bad_requests_name_the_thing() {
    let storage = memory();
    let automation = builder(counting(&Arc::default()), &storage)
        .build()
        .unwrap();
    let mut not_possible = Classification::new("Device Slow");
    not_possible.automation_possible = false;
    let run = async |ticket: &str, classification| {
        automation
            .execute(ExecuteRequest::new(Ticket::new(ticket), classification))
            .await
            .unwrap_err()
    };
    let parameters = Map::from_iter([("min_free_space_gb".to_owned(), json!("5"))]);
    let wrong = ManualRequest::new("disk.py").with_parameters(parameters);
    let errors = [
        (
            run("T-1", not_possible).await,
            ErrorKind::AutomationNotPossible,
            "T-1",
        ),
        (
            run("T-1", Classification::new("Coffee")).await,
            ErrorKind::NoScriptForCategory,
            "Coffee",
        ),
        (
            run(" ", Classification::new("Device Slow")).await,
            ErrorKind::InvalidRequest,
            "/ticket_id",
        ),
        (
            run("T-1", Classification::new("")).await,
            ErrorKind::InvalidRequest,
            "/classification/category",
        ),
        (
            automation
                .manual(ManualRequest::new("x.py"))
                .await
                .unwrap_err(),
            ErrorKind::ScriptNotFound,
            "x.py",
        ),
        (
            automation.manual(wrong).await.unwrap_err(),
            ErrorKind::InvalidParameters,
            "/min_free_space_gb",
        ),
        (
            automation.logs("T-9", Page::default()).await.unwrap_err(),
            ErrorKind::TicketNotFound,
            "T-9",
        ),
    ];
    for (error, kind, names) in errors {
        assert_eq!(error.kind(), kind);
        assert!(error.to_string().contains(names), "{error}");
    }
    assert!(all(&storage).await.is_empty());
}

#[tokio::test]
async fn tenants_do_not_see_each_other() {
    let (storage, release) = (memory(), Arc::new(Notify::new()));
    let automation = builder(holding(&release), &storage).build().unwrap();
    let other = automation.for_tenant(TenantId::new("other"));
    let caller = other.clone();
    let run = tokio::spawn(async move { caller.execute(ticket_request()).await });
    let everybody = ExecutionQuery::default();
    let id = until(async || {
        let rows = storage.list(&everybody, &Page::default()).await.unwrap();
        rows.items.first().map(|row| row.id)
    })
    .await;
    assert_eq!(
        automation.get(id).await.unwrap_err().kind(),
        ErrorKind::ExecutionNotFound
    );
    assert_eq!(
        automation.cancel(id, None).await.unwrap_err().kind(),
        ErrorKind::ExecutionNotFound
    );
    assert!(automation.watch(id).await.is_err());
    release.notify_one();
    let execution = run.await.unwrap().unwrap();
    assert_eq!(
        execution.status,
        Status::Completed,
        "nobody else's cancel reached it"
    );
    assert_eq!(
        automation
            .stats(StatsQuery::default())
            .await
            .unwrap()
            .all
            .total,
        0
    );
    assert_eq!(other.get(id).await.unwrap(), execution);
}

#[test]
fn configuration_errors_surface_in_build() {
    let executor = || counting(&Arc::default());
    let no_runtime = Automation::builder()
        .scripts(scripts())
        .executor(executor())
        .build();
    assert!(matches!(no_runtime, Err(BuildError::NoRuntime)));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let build = |builder: AutomationBuilder| {
        builder
            .runtime(runtime.handle().clone())
            .build()
            .unwrap_err()
            .to_string()
    };
    assert_eq!(build(Automation::builder()), "scripts is missing");
    assert_eq!(
        build(Automation::builder().scripts(scripts())),
        "executor is missing"
    );
    let full = || {
        Automation::builder()
            .scripts(scripts())
            .executor(executor())
    };
    assert_eq!(
        build(full().executions_max(0)),
        "executions_max is 0, 1 to 100000 are allowed"
    );
    assert!(build(full().executions_max(usize::MAX)).ends_with("1 to 100000 are allowed"));
    assert!(build(full().lease(Duration::MAX)).ends_with("1 second to 24 hours are allowed"));
    assert_eq!(
        build(full().lease(Duration::ZERO)),
        "lease is 0ns, 1 second to 24 hours are allowed"
    );
}
