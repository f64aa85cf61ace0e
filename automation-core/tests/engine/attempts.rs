//! Trying again: by a script's policy, after a crash, and because somebody asks; and asking again under a key.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use automation_core::executor::{Ending, Failure, FnExecutor, Outcome};
use automation_core::storage::Write;
use automation_core::{
    Automation, ErrorKind, Execution, ExecutionId, ManualClock, ManualRequest, Reason, Script,
    ScriptRegistry, SqliteStorage, Status, StopTarget, Storage, Trigger,
};
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::json;
use tokio::sync::Notify;
use uuid::Uuid;

use crate::support::*;

const FLAKY: &str = "# /// script\n# [tool.automation]\n# category = \"Device Slow\"\n\
    # retry = { max = 2, backoff = 10, jitter = 0.5, on = [\"exception\"] }\n\
    # [tool.automation.parameters.n]\n# type = \"integer\"\n# default = 1\n# ///\n";
const SAFE: &str = "# /// script\n# [tool.automation]\n# idempotent = true\n\
    # retry = { max = 1, backoff = 0, on = [\"orphaned\"] }\n# ///\n";
const KEEPS: &str = "# /// script\n# [tool.automation]\n# retry = { max = 1 }\n\
    # [tool.automation.parameters.password]\n# type = \"string\"\n# secret = true\n# ///\n";

fn noon() -> DateTime<Utc> {
    DateTime::from_timestamp(1_767_268_800, 0).unwrap()
}

fn engine(executor: FnExecutor, storage: &Arc<dyn Storage>) -> (Automation, Arc<ManualClock>) {
    let parse = |name: &str, source: &str| Script::parse(name, source.as_bytes()).unwrap();
    let scripts = [
        parse("flaky.py", FLAKY),
        parse("safe.py", SAFE),
        parse("keeps.py", KEEPS),
        parse("plain.py", ""),
    ];
    let clock = Arc::new(ManualClock::new(noon()));
    let automation = Automation::builder()
        .scripts(ScriptRegistry::from_scripts(scripts))
        .executor(executor)
        .shared_storage(Arc::clone(storage))
        .clock(Arc::clone(&clock) as _)
        .build()
        .unwrap();
    (automation, clock)
}

/// An executor whose first `failures` runs raise an exception.
fn failing(failures: usize, runs: &Arc<AtomicUsize>) -> FnExecutor {
    let runs = Arc::clone(runs);
    FnExecutor::new(move |_| {
        let fails = runs.fetch_add(1, Ordering::SeqCst) < failures;
        async move {
            if fails {
                Outcome::new(Ending::Failed(Failure::new(
                    Reason::Exception,
                    "ValueError: no",
                )))
            } else {
                printing("{\"ok\": true}")
            }
        }
    })
}

/// Moves the clock on until a future is done.
async fn while_time_passes<T>(clock: &ManualClock, future: impl Future<Output = T>) -> T {
    let mut future = std::pin::pin!(future);
    loop {
        tokio::select! {
            done = &mut future => return done,
            () = tokio::time::sleep(Duration::from_millis(5)) => clock.advance(Duration::from_secs(1)),
        }
    }
}

#[tokio::test]
async fn attempts_are_a_chain_and_the_last_one_answers() {
    let (storage, runs) = (memory(), Arc::default());
    let (automation, clock) = engine(failing(2, &runs), &storage);
    let request = automation.execute(ticket_request());
    let last = while_time_passes(&clock, request).await.unwrap();
    assert_eq!(
        (last.status, last.attempt, last.trigger),
        (Status::Completed, 3, Trigger::Retry)
    );
    let mut rows = all(&storage).await;
    rows.sort_by_key(|row| row.attempt);
    let [first, second, third] = &rows[..] else {
        panic!("{rows:?}")
    };
    assert_eq!(
        (first.trigger, first.root_id, first.parent_id),
        (Trigger::Ticket, None, None)
    );
    assert_eq!(
        (second.root_id, second.parent_id),
        (Some(first.id), Some(first.id))
    );
    assert_eq!(
        (third.root_id, third.parent_id),
        (Some(first.id), Some(second.id))
    );
    assert_eq!(
        third.context.as_ref().unwrap().ticket,
        first.context.as_ref().unwrap().ticket
    );
    assert!(
        rows.iter()
            .all(|row| row.ticket_id == "T-1" && row.parameters == json!({"n": 1}))
    );
    let pauses = [(second, 5..=10), (third, 10..=20)];
    for (row, bounds) in pauses {
        let pause = (row.run_at.unwrap() - row.started_at).num_seconds();
        assert!(bounds.contains(&pause), "{pause} {bounds:?}");
    }
}

#[tokio::test]
async fn no_more_attempts_than_the_policy_allows() {
    let (storage, runs) = (memory(), Arc::default());
    let (automation, clock) = engine(failing(99, &runs), &storage);
    let request = automation.manual(ManualRequest::new("flaky.py"));
    let last = while_time_passes(&clock, request).await.unwrap();
    assert_eq!((last.status, last.attempt), (Status::Failed, 3));
    assert_eq!(runs.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn a_stop_holds_for_an_attempt_that_waits() {
    let (storage, runs) = (memory(), Arc::default());
    let (automation, clock) = engine(failing(1, &runs), &storage);
    let asked = automation.clone();
    let asked = tokio::spawn(async move { asked.manual(ManualRequest::new("flaky.py")).await });
    until(async || (all(&storage).await.len() == 2).then_some(())).await;
    automation
        .stop(StopTarget::All, "ana", "a storm of tickets", false)
        .await
        .unwrap();
    let last = while_time_passes(&clock, asked).await.unwrap().unwrap();
    assert_eq!(
        (last.status, last.reason, last.attempt),
        (Status::Cancelled, Some(Reason::Stopped), 2)
    );
    assert_eq!(runs.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn an_attempt_that_waits_survives_the_process() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.db");
    let (runs, storage) = (Arc::default(), SqliteStorage::open(&file).await.unwrap());
    let storage: Arc<dyn Storage> = Arc::new(storage);
    let (automation, _) = engine(failing(1, &runs), &storage);
    let asked = automation.clone();
    let asked = tokio::spawn(async move { asked.manual(ManualRequest::new("flaky.py")).await });
    let waiting = until(async || {
        let rows = all(&storage).await;
        rows.into_iter()
            .find(|row| row.reason == Some(Reason::Backoff))
    })
    .await;
    automation.shutdown(Duration::from_secs(5)).await.unwrap();
    let answered = asked.await.unwrap().unwrap();
    assert_eq!((answered.id, answered.is_waiting()), (waiting.id, true));

    let storage: Arc<dyn Storage> = Arc::new(SqliteStorage::open(&file).await.unwrap());
    let (automation, clock) = engine(failing(0, &Arc::default()), &storage);
    let watch = automation.watch(waiting.id).await.unwrap();
    let ended = while_time_passes(&clock, watch.end()).await.unwrap();
    assert_eq!((ended.status, ended.attempt), (Status::Completed, 2));
}

/// A row of a run whose process ended.
async fn orphan(automation: &Automation, storage: &Arc<dyn Storage>, script: &str) -> Execution {
    let version = automation.script(script).unwrap().version().to_string();
    let id = ExecutionId::from_uuid(Uuid::now_v7());
    let mut row = Execution::new(id, script, version, Trigger::Manual, noon());
    row.status = Status::Running;
    row.lease_until = Some(noon() - TimeDelta::seconds(1));
    let insert = Write::Insert(Box::new(row.clone()));
    storage.commit(vec![insert]).await.remove(0).unwrap();
    row
}

#[tokio::test]
async fn p4_after_a_crash_only_idempotent_scripts_are_tried_again() {
    let (storage, runs) = (memory(), Arc::default());
    let (first, _) = engine(failing(0, &runs), &storage);
    let rows = [
        orphan(&first, &storage, "safe.py").await,
        orphan(&first, &storage, "flaky.py").await,
    ];
    let (second, _) = engine(failing(0, &runs), &storage);
    let again = until(async || {
        let rows = all(&storage).await;
        rows.into_iter().find(|row| row.status == Status::Completed)
    })
    .await;
    assert_eq!((again.parent_id, again.attempt), (Some(rows[0].id), 2));
    for row in &rows {
        assert_eq!(
            look(&storage, row).await,
            (Status::Failed, Some(Reason::Orphaned))
        );
    }
    let error = second.retry(rows[1].id, None).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(error.to_string().contains("idempotent = true"), "{error}");
    assert_eq!(all(&storage).await.len(), 3);
}

#[tokio::test]
async fn p9_secrets_that_would_have_to_be_kept_are_refused() {
    let (storage, runs) = (memory(), Arc::default());
    let (automation, _) = engine(failing(0, &runs), &storage);
    let secret = json!({"password": "hunter22"}).as_object().unwrap().clone();
    let request = ManualRequest::new("keeps.py").with_parameters(secret);
    let error = automation.manual(request).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    let text = error.to_string();
    assert!(
        text.contains("password") && !text.contains("hunter22"),
        "{text}"
    );
    assert_eq!(all(&storage).await, []);
    automation
        .manual(ManualRequest::new("keeps.py"))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_retry_is_one_run_however_often_it_is_asked_for() {
    let (storage, runs) = (memory(), Arc::default());
    let (automation, _) = engine(failing(1, &runs), &storage);
    let failed = automation
        .manual(ManualRequest::new("plain.py"))
        .await
        .unwrap();
    let asked = (0..16).map(|_| automation.retry(failed.id, Some("ann")));
    let mut ids = std::collections::HashSet::new();
    for answer in futures_all(asked).await {
        // Whoever comes after its end is told that it completed.
        match answer {
            Ok(run) => drop(ids.insert(run.id)),
            Err(error) => assert_eq!(error.kind(), ErrorKind::Conflict, "{error}"),
        }
    }
    assert_eq!((ids.len(), runs.load(Ordering::SeqCst)), (1, 2));
    let again = all(&storage)
        .await
        .into_iter()
        .find(|row| row.attempt == 2)
        .unwrap();
    assert_eq!(
        (again.parent_id, again.actor.as_deref()),
        (Some(failed.id), Some("ann"))
    );
    let error = automation.retry(again.id, None).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
}

async fn futures_all<T>(futures: impl Iterator<Item = impl Future<Output = T>>) -> Vec<T> {
    let mut answers = Vec::new();
    let mut pending: Vec<_> = futures.map(Box::pin).collect();
    std::future::poll_fn(|context| {
        pending.retain_mut(|future| match future.as_mut().poll(context) {
            std::task::Poll::Ready(answer) => {
                answers.push(answer);
                false
            }
            std::task::Poll::Pending => true,
        });
        if pending.is_empty() {
            std::task::Poll::Ready(())
        } else {
            std::task::Poll::Pending
        }
    })
    .await;
    answers
}

fn keyed(n: i64) -> ManualRequest {
    let parameters = json!({ "n": n }).as_object().unwrap().clone();
    let request = ManualRequest::new("flaky.py").with_parameters(parameters);
    request.with_idempotency_key("order-7")
}

async fn identical_requests_execute_once(storage: Arc<dyn Storage>) {
    let (runs, release) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
    let (count, hold) = (Arc::clone(&runs), Arc::clone(&release));
    let executor = FnExecutor::new(move |_| {
        count.fetch_add(1, Ordering::SeqCst);
        let hold = Arc::clone(&hold);
        async move {
            hold.notified().await;
            printing("{}")
        }
    });
    let (automation, _) = engine(executor, &storage);
    let asked = (0..64).map(|_| {
        let automation = automation.clone();
        tokio::spawn(async move { automation.manual(keyed(1)).await })
    });
    let asked: Vec<_> = asked.collect();
    until(async || (runs.load(Ordering::SeqCst) == 1).then_some(())).await;
    let other = automation.manual(keyed(2)).await.unwrap_err();
    assert_eq!(other.kind(), ErrorKind::Conflict, "while it runs: {other}");
    release.notify_one();
    let mut ids = std::collections::HashSet::new();
    for answer in asked {
        let run = answer.await.unwrap().unwrap();
        assert_eq!(run.status, Status::Completed);
        ids.insert(run.id);
    }
    ids.insert(automation.manual(keyed(1)).await.unwrap().id);
    let found = (
        ids.len(),
        runs.load(Ordering::SeqCst),
        all(&storage).await.len(),
    );
    assert_eq!(found, (1, 1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_64_identical_requests_at_once_one_executes_in_memory() {
    identical_requests_execute_once(memory()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_64_identical_requests_at_once_one_executes_on_sqlite() {
    let folder = tempfile::tempdir().unwrap();
    let storage = SqliteStorage::open(folder.path().join("a.db"))
        .await
        .unwrap();
    identical_requests_execute_once(Arc::new(storage)).await;
}

#[tokio::test]
async fn a_key_that_nobody_could_send_is_refused() {
    let (storage, runs) = (memory(), Arc::default());
    let (automation, _) = engine(failing(0, &runs), &storage);
    for key in ["", "a b", "ü", "a\n", &"x".repeat(256)] {
        let request = ManualRequest::new("plain.py").with_idempotency_key(key);
        let error = automation.manual(request).await.unwrap_err();
        assert_eq!(
            error.problems()[0].pointer,
            "/idempotency_key",
            "{key:?}: {error}"
        );
    }
    let longest = ManualRequest::new("plain.py").with_idempotency_key("x".repeat(255));
    automation.manual(longest).await.unwrap();
}
