//! Promises on tenants.

use std::sync::Arc;

use super::samples::{append, at, claim, finish, fresh_of, insert, insert_all, one, record, run};
use crate::execution::{Execution, TenantId};
use crate::request::{Page, StatsQuery};
use crate::stats::Stats;
use crate::status::Status;
use crate::storage::{
    Applied, Claim, ExecutionQuery, Record, RecordKind, Storage, StorageError, Write, WriteError,
};

/// No read shows a tenant the rows of another.
pub async fn tenants_are_invisible_to_each_other(storage: &Arc<dyn Storage>) {
    let (ours, theirs) = (TenantId::new("ours"), TenantId::new("theirs"));
    let row = fill(storage, &ours).await;
    let page = Page::default();

    let answer = storage.get(&theirs, row.id).await;
    assert!(
        matches!(answer, Err(StorageError::NotFound { .. })),
        "{answer:?}"
    );
    let mut query = ExecutionQuery::of(theirs.clone());
    assert_eq!(storage.list(&query, &page).await.unwrap().items, []);
    query.ticket_id = Some(row.ticket_id.clone());
    assert_eq!(storage.list(&query, &page).await.unwrap().items, []);
    query.ticket_id = None;
    query.statuses = vec![Status::Starting, Status::Completed];
    assert_eq!(storage.list(&query, &page).await.unwrap().items, []);
    let events = storage.events(&theirs, row.id, &page).await.unwrap();
    assert_eq!(events.items, []);
    let kind = RecordKind::ScriptVersion;
    assert_eq!(storage.record(&theirs, kind, "k").await.unwrap(), None);
    let records = storage.records(&theirs, kind, &page).await.unwrap();
    assert_eq!(records.items, []);
    query.statuses.clear();
    query.id = Some(row.id);
    assert_eq!(storage.list(&query, &page).await.unwrap().items, []);
    let of = |tenant: &TenantId| StatsQuery {
        tenant_id: tenant.clone(),
        ..StatsQuery::default()
    };
    let stats = storage.stats(&of(&theirs)).await.unwrap();
    assert_eq!(stats, Stats::default());
    let stats = storage.stats(&of(&ours)).await.unwrap();
    assert_eq!((stats.all.total, stats.open, stats.recent.len()), (1, 1, 1));
}

/// No write of a tenant reaches the rows of another.
pub async fn tenants_do_not_write_to_each_other(storage: &Arc<dyn Storage>) {
    let (ours, theirs) = (TenantId::new("ours"), TenantId::new("theirs"));
    let row = fill(storage, &ours).await;
    let before = storage.get(&ours, row.id).await.unwrap();
    let posing = Execution {
        tenant_id: theirs.clone(),
        ..before.clone()
    };
    let their_record = Record {
        tenant_id: theirs.clone(),
        revision: 1,
        ..record("k", "theirs")
    };
    let refused = [
        run(&posing),
        finish(&posing, Status::Cancelled),
        append(&posing, 2),
        Write::Delete {
            record: their_record.clone(),
        },
        Write::Put {
            record: their_record.clone(),
            expected: Some(1),
        },
    ];
    for write in refused {
        let answer = one(storage, write).await;
        assert!(
            matches!(answer, Err(WriteError::Missing { .. })),
            "{answer:?}"
        );
    }
    let claim = Write::Claim(Claim {
        tenant_id: theirs.clone(),
        ..claim("them", 10)
    });
    let claimed = one(storage, claim).await.unwrap();
    assert_eq!(claimed, Applied::Claimed(vec![]));
    let put = Write::Put {
        record: their_record,
        expected: None,
    };
    one(storage, put).await.unwrap();

    assert_eq!(storage.get(&ours, row.id).await.unwrap(), before);
    let kind = RecordKind::ScriptVersion;
    let kept = storage.record(&ours, kind, "k").await.unwrap().unwrap();
    assert_eq!(kept.value, record("k", "ours").value);
}

/// Gives a tenant rows of every kind; returns its open, due execution.
async fn fill(storage: &Arc<dyn Storage>, tenant: &TenantId) -> Execution {
    let open = Execution {
        run_at: Some(at(-1)),
        ticket_id: "T-1".to_owned(),
        ..fresh_of(tenant, 1)
    };
    let ended = Execution {
        status: Status::Running,
        ..fresh_of(tenant, 2)
    };
    insert_all(storage, std::slice::from_ref(&ended)).await;
    let kept = Record {
        tenant_id: tenant.clone(),
        ..record("k", "ours")
    };
    let writes = vec![
        insert(&open),
        append(&open, 1),
        finish(&ended, Status::Completed),
        Write::Put {
            record: kept,
            expected: None,
        },
    ];
    super::samples::all_applied(storage, writes).await;
    open
}
