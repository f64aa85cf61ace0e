//! Pruning and lists through the handle, and the retention that prunes by itself.

use std::sync::Arc;

use automation_core::storage::Write;
use automation_core::{
    Automation, ErrorKind, Execution, ExecutionId, ExecutionsQuery, ManualClock, Page,
    PruneRequest, Retention, StatsQuery, Status, Storage, TenantId, Trigger,
};
use chrono::{DateTime, TimeDelta, Utc};
use uuid::Uuid;

use crate::support::*;

fn noon() -> DateTime<Utc> {
    DateTime::from_timestamp(1_767_268_800, 0).unwrap()
}

/// Records executions that ended so many days ago.
async fn ended(storage: &Arc<dyn Storage>, tenant: &str, status: Status, days: i64) -> ExecutionId {
    use automation_core::storage::{Change, Transition};
    let id = ExecutionId::from_uuid(Uuid::now_v7());
    let at = noon() - TimeDelta::days(days);
    let mut row = Execution::new(id, "plain.py", "0", Trigger::Manual, at);
    row.tenant_id = TenantId::new(tenant);
    row.status = Status::Running;
    row.ticket_id = format!("T-{days}");
    row.actor = Some("ann".to_owned());
    let mut end = automation_core::Completion::new(status, None, at);
    end.output = "text".to_owned();
    let end = Write::Transition(Box::new(Transition {
        tenant_id: row.tenant_id.clone(),
        id,
        epoch: row.epoch,
        from: Status::Running,
        change: Change::End(end),
    }));
    let answers = storage
        .commit(vec![Write::Insert(Box::new(row)), end])
        .await;
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    id
}

fn engine(storage: &Arc<dyn Storage>, retention: Option<Retention>) -> Automation {
    let builder =
        builder(counting(&Arc::default()), storage).clock(Arc::new(ManualClock::new(noon())));
    match retention {
        Some(retention) => builder.retention(retention).build().unwrap(),
        None => builder.build().unwrap(),
    }
}

async fn left(automation: &Automation) -> Vec<ExecutionId> {
    let all = automation.executions(ExecutionsQuery::default(), Page::first(500));
    let mut left: Vec<_> = all.await.unwrap().items.iter().map(|row| row.id).collect();
    left.sort();
    left
}

#[tokio::test]
async fn prune_deletes_what_was_asked_in_batches_and_keeps_the_statistics() {
    let storage = memory();
    for n in 0..600 {
        ended(&storage, "default", Status::Completed, 10 + n % 3).await;
    }
    let failed = ended(&storage, "default", Status::Failed, 12).await;
    let young = ended(&storage, "default", Status::Completed, 9).await;
    let others = ended(&storage, "other", Status::Completed, 12).await;
    let automation = engine(&storage, None);
    let before = automation.stats(StatsQuery::default()).await.unwrap().all;
    let request = PruneRequest::before((noon() - TimeDelta::days(9)).date_naive());
    let completed = request.clone().with_statuses([Status::Completed]);
    assert_eq!(automation.prune(completed.clone()).await.unwrap(), 600);
    assert_eq!(automation.prune(completed).await.unwrap(), 0);
    assert_eq!(left(&automation).await, [failed, young]);
    assert_eq!(automation.prune(request).await.unwrap(), 1);
    assert_eq!(left(&automation).await, [young]);
    let other = automation.for_tenant(TenantId::new("other"));
    assert_eq!(left(&other).await, [others]);
    let after = automation.stats(StatsQuery::default()).await.unwrap().all;
    assert_eq!(after, before);
}

#[tokio::test]
async fn prune_refuses_days_that_are_not_over_and_open_statuses() {
    let automation = engine(&memory(), None);
    let today = noon().date_naive();
    let tomorrow = PruneRequest::before(today.succ_opt().unwrap());
    let open = PruneRequest::before(today).with_statuses([Status::Failed, Status::Running]);
    for (request, place) in [(tomorrow, "/before"), (open, "/statuses")] {
        let error = automation.prune(request).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidRequest);
        assert!(error.to_string().contains(place), "{error}");
    }
    let all = automation.prune(PruneRequest::before(today)).await;
    assert_eq!(all.unwrap(), 0);
}

#[tokio::test]
async fn a_retention_prunes_every_tenant_by_status_at_the_start() {
    let storage = memory();
    let mut rows = Vec::new();
    for tenant in ["default", "other"] {
        for (status, days) in [
            (Status::Completed, 30),
            (Status::Completed, 31),
            (Status::Cancelled, 31),
            (Status::Failed, 31),
            (Status::Failed, 91),
        ] {
            rows.push(ended(&storage, tenant, status, days).await);
        }
    }
    let retention = Retention::days(30).with_failed_days(90);
    let automation = engine(&storage, Some(retention));
    let other = automation.for_tenant(TenantId::new("other"));
    until(async || {
        let done = left(&automation).await.len() == 2 && left(&other).await.len() == 2;
        done.then_some(())
    })
    .await;
    assert_eq!(left(&automation).await, [rows[0], rows[3]]);
    assert_eq!(left(&other).await, [rows[5], rows[8]]);
}

#[tokio::test]
async fn without_a_retention_nothing_goes_by_itself() {
    let storage = memory();
    let old = ended(&storage, "default", Status::Completed, 10_000).await;
    let automation = engine(&storage, None);
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    assert_eq!(left(&automation).await, [old]);
}

#[tokio::test]
async fn executions_are_listed_across_tickets_without_output_unless_asked() {
    let storage = memory();
    let first = ended(&storage, "default", Status::Completed, 2).await;
    let second = ended(&storage, "default", Status::Failed, 1).await;
    ended(&storage, "other", Status::Failed, 1).await;
    let automation = engine(&storage, None);
    let ask = async |query: ExecutionsQuery, page| automation.executions(query, page).await;
    let page = ask(ExecutionsQuery::default(), Page::first(1))
        .await
        .unwrap();
    assert_eq!(
        (page.items[0].id, page.items[0].output.as_str()),
        (second, "")
    );
    let next = Page::first(1).after(page.next.unwrap());
    let with_output = ExecutionsQuery {
        with_output: true,
        ..ExecutionsQuery::default()
    };
    let page = ask(with_output, next).await.unwrap();
    assert_eq!(
        (page.items[0].id, page.items[0].output.as_str()),
        (first, "text")
    );
    assert_eq!(page.next, None);
    for (query, found) in [
        (
            ExecutionsQuery {
                actor: Some("bob".to_owned()),
                ..ExecutionsQuery::default()
            },
            0,
        ),
        (
            ExecutionsQuery {
                actor: Some("ann".to_owned()),
                ..ExecutionsQuery::default()
            },
            2,
        ),
        (
            ExecutionsQuery {
                ticket_id: Some("T-1".to_owned()),
                ..ExecutionsQuery::default()
            },
            1,
        ),
        (
            ExecutionsQuery {
                statuses: vec![Status::Failed],
                ..ExecutionsQuery::default()
            },
            1,
        ),
        (
            ExecutionsQuery {
                since: Some(noon() - TimeDelta::days(1)),
                ..ExecutionsQuery::default()
            },
            1,
        ),
        (
            ExecutionsQuery {
                until: Some(noon() - TimeDelta::days(1)),
                ..ExecutionsQuery::default()
            },
            1,
        ),
        (
            ExecutionsQuery {
                script_name: Some("none.py".to_owned()),
                ..ExecutionsQuery::default()
            },
            0,
        ),
    ] {
        let page = ask(query.clone(), Page::default()).await.unwrap();
        assert_eq!(page.items.len(), found, "{query:?}");
    }
    let bad = ExecutionsQuery {
        ticket_id: Some(String::new()),
        ..ExecutionsQuery::default()
    };
    let error = ask(bad, Page::default()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidRequest);
}

#[tokio::test]
async fn a_back_up_goes_through_the_handle_where_the_storage_can() {
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("copy.db");
    let error = engine(&memory(), None).back_up(&to).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    let storage = automation_core::SqliteStorage::open(folder.path().join("a.db")).await;
    let storage: Arc<dyn Storage> = Arc::new(storage.unwrap());
    let automation = engine(&storage, None);
    assert_eq!(
        automation.back_up(&to).await.unwrap(),
        to.metadata().unwrap().len()
    );
    let error = automation.back_up(&to).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidRequest);
}
