//! Promises on claims and leases.

use std::collections::HashSet;
use std::sync::Arc;

use super::samples::{
    at, claim, finish, fresh, fresh_of, get, id, ids, insert_all, one, run, transition,
};
use crate::execution::{Execution, InstanceId, Reason, TenantId};
use crate::status::Status;
use crate::storage::{Applied, Change, Claim, Storage, Write, WriteError};

/// An execution that is due.
fn due(n: u64) -> Execution {
    Execution {
        run_at: Some(at(-10)),
        ..fresh(n)
    }
}

async fn take(storage: &Arc<dyn Storage>, claim: Claim) -> Vec<Execution> {
    match one(storage, Write::Claim(claim)).await.unwrap() {
        Applied::Claimed(rows) => rows,
        other => panic!("a claim answered {other:?}"),
    }
}

/// Highest priority first, then the earliest `run_at`, then by id.
pub async fn claim_takes_due_rows_in_order(storage: &Arc<dyn Storage>) {
    let row = |n, priority, run_at| Execution {
        priority,
        run_at: Some(at(run_at)),
        ..fresh(n)
    };
    let rows = [
        row(1, 0, -1),
        row(2, -5, -100),
        row(3, 5, -1),
        row(4, 0, -2),
        row(5, 0, -1),
        row(6, 5, -2),
    ];
    insert_all(storage, &rows).await;
    let taken = take(storage, claim("host-1", 10)).await;
    assert_eq!(ids(&taken), [6, 3, 4, 1, 5, 2].map(id));
}

/// Only `starting` rows whose time has come, and that nobody holds, are taken.
pub async fn claim_takes_only_due_rows(storage: &Arc<dyn Storage>) {
    let held = |n, lease| Execution {
        lease_until: Some(at(lease)),
        ..due(n)
    };
    let rows = [
        fresh(1),
        Execution {
            run_at: Some(at(1)),
            ..fresh(2)
        },
        held(3, 1),
        Execution {
            status: Status::Running,
            ..held(4, -1)
        },
        due(5),
        held(6, -1),
        held(7, 0),
        Execution {
            run_at: Some(at(0)),
            ..fresh(8)
        },
        due(9),
        fresh_of(&TenantId::new("other"), 10),
    ];
    insert_all(storage, &rows).await;
    one(storage, finish(&due(9), Status::Cancelled))
        .await
        .unwrap();
    let taken = take(storage, claim("host-1", 10)).await;
    let mut taken = ids(&taken);
    taken.sort_unstable();
    assert_eq!(taken, [5, 6, 7, 8].map(id));
}

/// Each row taken gets the claimer, the lease and the next epoch, stays `starting`, and is answered so.
pub async fn claim_fences_the_holder_before(storage: &Arc<dyn Storage>) {
    let before = due(1);
    insert_all(storage, std::slice::from_ref(&before)).await;
    let taken = take(storage, claim("host-1", 10)).await;
    let expected = Execution {
        claimed_by: Some(InstanceId::new("host-1")),
        lease_until: Some(at(60)),
        epoch: before.epoch + 1,
        ..before.clone()
    };
    assert_eq!(taken, std::slice::from_ref(&expected));
    assert_eq!(get(storage, &before).await, expected);
    let answer = one(storage, run(&before)).await;
    assert!(
        matches!(answer, Err(WriteError::Mismatch { .. })),
        "{answer:?}"
    );
    one(storage, run(&expected)).await.unwrap();
}

/// No more rows than asked for are taken, and the rest can be taken later.
pub async fn claim_takes_no_more_than_asked(storage: &Arc<dyn Storage>) {
    insert_all(storage, &[due(1), due(2), due(3)]).await;
    assert_eq!(take(storage, claim("a", 0)).await, []);
    assert_eq!(ids(&take(storage, claim("a", 2)).await), [1, 2].map(id));
    assert_eq!(ids(&take(storage, claim("b", 2)).await), [id(3)]);
    assert_eq!(take(storage, claim("c", 2)).await, []);
}

/// Claims that are made at the same time never share a row, and leave none.
pub async fn concurrent_claims_never_share_a_row(storage: &Arc<dyn Storage>) {
    let rows: Vec<_> = (0..40).map(due).collect();
    insert_all(storage, &rows).await;
    let mut callers = tokio::task::JoinSet::new();
    for caller in 0..20 {
        let storage = Arc::clone(storage);
        callers.spawn(async move { take(&storage, claim(&format!("host-{caller}"), 3)).await });
    }
    let taken: Vec<_> = callers.join_all().await.concat();
    let distinct: HashSet<_> = ids(&taken).into_iter().collect();
    assert_eq!((taken.len(), distinct.len()), (40, 40));
}

/// What is made to wait is held by nobody, waits for what was asked, and fences whoever knew it before; its dispatch
/// leaves no reason.
pub async fn a_wait_releases_and_fences(storage: &Arc<dyn Storage>) {
    let before = Execution {
        reason: Some(Reason::AwaitingApproval),
        claimed_by: Some(InstanceId::new("host-1")),
        lease_until: Some(at(60)),
        ..fresh(1)
    };
    insert_all(storage, std::slice::from_ref(&before)).await;
    let wait = |reason, run_at| Change::Wait { reason, run_at };
    let change = wait(Some(Reason::Backoff), Some(at(-1)));
    let answer = one(storage, transition(&before, change)).await;
    assert_eq!(answer.unwrap(), Applied::Transitioned);
    let waiting = Execution {
        reason: Some(Reason::Backoff),
        run_at: Some(at(-1)),
        claimed_by: None,
        lease_until: None,
        epoch: before.epoch + 1,
        ..before.clone()
    };
    assert_eq!(get(storage, &before).await, waiting);
    for stale in [finish(&before, Status::Cancelled), run(&before)] {
        let answer = one(storage, stale).await;
        assert!(
            matches!(answer, Err(WriteError::Mismatch { .. })),
            "{answer:?}"
        );
    }
    let taken = take(storage, claim("host-1", 10)).await;
    assert_eq!(ids(&taken), [id(1)], "what is due can be claimed");
    let nothing = transition(&taken[0], wait(None, None));
    one(storage, nothing).await.unwrap();
    let idle = get(storage, &before).await;
    assert_eq!((idle.reason, idle.run_at), (None, None));
    assert_eq!(take(storage, claim("host-1", 10)).await, []);
    let again = transition(&idle, wait(Some(Reason::Scheduled), None));
    one(storage, again).await.unwrap();
    let idle = get(storage, &before).await;
    one(storage, run(&idle)).await.unwrap();
    assert_eq!(get(storage, &before).await.reason, None);
}

/// Only what is `starting` can be made to wait, and of many who try at the same time one succeeds.
pub async fn only_what_starts_can_wait(storage: &Arc<dyn Storage>) {
    let wait = || Change::Wait {
        reason: None,
        run_at: None,
    };
    for (n, status) in [(1, Status::Running), (2, Status::Cancelled)] {
        let row = Execution {
            status: Status::Running,
            ..fresh(n)
        };
        insert_all(storage, std::slice::from_ref(&row)).await;
        if status.is_terminal() {
            one(storage, finish(&row, status)).await.unwrap();
        }
        let row = get(storage, &row).await;
        let answer = one(storage, transition(&row, wait())).await;
        assert!(
            matches!(answer, Err(WriteError::Mismatch { .. })),
            "{status}: {answer:?}"
        );
        assert_eq!(get(storage, &row).await, row);
    }
    let row = fresh(3);
    insert_all(storage, std::slice::from_ref(&row)).await;
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let (storage, write) = (Arc::clone(storage), transition(&row, wait()));
        callers.spawn(async move { one(&storage, write).await.is_ok() });
    }
    let winners = callers.join_all().await.into_iter().filter(|won| *won);
    assert_eq!(winners.count(), 1);
}

/// A renewal prolongs every lease that its instance holds, nothing else, and never shortens one.
pub async fn renew_prolongs_own_open_leases(storage: &Arc<dyn Storage>) {
    let held = |n, by: &str, lease| Execution {
        claimed_by: Some(InstanceId::new(by)),
        lease_until: lease,
        ..fresh(n)
    };
    let rows = [
        held(1, "me", Some(at(1))),
        Execution {
            status: Status::Running,
            tenant_id: TenantId::new("other"),
            ..held(2, "me", Some(at(2)))
        },
        held(3, "you", Some(at(1))),
        held(4, "me", None),
        held(5, "me", Some(at(900))),
        held(6, "me", Some(at(1))),
    ];
    insert_all(storage, &rows).await;
    one(storage, finish(&rows[5], Status::Failed))
        .await
        .unwrap();
    let renew = Write::Renew {
        instance: InstanceId::new("me"),
        lease_until: at(600),
    };
    assert_eq!(one(storage, renew).await.unwrap(), Applied::Renewed(2));
    let mut leases = Vec::new();
    for row in &rows {
        leases.push(get(storage, row).await.lease_until);
    }
    let expected = [Some(600), Some(600), Some(1), None, Some(900), None];
    assert_eq!(leases, expected.map(|lease| lease.map(at)));
}
