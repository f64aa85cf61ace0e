//! Which script versions are kept out of this process: found out by their runs, recorded, released by people.
//!
//! Every run asks, so the answer is read without a lock (`notices`). `records` says what causes and ends an entry. Knows
//! nothing of how a run goes.

mod records;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use chrono::{DateTime, Utc};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::notices::{Notice, Notices};
use crate::execution::{Concern, ExecutionId, words};
use crate::executor::Executor;
use crate::storage::RecordKind;

words!(
    /// What becomes of the runs of a script version that is kept out of this process.
    Consequence {
        /// They run in the isolated executor.
        Isolated = "isolated",
        /// They still run in this process, since there is no isolated executor.
        Tolerated = "tolerated",
        /// They are refused, since there is no isolated executor and one of them ended the whole process.
        Refused = "refused",
    }
);

/// A script version that is kept out of this process, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Quarantined {
    /// The script.
    pub script_name: String,
    /// SHA-256 of its source, in hex: another version is not affected.
    pub script_version: String,
    /// Why.
    pub concern: Concern,
    /// The run that showed it.
    pub execution_id: ExecutionId,
    /// When it was found out.
    pub at: DateTime<Utc>,
    /// What becomes of its runs.
    pub consequence: Consequence,
}

/// What is known of one version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Finding {
    pub(super) script_name: String,
    pub(super) concern: Concern,
    pub(super) execution_id: ExecutionId,
    pub(super) at: DateTime<Utc>,
}

impl Notice for Finding {
    const KIND: RecordKind = RecordKind::Quarantine;

    /// A crash weighs more than all else: without an isolated executor, it alone refuses runs.
    fn outweighs(&self, other: &Self) -> bool {
        self.concern == Concern::Crashed && other.concern != Concern::Crashed
    }
}

#[derive(Debug, Default)]
pub(super) struct Quarantine {
    /// By version.
    notices: Notices<Finding>,
    /// Runs during which an earlier process died.
    crashed: Vec<ExecutionId>,
    /// Those of them whose versions are not known yet.
    unresolved: Mutex<Vec<ExecutionId>>,
    /// Whether the executors still report them.
    are_reported: AtomicBool,
}

impl Quarantine {
    /// Asks the executors what an earlier process died of; the answer is used when the records are loaded.
    pub(super) fn new<'e>(executors: impl Iterator<Item = &'e Arc<dyn Executor>>) -> Self {
        let crashed: Vec<_> = executors
            .flat_map(|executor| executor.crashed_runs())
            .collect();
        Self {
            unresolved: Mutex::new(crashed.clone()),
            are_reported: AtomicBool::new(!crashed.is_empty()),
            crashed,
            ..Self::default()
        }
    }

    /// Returns why a version is kept out of this process, if it is. The records have to be loaded.
    pub(super) fn concern(&self, version: &str) -> Option<Concern> {
        let entries = self.notices.entries();
        entries.get(version).map(|entry| entry.notice.concern)
    }

    /// Returns what is known of a run that an earlier process left open.
    pub(super) fn concern_of_run(&self, id: ExecutionId) -> Option<Concern> {
        self.crashed.contains(&id).then_some(Concern::Crashed)
    }

    /// Returns the runs that the executors need not report any more, once: what they showed is recorded.
    fn settled_crashes(&self) -> Option<&[ExecutionId]> {
        let is_settled = self.unresolved.lock().is_empty() && self.notices.unrecorded().is_empty();
        (is_settled && self.are_reported.swap(false, Ordering::AcqRel)).then_some(&*self.crashed)
    }
}
