//! Promises on the calls of `commit`: all or none, and no harm to each other.

use std::sync::Arc;
use std::time::Duration;

use super::samples::{
    append, event, finish, fresh, get, insert, insert_all, list, one, record, run,
};
use crate::execution::{Execution, TenantId};
use crate::request::{Page, StatsQuery};
use crate::status::Status;
use crate::storage::{RecordKind, Storage, Write, WriteError};

/// A call of no writes answers nothing.
pub async fn an_empty_call_answers_nothing(storage: &Arc<dyn Storage>) {
    assert!(storage.commit(Vec::new()).await.is_empty());
}

/// One write that fails leaves none of its call applied, and says so in the others' places.
pub async fn atomic_call_all_or_none(storage: &Arc<dyn Storage>) {
    let (old, held) = (fresh(1), fresh(2));
    let kept = Write::Put {
        record: record("kept", "1"),
        expected: None,
    };
    let before = vec![insert(&old), insert(&held), append(&old, 1), kept];
    super::samples::all_applied(storage, before).await;
    let stats = storage.stats(&StatsQuery::default()).await.unwrap();

    for place in 0..=6 {
        let mut writes = harmless_writes(&old);
        writes.insert(place, insert(&held));
        let answers = storage.commit(writes).await;
        assert_eq!(answers.len(), 7);
        for (n, answer) in answers.iter().enumerate() {
            match answer {
                Err(WriteError::Exists { .. }) => assert_eq!(n, place),
                Err(WriteError::Aborted) => assert_ne!(n, place),
                other => panic!("write {n} of a call that fails at {place}: {other:?}"),
            }
        }
        assert_eq!(list(storage).await.items, [held.clone(), old.clone()]);
        assert_eq!(storage.stats(&StatsQuery::default()).await.unwrap(), stats);
        let page = Page::default();
        let events = storage.events(&old.tenant_id, old.id, &page).await.unwrap();
        assert_eq!(events.items, [event(&old, 1)]);
        for (key, there) in [("kept", true), ("new", false)] {
            let kind = RecordKind::ScriptVersion;
            let record = storage.record(&old.tenant_id, kind, key).await.unwrap();
            assert_eq!(record.is_some(), there, "{key}");
        }
    }
}

/// Six writes of every kind that succeed by themselves.
fn harmless_writes(old: &Execution) -> Vec<Write> {
    let deleted = crate::storage::Record {
        revision: 1,
        ..record("kept", "")
    };
    vec![
        insert(&fresh(3)),
        finish(old, Status::Cancelled),
        append(old, 2),
        Write::Put {
            record: record("new", "1"),
            expected: None,
        },
        Write::Delete { record: deleted },
        append(&fresh(3), 1),
    ]
}

/// The writes of a call see what those before them did.
pub async fn writes_of_a_call_see_each_other(storage: &Arc<dyn Storage>) {
    let row = fresh(1);
    let running = Execution {
        status: Status::Running,
        ..row.clone()
    };
    let writes = vec![
        insert(&row),
        append(&row, 1),
        run(&row),
        finish(&running, Status::Completed),
    ];
    super::samples::all_applied(storage, writes).await;
    assert_eq!(get(storage, &row).await.status, Status::Completed);
    let stats = storage.stats(&StatsQuery::default()).await.unwrap();
    assert_eq!((stats.all.total, stats.open), (1, 0));
}

/// Calls that are made at the same time succeed or fail each by itself.
pub async fn calls_do_not_harm_each_other(storage: &Arc<dyn Storage>) {
    insert_all(storage, &[fresh(1_000)]).await;
    let mut callers = tokio::task::JoinSet::new();
    for n in 0..60 {
        let storage = Arc::clone(storage);
        callers.spawn(async move {
            let writes = match n % 3 {
                0 => vec![insert(&fresh(n)), append(&fresh(n), 1)],
                1 => vec![insert(&fresh(n)), insert(&fresh(1_000))],
                _ => vec![append(&fresh(2_000), 1)],
            };
            let answers = storage.commit(writes).await;
            (n, answers.iter().all(Result::is_ok))
        });
    }
    for (n, good) in callers.join_all().await {
        assert_eq!(good, n % 3 == 0, "call {n}");
        let row = storage.get(&TenantId::default(), fresh(n).id).await;
        assert_eq!(row.is_ok(), good, "call {n}");
    }
}

/// A commit that is dropped half-way is applied as a whole or not at all, and the storage goes on.
pub async fn dropped_commit_leaves_valid_state(storage: &Arc<dyn Storage>) {
    for n in 0..40 {
        let writes = vec![insert(&fresh(n)), append(&fresh(n), 1)];
        let commit = storage.commit(writes);
        let _ = tokio::time::timeout(Duration::from_micros(10 * n), commit).await;
    }
    insert_all(storage, &[fresh(1_000)]).await;
    for n in 0..40 {
        let row = fresh(n);
        let there = storage.get(&row.tenant_id, row.id).await.is_ok();
        let page = Page::default();
        let events = storage.events(&row.tenant_id, row.id, &page).await.unwrap();
        assert_eq!(events.items.len(), usize::from(there), "call {n}");
        let again = one(storage, insert(&row)).await;
        assert_eq!(again.is_ok(), !there, "call {n}: {again:?}");
    }
}
