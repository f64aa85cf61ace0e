//! The promise that any history has the same answers and leaves the same rows as in the memory backend.

use std::sync::Arc;

use serde_json::json;

use super::samples::{Numbers, append, at, end, fresh_of, id, record};
use crate::execution::{Execution, InstanceId, Isolation, Reason, TenantId, Trigger};
use crate::request::{Cursor, Page, StatsQuery};
use crate::status::Status;
use crate::storage::{
    Change, Claim, ExecutionQuery, MemoryStorage, Prune, Record, RecordKind, Storage, Transition,
    Write,
};

const TENANTS: [&str; 2] = ["default", "other"];
const INSTANCES: [&str; 2] = ["host-1", "host-2"];
/// The last belongs to an execution.
const KEYS: [&str; 3] = ["a", "b", "01900000-0000-7000-8000-000000000003 c"];
/// So few executions that most writes meet one.
const EXECUTIONS: u64 = 24;

/// Calls of random writes, most of which are about the same few rows, are answered and leave behind what the memory
/// backend says.
pub async fn histories_equal_those_in_memory(storage: &Arc<dyn Storage>) {
    let model: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
    let mut numbers = Numbers(11);
    for call in 0..400 {
        let count = 1 + numbers.below(3);
        let writes: Vec<_> = (0..count).map(|_| write(&mut numbers)).collect();
        let expected = model.commit(writes.clone()).await;
        let found = storage.commit(writes.clone()).await;
        assert_eq!(
            format!("{found:?}"),
            format!("{expected:?}"),
            "call {call}: {writes:#?}"
        );
        if call % 100 == 99 {
            assert_eq!(rows(storage).await, rows(&model).await, "after call {call}");
        }
    }
}

fn write(numbers: &mut Numbers) -> Write {
    match numbers.below(18) {
        0..=3 => Write::Insert(Box::new(execution(numbers))),
        4..=8 => Write::Transition(Box::new(transition(numbers))),
        9..=10 => Write::Claim(Claim {
            tenant_id: TenantId::new(numbers.one_of(&TENANTS)),
            instance: InstanceId::new(numbers.one_of(&INSTANCES)),
            now: at(numbers.one_of(&[0, 5])),
            lease_until: at(numbers.one_of(&[3, 9])),
            rows_max: usize::try_from(numbers.below(3)).unwrap(),
        }),
        11 => Write::Renew {
            instance: InstanceId::new(numbers.one_of(&INSTANCES)),
            lease_until: at(numbers.one_of(&[4, 8])),
        },
        12..=13 => append(
            &execution(numbers),
            1 + u32::try_from(numbers.below(3)).unwrap(),
        ),
        14 => Write::Put {
            expected: numbers.one_of(&[None, None, Some(1), Some(2)]),
            record: keyed(numbers),
        },
        15 => Write::Delete {
            record: keyed(numbers),
        },
        _ => Write::Prune(prune(numbers)),
    }
}

/// Seldom of the day on which most executions end, so that something is left.
fn prune(numbers: &mut Numbers) -> Prune {
    let statuses: &[&[Status]] = &[
        &[],
        &[Status::Completed],
        &[Status::Failed, Status::Cancelled],
    ];
    let days = numbers.one_of(&[0, 0, 0, 1]);
    Prune {
        tenant_id: numbers
            .one_of(&[None, Some(TENANTS[0]), Some("nobody")])
            .map(TenantId::new),
        before: (at(0) + chrono::TimeDelta::days(days)).date_naive(),
        statuses: numbers.one_of(statuses).to_vec(),
        rows_max: usize::try_from(1 + numbers.below(3)).unwrap(),
        after: numbers
            .one_of(&[None, None, Some("nonsense")])
            .map(Cursor::new),
    }
}

fn execution(numbers: &mut Numbers) -> Execution {
    let key = numbers.one_of(&[None, None, Some("k1"), Some("k2")]);
    Execution {
        status: numbers.one_of(&[Status::Starting, Status::Starting, Status::Running]),
        trigger: numbers.one_of(Trigger::ALL),
        script_name: numbers.one_of(&["a.py", "b.py"]).to_owned(),
        ticket_id: numbers.one_of(&["T-1", "T-2"]).to_owned(),
        idempotency_key: key.map(str::to_owned),
        priority: numbers.one_of(&[0, 0, 5]),
        parent_id: numbers.one_of(&[None, None, Some(id(2))]),
        root_id: numbers.one_of(&[None, None, Some(id(4))]),
        run_at: numbers.one_of(&[None, Some(0), Some(5)]).map(at),
        lease_until: numbers.one_of(&[None, None, Some(4)]).map(at),
        claimed_by: numbers
            .one_of(&[None, Some(INSTANCES[0])])
            .map(InstanceId::new),
        ..fresh_of(
            &TenantId::new(numbers.one_of(&TENANTS)),
            numbers.below(EXECUTIONS),
        )
    }
}

fn transition(numbers: &mut Numbers) -> Transition {
    let change = if numbers.below(3) == 0 {
        Change::Run {
            claimed_by: InstanceId::new(numbers.one_of(&INSTANCES)),
            lease_until: at(6),
            isolation: numbers.one_of(&[Isolation::InProcess, Isolation::Process]),
        }
    } else if numbers.below(4) == 0 {
        Change::Wait {
            reason: numbers.one_of(&[None, Some(Reason::Backoff)]),
            run_at: numbers.one_of(&[None, Some(0), Some(5)]).map(at),
        }
    } else {
        let mut end = end(numbers.one_of(&Status::ALL));
        end.completed_at = at(numbers.one_of(&[60, 60, -86_400]));
        end.duration_us = numbers.one_of(&[None, Some(1_500), Some(900_000)]);
        end.output_bytes = numbers.below(100);
        end.parsed_output = numbers.one_of(&[None, Some(1)]).map(|n| json!({ "n": n }));
        Change::End(end)
    };
    Transition {
        tenant_id: TenantId::new(numbers.one_of(&TENANTS)),
        id: id(numbers.below(EXECUTIONS)),
        epoch: numbers.one_of(&[1, 1, 2]),
        from: numbers.one_of(&[Status::Starting, Status::Running]),
        change,
    }
}

fn keyed(numbers: &mut Numbers) -> Record {
    Record {
        tenant_id: TenantId::new(numbers.one_of(&TENANTS)),
        kind: numbers.one_of(&[RecordKind::ScriptVersion, RecordKind::Quarantine]),
        revision: 1 + numbers.below(2),
        ..record(numbers.one_of(&KEYS), &numbers.below(9).to_string())
    }
}

/// Everything that can be read, as text.
async fn rows(storage: &Arc<dyn Storage>) -> Vec<String> {
    let page = Page::first(500);
    let all = storage.list(&ExecutionQuery::default(), &page).await;
    let mut rows = vec![format!("{all:#?}")];
    for tenant in TENANTS.map(TenantId::new) {
        for n in 0..EXECUTIONS {
            rows.push(format!("{:#?}", storage.get(&tenant, id(n)).await.ok()));
            let events = storage.events(&tenant, id(n), &page).await;
            rows.push(format!("{events:#?}"));
        }
        for kind in RecordKind::ALL {
            let records = storage.records(&tenant, *kind, &page).await;
            rows.push(format!("{records:#?}"));
        }
        let query = StatsQuery {
            tenant_id: tenant,
            ..StatsQuery::default()
        };
        rows.push(format!("{:#?}", storage.stats(&query).await));
    }
    rows
}
