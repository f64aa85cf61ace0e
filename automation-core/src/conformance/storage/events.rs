//! Promises on the events of an execution.

use std::sync::Arc;

use serde_json::json;

use super::samples::{append, at, event, fresh, insert_all, one};
use crate::execution::{Event, EventKind};
use crate::request::Page;
use crate::storage::{Applied, Storage, Write, WriteError};

/// Events come back as they were given, in the order of their numbers, whatever the order of arrival.
pub async fn events_keep_order_and_number(storage: &Arc<dyn Storage>) {
    let row = fresh(1);
    insert_all(storage, std::slice::from_ref(&row)).await;
    let progress = Event {
        kind: EventKind::Progress,
        data: json!({"fraction": 0.5, "text": "halb \u{1f600}\n"}),
        at: at(3),
        ..event(&row, 2)
    };
    for event in [event(&row, 10), event(&row, 1), progress.clone()] {
        let answer = one(storage, Write::Append(event)).await.unwrap();
        assert_eq!(answer, Applied::Appended);
    }
    let page = Page::default();
    let found = storage.events(&row.tenant_id, row.id, &page).await.unwrap();
    assert_eq!(found.items, [event(&row, 1), progress, event(&row, 10)]);
    assert_eq!(found.next, None);
}

/// An event's number can be taken once an execution.
pub async fn an_event_number_is_taken_once(storage: &Arc<dyn Storage>) {
    insert_all(storage, &[fresh(1), fresh(2)]).await;
    one(storage, append(&fresh(1), 1)).await.unwrap();
    one(storage, append(&fresh(2), 1)).await.unwrap();
    let second = Event {
        data: json!("second"),
        ..event(&fresh(1), 1)
    };
    let answer = one(storage, Write::Append(second)).await;
    assert!(
        matches!(answer, Err(WriteError::Exists { .. })),
        "{answer:?}"
    );
    let row = fresh(1);
    let page = Page::default();
    let found = storage.events(&row.tenant_id, row.id, &page).await.unwrap();
    assert_eq!(found.items, [event(&row, 1)]);
}

/// An event of an execution that is not there is `Missing`.
pub async fn append_to_missing_is_missing(storage: &Arc<dyn Storage>) {
    let answer = one(storage, append(&fresh(1), 1)).await;
    assert!(
        matches!(answer, Err(WriteError::Missing { .. })),
        "{answer:?}"
    );
}

/// Events that arrive at the same time are all kept.
pub async fn concurrent_appends_lose_nothing(storage: &Arc<dyn Storage>) {
    let row = fresh(1);
    insert_all(storage, std::slice::from_ref(&row)).await;
    let mut callers = tokio::task::JoinSet::new();
    for seq in 1..=50 {
        let (storage, row) = (Arc::clone(storage), row.clone());
        callers.spawn(async move { one(&storage, append(&row, seq)).await.unwrap() });
    }
    callers.join_all().await;
    let page = Page::first(100);
    let found = storage.events(&row.tenant_id, row.id, &page).await.unwrap();
    assert!(found.items.iter().map(|event| event.seq).eq(1..=50));
}

/// Pages of events follow each other without gap or repetition, also while events arrive.
pub async fn event_pages_visit_each_once(storage: &Arc<dyn Storage>) {
    let row = fresh(1);
    let events = (1..=10).map(|seq| append(&row, seq));
    let mut writes = vec![super::samples::insert(&row)];
    writes.extend(events);
    super::samples::all_applied(storage, writes).await;
    let (mut page, mut seen) = (Page::first(4), Vec::new());
    loop {
        let found = storage.events(&row.tenant_id, row.id, &page).await.unwrap();
        assert!(found.items.len() <= 4);
        seen.extend(found.items.iter().map(|event| event.seq));
        if seen.len() == 4 {
            one(storage, append(&row, 11)).await.unwrap();
        }
        let Some(next) = found.next else { break };
        page = Page::first(4).after(next);
    }
    assert!(seen.iter().copied().eq(1..=11), "{seen:?}");
}
