//! Promises on pruning: what goes, what stays, and that the statistics stay exact (P8).

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::TimeDelta;

use super::samples::{
    Numbers, all_applied, append, at, end, fresh, fresh_of, id, ids, insert, insert_all, one,
    record, transition,
};
use crate::execution::{Execution, ExecutionId, TenantId, Trigger};
use crate::request::{Cursor, Page, StatsQuery};
use crate::stats::{ScriptStats, Stats};
use crate::status::Status;
use crate::storage::{
    Applied, Change, ExecutionQuery, Prune, RecordKind, Storage, StorageError, Write, WriteError,
    pruned_totals,
};

/// Prunes what ended before a day that is so many days after that of [`at`].
fn before(days: i64) -> Prune {
    Prune {
        tenant_id: Some(TenantId::default()),
        before: (at(0) + TimeDelta::days(days)).date_naive(),
        statuses: Vec::new(),
        rows_max: 500,
        after: None,
    }
}

async fn prune(storage: &Arc<dyn Storage>, prune: Prune) -> (usize, Option<Cursor>) {
    match one(storage, Write::Prune(prune)).await.unwrap() {
        Applied::Pruned { rows, next } => (rows, next),
        other => panic!("{other:?}"),
    }
}

/// Prunes call by call until nothing is left to look at.
async fn prune_all(storage: &Arc<dyn Storage>, mut asked: Prune) -> usize {
    let mut all = 0;
    loop {
        let (rows, next) = prune(storage, asked.clone()).await;
        all += rows;
        asked.after = next;
        if asked.after.is_none() {
            return all;
        }
    }
}

/// Records an execution that ended so many days after noon of the day.
async fn ended(storage: &Arc<dyn Storage>, row: &Execution, status: Status, days: i64) {
    let mut end = end(status);
    end.completed_at = at(60) + TimeDelta::days(days);
    end.duration_us = Some(1_000 + u64::try_from(days.abs()).unwrap());
    insert_all(storage, std::slice::from_ref(row)).await;
    one(storage, transition(row, Change::End(end)))
        .await
        .unwrap();
}

fn running(n: u64) -> Execution {
    Execution {
        status: Status::Running,
        ..fresh(n)
    }
}

async fn left(storage: &Arc<dyn Storage>) -> Vec<ExecutionId> {
    let query = ExecutionQuery::default();
    let mut left = ids(&storage.list(&query, &Page::first(500)).await.unwrap().items);
    left.sort();
    left
}

/// Whatever is pruned, the statistics stay as they were, and are the pruned totals and a recount of what is there.
pub async fn pruning_keeps_the_statistics_exact(storage: &Arc<dyn Storage>) {
    let mut numbers = Numbers(5);
    for round in 0..30 {
        for n in 0..6 {
            let row = random(&mut numbers, round * 6 + n);
            let status = numbers.one_of(&[Status::Completed, Status::Failed, Status::Cancelled]);
            let days = i64::try_from(numbers.below(5)).unwrap() - 3;
            ended(storage, &row, status, days).await;
        }
        let before_it = sums(storage).await;
        let statuses: &[&[Status]] = &[&[], &[Status::Failed], &[Status::Completed]];
        let asked = Prune {
            tenant_id: numbers.one_of(&[None, Some("default")]).map(TenantId::new),
            statuses: numbers.one_of(statuses).to_vec(),
            rows_max: usize::try_from(1 + numbers.below(9)).unwrap(),
            ..before(i64::try_from(numbers.below(5)).unwrap() - 3)
        };
        prune(storage, asked.clone()).await;
        let after_it = sums(storage).await;
        assert_eq!(after_it, before_it, "{asked:?}");
        assert_eq!(after_it, recount(storage).await, "{asked:?}");
    }
    prune_all(
        storage,
        Prune {
            tenant_id: None,
            ..before(9)
        },
    )
    .await;
    assert_eq!(left(storage).await, []);
    assert_eq!(sums(storage).await, recount(storage).await);
}

fn random(numbers: &mut Numbers, n: u64) -> Execution {
    Execution {
        script_name: numbers.one_of(&["a.py", "b c.py"]).to_owned(),
        trigger: numbers.one_of(Trigger::ALL),
        started_at: at(-400_000 + i64::try_from(numbers.below(400_000)).unwrap()),
        status: Status::Running,
        ..fresh_of(&TenantId::new(numbers.one_of(&["default", "other"])), n)
    }
}

/// The sums of each tenant and script.
type Sums = Vec<BTreeMap<String, ScriptStats>>;

async fn sums(storage: &Arc<dyn Storage>) -> Sums {
    let mut sums = Vec::new();
    for tenant in ["default", "other"] {
        let query = StatsQuery {
            tenant_id: TenantId::new(tenant),
            ..StatsQuery::default()
        };
        sums.push(storage.stats(&query).await.unwrap().by_script);
    }
    sums
}

async fn recount(storage: &Arc<dyn Storage>) -> Sums {
    let mut sums = Vec::new();
    for tenant in ["default", "other"].map(TenantId::new) {
        let page = Page::first(500);
        let records = storage.records(&tenant, RecordKind::Pruned, &page).await;
        let mut all = pruned_totals(&records.unwrap().items).unwrap();
        let rows = storage.list(&ExecutionQuery::of(tenant), &page).await;
        for (script, stats) in Stats::fold(&rows.unwrap().items, 0).by_script {
            all.entry(script).or_default().merge(&stats);
        }
        sums.push(all);
    }
    sums
}

/// Only what ended before the day goes, of the tenant and with the statuses that were asked for.
pub async fn pruning_takes_what_fits_and_nothing_else(storage: &Arc<dyn Storage>) {
    let other = Execution {
        status: Status::Running,
        ..fresh_of(&TenantId::new("other"), 9)
    };
    ended(storage, &other, Status::Completed, -5).await;
    for (n, status, days) in [
        (1, Status::Completed, -2),
        (2, Status::Failed, -2),
        (3, Status::Cancelled, -2),
        (4, Status::Completed, -1),
        (5, Status::Completed, 0),
    ] {
        ended(storage, &running(n), status, days).await;
    }
    for n in [6, 7] {
        let mut open = running(n);
        open.started_at = at(0) - TimeDelta::days(9);
        open.status = [Status::Starting, Status::Running][usize::try_from(n).unwrap() % 2];
        insert_all(storage, &[open]).await;
    }
    let failed = Prune {
        statuses: vec![Status::Failed],
        ..before(1)
    };
    for (asked, rows, remain) in [
        (failed.clone(), 1, vec![1, 3, 4, 5, 6, 7, 9]),
        (failed, 0, vec![1, 3, 4, 5, 6, 7, 9]),
        (before(-2), 0, vec![1, 3, 4, 5, 6, 7, 9]),
        (before(1), 4, vec![6, 7, 9]),
        (before(9), 0, vec![6, 7, 9]),
    ] {
        let gone = prune_all(storage, asked.clone()).await;
        let remain: Vec<_> = remain.into_iter().map(id).collect();
        assert_eq!((gone, left(storage).await), (rows, remain), "{asked:?}");
    }
    let everybody = Prune {
        tenant_id: None,
        ..before(1)
    };
    assert_eq!(prune_all(storage, everybody).await, 1);
    assert_eq!(left(storage).await, [6, 7].map(id));
}

/// Events go with their execution, and so do the records whose keys begin with its id; its idempotency key is free.
pub async fn pruning_takes_what_belongs_to_a_row(storage: &Arc<dyn Storage>) {
    let row = |n| Execution {
        idempotency_key: Some(format!("key-{n}")),
        ..running(n)
    };
    let (old, new) = (row(1), row(2));
    ended(storage, &old, Status::Completed, -3).await;
    ended(storage, &new, Status::Completed, 3).await;
    let key = |row: &Execution, rest: &str| format!("{}{rest}", row.id);
    let keys = [
        "a".to_owned(),
        key(&old, ""),
        key(&old, "/7"),
        key(&new, "/7"),
    ];
    for key in &keys {
        let (record, expected) = (record(key, "x"), None);
        one(storage, Write::Put { record, expected }).await.unwrap();
    }
    for row in [&old, &new] {
        one(storage, append(row, 1)).await.unwrap();
    }
    assert_eq!(prune_all(storage, before(2)).await, 1);
    let page = Page::default();
    let events = storage.events(&old.tenant_id, old.id, &page);
    assert_eq!(events.await.unwrap().items, []);
    let events = storage.events(&new.tenant_id, new.id, &page);
    assert_eq!(events.await.unwrap().items.len(), 1);
    let kind = RecordKind::ScriptVersion;
    let records = storage.records(&old.tenant_id, kind, &page);
    let found: Vec<_> = records.await.unwrap().items;
    let found: Vec<_> = found.iter().map(|record| &record.key).collect();
    assert_eq!(found, [&keys[3], &keys[0]]);
    let late = append(&old, 2);
    let answer = one(storage, late).await;
    assert!(matches!(answer, Err(WriteError::Missing { .. })));
    one(storage, insert(&old)).await.unwrap();
}

/// What an open execution names as its root or parent is kept until that has ended.
pub async fn pruning_keeps_what_open_executions_name(storage: &Arc<dyn Storage>) {
    for n in [1, 2, 3] {
        ended(storage, &running(n), Status::Failed, -1).await;
    }
    let open = Execution {
        root_id: Some(id(1)),
        parent_id: Some(id(2)),
        ..running(4)
    };
    insert_all(storage, std::slice::from_ref(&open)).await;
    assert_eq!(prune_all(storage, before(1)).await, 1);
    assert_eq!(left(storage).await, [1, 2, 4].map(id));
    one(
        storage,
        transition(&open, Change::End(end(Status::Completed))),
    )
    .await
    .unwrap();
    assert_eq!(prune_all(storage, before(1)).await, 3);
}

/// A call looks at no more rows than asked, and tells where the next one begins; a cursor of another list is refused.
pub async fn pruning_goes_on_from_call_to_call(storage: &Arc<dyn Storage>) {
    let tenants = ["default", "other"].map(TenantId::new);
    for n in 0..10 {
        let row = Execution {
            status: Status::Running,
            ..fresh_of(&tenants[usize::try_from(n).unwrap() % 2], n)
        };
        // Every other row of each tenant is kept.
        let days = if n % 4 < 2 { -1 } else { 5 };
        ended(storage, &row, Status::Completed, days).await;
    }
    let mut asked = Prune {
        tenant_id: None,
        rows_max: 2,
        ..before(1)
    };
    let (mut gone, mut calls) = (Vec::new(), 0);
    loop {
        let (rows, next) = prune(storage, asked.clone()).await;
        gone.push(rows);
        calls += 1;
        asked.after = next;
        if asked.after.is_none() {
            break;
        }
    }
    assert_eq!((gone, calls), (vec![1, 1, 1, 1, 1, 1], 6));
    assert_eq!(left(storage).await, [2, 3, 6, 7].map(id));

    let (_, next) = prune(
        storage,
        Prune {
            rows_max: 1,
            ..before(1)
        },
    )
    .await;
    let of_other = Prune {
        tenant_id: Some(tenants[1].clone()),
        after: next,
        ..before(1)
    };
    let nonsense = Prune {
        after: Some(Cursor::new("x1.2")),
        ..before(1)
    };
    for asked in [of_other, nonsense] {
        let answer = one(storage, Write::Prune(asked)).await;
        let invalid = WriteError::Storage(StorageError::InvalidCursor {
            cursor: String::new(),
        });
        let kind = |answer: &WriteError| std::mem::discriminant(answer);
        assert_eq!(kind(&answer.unwrap_err()), kind(&invalid));
    }
}

/// A call of which another write is not applied prunes nothing.
pub async fn pruning_is_taken_back_with_its_call(storage: &Arc<dyn Storage>) {
    let (old, new) = (running(1), running(2));
    ended(storage, &old, Status::Completed, -1).await;
    one(storage, append(&old, 1)).await.unwrap();
    let own = record(&old.id.to_string(), "x");
    let (record, expected) = (own, None);
    one(storage, Write::Put { record, expected }).await.unwrap();
    insert_all(storage, std::slice::from_ref(&new)).await;
    let counted = sums(storage).await;
    let all = || async { format!("{:?}", everything(storage, &old).await) };
    let there = all().await;
    let answers = storage
        .commit(vec![Write::Prune(before(1)), insert(&new)])
        .await;
    assert!(matches!(answers[..], [Err(WriteError::Aborted), Err(_)]));
    assert_eq!((all().await, sums(storage).await), (there, counted.clone()));

    // What a call ended it may prune.
    let last = transition(&new, Change::End(end(Status::Failed)));
    let answers = all_applied(storage, vec![last, Write::Prune(before(1))]).await;
    assert!(matches!(answers[1], Applied::Pruned { rows: 2, .. }));
    assert_eq!(left(storage).await, []);
    assert_eq!(sums(storage).await, recount(storage).await);
    assert_ne!(sums(storage).await, counted);
}

async fn everything(storage: &Arc<dyn Storage>, row: &Execution) -> impl std::fmt::Debug {
    let page = Page::first(500);
    let tenant = &row.tenant_id;
    let mut records = Vec::new();
    for kind in RecordKind::ALL {
        records.push(storage.records(tenant, *kind, &page).await.unwrap());
    }
    (
        storage
            .list(&ExecutionQuery::default(), &page)
            .await
            .unwrap(),
        storage.events(tenant, row.id, &page).await.unwrap(),
        records,
    )
}
