//! Engines that share a storage: one that is paused while another takes its run, and one that finds many open runs.

use std::sync::Arc;
use std::time::{Duration, Instant};

use automation_core::executor::{Ending, FnExecutor, Outcome};
use automation_core::storage::{ExecutionQuery, Write};
use automation_core::{
    Automation, AutomationBuilder, EventKind, Execution, ExecutionId, InstanceId, ManualClock,
    ManualRequest, Page, Reason, Script, ScriptRegistry, Status, Storage, TenantId, Trigger,
};
use chrono::{DateTime, Utc};
use tokio::sync::Notify;
use uuid::Uuid;

fn today() -> DateTime<Utc> {
    DateTime::from_timestamp(1_767_268_800, 0).unwrap()
}

/// An engine whose runs end when they are told to.
pub(crate) fn engine(storage: &Arc<dyn Storage>, release: &Arc<Notify>) -> AutomationBuilder {
    let release = Arc::clone(release);
    let executor = FnExecutor::new(move |_| {
        let release = Arc::clone(&release);
        async move {
            release.notified().await;
            Outcome::new(Ending::Completed)
        }
    });
    let script = Script::parse("plain.py", b"").unwrap();
    Automation::builder()
        .scripts(ScriptRegistry::from_scripts([script]))
        .executor(executor)
        .shared_storage(Arc::clone(storage))
}

pub(crate) async fn eventually<T>(mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(
            begun.elapsed() < Duration::from_secs(30),
            "it does not happen"
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn open_rows(storage: &Arc<dyn Storage>) -> Vec<Execution> {
    let mut query = ExecutionQuery::of(TenantId::default());
    query.statuses = vec![Status::Starting, Status::Running];
    storage.list(&query, &Page::first(1)).await.unwrap().items
}

/// Lets an engine be paused (its clock stands still, so that it renews no lease) while another one finds its lease
/// over and ends its run; then lets it go on and end the run itself. The two may have storages of their own.
pub(crate) async fn paused_while_another_takes_its_run([first, second]: [Arc<dyn Storage>; 2]) {
    let release = Arc::new(Notify::new());
    let clock = Arc::new(ManualClock::new(today()));
    let paused = engine(&first, &release).clock(clock).build().unwrap();
    let run = tokio::spawn(async move { paused.manual(ManualRequest::new("plain.py")).await });
    let row = eventually(async || open_rows(&first).await.pop()).await;

    let later = Arc::new(ManualClock::new(today() + Duration::from_secs(3600)));
    let other = engine(&second, &release).clock(later).build().unwrap();
    let ended = eventually(async || {
        let row = other.get(row.id).await.unwrap();
        row.status.is_terminal().then_some(row)
    })
    .await;
    assert_eq!(
        (ended.status, ended.reason),
        (Status::Failed, Some(Reason::Orphaned))
    );

    release.notify_waiters();
    let answer = run.await.unwrap().unwrap();
    assert_eq!(answer, ended, "who comes late learns what the row says");
    assert_eq!(
        other.get(row.id).await.unwrap(),
        ended,
        "and does not change it"
    );
    let events = second
        .events(&row.tenant_id, row.id, &Page::default())
        .await
        .unwrap();
    let told: Vec<_> = events
        .items
        .iter()
        .map(|event| (event.kind, &event.data["status"]))
        .collect();
    assert_eq!(
        told,
        [(EventKind::LateEnd, &serde_json::json!("completed"))]
    );
    let stats = other
        .stats(automation_core::StatsQuery::default())
        .await
        .unwrap();
    assert_eq!((stats.all.total, stats.all.failed), (1, 1));
}

/// Measures the recovery of 10,000 orphans, each time on a storage of its own, until one is as fast as it has to be, and
/// returns the fastest: what else the machine does meanwhile is not what is looked at.
pub(crate) async fn fastest_recovery(fresh: impl AsyncFn() -> Arc<dyn Storage>) -> Duration {
    let mut fastest = Duration::MAX;
    for _ in 0..8 {
        fastest = fastest.min(recovery_of(&fresh().await, 10_000).await);
        if fastest < Duration::from_secs(2) {
            break;
        }
    }
    fastest
}

/// Leaves so many runs open, starts an engine, and returns how long it takes until none is.
async fn recovery_of(storage: &Arc<dyn Storage>, orphans: usize) -> Duration {
    let rows: Vec<_> = (0..orphans).map(orphan).collect();
    for some in rows.chunks(500) {
        let writes = some
            .iter()
            .map(|row| Write::Insert(Box::new(row.clone())))
            .collect();
        let answers = storage.commit(writes).await;
        assert!(answers.iter().all(Result::is_ok));
    }
    let begun = Instant::now();
    let _automation = engine(storage, &Arc::default()).build().unwrap();
    // The oldest ones are looked at last.
    let is_open = async |row: &Execution| {
        let row = storage.get(&row.tenant_id, row.id).await.unwrap();
        !row.status.is_terminal()
    };
    eventually(async || (!is_open(&rows[0]).await).then_some(())).await;
    eventually(async || open_rows(storage).await.is_empty().then_some(())).await;
    begun.elapsed()
}

fn orphan(n: usize) -> Execution {
    let id = ExecutionId::from_uuid(Uuid::now_v7());
    let script = format!("script_{}.py", n % 10);
    let mut row = Execution::new(id, script, "0", Trigger::Manual, today());
    row.status = Status::Running;
    row.claimed_by = Some(InstanceId::new("gone"));
    row.lease_until = Some(today());
    row
}
