//! What can be asked of a storage.

use chrono::{DateTime, Utc};
use serde_json::Value;

use crate::execution::{ExecutionId, TenantId, words};
use crate::status::Status;

/// Which executions are asked for. Conditions compose; an empty one does not restrict.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct ExecutionQuery {
    /// Whose executions; `None` asks for every tenant's and is for the engine alone.
    pub tenant_id: Option<TenantId>,
    /// With this id.
    pub id: Option<ExecutionId>,
    /// Of this ticket.
    pub ticket_id: Option<String>,
    /// Of this script.
    pub script_name: Option<String>,
    /// With one of these statuses.
    pub statuses: Vec<Status>,
    /// Asked for by this actor.
    pub actor: Option<String>,
    /// Accepted at this time or later.
    pub since: Option<DateTime<Utc>>,
    /// Accepted before this time.
    pub until: Option<DateTime<Utc>>,
    /// Whose lease ended before this time (rows without a lease do not fit).
    pub lease_before: Option<DateTime<Utc>>,
    /// Recorded under this idempotency key.
    pub idempotency_key: Option<String>,
    /// Without `context`, `output`, `stderr` and `parsed_output`: the answer has them empty.
    pub without_output: bool,
}

impl ExecutionQuery {
    /// Asks for all executions of a tenant.
    #[must_use]
    pub fn of(tenant_id: TenantId) -> Self {
        Self {
            tenant_id: Some(tenant_id),
            ..Self::default()
        }
    }
}

words!(
    /// What a keyed record is.
    RecordKind {
        /// The source of a script version, by its hash; stored when it is first executed.
        ScriptVersion = "script_version",
        /// That a script version is kept out of this process, by its hash. Of the default tenant: scripts are
        /// everybody's.
        Quarantine = "quarantine",
        /// What the statistics counted of executions that were pruned, by day and script.
        Pruned = "pruned",
        /// That the storage takes writes again, by the instance that looked; taken back at once.
        Probe = "probe",
    }
);

/// A keyed record. One whose key begins with an execution's id belongs to that execution, and goes with it when it is
/// pruned.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// Whose it is.
    pub tenant_id: TenantId,
    /// What it is.
    pub kind: RecordKind,
    /// Its key.
    pub key: String,
    /// Its value.
    pub value: Value,
    /// Grows with each change, from 1.
    pub revision: u64,
}
