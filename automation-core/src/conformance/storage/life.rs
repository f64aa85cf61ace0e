//! Promises on the life of a storage: sharing, closing, opening again.

use std::sync::Arc;

use super::Fixture;
use super::samples::{
    append, event, finish, fresh, full, get, id, insert, insert_all, list, one, record, run,
};
use crate::execution::{Execution, TenantId};
use crate::request::{Page, StatsQuery};
use crate::status::Status;
use crate::storage::{ExecutionQuery, RecordKind, Storage, StorageError, Write, WriteError};

/// Two handles on one backend see the same data.
pub async fn clone_shares_state(storage: &Arc<dyn Storage>) {
    let other = Arc::clone(storage);
    insert_all(storage, &[fresh(1)]).await;
    assert_eq!(get(&other, &fresh(1)).await, fresh(1));
}

/// A committed write is seen by every read that begins after it.
pub async fn readers_see_what_was_committed(storage: &Arc<dyn Storage>) {
    let mut callers = tokio::task::JoinSet::new();
    for n in 0..50 {
        let storage = Arc::clone(storage);
        callers.spawn(async move {
            let row = fresh(n);
            insert_all(&storage, std::slice::from_ref(&row)).await;
            assert_eq!(get(&storage, &row).await, row);
            one(&storage, finish(&row, Status::Failed)).await.unwrap();
            assert_eq!(get(&storage, &row).await.status, Status::Failed);
        });
    }
    callers.join_all().await;
}

/// `Debug` of a backend shows none of its rows; they hold tickets and output.
pub async fn debug_hides_rows(storage: &Arc<dyn Storage>) {
    let row = Execution {
        actor: Some("canary".to_owned()),
        output: "canary".to_owned(),
        ..fresh(1)
    };
    insert_all(storage, &[row]).await;
    let text = format!("{storage:?} {storage:#?}");
    assert!(!text.contains("canary"), "{text}");
}

/// After `close`, every call answers that the storage is closed.
pub async fn after_close_is_closed(storage: &Arc<dyn Storage>) {
    insert_all(storage, &[fresh(1)]).await;
    storage.close().await.unwrap();
    let answers = storage
        .commit(vec![insert(&fresh(2)), insert(&fresh(3))])
        .await;
    assert_eq!(answers.len(), 2);
    for answer in answers {
        let closed = matches!(answer, Err(WriteError::Storage(StorageError::Closed)));
        assert!(closed, "{answer:?}");
    }
    let (tenant, page) = (TenantId::default(), Page::default());
    let query = ExecutionQuery::of(tenant.clone());
    let kind = RecordKind::ScriptVersion;
    let reads = [
        storage.get(&tenant, id(1)).await.map(drop),
        storage.list(&query, &page).await.map(drop),
        storage.events(&tenant, id(1), &page).await.map(drop),
        storage.record(&tenant, kind, "k").await.map(drop),
        storage.records(&tenant, kind, &page).await.map(drop),
        storage.stats(&StatsQuery::default()).await.map(drop),
        storage.health().await.map(drop),
        storage.close().await,
    ];
    for answer in reads {
        assert!(matches!(answer, Err(StorageError::Closed)), "{answer:?}");
    }
}

/// Calls that `close` overtakes answer either that they were applied or that the storage is closed.
pub async fn close_answers_every_call(storage: &Arc<dyn Storage>) {
    let mut callers = tokio::task::JoinSet::new();
    for n in 0..50 {
        let storage = Arc::clone(storage);
        callers.spawn(async move { one(&storage, insert(&fresh(n))).await });
    }
    tokio::task::yield_now().await;
    storage.close().await.unwrap();
    for answer in callers.join_all().await {
        let closed = matches!(answer, Err(WriteError::Storage(StorageError::Closed)));
        assert!(answer.is_ok() || closed, "{answer:?}");
    }
}

/// The backend is capable of what its fixture says.
pub async fn capabilities_are_the_expected(fixture: &dyn Fixture) {
    let storage = fixture.open().await;
    assert_eq!(storage.capabilities(), fixture.expected_capabilities());
}

/// What was committed before a close is there after it, in every kind of row; leases may be over. Only of
/// durable backends.
pub async fn reopen_preserves(fixture: &dyn Fixture) {
    if !fixture.expected_capabilities().durable {
        return;
    }
    let storage = fixture.open().await;
    let row = full(1);
    let put = Write::Put {
        record: record("k", "v"),
        expected: None,
    };
    let writes = vec![
        insert(&row),
        insert(&fresh(2)),
        append(&row, 1),
        put,
        run(&fresh(2)),
    ];
    super::samples::all_applied(&storage, writes).await;
    let running = get(&storage, &fresh(2)).await;
    one(&storage, finish(&running, Status::Completed))
        .await
        .unwrap();
    let (listed, stats) = (
        list(&storage).await,
        storage.stats(&StatsQuery::default()).await,
    );
    storage.close().await.unwrap();
    drop(storage);

    let storage = fixture.open().await;
    let mut found = get(&storage, &row).await;
    assert!(found.lease_until <= row.lease_until);
    found.lease_until = row.lease_until;
    assert_eq!(found, row);
    assert_eq!(list(&storage).await, listed);
    let again = storage.stats(&StatsQuery::default()).await;
    assert_eq!(again.unwrap(), stats.unwrap());
    let page = Page::default();
    let events = storage.events(&row.tenant_id, row.id, &page).await.unwrap();
    assert_eq!(events.items, [event(&row, 1)]);
    let kind = RecordKind::ScriptVersion;
    let kept = storage
        .record(&TenantId::default(), kind, "k")
        .await
        .unwrap();
    assert_eq!(kept.unwrap().value, record("k", "v").value);
    let again = one(&storage, insert(&row)).await;
    assert!(matches!(again, Err(WriteError::Exists { .. })), "{again:?}");
}
