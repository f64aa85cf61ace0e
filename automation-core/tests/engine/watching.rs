//! Those who follow a run, and what it reports.

use std::sync::Arc;

use automation_core::executor::{FnExecutor, Invocation, RunEvent};
use automation_core::{EventKind, ManualRequest, Page, Status, TenantId, Update};
use serde_json::json;
use tokio::sync::Notify;

use crate::support::*;

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
