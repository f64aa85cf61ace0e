//! Promises on keyed records.

use std::sync::Arc;

use super::samples::{one, record};
use crate::execution::TenantId;
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
