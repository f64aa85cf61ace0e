//! Which script versions are kept out of this process: found out by their runs, recorded, released by people.
//!
//! Every run asks, so the answer is read without a lock. `records` brings it together with the storage. Knows nothing
//! of how a run goes.

mod records;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;
use chrono::{DateTime, Utc};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex as Turn, OnceCell};

use crate::execution::{Concern, ExecutionId, words};
use crate::executor::Executor;

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
struct Finding {
    script_name: String,
    concern: Concern,
    execution_id: ExecutionId,
    at: DateTime<Utc>,
}

impl Finding {
    /// A crash weighs more than all else: without an isolated executor, it alone refuses runs.
    fn outweighs(&self, other: &Self) -> bool {
        self.concern == Concern::Crashed && other.concern != Concern::Crashed
    }
}

#[derive(Debug, Clone)]
struct Entry {
    finding: Finding,
    /// Whether the storage has it as it is here.
    is_recorded: bool,
}

type Entries = BTreeMap<Arc<str>, Entry>;

#[derive(Debug, Default)]
pub(super) struct Quarantine {
    entries: ArcSwap<Entries>,
    loaded: OnceCell<()>,
    /// Runs during which an earlier process died.
    crashed: Vec<ExecutionId>,
    /// Those of them whose versions are not known yet.
    unresolved: Mutex<Vec<ExecutionId>>,
    /// Whether the executors still report them.
    are_reported: AtomicBool,
    /// Held while entries and records are brought together, so that a release is not undone by an older reading.
    turn: Turn<()>,
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
        let entries = self.entries.load();
        entries.get(version).map(|entry| entry.finding.concern)
    }

    /// Returns what is known of a run that an earlier process left open.
    pub(super) fn concern_of_run(&self, id: ExecutionId) -> Option<Concern> {
        self.crashed.contains(&id).then_some(Concern::Crashed)
    }

    /// Returns the runs that the executors need not report any more, once: what they showed is recorded.
    fn settled_crashes(&self) -> Option<&[ExecutionId]> {
        let is_settled = self.unresolved.lock().is_empty() && self.unrecorded().is_empty();
        (is_settled && self.are_reported.swap(false, Ordering::AcqRel)).then_some(&*self.crashed)
    }

    /// Returns whether the records were read.
    pub(super) fn is_loaded(&self) -> bool {
        self.loaded.initialized()
    }

    /// Keeps a version out from now on; returns whether that is new. The first finding stays, unless a crash follows.
    fn add(&self, version: &str, finding: &Finding) -> bool {
        let is_known = |entries: &Entries| {
            let known = entries.get(version);
            known.is_some_and(|known| !finding.outweighs(&known.finding))
        };
        let before = self.entries.rcu(|entries| {
            if is_known(entries) {
                return Arc::clone(entries);
            }
            let mut entries = Entries::clone(entries);
            let entry = Entry {
                finding: finding.clone(),
                is_recorded: false,
            };
            entries.insert(version.into(), entry);
            Arc::new(entries)
        });
        !is_known(&before)
    }

    fn findings(&self) -> Vec<(Arc<str>, Finding)> {
        let entries = self.entries.load();
        let findings = entries.iter();
        findings
            .map(|(version, entry)| (Arc::clone(version), entry.finding.clone()))
            .collect()
    }

    fn unrecorded(&self) -> Vec<(Arc<str>, Finding)> {
        let entries = self.entries.load();
        let unrecorded = entries.iter().filter(|(_, entry)| !entry.is_recorded);
        unrecorded
            .map(|(version, entry)| (Arc::clone(version), entry.finding.clone()))
            .collect()
    }

    /// Takes over what the storage has; what it does not have yet stays.
    fn replace(&self, recorded: &BTreeMap<Arc<str>, Finding>) {
        self.entries.rcu(|entries| {
            let unrecorded = entries.iter().filter(|(_, entry)| !entry.is_recorded);
            let unrecorded =
                unrecorded.map(|(version, entry)| (Arc::clone(version), entry.clone()));
            let recorded = recorded.iter().map(|(version, finding)| {
                let (finding, is_recorded) = (finding.clone(), true);
                (
                    Arc::clone(version),
                    Entry {
                        finding,
                        is_recorded,
                    },
                )
            });
            recorded.chain(unrecorded).collect::<Entries>()
        });
    }

    /// Notes that the storage has a finding, unless another one took its place meanwhile.
    fn recorded(&self, version: &str, finding: &Finding) {
        self.entries.rcu(|entries| {
            let mut entries = Entries::clone(entries);
            if let Some(entry) = entries.get_mut(version) {
                entry.is_recorded |= entry.finding == *finding;
            }
            entries
        });
    }

    /// Lets a version in again, unless another finding took the place of this one meanwhile.
    fn remove(&self, version: &str, finding: &Finding) {
        self.entries.rcu(|entries| {
            let mut entries = Entries::clone(entries);
            let known = entries.get(version).map(|known| &known.finding);
            if known == Some(finding) {
                entries.remove(version);
            }
            entries
        });
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use chrono::DateTime;
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::{Finding, Quarantine};
    use crate::execution::{Concern, ExecutionId};

    /// What can happen to a quarantine.
    #[derive(Debug, Clone)]
    enum Step {
        Add(u8, Concern, u128),
        Record(u8),
        Read(Vec<(u8, Concern)>),
        Remove(u8),
    }

    fn concern() -> impl Strategy<Value = Concern> {
        prop::sample::select(Concern::ALL)
    }

    fn step() -> impl Strategy<Value = Step> {
        let version = 0..3_u8;
        prop_oneof![
            (version.clone(), concern(), any::<u128>()).prop_map(|(v, c, id)| Step::Add(v, c, id)),
            version.clone().prop_map(Step::Record),
            prop::collection::vec((version.clone(), concern()), 0..3).prop_map(Step::Read),
            version.prop_map(Step::Remove),
        ]
    }

    fn finding(concern: Concern, id: u128) -> Finding {
        Finding {
            script_name: "a.py".to_owned(),
            concern,
            execution_id: ExecutionId::from_uuid(Uuid::from_u128(id)),
            at: DateTime::UNIX_EPOCH,
        }
    }

    /// What a quarantine is to know: a finding, and whether it is recorded.
    type Model = BTreeMap<u8, (Finding, bool)>;

    fn apply(step: Step, quarantine: &Quarantine, model: &mut Model) {
        match step {
            Step::Add(v, concern, id) => {
                let found = finding(concern, id);
                let known = model.get(&v).map(|(known, _)| known.concern);
                let is_new = known.is_none()
                    || concern == Concern::Crashed && known != Some(Concern::Crashed);
                assert_eq!(quarantine.add(&v.to_string(), &found), is_new);
                if is_new {
                    model.insert(v, (found, false));
                }
            }
            Step::Record(v) => {
                // A commit that is answered late is about a finding that may have been outweighed.
                quarantine.recorded(&v.to_string(), &finding(Concern::Abandoned, 7));
                if let Some((found, is_recorded)) = model.get_mut(&v) {
                    quarantine.recorded(&v.to_string(), found);
                    *is_recorded = true;
                }
            }
            Step::Read(records) => {
                let records: BTreeMap<_, _> = records.into_iter().collect();
                let read = |(v, c): (&u8, &Concern)| (v.to_string().into(), finding(*c, 9));
                quarantine.replace(&records.iter().map(read).collect());
                model.retain(|_, (_, is_recorded)| !*is_recorded);
                for (v, c) in records {
                    model.entry(v).or_insert((finding(c, 9), true));
                }
            }
            Step::Remove(v) => {
                // A release that is answered late may be about a finding that has been outweighed.
                quarantine.remove(&v.to_string(), &finding(Concern::Abandoned, 7));
                if let Some((found, _)) = model.remove(&v) {
                    quarantine.remove(&v.to_string(), &found);
                }
            }
        }
    }

    proptest! {
        #[test]
        fn nothing_unrecorded_is_lost_and_no_crash_is_played_down(steps in prop::collection::vec(step(), 0..40)) {
            let (quarantine, mut model) = (Quarantine::default(), Model::new());
            for step in steps {
                apply(step, &quarantine, &mut model);
                let mut unrecorded = quarantine.unrecorded();
                unrecorded.sort_by(|a, b| a.0.cmp(&b.0));
                let expected: Vec<(Arc<str>, Finding)> = model
                    .iter()
                    .filter(|(_, (_, is_recorded))| !is_recorded)
                    .map(|(v, (found, _))| (v.to_string().into(), found.clone()))
                    .collect();
                prop_assert_eq!(unrecorded, expected);
                for v in 0..3 {
                    let known = model.get(&v).map(|(found, _)| found.concern);
                    prop_assert_eq!(quarantine.concern(&v.to_string()), known);
                }
            }
        }
    }
}
