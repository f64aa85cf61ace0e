//! Bounds, cancels, deadlines and the shutdown.

use std::sync::Arc;
use std::time::Duration;

use automation_core::executor::{Ending, Failure, FnExecutor, Invocation, Outcome, RunEvent};
use automation_core::{
    Error, ErrorKind, EventKind, ExecutionId, ManualRequest, Page, Reason, StatsQuery, Status,
    TenantId,
};
use tokio::sync::Notify;
use uuid::Uuid;

use crate::support::*;

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
async fn p3_a_late_end_is_an_event_and_leaves_the_row_alone() {
    let storage = memory();
    let release = Arc::new(Notify::new());
    let ends = Arc::clone(&release);
    let executor = FnExecutor::new(move |invocation: Invocation| {
        let (host, ends) = (Arc::clone(&invocation.host), Arc::clone(&ends));
        tokio::spawn(async move {
            ends.notified().await;
            host.emit(RunEvent::Log {
                text: "too late".to_owned(),
            });
            host.emit(RunEvent::LateEnd);
        });
        let mut outcome = Outcome::new(Ending::Failed(Failure::new(Reason::Timeout, "timed out")));
        outcome.still_running = true;
        async { outcome }
    });
    let automation = builder(executor, &storage).build().unwrap();
    let execution = automation
        .manual(ManualRequest::new("plain.py"))
        .await
        .unwrap();
    release.notify_one();
    let event = until(async || {
        let events = storage
            .events(&TenantId::default(), execution.id, &Page::default())
            .await;
        events.unwrap().items.pop()
    })
    .await;
    assert_eq!(
        (event.kind, event.seq),
        (EventKind::LateEnd, 1),
        "the late line is dropped"
    );
    assert!(event.data["after_ms"].is_u64());
    assert_eq!(automation.get(execution.id).await.unwrap(), execution);
}
