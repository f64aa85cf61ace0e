//! Rows and short ways to write and read them, for the promises.

use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::json;
use uuid::Uuid;

use crate::execution::{
    Completion, Concern, Context, Event, EventKind, Execution, ExecutionId, InstanceId, Isolation,
    Reason, ResourceUsage, TenantId, Trigger,
};
use crate::request::{Listing, Page};
use crate::status::Status;
use crate::storage::{
    Applied, Change, Claim, ExecutionQuery, Record, RecordKind, Storage, Transition, Write,
    WriteError,
};

/// A time so many seconds after noon of a day.
pub(super) fn at(seconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_767_268_800 + seconds, 0).unwrap()
}

/// The id number `n`; ids of higher numbers sort behind.
pub(super) fn id(n: u64) -> ExecutionId {
    ExecutionId::from_uuid(Uuid::from_u128(
        0x0190_0000_0000_7000_8000_0000_0000_0000 + u128::from(n),
    ))
}

/// A fresh execution number `n`, accepted `n` seconds after noon.
pub(super) fn fresh(n: u64) -> Execution {
    let started_at = at(i64::try_from(n).unwrap());
    Execution::new(id(n), "disk_cleanup.py", "v1", Trigger::Manual, started_at)
}

/// A fresh execution of a tenant.
pub(super) fn fresh_of(tenant: &TenantId, n: u64) -> Execution {
    Execution {
        tenant_id: tenant.clone(),
        ..fresh(n)
    }
}

/// A fresh execution in which every field has a value of its own.
pub(super) fn full(n: u64) -> Execution {
    Execution {
        tenant_id: TenantId::new("Größe & Söhne"),
        ticket_id: "票-7 '\"; --".to_owned(),
        actor: Some("Анна 🙂".to_owned()),
        parameters: json!({"path": "C:\\temp\n", "deep": [1, -2, 2.5, null, true, {"ü": ""}], "": "empty"}),
        dry_run: true,
        context: Some(Arc::new(Context {
            ticket: Some(Arc::new(json!({"id": "票-7", "ä": [null, 0.1]}))),
            classification: Some(Arc::new(json!("anything"))),
            digest: Some("d".repeat(64)),
        })),
        reason: Some(Reason::NotStarted),
        completed_at: Some(at(1) + TimeDelta::microseconds(1)),
        run_at: Some(at(-1) + TimeDelta::microseconds(999_999)),
        priority: -3,
        claimed_by: Some(InstanceId::new("host-1")),
        lease_until: Some(at(2)),
        epoch: 1 << 40,
        attempt: 3,
        root_id: Some(id(1_000)),
        parent_id: Some(id(1_001)),
        idempotency_key: Some("key-ß".to_owned()),
        queue_us: Some(1),
        duration_us: Some(0),
        usage: ResourceUsage {
            cpu_us: Some((1 << 53) - 1),
            memory_peak_bytes: Some(2),
            children: Some(u32::MAX),
            threads: Some(3),
        },
        isolation: Isolation::Process,
        output: "a\u{1f600}\r\n\t%s ?1 :x \u{feff}".to_owned(),
        stderr: " ".to_owned(),
        error: Some(String::new()),
        parsed_output: Some(json!({"freed": 0.1, "large": 9_007_199_254_740_991_i64})),
        exit_code: Some(-9),
        truncated: true,
        output_bytes: 4,
        still_running: true,
        concern: Some(Concern::Crashed),
        ..fresh(n)
    }
}

/// An end in which every field has a value of its own.
pub(super) fn full_end(status: Status) -> Completion {
    Completion {
        queue_us: Some(7),
        duration_us: Some(1_499_999),
        usage: ResourceUsage {
            cpu_us: None,
            memory_peak_bytes: Some(5),
            children: Some(0),
            threads: None,
        },
        output: "x".repeat(1 << 20),
        stderr: "сбой".to_owned(),
        error: Some("ValueError: ü".to_owned()),
        parsed_output: Some(json!([])),
        exit_code: Some(0),
        truncated: true,
        output_bytes: 1 << 20,
        still_running: true,
        concern: Some(Concern::MemoryLimit),
        ..Completion::new(status, Some(Reason::Exception), at(60))
    }
}

/// A plain end.
pub(super) fn end(status: Status) -> Completion {
    Completion::new(status, None, at(60))
}

/// The write that dispatches an execution.
pub(super) fn run(execution: &Execution) -> Write {
    let change = Change::Run {
        claimed_by: InstanceId::new("host-2"),
        lease_until: at(90),
        isolation: Isolation::Process,
    };
    transition(execution, change)
}

/// The write that changes an execution as it is known here.
pub(super) fn transition(execution: &Execution, change: Change) -> Write {
    Write::Transition(Box::new(Transition {
        tenant_id: execution.tenant_id.clone(),
        id: execution.id,
        epoch: execution.epoch,
        from: execution.status,
        change,
    }))
}

/// The write that ends an execution as it is known here.
pub(super) fn finish(execution: &Execution, status: Status) -> Write {
    transition(execution, Change::End(end(status)))
}

/// The write that records an execution.
pub(super) fn insert(execution: &Execution) -> Write {
    Write::Insert(Box::new(execution.clone()))
}

/// The write that records event `seq` of an execution.
pub(super) fn append(execution: &Execution, seq: u32) -> Write {
    Write::Append(event(execution, seq))
}

/// Event `seq` of an execution.
pub(super) fn event(execution: &Execution, seq: u32) -> Event {
    let data = json!({"text": format!("line {seq} ü")});
    let tenant = execution.tenant_id.clone();
    Event::new(tenant, execution.id, seq, at(10), EventKind::Log, data)
}

/// A claim of the default tenant's due rows, at noon, for a minute.
pub(super) fn claim(instance: &str, rows_max: usize) -> Claim {
    Claim {
        tenant_id: TenantId::default(),
        instance: InstanceId::new(instance),
        now: at(0),
        lease_until: at(60),
        rows_max,
    }
}

/// A record of the default tenant.
pub(super) fn record(key: &str, value: &str) -> Record {
    Record {
        tenant_id: TenantId::default(),
        kind: RecordKind::ScriptVersion,
        key: key.to_owned(),
        value: json!({"source": value}),
        revision: 0,
    }
}

/// Commits one write.
pub(super) async fn one(storage: &Arc<dyn Storage>, write: Write) -> Result<Applied, WriteError> {
    let mut answers = storage.commit(vec![write]).await;
    assert_eq!(answers.len(), 1, "one answer a write");
    answers.remove(0)
}

/// Records executions, in one call.
pub(super) async fn insert_all(storage: &Arc<dyn Storage>, executions: &[Execution]) {
    all_applied(storage, executions.iter().map(insert).collect()).await;
}

/// Commits writes that are all to be applied.
pub(super) async fn all_applied(storage: &Arc<dyn Storage>, writes: Vec<Write>) -> Vec<Applied> {
    let answers = storage.commit(writes).await;
    answers.into_iter().map(|answer| answer.unwrap()).collect()
}

/// Returns an execution that is to be there.
pub(super) async fn get(storage: &Arc<dyn Storage>, execution: &Execution) -> Execution {
    storage
        .get(&execution.tenant_id, execution.id)
        .await
        .unwrap()
}

/// Returns the first page of the default tenant's list.
pub(super) async fn list(storage: &Arc<dyn Storage>) -> Listing<Execution> {
    let query = ExecutionQuery::of(TenantId::default());
    storage.list(&query, &Page::default()).await.unwrap()
}

/// Returns the ids of executions, in their order.
pub(super) fn ids<'a>(executions: impl IntoIterator<Item = &'a Execution>) -> Vec<ExecutionId> {
    executions.into_iter().map(|row| row.id).collect()
}

/// A small generator of numbers that look random, the same in every run (splitmix64).
#[derive(Debug)]
pub(super) struct Numbers(pub(super) u64);

impl Numbers {
    /// Returns a number below `n`.
    pub(super) fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }

    /// Returns one of the values.
    pub(super) fn one_of<T: Copy>(&mut self, values: &[T]) -> T {
        values[usize::try_from(self.below(values.len() as u64)).unwrap()]
    }
}
