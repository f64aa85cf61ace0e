//! The conditional writes: the one way in which a storage changes.

use std::fmt::Debug;

use chrono::{DateTime, Utc};
use thiserror::Error as ThisError;

use super::{Prune, Record, StorageError};
use crate::execution::{
    Completion, Event, Execution, ExecutionId, InstanceId, Isolation, Reason, TenantId,
};
use crate::request::Cursor;
use crate::status::Status;

/// One conditional write. Later features add kinds, never methods of the trait.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Write {
    /// Records a new execution, if its id and its idempotency key are absent and its status may be the first.
    Insert(Box<Execution>),
    /// Moves an execution, if its epoch and status are the expected ones and the status machine allows it.
    Transition(Box<Transition>),
    /// Takes executions that are due.
    Claim(Claim),
    /// Prolongs the leases of every open execution that an instance holds, of all tenants; never shortens one.
    Renew {
        /// The instance.
        instance: InstanceId,
        /// The new end of the lease.
        lease_until: DateTime<Utc>,
    },
    /// Records an event, if its execution exists, open or not, and its number is free.
    Append(Event),
    /// Stores a keyed record, if the present revision is the expected one (`None`: there is none).
    Put {
        /// The record; its revision is set by the storage.
        record: Record,
        /// The revision that must be there.
        expected: Option<u64>,
    },
    /// Deletes a keyed record, if its revision is the expected one.
    Delete {
        /// The record's tenant, kind and key; the value is ignored, the revision must be there.
        record: Record,
    },
    /// Deletes executions that ended long ago.
    Prune(Prune),
}

/// Moves one execution.
#[derive(Debug, Clone, PartialEq)]
pub struct Transition {
    /// Whose it is.
    pub tenant_id: TenantId,
    /// The execution.
    pub id: ExecutionId,
    /// The epoch that it must have.
    pub epoch: i64,
    /// The status that it must have.
    pub from: Status,
    /// What changes.
    pub change: Change,
}

/// What a transition changes.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// `starting` to `running`; the reason for which it waited is gone.
    Run {
        /// Who dispatched it.
        claimed_by: InstanceId,
        /// Until when it is held.
        lease_until: DateTime<Utc>,
        /// Where it runs.
        isolation: Isolation,
    },
    /// `starting` stays `starting` and waits, held by nobody; it gets the next epoch, so that of several who change
    /// what it waits for one succeeds.
    Wait {
        /// What it waits for; `None`: for its turn.
        reason: Option<Reason>,
        /// When it is due, if it is due by itself.
        run_at: Option<DateTime<Utc>>,
    },
    /// To a terminal status.
    End(Completion),
}

impl Change {
    /// Returns the status to which it leads.
    #[must_use]
    pub const fn to(&self) -> Status {
        match self {
            Self::Run { .. } => Status::Running,
            Self::Wait { .. } => Status::Starting,
            Self::End(completion) => completion.status,
        }
    }
}

/// Takes up to `rows_max` `starting` executions that are due (`run_at` is set and not after `now`) and that
/// nobody holds (no lease, or one that ended at `now` or before): highest priority first, then the earliest `run_at`, then by id. Each gets
/// the claimer, the lease and the next epoch, and stays `starting`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// Whose executions.
    pub tenant_id: TenantId,
    /// Who takes them.
    pub instance: InstanceId,
    /// The time against which dues and leases are held.
    pub now: DateTime<Utc>,
    /// Until when they are held.
    pub lease_until: DateTime<Utc>,
    /// How many at most.
    pub rows_max: usize,
}

/// What a write did.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Applied {
    /// The execution is recorded.
    Inserted,
    /// The execution moved.
    Transitioned,
    /// These executions were taken, as they are now.
    Claimed(Vec<Execution>),
    /// So many leases were prolonged.
    Renewed(usize),
    /// The event is recorded.
    Appended,
    /// The record is stored under this revision.
    Stored {
        /// The new revision.
        revision: u64,
    },
    /// The record is gone.
    Deleted,
    /// Executions were deleted.
    Pruned {
        /// How many.
        rows: usize,
        /// Where the next call begins; `None` when none is left to look at.
        next: Option<Cursor>,
    },
}

/// Why a write was not applied.
#[derive(Debug, ThisError)]
#[non_exhaustive]
pub enum WriteError {
    /// An execution with this id or idempotency key, or an event with this number, is already there.
    #[error("{what} is already there")]
    Exists {
        /// What is there.
        what: String,
    },
    /// The row is not there.
    #[error("{what} is not there")]
    Missing {
        /// What is not there.
        what: String,
    },
    /// The row has another status, epoch or revision, or the status machine does not allow the move.
    #[error("{what} has changed: expected {expected}, found {found}")]
    Mismatch {
        /// Which row.
        what: String,
        /// What was expected.
        expected: String,
        /// What is there.
        found: String,
    },
    /// Another write of the same call was not applied, so neither was this one.
    #[error("another write of the same call was not applied")]
    Aborted,
    /// The backend broke; whether the writes were applied is unknown unless the error says so.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// What was found of the row that a transition wants to move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) epoch: i64,
    pub(super) status: Status,
}

impl Transition {
    /// Checks the move against the row that is there.
    pub(super) fn check(&self, found: Found) -> Result<(), WriteError> {
        let expected = Found {
            epoch: self.epoch,
            status: self.from,
        };
        if found != expected {
            return Err(self.mismatch(expected.to_string(), found.to_string()));
        }
        let to = self.change.to();
        let allowed = match self.change {
            Change::Run { .. } => self.from.may_become(to),
            Change::Wait { .. } => self.from == Status::Starting,
            Change::End(_) => self.from.may_become(to) && to.is_terminal(),
        };
        if allowed {
            return Ok(());
        }
        Err(self.mismatch(
            format!("a status that may follow {}", self.from),
            to.to_string(),
        ))
    }

    fn mismatch(&self, expected: String, found: String) -> WriteError {
        WriteError::Mismatch {
            what: format!("execution {}", self.id),
            expected,
            found,
        }
    }

    /// Says that the row is not there.
    pub(super) fn missing(&self) -> WriteError {
        missing_execution(self.id)
    }
}

impl std::fmt::Display for Found {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} in epoch {}", self.status, self.epoch)
    }
}

/// Checks that an execution may be recorded with its status.
pub(super) fn check_first_status(execution: &Execution) -> Result<(), WriteError> {
    if execution.status.is_initial() {
        return Ok(());
    }
    Err(WriteError::Mismatch {
        what: format!("new execution {}", execution.id),
        expected: format!("{} or {}", Status::Starting, Status::Running),
        found: execution.status.to_string(),
    })
}

/// Says that an execution is not there.
pub(super) fn missing_execution(id: ExecutionId) -> WriteError {
    WriteError::Missing {
        what: format!("execution {id}"),
    }
}

/// Says that an execution is already there.
pub(super) fn existing_execution(id: ExecutionId) -> WriteError {
    WriteError::Exists {
        what: format!("execution {id}"),
    }
}

/// Says that an execution has this idempotency key already.
pub(super) fn existing_key(key: &str) -> WriteError {
    WriteError::Exists {
        what: format!("an execution with idempotency key {key:?}"),
    }
}

/// Says that an event with this number is already there.
pub(super) fn existing_event(event: &Event) -> WriteError {
    WriteError::Exists {
        what: format!("event {} of execution {}", event.seq, event.execution_id),
    }
}

impl Record {
    /// Checks the revision that is there against the expected one.
    pub(super) fn check_revision(
        &self,
        found: Option<u64>,
        expected: Option<u64>,
    ) -> Result<(), WriteError> {
        let what = || format!("record {} {:?}", self.kind, self.key);
        let word =
            |revision: Option<u64>| revision.map_or("none".to_owned(), |n| format!("revision {n}"));
        match (found, expected) {
            (None, Some(_)) => Err(WriteError::Missing { what: what() }),
            (found, expected) if found == expected => Ok(()),
            _ => Err(WriteError::Mismatch {
                what: what(),
                expected: word(expected),
                found: word(found),
            }),
        }
    }
}

/// Answers a call of which the write at `index` was not applied: neither were the others.
pub(super) fn none_applied(
    writes: usize,
    index: usize,
    error: WriteError,
) -> Vec<Result<Applied, WriteError>> {
    let mut answers: Vec<_> = (0..writes).map(|_| Err(WriteError::Aborted)).collect();
    answers[index] = Err(error);
    answers
}
