//! Promises on lists of executions.

use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};

use super::samples::{
    Numbers, append, at, finish, fresh, full, full_end, id, ids, insert, insert_all, list, one,
    record, transition,
};
use crate::execution::{Execution, TenantId};
use crate::limits::{PAGE_BYTES, PAGE_ROWS_MAX};
use crate::request::{Cursor, Page, StatsQuery};
use crate::stats::Stats;
use crate::status::Status;
use crate::storage::{Change, ExecutionQuery, RecordKind, Storage, StorageError, Write};

fn everything() -> ExecutionQuery {
    ExecutionQuery::of(TenantId::default())
}

/// Newest first; executions of the same time by their id.
pub async fn list_newest_first_ties_by_id(storage: &Arc<dyn Storage>) {
    let row = |n, us| Execution {
        started_at: at(0) + TimeDelta::microseconds(us),
        ..fresh(n)
    };
    let rows = [row(5, 0), row(1, 1), row(3, 0), row(4, -1), row(2, 0)];
    insert_all(storage, &rows).await;
    assert_eq!(ids(&list(storage).await.items), [1, 5, 3, 2, 4].map(id));
}

/// Every combination of conditions finds exactly the executions that meet all of them.
pub async fn filters_compose(storage: &Arc<dyn Storage>) {
    let mut numbers = Numbers(7);
    let mut rows = Vec::new();
    for n in 0..60 {
        let mut row = sample(n, &mut numbers);
        insert_all(storage, std::slice::from_ref(&row)).await;
        if let Some(status) = numbers.one_of(&[None, Some(Status::Failed), Some(Status::Completed)])
            && row.status == Status::Running
        {
            one(storage, finish(&row, status)).await.unwrap();
            row.end(super::samples::end(status));
        }
        rows.push(row);
    }
    rows.sort_by_key(|row| std::cmp::Reverse((row.started_at, row.id)));
    for _ in 0..200 {
        let query = sample_query(&mut numbers);
        let found = storage.list(&query, &Page::first(100)).await.unwrap();
        let expected = rows.iter().filter(|row| fits(row, &query));
        assert_eq!(ids(&found.items), ids(expected), "{query:?}");
    }
}

fn sample(n: u64, numbers: &mut Numbers) -> Execution {
    let lease = numbers.one_of(&[None, Some(10), Some(20)]);
    Execution {
        tenant_id: TenantId::new(numbers.one_of(&["default", "other"])),
        ticket_id: numbers.one_of(&["T-1", "T-2"]).to_owned(),
        script_name: numbers.one_of(&["a.py", "b.py"]).to_owned(),
        actor: numbers
            .one_of(&[None, Some("ann"), Some("bob")])
            .map(str::to_owned),
        status: numbers.one_of(&[Status::Starting, Status::Running]),
        started_at: at(numbers.one_of(&[0, 1, 2, 3])),
        lease_until: lease.map(at),
        idempotency_key: (n % 2 == 1).then(|| format!("key {n}")),
        ..fresh(n)
    }
}

fn sample_query(numbers: &mut Numbers) -> ExecutionQuery {
    let statuses: &[&[Status]] = &[
        &[],
        &[Status::Running],
        &[Status::Starting, Status::Running],
        &[Status::Failed, Status::Starting],
    ];
    let word = |word: Option<&str>| word.map(str::to_owned);
    ExecutionQuery {
        tenant_id: numbers
            .one_of(&[None, Some("default"), Some("other"), Some("nobody")])
            .map(TenantId::new),
        id: numbers
            .one_of(&[None, None, None, Some(3), Some(99)])
            .map(id),
        ticket_id: word(numbers.one_of(&[None, None, Some("T-1"), Some("T-9")])),
        script_name: word(numbers.one_of(&[None, None, Some("a.py"), Some("A.py")])),
        actor: word(numbers.one_of(&[None, None, None, Some("ann"), Some("Ann")])),
        statuses: numbers.one_of(statuses).to_vec(),
        since: numbers.one_of(&[None, None, Some(1), Some(2)]).map(at),
        until: numbers.one_of(&[None, None, Some(1), Some(3)]).map(at),
        lease_before: numbers.one_of(&[None, None, Some(11), Some(20)]).map(at),
        idempotency_key: word(numbers.one_of(&[None, None, None, Some("key 3")])),
        without_output: false,
    }
}

fn fits(row: &Execution, query: &ExecutionQuery) -> bool {
    let is =
        |asked: &Option<String>, found: &String| asked.as_ref().is_none_or(|asked| asked == found);
    let before = |asked: Option<DateTime<Utc>>, found: Option<DateTime<Utc>>| {
        asked.is_none_or(|asked| found.is_some_and(|found| found < asked))
    };
    query
        .tenant_id
        .as_ref()
        .is_none_or(|id| *id == row.tenant_id)
        && query.id.is_none_or(|id| id == row.id)
        && is(&query.ticket_id, &row.ticket_id)
        && is(&query.script_name, &row.script_name)
        && (query.actor.is_none() || query.actor == row.actor)
        && (query.statuses.is_empty() || query.statuses.contains(&row.status))
        && query.since.is_none_or(|since| row.started_at >= since)
        && (query.idempotency_key.is_none() || query.idempotency_key == row.idempotency_key)
        && before(query.until, Some(row.started_at))
        && before(query.lease_before, row.lease_until)
}

/// A window holds its first instant and not its last.
pub async fn half_open_window(storage: &Arc<dyn Storage>) {
    let rows: Vec<_> = (0..5).map(fresh).collect();
    insert_all(storage, &rows).await;
    let window = |since, until| ExecutionQuery {
        since,
        until,
        ..everything()
    };
    let us = TimeDelta::microseconds(1);
    let cases = [
        (Some(at(1)), Some(at(3)), vec![2, 1]),
        (Some(at(1) + us), Some(at(3) + us), vec![3, 2]),
        (Some(at(2)), Some(at(2)), vec![]),
        (Some(at(3)), Some(at(1)), vec![]),
        (Some(at(4)), None, vec![4]),
        (None, Some(at(1)), vec![0]),
    ];
    for (since, until, expected) in cases {
        let query = window(since, until);
        let found = storage.list(&query, &Page::default()).await.unwrap();
        let expected: Vec<_> = expected.into_iter().map(id).collect();
        assert_eq!(ids(&found.items), expected, "{query:?}");
    }
}

/// Pages visit each execution once, whatever is recorded meanwhile.
pub async fn pages_visit_each_once_despite_inserts(storage: &Arc<dyn Storage>) {
    // Three executions a second, so that pages break within ties.
    let row = |n: u64| Execution {
        started_at: at(i64::try_from(n / 3).unwrap()),
        ..fresh(n)
    };
    let rows: Vec<_> = (0..25).map(row).collect();
    insert_all(storage, &rows).await;
    for query in [
        everything(),
        ExecutionQuery {
            tenant_id: None,
            ..everything()
        },
    ] {
        let (mut page, mut seen) = (Page::first(4), Vec::new());
        loop {
            let found = storage.list(&query, &page).await.unwrap();
            seen.extend(ids(&found.items));
            let newer = fresh(1_000 + seen.len() as u64);
            let _ = one(storage, insert(&newer)).await;
            let Some(next) = found.next else { break };
            page = Page::first(4).after(next);
        }
        seen.retain(|seen| *seen < id(1_000));
        let expected: Vec<_> = (0..25).rev().map(id).collect();
        assert_eq!(seen, expected);
    }
}

/// A page has 1 to `PAGE_ROWS_MAX` rows, and names a next one only if there is one.
pub async fn page_limit_boundaries(storage: &Arc<dyn Storage>) {
    let count = PAGE_ROWS_MAX + 1;
    let rows: Vec<_> = (0..count as u64).map(fresh).collect();
    insert_all(storage, &rows).await;
    for (asked, rows) in [
        (0, 1),
        (1, 1),
        (2, 2),
        (PAGE_ROWS_MAX, PAGE_ROWS_MAX),
        (usize::MAX, PAGE_ROWS_MAX),
    ] {
        let page = Page {
            rows_max: asked,
            after: None,
        };
        let found = storage.list(&everything(), &page).await.unwrap();
        assert_eq!(found.items.len(), rows, "{asked} rows asked");
        assert!(found.next.is_some());
    }
    let exactly = ExecutionQuery {
        until: Some(at(i64::try_from(PAGE_ROWS_MAX).unwrap())),
        ..everything()
    };
    let found = storage
        .list(&exactly, &Page::first(PAGE_ROWS_MAX))
        .await
        .unwrap();
    assert_eq!((found.items.len(), found.next), (PAGE_ROWS_MAX, None));
}

/// A cursor that this list did not give is refused.
pub async fn foreign_cursor_is_invalid(storage: &Arc<dyn Storage>) {
    let (row, other) = (fresh(1), fresh(2));
    insert_all(storage, &[row.clone(), other.clone()]).await;
    for seq in 1..=2 {
        one(storage, append(&row, seq)).await.unwrap();
        one(storage, append(&other, seq)).await.unwrap();
    }
    let first = Page::first(1);
    let of_list = storage
        .list(&everything(), &first)
        .await
        .unwrap()
        .next
        .unwrap();
    let of_events = storage
        .events(&row.tenant_id, row.id, &first)
        .await
        .unwrap();
    let of_events = of_events.next.unwrap();
    let is_invalid = |answer: Result<(), StorageError>, cursor: &Cursor| {
        assert!(
            matches!(answer, Err(StorageError::InvalidCursor { .. })),
            "{cursor}: {answer:?}"
        );
    };
    let outside = ["", " ", "x", "1", "' OR 1=1 --", "ключ", "-1", "\0"].map(Cursor::new);
    for cursor in outside.iter().chain([&of_events]) {
        let page = first.clone().after(cursor.clone());
        let answer = storage.list(&everything(), &page).await;
        is_invalid(answer.map(drop), cursor);
    }
    for cursor in outside.iter().chain([&of_list, &of_events]) {
        let page = first.clone().after(cursor.clone());
        let answer = storage.events(&other.tenant_id, other.id, &page).await;
        is_invalid(answer.map(drop), cursor);
    }
    for key in ["a", "b"] {
        let (record, expected) = (record(key, "x"), None);
        one(storage, Write::Put { record, expected }).await.unwrap();
    }
    let (tenant, kind) = (TenantId::default(), RecordKind::ScriptVersion);
    let of_records = storage.records(&tenant, kind, &first).await.unwrap();
    let of_records = of_records.next.unwrap();
    let other_kind = first.clone().after(of_records.clone());
    let answer = storage.records(&tenant, RecordKind::Quarantine, &other_kind);
    is_invalid(answer.await.map(drop), &of_records);
    for cursor in outside.iter().chain([&of_list, &of_events]) {
        let page = first.clone().after(cursor.clone());
        let answer = storage.records(&tenant, kind, &page).await;
        is_invalid(answer.map(drop), cursor);
    }
}

/// Where there is nothing, answers are empty and not errors.
pub async fn empty_answers(storage: &Arc<dyn Storage>) {
    let tenant = TenantId::default();
    let page = Page::default();
    let found = list(storage).await;
    assert_eq!((found.items, found.next), (vec![], None));
    let found = storage.events(&tenant, id(1), &page).await.unwrap();
    assert_eq!((found.items, found.next), (vec![], None));
    let kind = RecordKind::Quarantine;
    let found = storage.records(&tenant, kind, &page).await.unwrap();
    assert_eq!((found.items, found.next), (vec![], None));
    let stats = storage.stats(&StatsQuery::default()).await.unwrap();
    assert_eq!(stats, Stats::default());
    assert!(!storage.health().await.unwrap().is_empty());
}

/// A list without output has everything else.
pub async fn a_list_can_leave_output_out(storage: &Arc<dyn Storage>) {
    let mut row = Execution {
        status: Status::Running,
        ..full(1)
    };
    insert_all(storage, std::slice::from_ref(&row)).await;
    let end = full_end(Status::Completed);
    one(storage, transition(&row, Change::End(end.clone())))
        .await
        .unwrap();
    row.end(end);
    let mut query = ExecutionQuery::of(row.tenant_id.clone());
    let found = storage.list(&query, &Page::default()).await.unwrap();
    assert_eq!(found.items, [row.clone()]);
    query.without_output = true;
    let found = storage.list(&query, &Page::default()).await.unwrap();
    row.output.clear();
    row.stderr.clear();
    row.context = None;
    row.parsed_output = None;
    assert_eq!(found.items, [row]);
}

/// A page ends before its rows hold more output than a page may have, has one row at least, and nothing is lost:
/// 500 rows of a megabyte each would be the memory of a small server.
pub async fn a_page_is_bounded_by_its_output(storage: &Arc<dyn Storage>) {
    let large = |n| Execution {
        output: "x".repeat(PAGE_BYTES * 2 / 5),
        ..fresh(n)
    };
    let huge = Execution {
        output: "x".repeat(PAGE_BYTES + 1),
        ..fresh(5)
    };
    let rows = [large(1), large(2), large(3), large(4), huge];
    insert_all(storage, &rows).await;
    let (mut page, mut sizes, mut seen) = (Page::first(100), Vec::new(), Vec::new());
    loop {
        let listing = storage.list(&everything(), &page).await.unwrap();
        sizes.push(listing.items.len());
        seen.extend(listing.items.iter().map(|row| row.id));
        let Some(next) = listing.next else { break };
        page = Page::first(100).after(next);
    }
    assert_eq!(sizes, [1, 2, 2]);
    let mut expected: Vec<_> = rows.iter().map(|row| (row.started_at, row.id)).collect();
    expected.sort();
    let expected: Vec<_> = expected.into_iter().rev().map(|(_, id)| id).collect();
    assert_eq!(seen, expected);
    let without = ExecutionQuery {
        without_output: true,
        ..everything()
    };
    let listing = storage.list(&without, &Page::first(100)).await.unwrap();
    assert_eq!(
        listing.items.len(),
        rows.len(),
        "nothing is heavy without it"
    );
}
