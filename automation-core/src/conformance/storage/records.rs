//! Promises on keyed records.

use std::sync::Arc;

use super::samples::{Numbers, one, record};
use crate::execution::TenantId;
use crate::request::Page;
use crate::storage::{Applied, Record, RecordKind, Storage, Write, WriteError};

async fn put(
    storage: &Arc<dyn Storage>,
    record: Record,
    expected: Option<u64>,
) -> Result<Applied, WriteError> {
    one(storage, Write::Put { record, expected }).await
}

async fn delete(
    storage: &Arc<dyn Storage>,
    key: &str,
    revision: u64,
) -> Result<Applied, WriteError> {
    let record = Record {
        revision,
        ..record(key, "ignored")
    };
    one(storage, Write::Delete { record }).await
}

async fn read(storage: &Arc<dyn Storage>, key: &str) -> Option<Record> {
    let (tenant, kind) = (TenantId::default(), RecordKind::ScriptVersion);
    storage.record(&tenant, kind, key).await.unwrap()
}

/// A record comes back as it was given, under a revision that grows from 1.
pub async fn records_grow_by_revision(storage: &Arc<dyn Storage>) {
    assert_eq!(read(storage, "k").await, None);
    for revision in 1..=3 {
        let given = record("k", &format!("печать 'ü' {revision}"));
        let expected = (revision > 1).then_some(revision - 1);
        let answer = put(storage, given.clone(), expected).await.unwrap();
        assert_eq!(answer, Applied::Stored { revision });
        let kept = Record { revision, ..given };
        assert_eq!(read(storage, "k").await, Some(kept));
    }
    assert_eq!(read(storage, "K").await, None, "keys are exact");
}

/// A record is stored only if the present revision is the expected one.
pub async fn put_of_another_revision_is_refused(storage: &Arc<dyn Storage>) {
    let answer = put(storage, record("k", "x"), Some(1)).await;
    assert!(
        matches!(answer, Err(WriteError::Missing { .. })),
        "{answer:?}"
    );
    put(storage, record("k", "first"), None).await.unwrap();
    for expected in [None, Some(0), Some(2)] {
        let answer = put(storage, record("k", "x"), expected).await;
        assert!(
            matches!(answer, Err(WriteError::Mismatch { .. })),
            "{expected:?}: {answer:?}"
        );
    }
    let kept = read(storage, "k").await.unwrap();
    assert_eq!((kept.revision, kept.value), (1, record("k", "first").value));
}

/// A record is deleted only if the present revision is the expected one, and can be stored anew then.
pub async fn delete_needs_the_revision(storage: &Arc<dyn Storage>) {
    let answer = delete(storage, "k", 1).await;
    assert!(
        matches!(answer, Err(WriteError::Missing { .. })),
        "{answer:?}"
    );
    put(storage, record("k", "first"), None).await.unwrap();
    put(storage, record("k", "second"), Some(1)).await.unwrap();
    let answer = delete(storage, "k", 1).await;
    assert!(
        matches!(answer, Err(WriteError::Mismatch { .. })),
        "{answer:?}"
    );
    assert!(read(storage, "k").await.is_some());
    assert_eq!(delete(storage, "k", 2).await.unwrap(), Applied::Deleted);
    assert_eq!(read(storage, "k").await, None);
    let answer = put(storage, record("k", "anew"), None).await.unwrap();
    assert_eq!(answer, Applied::Stored { revision: 1 });
}

/// Of many that store one revision at the same time, one succeeds.
pub async fn concurrent_put_has_one_winner(storage: &Arc<dyn Storage>) {
    let mut callers = tokio::task::JoinSet::new();
    for n in 0..16 {
        let storage = Arc::clone(storage);
        let given = record("k", &n.to_string());
        callers.spawn(async move {
            let won = put(&storage, given.clone(), None).await.is_ok();
            won.then_some(given.value)
        });
    }
    let winners: Vec<_> = callers.join_all().await.into_iter().flatten().collect();
    assert_eq!(winners.len(), 1);
    assert_eq!(read(storage, "k").await.unwrap().value, winners[0]);
}

/// The records of a kind are listed by their keys as byte strings sort, as they are now, without those of others.
pub async fn records_of_a_kind_by_key(storage: &Arc<dyn Storage>) {
    let tenant = TenantId::default();
    let keys = ["b", "B", "", "a.b", "ß", "'\"%_", "a"];
    for key in keys {
        put(storage, record(key, "first"), None).await.unwrap();
    }
    put(storage, record("a", "second"), Some(1)).await.unwrap();
    delete(storage, "b", 1).await.unwrap();
    let other_kind = Record {
        kind: RecordKind::Quarantine,
        ..record("a", "of another kind")
    };
    put(storage, other_kind, None).await.unwrap();

    let (kind, page) = (RecordKind::ScriptVersion, Page::default());
    let found = storage.records(&tenant, kind, &page).await.unwrap();
    assert_eq!(found.next, None);
    let listed: Vec<_> = found.items.iter().map(|row| row.key.as_str()).collect();
    assert_eq!(listed, ["", "'\"%_", "B", "a", "a.b", "ß"]);
    for row in found.items {
        assert_eq!(read(storage, &row.key).await, Some(row));
    }
}

/// Following the pages visits each record once, whatever is stored meanwhile.
pub async fn record_pages_visit_each_once(storage: &Arc<dyn Storage>) {
    let (tenant, mut numbers) = (TenantId::default(), Numbers(5));
    let mut keys: Vec<_> = (0..23)
        .map(|n| format!("{:04}-{n}", numbers.below(10_000)))
        .collect();
    for key in &keys {
        put(storage, record(key, key), None).await.unwrap();
    }
    keys.sort();
    let (mut page, mut visited) = (Page::first(5), Vec::new());
    loop {
        let kind = RecordKind::ScriptVersion;
        let found = storage.records(&tenant, kind, &page).await.unwrap();
        assert!((1..=5).contains(&found.items.len()));
        visited.extend(found.items.into_iter().map(|row| row.key));
        let behind = format!("{}-", visited[visited.len() - 1]);
        put(storage, record(&format!("!{behind}"), "before"), None)
            .await
            .unwrap();
        let Some(next) = found.next else { break };
        page = Page::first(5).after(next);
    }
    assert_eq!(visited, keys);
}

/// The records of each kind are apart, whatever they are for.
pub async fn records_of_every_kind_are_kept_apart(storage: &Arc<dyn Storage>) {
    for kind in RecordKind::ALL.iter().copied() {
        let given = Record {
            kind,
            ..record("same key", kind.as_str())
        };
        put(storage, given, None).await.unwrap();
    }
    let tenant = TenantId::default();
    for kind in RecordKind::ALL.iter().copied() {
        let kept = storage.record(&tenant, kind, "same key").await.unwrap();
        let given = record("same key", kind.as_str()).value;
        assert_eq!(
            kept.map(|kept| (kept.kind, kept.value)),
            Some((kind, given))
        );
    }
}
