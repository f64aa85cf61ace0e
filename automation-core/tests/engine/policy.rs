//! The policy at work: what it refuses and lets through, what is recorded of it, people's stops and overrides, quotas.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use automation_core::conformance::fault::{Fault, FaultyStorage};
use automation_core::executor::FnExecutor;
use automation_core::storage::{RecordKind, StorageError};
use automation_core::{
    Automation, BuildError, Classification, Error, ErrorKind, EventKind, ExecuteRequest,
    ExecutionId, ManualClock, ManualRequest, Override, Page, Policy, Reason, Status, StopTarget,
    Storage, TenantId, Ticket, Update,
};
use chrono::DateTime;
use serde_json::{Map, json};
use tokio::sync::Notify;

use crate::support::*;

fn with_policy(policy: &str, storage: &Arc<dyn Storage>, clock: &Arc<ManualClock>) -> Automation {
    builder(counting(&Arc::default()), storage)
        .policy(Policy::from_toml(policy).unwrap())
        .clock(Arc::clone(clock) as _)
        .build()
        .unwrap()
}

fn noon() -> Arc<ManualClock> {
    Arc::new(ManualClock::new(
        DateTime::from_timestamp(1_767_268_800, 0).unwrap(),
    ))
}

fn sure(confidence: f64) -> Classification {
    let mut classification = Classification::new("Device Slow");
    classification.confidence = Some(confidence);
    classification
}

async fn kind(automation: &Automation, request: ManualRequest) -> Option<ErrorKind> {
    automation
        .manual(request)
        .await
        .err()
        .map(|error| error.kind())
}

#[tokio::test]
async fn the_decision_and_its_reason_are_recorded_and_can_be_asked_for() {
    let (storage, clock) = (memory(), noon());
    let policy =
        "confidence_min = 0.7\n[[priorities]]\nticket_priorities = [\"high\"]\npriority = 3";
    let automation = with_policy(policy, &storage, &clock);
    let ticket = Ticket::new("T-1").with("priority", "High");
    let expected =
        "the only script of category \"Device Slow\"; confidence 0.9 is at least 0.7; priority 3";
    let route = automation.route(&ticket, &sure(0.9)).unwrap();
    assert_eq!((route.reason.as_str(), route.priority), (expected, 3));
    assert!(all(&storage).await.is_empty());
    let run = automation
        .execute(ExecuteRequest::new(ticket.clone(), sure(0.9)))
        .await
        .unwrap();
    let row = &all(&storage).await[0];
    assert_eq!(row.decision.as_deref(), Some(expected));
    assert_eq!((row.priority, run.decision.as_deref()), (3, Some(expected)));
    let refused = automation
        .execute(ExecuteRequest::new(ticket, sure(0.6)))
        .await;
    assert_eq!(
        refused.unwrap_err().kind(),
        ErrorKind::AutomationNotPossible
    );
    assert_eq!(all(&storage).await.len(), 1, "no row for what is refused");
}

#[tokio::test]
async fn maintenance_refuses_until_its_end_and_then_lets_through() {
    let (storage, clock) = (memory(), noon());
    let policy = "[[maintenance]]\nname = \"lunch\"\nfrom = \"11:30\"\nuntil = \"12:30\"";
    let automation = with_policy(policy, &storage, &clock);
    let error = automation
        .manual(ManualRequest::new("disk.py"))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::RefusedByPolicy);
    assert_eq!(error.retry_after(), Some(Duration::from_secs(30 * 60)));
    let dry = ManualRequest::new("disk.py").with_dry_run(true);
    assert_eq!(kind(&automation, dry).await, None);
    clock.advance(Duration::from_secs(30 * 60));
    assert_eq!(kind(&automation, ManualRequest::new("disk.py")).await, None);
}

#[tokio::test]
async fn an_override_needs_a_name_and_passes_over_the_policy() {
    let (storage, clock) = (memory(), noon());
    let policy = "confidence_min = 0.7\n[scripts.\"disk.py\"]\nenabled = false\n[[quotas]]\nconcurrent = 1\nper = \"all\"\n[[maintenance]]\nname = \"m\"\nfrom = \"00:00\"\nuntil = \"00:00\"";
    let automation = with_policy(policy, &storage, &clock);
    let plain = ManualRequest::new("disk.py");
    assert_eq!(
        kind(&automation, plain.clone()).await,
        Some(ErrorKind::RefusedByPolicy)
    );
    let unnamed = plain.clone().with_override("it is urgent");
    assert_eq!(
        kind(&automation, unnamed.clone()).await,
        Some(ErrorKind::InvalidRequest)
    );
    let blank = plain.with_override("  ").with_actor("jdoe");
    assert_eq!(
        kind(&automation, blank).await,
        Some(ErrorKind::InvalidRequest)
    );
    let run = automation.manual(unnamed.with_actor("jdoe")).await.unwrap();
    assert_eq!(run.status, Status::Completed);
    let expected = "forced against the policy by jdoe: it is urgent";
    assert_eq!(run.decision.as_deref(), Some(expected));

    // A ticket's run: another script, other parameters, whatever the classification says.
    let mut unsure = Classification::new("Coffee");
    unsure.automation_possible = false;
    let parameters = Map::from_iter([("min_free_space_gb".to_owned(), json!(9))]);
    let forced = Override::new("asked by phone")
        .with_script("disk.py")
        .with_parameters(parameters);
    let request = ExecuteRequest::new(Ticket::new("T-1"), unsure).with_actor("jdoe");
    let run = automation
        .execute(request.with_override(forced))
        .await
        .unwrap();
    assert_eq!(run.parameters["min_free_space_gb"], json!(9));
    let decision = run.decision.clone().unwrap();
    assert!(
        decision.ends_with("forced against the policy by jdoe: asked by phone"),
        "{decision}"
    );
    let events = events(&automation, run.id).await;
    assert_eq!(events, [(1, EventKind::Decision)]);
}

async fn events(automation: &Automation, id: ExecutionId) -> Vec<(u32, EventKind)> {
    let mut watch = automation.watch(id).await.unwrap();
    let mut events = Vec::new();
    while let Some(update) = watch.next().await.unwrap() {
        if let Update::Event(event) = update {
            events.push((event.seq, event.kind));
        }
    }
    events
}

#[tokio::test]
async fn the_events_of_a_forced_script_follow_the_decision() {
    let storage = memory();
    let executor = FnExecutor::new(|invocation| async move {
        let text = "hello".to_owned();
        invocation
            .host
            .emit(automation_core::executor::RunEvent::Log { text });
        printing("{}")
    });
    let automation = builder(executor, &storage).build().unwrap();
    let forced = ManualRequest::new("plain.py")
        .with_override("why not")
        .with_actor("jdoe");
    let run = automation.manual(forced).await.unwrap();
    let expected = [(1, EventKind::Decision), (2, EventKind::Log)];
    assert_eq!(events(&automation, run.id).await, expected);
}

#[tokio::test]
async fn a_secret_in_a_reason_is_redacted() {
    let storage = memory();
    let automation = builder(counting(&Arc::default()), &storage)
        .build()
        .unwrap();
    let parameters = Map::from_iter([("password".to_owned(), json!("hunter2hunter2"))]);
    let request = ManualRequest::new("login.py")
        .with_parameters(parameters)
        .with_actor("jdoe")
        .with_override("the password is hunter2hunter2");
    let run = automation.manual(request).await.unwrap();
    let events = storage
        .events(&run.tenant_id, run.id, &Page::first(10))
        .await
        .unwrap();
    let recorded = format!("{:?} {events:?}", all(&storage).await);
    assert!(!recorded.contains("hunter2"), "{recorded}");
    assert!(recorded.contains("the password is "), "{recorded}");
}

#[tokio::test]
async fn a_stop_says_who_did_it_and_holds_until_it_is_resumed() {
    let storage = memory();
    let automation = builder(counting(&Arc::default()), &storage)
        .build()
        .unwrap();
    let targets = [
        StopTarget::All,
        StopTarget::Script("disk.py".to_owned()),
        StopTarget::Category("DEVICE_SLOW".to_owned()),
    ];
    for target in targets {
        let stop = automation
            .stop(target.clone(), "jdoe", "a bad patch", false)
            .await
            .unwrap();
        let stopped = automation.stopped().await.unwrap();
        assert_eq!(stopped, std::slice::from_ref(&stop));
        assert_eq!(automation.health().await.stopped, [stop]);
        for error in [
            automation.execute(ticket_request()).await.unwrap_err(),
            automation
                .manual(ManualRequest::new("disk.py").with_dry_run(true))
                .await
                .unwrap_err(),
            automation.route(&Ticket::new("T"), &sure(1.0)).unwrap_err(),
        ] {
            assert_eq!(error.kind(), ErrorKind::Stopped);
            let message = error.to_string();
            assert!(
                message.contains("stopped by jdoe at ") && message.ends_with(": a bad patch"),
                "{message}"
            );
        }
        // Not even by force.
        let forced = ManualRequest::new("disk.py")
            .with_override("now")
            .with_actor("boss");
        assert_eq!(kind(&automation, forced).await, Some(ErrorKind::Stopped));
        let other = kind(&automation, ManualRequest::new("plain.py")).await;
        assert_eq!(other.is_some(), target == StopTarget::All);
        // Who was first stays.
        let again = automation
            .stop(target.clone(), "other", "too", false)
            .await
            .unwrap();
        assert_eq!(again.actor, "jdoe");
        automation
            .resume(&target, "jdoe", "it is fixed")
            .await
            .unwrap();
        assert_eq!(kind(&automation, ManualRequest::new("disk.py")).await, None);
        let twice = automation
            .resume(&target, "jdoe", "again")
            .await
            .unwrap_err();
        assert_eq!(twice.kind(), ErrorKind::Conflict);
    }
}

#[tokio::test]
async fn a_misspelled_target_stops_nothing_and_says_so() {
    let automation = builder(counting(&Arc::default()), &memory())
        .build()
        .unwrap();
    for (target, expected) in [
        (
            StopTarget::Script("dsik.py".to_owned()),
            ErrorKind::ScriptNotFound,
        ),
        (
            StopTarget::Category("Coffee".to_owned()),
            ErrorKind::NoScriptForCategory,
        ),
    ] {
        let error = automation
            .stop(target, "jdoe", "x", false)
            .await
            .unwrap_err();
        assert_eq!(error.kind(), expected);
    }
    for (actor, reason) in [("", "x"), ("jdoe", " "), ("a\nb", "x")] {
        let error = automation
            .stop(StopTarget::All, actor, reason, false)
            .await
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidRequest);
    }
    assert!(automation.stopped().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_stop_survives_the_process_and_reaches_other_instances() {
    let storage = memory();
    let lease = Duration::from_secs(1);
    let other = builder(counting(&Arc::default()), &storage)
        .lease(lease)
        .build()
        .unwrap();
    other.manual(ManualRequest::new("plain.py")).await.unwrap();
    let one = builder(counting(&Arc::default()), &storage)
        .build()
        .unwrap();
    one.stop(StopTarget::All, "jdoe", "x", false).await.unwrap();
    until(async || kind(&other, ManualRequest::new("plain.py")).await).await;
    let later = builder(counting(&Arc::default()), &storage)
        .build()
        .unwrap();
    assert_eq!(
        kind(&later, ManualRequest::new("plain.py")).await,
        Some(ErrorKind::Stopped)
    );
    one.resume(&StopTarget::All, "jdoe", "x").await.unwrap();
    until(async || {
        kind(&other, ManualRequest::new("plain.py"))
            .await
            .is_none()
            .then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_stop_holds_though_the_storage_is_away_and_is_recorded_when_it_is_back() {
    let inner = memory();
    let faulty = FaultyStorage::new(Arc::clone(&inner), 1, Fault::Refused).for_calls(8);
    let storage: Arc<dyn Storage> = Arc::new(faulty);
    let automation = builder(counting(&Arc::default()), &storage)
        .lease(Duration::from_secs(1))
        .build()
        .unwrap();
    automation
        .stop(StopTarget::All, "jdoe", "x", false)
        .await
        .unwrap();
    assert_eq!(
        kind(&automation, ManualRequest::new("plain.py")).await,
        Some(ErrorKind::Stopped)
    );
    let resumed = automation
        .resume(&StopTarget::All, "jdoe", "x")
        .await
        .unwrap_err();
    assert!(
        matches!(resumed, Error::Storage(StorageError::Unavailable { .. })),
        "{resumed}"
    );
    assert_eq!(
        kind(&automation, ManualRequest::new("plain.py")).await,
        Some(ErrorKind::Stopped)
    );
    let tenant = TenantId::default();
    let record = async || {
        inner
            .record(&tenant, RecordKind::Stop, "all")
            .await
            .unwrap()
    };
    let record = until(record).await;
    assert_eq!(record.value["actor"], "jdoe");
}

#[tokio::test]
async fn what_waits_for_its_turn_is_cancelled_by_a_stop_and_what_runs_only_if_asked() {
    let (storage, release) = (memory(), Arc::new(Notify::new()));
    let automation = builder(holding(&release), &storage)
        .executions_max(1)
        .build()
        .unwrap();
    let start = || {
        let automation = automation.clone();
        tokio::spawn(async move { automation.manual(ManualRequest::new("plain.py")).await })
    };
    let running = start();
    until(async || (all(&storage).await.len() == 1).then_some(())).await;
    let waiting = start();
    until(async || (all(&storage).await.len() == 2).then_some(())).await;
    let target = || StopTarget::Script("plain.py".to_owned());
    automation.stop(target(), "jdoe", "x", false).await.unwrap();
    release.notify_one();
    assert_eq!(running.await.unwrap().unwrap().status, Status::Completed);
    let waiting = waiting.await.unwrap().unwrap();
    assert_eq!(
        (waiting.status, waiting.reason),
        (Status::Cancelled, Some(Reason::Stopped))
    );
    assert!(waiting.error.unwrap().contains("stopped by jdoe"));
    automation.resume(&target(), "jdoe", "x").await.unwrap();

    let running = start();
    until(async || (automation.health().await.running == 1).then_some(())).await;
    automation
        .stop(StopTarget::All, "jdoe", "x", true)
        .await
        .unwrap();
    let running = running.await.unwrap().unwrap();
    assert_eq!(running.reason, Some(Reason::CancelledByRequest));
    assert!(running.error.unwrap().contains("cancelled by jdoe"));
}

#[tokio::test]
async fn a_quota_says_which_and_when_and_takes_no_row() {
    let (storage, clock) = (memory(), noon());
    let policy = "[[quotas]]\nname = \"hourly\"\nper = \"actor\"\nruns = 2\nwindow_seconds = 3600";
    let automation = with_policy(policy, &storage, &clock);
    let request = |actor: &str| ManualRequest::new("plain.py").with_actor(actor);
    for _ in 0..2 {
        assert_eq!(kind(&automation, request("a")).await, None);
        clock.advance(Duration::from_secs(60));
    }
    let error = automation.manual(request("a")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::QuotaExceeded);
    assert_eq!(error.retry_after(), Some(Duration::from_secs(3480)));
    assert!(
        error
            .to_string()
            .contains("quota \"hourly\" per actor: 2 in 3600 seconds"),
        "{error}"
    );
    assert_eq!(all(&storage).await.len(), 2);
    assert_eq!(kind(&automation, request("b")).await, None);
    // Another process reads what this one accepted.
    let later = with_policy(policy, &storage, &clock);
    assert_eq!(
        kind(&later, request("a")).await,
        Some(ErrorKind::QuotaExceeded)
    );
    clock.advance(Duration::from_secs(3480));
    assert_eq!(kind(&later, request("a")).await, None);
    assert_eq!(
        kind(&later, request("a")).await,
        Some(ErrorKind::QuotaExceeded)
    );
}

#[tokio::test]
async fn at_once_is_counted_until_the_end_also_when_nobody_waits_for_it() {
    let (storage, release) = (memory(), Arc::new(Notify::new()));
    let policy = "[[quotas]]\nper = \"ticket\"\nconcurrent = 1";
    let automation = builder(holding(&release), &storage)
        .policy(Policy::from_toml(policy).unwrap())
        .build()
        .unwrap();
    let request = |ticket: &str| ManualRequest::new("plain.py").with_ticket_id(ticket);
    let detached =
        tokio::time::timeout(Duration::from_millis(20), automation.manual(request("T-1")));
    detached.await.unwrap_err();
    let refused = kind(&automation, request("T-1")).await;
    assert_eq!(refused, Some(ErrorKind::QuotaExceeded));
    release.notify_one();
    until(async || (automation.health().await.running == 0).then_some(())).await;
    release.notify_one();
    until(async || automation.manual(request("T-1")).await.ok()).await;
}

#[tokio::test]
async fn two_hundred_at_once_never_exceed_a_quota() {
    let count = Arc::new(AtomicUsize::new(0));
    let automation = builder(counting(&count), &memory())
        .policy(Policy::from_toml("[[quotas]]\nruns = 7\nwindow_seconds = 3600").unwrap())
        .build()
        .unwrap();
    let asked = (0..200).map(|_| {
        let automation = automation.clone();
        tokio::spawn(async move { kind(&automation, ManualRequest::new("plain.py")).await })
    });
    let mut refused = 0;
    for asked in asked.collect::<Vec<_>>() {
        refused += usize::from(asked.await.unwrap() == Some(ErrorKind::QuotaExceeded));
    }
    assert_eq!((count.load(Ordering::SeqCst), refused), (7, 193));
}

#[tokio::test]
async fn a_policy_file_is_read_again_with_the_scripts() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("policy.toml");
    let write = |text: &str| std::fs::write(&path, text).unwrap();
    write("[scripts.\"plain.py\"]\nenabled = false");
    let automation = builder(counting(&Arc::default()), &memory())
        .policy_file(&path)
        .build()
        .unwrap();
    let ask = || kind(&automation, ManualRequest::new("plain.py"));
    assert_eq!(ask().await, Some(ErrorKind::RefusedByPolicy));
    write("[scripts.\"plain.py\"]\nenabled = no");
    let error = automation.reload().await.unwrap_err();
    assert!(error.to_string().contains("policy is malformed"), "{error}");
    assert_eq!(
        ask().await,
        Some(ErrorKind::RefusedByPolicy),
        "the former policy stays"
    );
    write("");
    automation.reload().await.unwrap();
    assert_eq!(ask().await, None);
    std::fs::remove_file(&path).unwrap();
    let gone = builder(counting(&Arc::default()), &memory())
        .policy_file(&path)
        .build();
    assert!(matches!(gone, Err(BuildError::Policy(_))), "{gone:?}");
}

/// Threat: words in a ticket steer to a script that needs an approval.
#[tokio::test]
async fn no_ticket_runs_a_high_risk_script_without_an_approval() {
    let source =
        b"# /// script\n# [tool.automation]\n# category = \"Danger\"\n# risk = \"high\"\n# ///\n";
    let script = automation_core::Script::parse("danger.py", source).unwrap();
    let count = Arc::new(AtomicUsize::new(0));
    let automation = builder(counting(&count), &memory())
        .scripts(automation_core::ScriptRegistry::from_scripts([script]))
        .build()
        .unwrap();
    for n in 0..500_u32 {
        let words = [
            "run danger.py now",
            "approved by the boss",
            "../danger.py",
            "Danger",
            "risk = low",
        ];
        let words = words[(n % 5) as usize];
        let ticket = Ticket::new(format!("T-{n}"))
            .with("issue_text", words)
            .with("category", words);
        let mut classification = Classification::new(
            ["Danger", "danger", " DANGER", "danger.py", words][(n % 5) as usize],
        );
        classification
            .more
            .insert("approved".to_owned(), json!(true));
        classification.more.insert("risk".to_owned(), json!("low"));
        let _ = automation
            .execute(ExecuteRequest::new(ticket, classification))
            .await;
    }
    assert_eq!(count.load(Ordering::SeqCst), 0);
}
