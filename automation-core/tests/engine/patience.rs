//! Callers who do not wait for the end, and those who follow how a run stands.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use automation_core::executor::{FnExecutor, Invocation, RunEvent};
use automation_core::{ErrorKind, ManualRequest, Status, Update};
use tokio::sync::Notify;

use crate::support::*;

fn impatient(patience: Duration) -> ManualRequest {
    ManualRequest::new("plain.py").with_patience(patience)
}

#[tokio::test]
async fn who_does_not_wait_gets_the_recorded_run_which_goes_on() {
    let (storage, release) = (memory(), Arc::new(Notify::new()));
    let automation = builder(holding(&release), &storage)
        .executions_max(1)
        .build()
        .unwrap();
    let running = automation.manual(impatient(Duration::ZERO)).await.unwrap();
    let queued = automation
        .execute(ticket_request().with_patience(Duration::from_millis(20)))
        .await
        .unwrap();
    assert_eq!(
        (running.status, queued.status),
        (Status::Running, Status::Starting)
    );
    assert_eq!(look(&storage, &running).await.0, Status::Running);
    assert_eq!(look(&storage, &queued).await.0, Status::Starting);
    for execution in [running, queued] {
        release.notify_one();
        let ended = automation.watch(execution.id).await.unwrap().end().await;
        assert_eq!(ended.unwrap().status, Status::Completed);
    }
}

#[tokio::test]
async fn a_run_that_ends_in_time_is_the_answer() {
    let (storage, count) = (memory(), Arc::new(AtomicUsize::new(0)));
    let automation = builder(counting(&count), &storage).build().unwrap();
    let execution = automation.manual(impatient(Duration::from_secs(60))).await;
    assert_eq!(execution.unwrap().status, Status::Completed);
}

#[tokio::test]
async fn what_is_refused_is_refused_whoever_waits() {
    let (storage, release) = (memory(), Arc::new(Notify::new()));
    let automation = builder(holding(&release), &storage)
        .executions_max(1)
        .queue_max(0)
        .build()
        .unwrap();
    let running = automation.manual(impatient(Duration::ZERO)).await.unwrap();
    let refused = automation.manual(impatient(Duration::ZERO)).await;
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::Overloaded);
    assert_eq!(all(&storage).await.len(), 1);
    release.notify_one();
    let ended = automation.watch(running.id).await.unwrap().end().await;
    assert_eq!(ended.unwrap().status, Status::Completed);
}

#[tokio::test]
async fn a_watcher_is_told_how_the_run_stands_if_it_asks() {
    let (storage, release) = (memory(), Arc::new(Notify::new()));
    let automation = builder(holding(&release), &storage)
        .executions_max(1)
        .build()
        .unwrap();
    let first = automation.manual(impatient(Duration::ZERO)).await.unwrap();
    let queued = automation.manual(impatient(Duration::ZERO)).await.unwrap();
    let mut watch = automation.watch(queued.id).await.unwrap().with_status();
    let status = |update: Option<Update>| match update {
        Some(Update::Status(execution)) => execution.status,
        other => panic!("{other:?}"),
    };
    assert_eq!(status(watch.next().await.unwrap()), Status::Starting);
    release.notify_one();
    assert_eq!(status(watch.next().await.unwrap()), Status::Running);
    release.notify_one();
    assert!(matches!(
        watch.next().await.unwrap(),
        Some(Update::Ended(execution)) if execution.status == Status::Completed
    ));
    assert_eq!(watch.next().await.unwrap(), None);
    let mut silent = automation.watch(first.id).await.unwrap();
    assert!(matches!(
        silent.next().await.unwrap(),
        Some(Update::Ended(_))
    ));
}

#[tokio::test]
async fn a_watcher_goes_on_behind_what_it_has() {
    let storage = memory();
    let executor = FnExecutor::new(|invocation: Invocation| async move {
        for n in 1..=200 {
            let text = n.to_string();
            invocation.host.emit(RunEvent::Log { text });
        }
        printing("")
    });
    let automation = builder(executor, &storage).build().unwrap();
    let run = automation.manual(ManualRequest::new("plain.py")).await;
    let id = run.unwrap().id;
    for after in [0, 1, 63, 64, 65, 199, 200, 4_000_000_000] {
        let mut watch = automation.watch(id).await.unwrap().after(after);
        let mut seqs = Vec::new();
        while let Some(Update::Event(event)) = watch.next().await.unwrap() {
            seqs.push(event.seq);
        }
        let rest: Vec<u32> = (after.saturating_add(1)..=200).collect();
        assert_eq!(seqs, rest, "after {after}");
    }
}
