//! Promises on recording and moving executions.

use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::json;

use super::samples::{
    Numbers, append, at, end, finish, fresh, fresh_of, full, full_end, get, id, insert, insert_all,
    list, one, run, transition,
};
use crate::execution::{Execution, InstanceId, Isolation, TenantId};
use crate::status::Status;
use crate::storage::{Applied, Change, Storage, StorageError, Transition, Write, WriteError};

/// Every field comes back as it was given, whatever characters it holds, at the start and at the end.
pub async fn roundtrip_every_field(storage: &Arc<dyn Storage>) {
    for (n, status) in [(1, Status::Starting), (2, Status::Running)] {
        let given = Execution {
            status,
            idempotency_key: Some(format!("key {n}")),
            truncated: status == Status::Starting,
            still_running: status == Status::Starting,
            ..full(n)
        };
        insert_all(storage, std::slice::from_ref(&given)).await;
        assert_eq!(get(storage, &given).await, given);
    }
    let bare = fresh(3);
    insert_all(storage, std::slice::from_ref(&bare)).await;
    assert_eq!(get(storage, &bare).await, bare);

    let mut ended = get(storage, &full(2)).await;
    let completion = full_end(Status::Failed);
    one(storage, transition(&ended, Change::End(completion.clone())))
        .await
        .unwrap();
    ended.end(completion);
    assert_eq!(get(storage, &ended).await, ended);
}

/// Numbers in JSON come back exactly: no bit of a fraction is lost, no integer becomes a fraction.
pub async fn json_numbers_come_back_exactly(storage: &Arc<dyn Storage>) {
    let mut numbers = Numbers(3);
    let fractions = (0..500).map(|_| {
        let mantissa = numbers.below(1 << 53) as f64;
        json!(mantissa / 3_f64.powi(numbers.below(40).try_into().unwrap()) + 1.0 / 3.0)
    });
    let max = crate::limits::JSON_INTEGER_MAX;
    let integers = [0, 1, -1, max, -max].map(|n| json!(n));
    let given = Execution {
        parameters: fractions.chain(integers).chain([json!(1.0)]).collect(),
        ..fresh(1)
    };
    insert_all(storage, std::slice::from_ref(&given)).await;
    assert_eq!(get(storage, &given).await, given);
}

/// Times are kept to the microsecond; what is finer is cut off, before 1970 too.
pub async fn times_are_kept_to_the_microsecond(storage: &Arc<dyn Storage>) {
    let before_1970 = DateTime::from_timestamp(-2_000_000_000, 123_456_000).unwrap();
    for (n, kept) in [(1, at(0) + TimeDelta::microseconds(1)), (2, before_1970)] {
        let mut given = fresh(n);
        given.started_at = kept + TimeDelta::nanoseconds(999);
        given.run_at = Some(kept + TimeDelta::nanoseconds(1));
        insert_all(storage, std::slice::from_ref(&given)).await;
        let found = get(storage, &given).await;
        assert_eq!((found.started_at, found.run_at), (kept, Some(kept)));
    }
    let mut endless = fresh(3);
    endless.lease_until = Some(DateTime::<Utc>::MAX_UTC);
    insert_all(storage, std::slice::from_ref(&endless)).await;
    let lease_until = get(storage, &endless).await.lease_until.unwrap();
    assert_eq!(lease_until.to_rfc3339(), "9999-12-31T23:59:59.999999+00:00");
}

/// Numbers beyond 2^53 - 1 are kept as that.
pub async fn numbers_are_held_to_what_json_readers_agree_on(storage: &Arc<dyn Storage>) {
    let given = Execution {
        queue_us: Some(u64::MAX),
        output_bytes: 1 << 53,
        ..fresh(1)
    };
    insert_all(storage, std::slice::from_ref(&given)).await;
    let found = get(storage, &given).await;
    let max = (1 << 53) - 1;
    assert_eq!((found.queue_us, found.output_bytes), (Some(max), max));
}

/// An execution that was never recorded is `NotFound`.
pub async fn get_missing_is_not_found(storage: &Arc<dyn Storage>) {
    let answer = storage.get(&TenantId::default(), id(1)).await;
    assert!(
        matches!(answer, Err(StorageError::NotFound { .. })),
        "{answer:?}"
    );
}

/// An id can be taken once, by any tenant; the first execution stays as it was.
pub async fn insert_duplicate_is_rejected_and_keeps_original(storage: &Arc<dyn Storage>) {
    let first = fresh(1);
    insert_all(storage, std::slice::from_ref(&first)).await;
    let same_tenant = Execution {
        script_name: "other.py".to_owned(),
        ..fresh(1)
    };
    for second in [same_tenant, fresh_of(&TenantId::new("other"), 1)] {
        let answer = one(storage, insert(&second)).await;
        assert!(
            matches!(answer, Err(WriteError::Exists { .. })),
            "{answer:?}"
        );
    }
    assert_eq!(get(storage, &first).await, first);
    assert_eq!(list(storage).await.items, [first]);
}

/// An idempotency key can be taken once a tenant; no key can be taken by any number.
pub async fn insert_with_taken_idempotency_key_is_rejected(storage: &Arc<dyn Storage>) {
    let with_key = |execution: Execution| Execution {
        idempotency_key: Some("order 66".to_owned()),
        ..execution
    };
    let first = with_key(fresh(1));
    insert_all(storage, &[first.clone(), fresh(2), fresh(3)]).await;
    let answer = one(storage, insert(&with_key(fresh(4)))).await;
    assert!(
        matches!(answer, Err(WriteError::Exists { .. })),
        "{answer:?}"
    );
    one(storage, finish(&first, Status::Failed)).await.unwrap();
    let answer = one(storage, insert(&with_key(fresh(4)))).await;
    assert!(
        matches!(answer, Err(WriteError::Exists { .. })),
        "{answer:?}"
    );
    let elsewhere = with_key(fresh_of(&TenantId::new("other"), 5));
    one(storage, insert(&elsewhere)).await.unwrap();
    assert_eq!(list(storage).await.items.len(), 3);
}

/// Of many executions that ask for one key at the same time, one is recorded.
pub async fn an_idempotency_key_has_one_winner(storage: &Arc<dyn Storage>) {
    let mut callers = tokio::task::JoinSet::new();
    for n in 0..16 {
        let storage = Arc::clone(storage);
        let execution = Execution {
            idempotency_key: Some("once".to_owned()),
            ..fresh(n)
        };
        callers.spawn(async move { one(&storage, insert(&execution)).await.is_ok() });
    }
    let winners = callers.join_all().await.into_iter().filter(|won| *won);
    assert_eq!(winners.count(), 1);
    assert_eq!(list(storage).await.items.len(), 1);
}

/// An execution begins `starting` or `running`, never ended.
pub async fn insert_only_initial_status(storage: &Arc<dyn Storage>) {
    for (n, status) in (0..).zip(Status::ALL) {
        let execution = Execution { status, ..fresh(n) };
        let answer = one(storage, insert(&execution)).await;
        assert_eq!(answer.is_ok(), status.is_initial(), "{status}: {answer:?}");
    }
    assert_eq!(list(storage).await.items.len(), 2);
}

/// Exactly the moves of the status machine are made, and `End` only ends.
pub async fn transition_table(storage: &Arc<dyn Storage>) {
    let mut n = 0;
    for from in Status::ALL {
        for to in Status::ALL {
            n += 1;
            let row = bring_to(storage, n, from).await;
            let answer = one(storage, transition(&row, Change::End(end(to)))).await;
            let legal = from.may_become(to) && to.is_terminal();
            assert_eq!(answer.is_ok(), legal, "end: {from} -> {to}: {answer:?}");
            let found = get(storage, &row).await.status;
            assert_eq!(found, if legal { to } else { from });
        }
        n += 1;
        let row = bring_to(storage, n, from).await;
        let answer = one(storage, run(&row)).await;
        let legal = from.may_become(Status::Running);
        assert_eq!(answer.is_ok(), legal, "run: {from}: {answer:?}");
    }
}

/// Records execution `n` and brings it to a status.
async fn bring_to(storage: &Arc<dyn Storage>, n: u64, status: Status) -> Execution {
    let mut row = fresh(n);
    insert_all(storage, std::slice::from_ref(&row)).await;
    if status == Status::Running || status.is_terminal() {
        one(storage, run(&row)).await.unwrap();
        row.status = Status::Running;
    }
    if status.is_terminal() {
        one(storage, finish(&row, status)).await.unwrap();
    }
    get(storage, &row).await
}

/// A dispatch records who holds the execution and until when.
pub async fn a_dispatch_records_its_holder(storage: &Arc<dyn Storage>) {
    let mut row = fresh(1);
    insert_all(storage, std::slice::from_ref(&row)).await;
    assert_eq!(
        one(storage, run(&row)).await.unwrap(),
        Applied::Transitioned
    );
    row.status = Status::Running;
    row.claimed_by = Some(InstanceId::new("host-2"));
    row.lease_until = Some(at(90));
    row.isolation = Isolation::Process;
    assert_eq!(get(storage, &row).await, row);
}

/// A move that expects another epoch or status is refused and changes nothing.
pub async fn wrong_epoch_or_status_changes_nothing(storage: &Arc<dyn Storage>) {
    let row = fresh(1);
    insert_all(storage, std::slice::from_ref(&row)).await;
    let expectations = [
        (row.epoch + 1, Status::Starting),
        (row.epoch - 1, Status::Starting),
        (row.epoch, Status::Running),
        (row.epoch, Status::Completed),
    ];
    for (epoch, status) in expectations {
        let expected = Execution {
            epoch,
            status,
            ..row.clone()
        };
        let answer = one(storage, finish(&expected, Status::Failed)).await;
        assert!(
            matches!(answer, Err(WriteError::Mismatch { .. })),
            "{epoch} {status}: {answer:?}"
        );
        assert_eq!(get(storage, &row).await, row);
    }
}

/// A move of an execution that is not there is `Missing`.
pub async fn transition_of_missing_is_missing(storage: &Arc<dyn Storage>) {
    let answer = one(storage, run(&fresh(1))).await;
    assert!(
        matches!(answer, Err(WriteError::Missing { .. })),
        "{answer:?}"
    );
}

/// What ended stays as it ended, whoever asks.
pub async fn terminal_never_changes(storage: &Arc<dyn Storage>) {
    let row = Execution {
        status: Status::Running,
        run_at: Some(at(-1)),
        claimed_by: Some(InstanceId::new("host-2")),
        ..fresh(1)
    };
    insert_all(storage, std::slice::from_ref(&row)).await;
    one(storage, finish(&row, Status::Failed)).await.unwrap();
    let ended = get(storage, &row).await;
    for from in Status::ALL {
        for change in [Change::End(end(Status::Completed)), run_change()] {
            let write = Write::Transition(Box::new(Transition {
                tenant_id: row.tenant_id.clone(),
                id: row.id,
                epoch: row.epoch,
                from,
                change,
            }));
            assert!(one(storage, write).await.is_err(), "{from}");
        }
    }
    let others = [
        insert(&row),
        Write::Claim(super::samples::claim("host-2", 10)),
        Write::Renew {
            instance: InstanceId::new("host-2"),
            lease_until: at(600),
        },
        append(&row, 1),
    ];
    for write in others {
        let _ = one(storage, write).await;
    }
    assert_eq!(get(storage, &row).await, ended);
}

fn run_change() -> Change {
    Change::Run {
        claimed_by: InstanceId::new("late"),
        lease_until: at(90),
        isolation: Isolation::InProcess,
    }
}

/// Of many that move one execution at the same time, one succeeds, and its values are kept.
pub async fn concurrent_transition_has_one_winner(storage: &Arc<dyn Storage>) {
    for round in 0..8 {
        let row = Execution {
            status: Status::Running,
            ..fresh(round)
        };
        insert_all(storage, std::slice::from_ref(&row)).await;
        let mut callers = tokio::task::JoinSet::new();
        for caller in 0..8 {
            let (storage, row) = (Arc::clone(storage), row.clone());
            callers.spawn(async move {
                let mut end = end(Status::Completed);
                end.exit_code = Some(caller);
                let answer = one(&storage, transition(&row, Change::End(end))).await;
                answer.is_ok().then_some(caller)
            });
        }
        let winners: Vec<_> = callers.join_all().await.into_iter().flatten().collect();
        assert_eq!(winners.len(), 1, "{winners:?}");
        assert_eq!(get(storage, &row).await.exit_code, Some(winners[0]));
    }
}
